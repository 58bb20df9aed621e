"""Why an HTTP exchange failed, and the tables that turn the exceptions of urllib3 and the standard library into it.

HttpError
├── NotSentError                    nothing of the request was sent
│   ├── InvalidUrlError             the URL, or one that it redirects to, is not one that is fetched
│   ├── PrivateAddressError         the host has an address that is not on the public internet
│   ├── ConnectError                no connection
│   │   └── CertificateError        the server's certificate could not be verified
│   └── ConnectTimeoutError         no connection in time
└── NoResponseError                 the request may have been received
    ├── ProtocolError               the connection broke, or the response is not HTTP
    ├── IncompleteBodyError         the connection ended before the body did
    ├── ReadTimeoutError            no complete response in time
    ├── DecodeError                 the compressed body is damaged
    ├── UnsupportedEncodingError    the body is compressed in a way that was not asked for
    ├── ResponseTooLargeError       the body has more bytes than allowed
    └── TooManyRedirectsError       the redirects do not end
"""

from __future__ import annotations

import http.client
import ssl
import zlib
from collections.abc import Mapping

from urllib3 import exceptions as urllib3_errors

from errors import HttpError, NoResponseError, NotSentError


class InvalidUrlError(NotSentError):
    """The URL cannot be parsed, or its scheme, host or redirect is not allowed."""


class PrivateAddressError(NotSentError):
    """The host has an address that is not on the public internet."""


class ConnectError(NotSentError):
    """The name cannot be resolved, or no address accepts a connection."""


class CertificateError(ConnectError):
    """The server's certificate could not be verified."""


class ConnectTimeoutError(NotSentError):
    """The connection was not made in time."""


class ProtocolError(NoResponseError):
    """The connection broke, or what came is not HTTP."""


class IncompleteBodyError(NoResponseError):
    """The connection ended before the whole body had come."""


class ReadTimeoutError(NoResponseError):
    """The response was not complete in time, or the server stopped sending."""


class DecodeError(NoResponseError):
    """The compressed body is damaged or cut short."""


class UnsupportedEncodingError(NoResponseError):
    """The body is compressed with a method that was not asked for."""


class ResponseTooLargeError(NoResponseError):
    """The body has more bytes than the client accepts."""


class TooManyRedirectsError(NoResponseError):
    """The server redirects more often than the client follows."""


ErrorTable = Mapping[type[Exception], tuple[type[HttpError], str]]

_BROKEN = (
    ProtocolError,
    "The connection broke, or the server sent no valid HTTP response. Check the host and port.",
)
_INCOMPLETE = (IncompleteBodyError, "The connection ended before the whole file had come.")
_STALLED = (ReadTimeoutError, "The server did not send its response in time.")
_DAMAGED = (DecodeError, "The server sent compressed data that is damaged.")

# While the connection is made: only sockets and TLS are used, so nothing of the request is sent.
CONNECT_ERRORS: ErrorTable = {
    TimeoutError: (ConnectTimeoutError, "The server did not accept a connection in time."),
    ssl.SSLCertVerificationError: (CertificateError, "The server's certificate could not be verified."),
    OSError: (ConnectError, "The server could not be reached. Check the host, and that the server is running."),
}

# From the first byte of the request on: whatever fails, the request may have been received. `urllib3.HTTPError` itself
# is absent, so that a test finds an exception that a new release adds.
EXCHANGE_ERRORS: ErrorTable = {
    urllib3_errors.TimeoutError: _STALLED,
    TimeoutError: _STALLED,
    urllib3_errors.IncompleteRead: _INCOMPLETE,
    http.client.IncompleteRead: _INCOMPLETE,
    urllib3_errors.InvalidChunkLength: _BROKEN,
    urllib3_errors.DecodeError: _DAMAGED,
    zlib.error: _DAMAGED,
    urllib3_errors.ProtocolError: _BROKEN,
    urllib3_errors.SSLError: _BROKEN,
    urllib3_errors.InvalidHeader: _BROKEN,
    urllib3_errors.HeaderParsingError: _BROKEN,
    urllib3_errors.ResponseError: _BROKEN,
    urllib3_errors.BodyNotHttplibCompatible: _BROKEN,
    urllib3_errors.UnrewindableBodyError: _BROKEN,
    urllib3_errors.PoolError: _BROKEN,
    urllib3_errors.ProxyError: _BROKEN,
    urllib3_errors.ProxySchemeUnsupported: _BROKEN,
    urllib3_errors.LocationValueError: _BROKEN,
    urllib3_errors.TimeoutStateError: _BROKEN,
    http.client.HTTPException: _BROKEN,
    OSError: _BROKEN,
}


def to_http_error(error: Exception, table: ErrorTable) -> HttpError:
    """The entry of `table` for the nearest class of `error`, or of what urllib3 wrapped in it."""
    for candidate in (error.__cause__, error):
        for base in type(candidate).__mro__:
            if base in table:
                kind, message = table[base]
                return kind(message)
    raise AssertionError(f"{type(error).__name__} is in no table")
