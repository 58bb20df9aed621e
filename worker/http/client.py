"""HTTP requests with checked addresses, bounded time and bounded size, each on a connection of its own.

A connection that is kept for the next request may be closed by the server just as that request is sent, which would
leave its outcome unknown. Neither proxies from the environment nor .netrc are used.
"""

from __future__ import annotations

import io
import logging
import math
import os
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import BinaryIO
from urllib.parse import urljoin

from urllib3.connection import HTTPConnection
from urllib3.response import HTTPResponse

from worker.http.addresses import Url, parse_url
from worker.http.connection import BLOCK_BYTES, INTERNET, CancelScope, NetworkBackend, Timeout, open_connection
from worker.http.errors import (
    EXCHANGE_ERRORS,
    InvalidUrlError,
    ResponseTooLargeError,
    TooManyRedirectsError,
    UnsupportedEncodingError,
)

logger = logging.getLogger(__name__)

REDIRECT_STATUSES = (301, 302, 303, 307, 308)
# Some servers compress although asked not to; zlib recognises both by their headers.
DEFLATED = ("gzip", "x-gzip", "deflate")
HEADERS = {"User-Agent": "music-ai-worker", "Accept": "*/*", "Accept-Encoding": "identity", "Connection": "close"}

Body = bytes | BinaryIO  # a file is sent whole, from its start


@dataclass(frozen=True, slots=True)
class Response:
    """A complete response with any status; the names of `headers` are case-insensitive."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class StreamedResponse:
    """A response whose body is read block by block, decompressed."""

    status: int
    headers: Mapping[str, str]
    blocks: Iterator[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpClient:
    """Sends requests. Holds settings and no connection, so it can be shared by threads and need not be closed.

    Args:
        timeout: longest waits for a connection and for data.
        max_bytes: longest body of a response, in bytes after decompression.
        max_redirects: how many redirects a GET follows; each is checked like the first URL. 0 = responses with a
            redirect status are returned as they are.
        allow_private: also connects to addresses that are not on the public internet.
        network: how names become connections; replaced in tests.
    """

    timeout: Timeout = Timeout()
    max_bytes: int = 8 << 20
    max_redirects: int = 0
    allow_private: bool = False
    network: NetworkBackend = INTERNET

    def request(  # noqa: PLR0913  (as in other HTTP clients, by keyword)
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        timeout_s: float = math.inf,
        check: Callable[[], None] = lambda: None,
    ) -> Response:
        """Sends a request and returns the complete response, whatever its status.

        Args:
            body: bytes, or a seekable file that is sent from its start to its end.
            timeout_s: bounds the whole exchange, from resolving the name to the last byte, redirects included.
            check: raises a `RequestError` when the job must end. It is called several times a second, from other
                threads too.

        Raises:
            NotSentError: nothing of the request (after a redirect: of the last one) was sent.
            NoResponseError: it may have been received, and no complete response came back.
            RequestError: from `check`.
        """
        with self.stream(method, url, headers=headers, body=body, timeout_s=timeout_s, check=check) as response:
            return Response(response.status, response.headers, b"".join(response.blocks))

    @contextmanager
    def stream(  # noqa: PLR0913  (as `request`)
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        timeout_s: float = math.inf,
        check: Callable[[], None] = lambda: None,
    ) -> Iterator[StreamedResponse]:
        """As `request`, but the body is read by the caller, inside the `with`; reading it raises the same errors."""
        assert method == "GET" or not self.max_redirects, f"redirects of a {method} are not followed"
        scope = CancelScope(time.monotonic() + timeout_s, check)
        target = parse_url(url)
        for _ in range(self.max_redirects + 1):
            with open_connection(
                target,
                scope=scope,
                timeout=self.timeout,
                network=self.network,
                allow_private=self.allow_private,
            ) as connection:
                with scope.translate_errors(EXCHANGE_ERRORS):
                    _send(connection, method, target, {**HEADERS, **(headers or {})}, body)
                    response = connection.getresponse()
                    scope.raise_if_ended()
                with closing(response):
                    location = response.headers.get("Location")
                    if not self.max_redirects or response.status not in REDIRECT_STATUSES or location is None:
                        yield StreamedResponse(response.status, response.headers, self._read_body(response, scope))
                        return
                    target = _follow_redirect(target, location)
        raise TooManyRedirectsError(f"The server redirects more than {self.max_redirects} times.")

    def _read_body(self, response: HTTPResponse, scope: CancelScope) -> Iterator[bytes]:
        """Yields the decompressed body and counts its bytes."""
        if (response.length_remaining or 0) > self.max_bytes:
            raise self._too_large_error()
        size = 0
        with scope.translate_errors(EXCHANGE_ERRORS):
            for block in _decompress(response, scope):
                size += len(block)
                if size > self.max_bytes:
                    raise self._too_large_error()
                yield block

    def _too_large_error(self) -> ResponseTooLargeError:
        return ResponseTooLargeError(f"The response has more than the {self.max_bytes} bytes that are allowed.")


def _send(connection: HTTPConnection, method: str, target: Url, headers: Mapping[str, str], body: Body | None) -> None:
    headers = {**headers, "Host": target.authority}
    # Bytes are sent like a file, block by block: the read timeout then bounds each block, not the whole body.
    file = io.BytesIO(body) if isinstance(body, bytes) else body
    if file is not None:
        headers["Content-Length"] = str(file.seek(0, os.SEEK_END))
        file.seek(0)
    try:
        connection.request(method, target.path, body=file, headers=headers, preload_content=False)
    except (BrokenPipeError, ConnectionResetError):
        # A server that refuses the body may respond before it was sent; if it did not, reading the response fails.
        if file is None:
            raise
        logger.debug("the server closed the connection before the whole body was sent")


def _follow_redirect(target: Url, location: str) -> Url:
    try:
        following = parse_url(urljoin(str(target), location))
    except ValueError as error:
        raise InvalidUrlError("The URL redirects to something that cannot be parsed.") from error
    if (target.scheme, following.scheme) == ("https", "http"):
        raise InvalidUrlError(
            "The URL redirects from https to http, which would allow others on the network to change the file."
        )
    return following


def _decompress(response: HTTPResponse, scope: CancelScope) -> Iterator[bytes]:
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding in ("identity", ""):
        yield from _receive(response, scope)
    elif encoding in DEFLATED:
        yield from _inflate(response, scope)
    else:
        raise UnsupportedEncodingError(
            "The server compresses the response with a method that was not asked for. Serve the file uncompressed."
        )


def _inflate(response: HTTPResponse, scope: CancelScope) -> Iterator[bytes]:
    """Decompresses in bounded blocks, so that a decompression bomb is counted and never in memory as a whole.

    urllib3 would do it too, but does not notice a gzip stream that is cut short.
    """
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)
    for block in _receive(response, scope):
        pending = block
        while pending and not inflater.eof:
            yield inflater.decompress(pending, BLOCK_BYTES)
            pending = inflater.unconsumed_tail
    if not inflater.eof:
        yield inflater.flush()
        raise zlib.error("the stream ends early")


def _receive(response: HTTPResponse, scope: CancelScope) -> Iterator[bytes]:
    """Yields the body as it comes, one read of the socket at a time."""
    while block := response.read1(BLOCK_BYTES, decode_content=False):
        yield block
        scope.raise_if_ended()
    scope.raise_if_ended()
