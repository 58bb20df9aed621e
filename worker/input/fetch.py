"""Downloads one URL that a caller named into a temporary file. Knows nothing of audio, fields or settings.

Redirects are followed five times, each hop checked like the first; one from https to http is refused, because whoever
sits on the way could then put any sound in. Proxies from the environment are not used.
"""

from __future__ import annotations

import http.client
import ssl
import tempfile
import time
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import BinaryIO, cast
from urllib.parse import urljoin

from errors import ErrorCode, RequestError, SourceError
from worker.http.transport import INTERNET, Network, Target, Watch, connect, parse, unsupported

MAX_REDIRECTS = 5
CHUNK_BYTES = 1 << 16
SPOOL_BYTES = 16 << 20
REDIRECTS = (301, 302, 303, 307, 308)
# Servers that compress though asked not to; zlib reads both by their headers.
DEFLATED = ("gzip", "x-gzip", "deflate")
HEADERS = {"User-Agent": "music-ai-worker", "Accept": "*/*", "Accept-Encoding": "identity", "Connection": "close"}


@dataclass(frozen=True)
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
    network: Network = INTERNET,
) -> BinaryIO:
    """Downloads `url` and returns it as an open file at its start; to be closed by the caller, which removes it.

    Args:
        check: called several times a second while waiting (except for the name server); what it raises ends the
            download, as when a job is cancelled.
        network: how names become connections.

    Raises:
        SourceError: with the code `unsupported_url`, `private_url`, `url_unreachable`, `http_status`,
            `input_too_large` or `download_timeout`. No message repeats the URL.
    """
    watch = Watch(time.monotonic() + limits.timeout_s, check)
    file = tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES)  # noqa: SIM115  (the caller closes it)
    try:
        with closing(_download(parse(url), limits=limits, watch=watch, network=network)) as chunks:
            for chunk in chunks:
                file.write(chunk)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return cast(BinaryIO, file)


def _download(target: Target, *, limits: FetchLimits, watch: Watch, network: Network) -> Generator[bytes, None, None]:
    with _translated(limits):
        for _ in range(MAX_REDIRECTS + 1):
            connection = connect(target, watch=watch, allow_private=limits.allow_private, network=network)
            try:
                connection.request("GET", target.path, headers=HEADERS | {"Host": target.authority})
                with connection.getresponse() as response:
                    if response.status not in REDIRECTS:
                        yield from _body(response, limits)
                        return
                    target = _next(target, response)
            finally:
                connection.close()
    raise SourceError(f"The URL redirects more than {MAX_REDIRECTS} times.", code=ErrorCode.URL_UNREACHABLE)


def _next(target: Target, response: http.client.HTTPResponse) -> Target:
    location = response.headers.get("Location")
    if location is None:
        raise _status(response.status)
    try:
        following = parse(urljoin(f"{target.scheme}://{target.authority}{target.path}", location))
    except ValueError as error:
        raise unsupported("The URL redirects to something that cannot be parsed.") from error
    if (target.scheme, following.scheme) == ("https", "http"):
        raise unsupported("The URL redirects from https to http, where anyone on the way could change the file.")
    return following


def _body(response: http.client.HTTPResponse, limits: FetchLimits) -> Iterator[bytes]:
    if response.status != http.client.OK:
        raise _status(response.status)
    if response.length is not None and response.length > limits.max_bytes:
        raise _too_large(limits)
    size = 0
    for chunk in _decompressed(response):
        size += len(chunk)
        if size > limits.max_bytes:
            raise _too_large(limits)
        yield chunk


def _decompressed(response: http.client.HTTPResponse) -> Iterator[bytes]:
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding in ("identity", ""):
        yield from _raw(response)
    elif encoding in DEFLATED:
        yield from _inflated(response)
    else:
        raise unsupported("The URL's server compresses the file in a way that was not asked for. Serve it as it is.")


def _raw(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """The body as it comes, one read of the socket at a time; `IncompleteRead` where less comes than was announced."""
    while chunk := response.read1(CHUNK_BYTES):
        yield chunk
    if response.length:
        raise http.client.IncompleteRead(b"", response.length)


def _inflated(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """Inflates in bounded pieces, so that a bomb is counted and not held."""
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)
    for chunk in _raw(response):
        pending = chunk
        while pending and not inflater.eof:
            yield inflater.decompress(pending, CHUNK_BYTES)
            pending = inflater.unconsumed_tail
    if not inflater.eof:
        yield inflater.flush()
        raise zlib.error("the stream ends early")


@contextmanager
def _translated(limits: FetchLimits) -> Iterator[None]:
    """The one place where network errors become ours."""
    try:
        yield
    except RequestError:
        raise
    except TimeoutError as error:
        raise SourceError(
            f"The download did not end within {limits.timeout_s:g} s, or its server went silent.",
            code=ErrorCode.DOWNLOAD_TIMEOUT,
            details={"limit_s": limits.timeout_s},
        ) from error
    except ssl.SSLCertVerificationError as error:
        raise _unreachable("its server's certificate could not be verified") from error
    except zlib.error as error:
        raise _unreachable("its compressed data is broken") from error
    except http.client.IncompleteRead as error:
        raise _unreachable("the connection ended before the whole file had come") from error
    except (OSError, http.client.HTTPException) as error:
        raise _unreachable("no connection, or no proper HTTP answer; check the host, and that it is up") from error


def _unreachable(reason: str) -> SourceError:
    return SourceError(f"The URL could not be read: {reason}.", code=ErrorCode.URL_UNREACHABLE)


def _status(status: int) -> SourceError:
    return SourceError(
        f"The URL's server answered with HTTP status {status} instead of the file.",
        code=ErrorCode.HTTP_STATUS,
        details={"status": status},
    )


def _too_large(limits: FetchLimits) -> SourceError:
    return SourceError(
        f"The URL's file is larger than the {limits.max_bytes} bytes that are taken in.",
        code=ErrorCode.INPUT_TOO_LARGE,
        details={"limit_bytes": limits.max_bytes},
    )
