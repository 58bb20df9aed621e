"""Downloads one URL that a caller sent into a temporary file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, cast

from audio.temporary import SpooledFile
from errors import ErrorCode, HttpError, SourceError
from worker.http.client import HttpClient
from worker.http.connection import INTERNET, NetworkBackend
from worker.http.errors import (
    ConnectTimeoutError,
    InvalidUrlError,
    PrivateAddressError,
    ReadTimeoutError,
    ResponseTooLargeError,
    UnsupportedEncodingError,
)

MAX_REDIRECTS = 5
SPOOL_BYTES = 16 << 20
HTTP_OK = 200


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """`max_bytes` counts after decompression; `timeout_s` is for everything, redirects included."""

    max_bytes: int
    timeout_s: float
    allow_private: bool = False


def fetch(
    url: str,
    *,
    limits: FetchLimits,
    check: Callable[[], None] = lambda: None,
    network: NetworkBackend = INTERNET,
) -> BinaryIO:
    """Downloads `url` and returns it as an open file at its start; closing the file removes it.

    Args:
        check: called several times a second while waiting; the `RequestError` that it raises ends the download.
        network: how names become connections.

    Raises:
        SourceError: with the code `unsupported_url`, `private_url`, `url_unreachable`, `http_status`,
            `input_too_large` or `download_timeout`. No message repeats the URL.
        DiskFullError: the temporary file cannot be written.
    """
    client = HttpClient(
        max_bytes=limits.max_bytes,
        max_redirects=MAX_REDIRECTS,
        allow_private=limits.allow_private,
        network=network,
    )
    file = SpooledFile(SPOOL_BYTES)
    try:
        with client.stream("GET", url, timeout_s=limits.timeout_s, check=check) as response:
            if response.status != HTTP_OK:
                raise SourceError(
                    f"The URL's server answered with HTTP status {response.status} instead of the file.",
                    code=ErrorCode.HTTP_STATUS,
                    details={"status": response.status},
                )
            for block in response.blocks:
                file.write(block)
        file.seek(0)
    except HttpError as error:
        file.close()
        raise _to_source_error(error, limits) from error
    except BaseException:
        file.close()
        raise
    return cast(BinaryIO, file)


def _to_source_error(error: HttpError, limits: FetchLimits) -> SourceError:
    if isinstance(error, PrivateAddressError):
        return SourceError(str(error), code=ErrorCode.PRIVATE_URL)
    if isinstance(error, InvalidUrlError | UnsupportedEncodingError):
        return SourceError(str(error), code=ErrorCode.UNSUPPORTED_URL)
    if isinstance(error, ResponseTooLargeError):
        return SourceError(
            f"The URL's file is larger than the {limits.max_bytes} bytes that are allowed.",
            code=ErrorCode.INPUT_TOO_LARGE,
            details={"limit_bytes": limits.max_bytes},
        )
    if isinstance(error, ConnectTimeoutError | ReadTimeoutError):
        return SourceError(
            f"The download did not end within {limits.timeout_s:g} s, or its server stopped sending.",
            code=ErrorCode.DOWNLOAD_TIMEOUT,
            details={"limit_s": limits.timeout_s},
        )
    return SourceError(f"The URL could not be read. {error}", code=ErrorCode.URL_UNREACHABLE)
