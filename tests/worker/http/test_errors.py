"""Every exception that can come from below has an entry in the tables, and the entry says whether anything was sent."""

from __future__ import annotations

import http.client
import ssl
import zlib

import pytest
import urllib3.exceptions

from errors import HttpError, NoResponseError, NotSentError
from worker.http import errors as http_errors
from worker.http.errors import (
    CONNECT_ERRORS,
    EXCHANGE_ERRORS,
    CertificateError,
    ConnectError,
    ConnectTimeoutError,
    DecodeError,
    ErrorTable,
    IncompleteBodyError,
    ProtocolError,
    ReadTimeoutError,
    to_http_error,
)

URLLIB3_ERRORS = [
    value
    for value in vars(urllib3.exceptions).values()
    if isinstance(value, type)
    and issubclass(value, Exception)
    and value.__module__ == "urllib3.exceptions"
    and not issubclass(value, Warning)
    and value is not urllib3.exceptions.HTTPError  # the base of all, which is in no table so that this test can fail
]


@pytest.mark.parametrize("error", URLLIB3_ERRORS, ids=lambda error: error.__name__)
def test_every_exception_of_urllib3_has_an_entry(error: type[Exception]) -> None:
    assert issubclass(error, tuple(EXCHANGE_ERRORS))


def test_an_exception_that_urllib3_adds_would_be_found() -> None:
    class AddedError(urllib3.exceptions.HTTPError):
        pass

    assert not issubclass(AddedError, tuple(EXCHANGE_ERRORS))


def test_what_fails_while_connecting_was_not_sent_and_what_fails_later_may_have_been_received() -> None:
    assert all(issubclass(kind, NotSentError) for kind, _ in CONNECT_ERRORS.values())
    assert all(issubclass(kind, NoResponseError) for kind, _ in EXCHANGE_ERRORS.values())


def test_every_class_of_the_tree_says_whether_the_request_was_sent() -> None:
    kinds = [value for value in vars(http_errors).values() if isinstance(value, type) and issubclass(value, HttpError)]
    for kind in kinds:
        assert kind is HttpError or issubclass(kind, NotSentError) != issubclass(kind, NoResponseError)
        assert kind.__doc__ and kind.__doc__.endswith(".")


@pytest.mark.parametrize(
    ("error", "table", "expected"),
    [
        (ConnectionRefusedError(), CONNECT_ERRORS, ConnectError),
        (TimeoutError(), CONNECT_ERRORS, ConnectTimeoutError),
        (ssl.SSLCertVerificationError(), CONNECT_ERRORS, CertificateError),
        (ssl.SSLEOFError(), CONNECT_ERRORS, ConnectError),
        (TimeoutError(), EXCHANGE_ERRORS, ReadTimeoutError),
        (ConnectionResetError(), EXCHANGE_ERRORS, ProtocolError),
        (ssl.SSLCertVerificationError(), EXCHANGE_ERRORS, ProtocolError),
        (http.client.BadStatusLine("x"), EXCHANGE_ERRORS, ProtocolError),
        (http.client.IncompleteRead(b""), EXCHANGE_ERRORS, IncompleteBodyError),
        (urllib3.exceptions.IncompleteRead(1, 2), EXCHANGE_ERRORS, IncompleteBodyError),
        (zlib.error(), EXCHANGE_ERRORS, DecodeError),
    ],
)
def test_an_exception_becomes_the_class_that_says_why(
    error: Exception, table: ErrorTable, expected: type[HttpError]
) -> None:
    assert type(to_http_error(error, table)) is expected


def test_what_urllib3_wraps_decides() -> None:
    wrapper = urllib3.exceptions.ProtocolError("Connection broken")
    wrapper.__cause__ = urllib3.exceptions.IncompleteRead(1, 2)
    assert type(to_http_error(wrapper, EXCHANGE_ERRORS)) is IncompleteBodyError
