"""The one place that talks HTTP: flows describe requests and pauses, a runner carries them out.

A flow is a generator that yields steps (`Call`, `Fetch`, `Upload`, `Pause`) and receives their results. It holds the
logic once; `SyncRunner` runs it with blocking calls and `AsyncRunner` on an event loop.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, BinaryIO, TypeAlias, TypeVar
from urllib.parse import urlsplit

import httpx

from music_worker.errors import EndpointError

T = TypeVar("T")

CHUNK_BYTES = 1 << 18
CONNECT_TIMEOUT_S = 10.0
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class NotSentError(Exception):
    """No connection could be made, and nothing was sent."""


class NoResponseError(Exception):
    """The connection failed or timed out after it was made: the request may have been received."""


@dataclass(frozen=True, slots=True)
class Response:
    """The response to a request; `headers` by their names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def is_success(self) -> bool:
        return HTTPStatus.OK <= self.status < HTTPStatus.MULTIPLE_CHOICES


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request whose response is read into memory; results in a `Response`.

    Args:
        timeout_s: the longest time without a byte from the server.
        new_connection: do not reuse an idle connection, which the server may be about to close: with a reused one
            nobody could say whether a request was received.
        outlives_interrupt: an interrupt does not cut it off; `Remaining` then results in its response.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = field(default=None, repr=False)
    timeout_s: float = 30.0
    new_connection: bool = False
    outlives_interrupt: bool = False


@dataclass(frozen=True, slots=True)
class Remaining:
    """Waits for the call that an interrupt has left behind; results in its `Response`, or `TimeoutError`."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """A GET whose body is handed to a function; results in a `Response` without a body.

    Args:
        begin: takes the response's status and headers, returns the function that takes the body in chunks, or None if
            the body is not wanted.
    """

    url: str
    begin: Callable[[Response], Callable[[bytes], None] | None]
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout_s: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A PUT of `size` bytes read from a file; results in a `Response`."""

    url: str
    open: Callable[[], BinaryIO]
    size: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Pause:
    """Waits for `seconds`."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Notify:
    """Calls a caller's function, which may be a coroutine function for `AsyncRunner`."""

    function: Callable[[Any], object]
    argument: Any


Action: TypeAlias = Call | Fetch | Upload | Pause | Notify
Step: TypeAlias = Action | Remaining
Flow: TypeAlias = Generator[Step, Any, T]


class SyncRunner:
    """Runs flows with blocking calls. One runner can be used from several threads."""

    def __init__(self) -> None:
        self._clients: dict[bool, httpx.Client] = {}

    def run(self, flow: Flow[T]) -> T:
        """Returns what the flow returns. An interrupt is raised inside of the flow, which can send a last request."""
        result: Any = None
        error: BaseException | None = None
        call: Future[Any] = Future()  # the last one that outlives an interrupt
        while True:
            try:
                step = flow.send(result) if error is None else flow.throw(error)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            result, error = None, None
            try:
                if isinstance(step, Remaining):
                    result = call.result(step.seconds)
                elif isinstance(step, Call) and step.outlives_interrupt:
                    call = Future()
                    threading.Thread(target=self._fulfil, args=(call, step), daemon=True).start()
                    result = call.result()
                else:
                    result = self._carry_out(step)
            except BaseException as raised:
                error = raised

    def close(self) -> None:
        clients, self._clients = self._clients, {}
        for client in clients.values():
            client.close()

    def _fulfil(self, call: Future[Any], step: Call) -> None:
        try:
            call.set_result(self._carry_out(step))
        except BaseException as raised:
            call.set_exception(raised)

    def _carry_out(self, step: Action) -> Any:
        if isinstance(step, Pause):
            return time.sleep(step.seconds)
        if isinstance(step, Notify):
            return step.function(step.argument)
        with _TranslateErrors():
            if isinstance(step, Call) and step.new_connection:
                with _make_client(step.url) as client:
                    return self._request(client, step)
            return self._request(self._client(step.url), step)

    def _request(self, client: httpx.Client, step: Call | Fetch | Upload) -> Response:
        if isinstance(step, Fetch):
            with client.stream("GET", step.url, **_options(step)) as response:
                head = _read_head(response)
                if (write := step.begin(head)) is not None:  # unbuffered: what arrived before a fault is kept
                    for chunk in response.iter_raw():
                        write(chunk)
                return head
        content: Any = _read_chunks(step) if isinstance(step, Upload) else step.body
        method = "PUT" if isinstance(step, Upload) else step.method
        response = client.request(method, step.url, headers=_headers(step), content=content, timeout=_timeout(step))
        return _read_response(response)

    def _client(self, url: str) -> httpx.Client:
        direct = _is_loopback(url)
        return self._clients.get(direct) or self._clients.setdefault(direct, _make_client(url))


class AsyncRunner:
    """Runs flows on the running event loop."""

    def __init__(self) -> None:
        self._clients: dict[bool, httpx.AsyncClient] = {}

    async def run(self, flow: Flow[T]) -> T:
        """Returns what the flow returns. A cancellation is raised inside of the flow, which can send a last request."""
        result: Any = None
        error: BaseException | None = None
        call: asyncio.Future[Any] = asyncio.get_running_loop().create_future()  # as in `SyncRunner.run`
        while True:
            try:
                step = flow.send(result) if error is None else flow.throw(error)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            result, error = None, None
            try:
                if isinstance(step, Remaining):
                    result = await asyncio.wait_for(call, step.seconds)
                elif isinstance(step, Call) and step.outlives_interrupt:
                    call = asyncio.ensure_future(self._carry_out(step))
                    result = await asyncio.shield(call)
                else:
                    result = await self._carry_out(step)
            except BaseException as raised:
                error = raised

    async def close(self) -> None:
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.aclose()

    async def _carry_out(self, step: Action) -> Any:
        if isinstance(step, Pause):
            return await asyncio.sleep(step.seconds)
        if isinstance(step, Notify):
            outcome = step.function(step.argument)
            return await outcome if inspect.isawaitable(outcome) else outcome
        with _TranslateErrors():
            if isinstance(step, Call) and step.new_connection:
                async with _make_async_client(step.url) as client:
                    return await self._request(client, step)
            return await self._request(self._client(step.url), step)

    async def _request(self, client: httpx.AsyncClient, step: Call | Fetch | Upload) -> Response:
        if isinstance(step, Fetch):
            async with client.stream("GET", step.url, **_options(step)) as response:
                head = _read_head(response)
                if (write := step.begin(head)) is not None:
                    async for chunk in response.aiter_raw():
                        write(chunk)
                return head
        content: Any = _read_chunks_async(step) if isinstance(step, Upload) else step.body
        method = "PUT" if isinstance(step, Upload) else step.method
        response = await client.request(
            method, step.url, headers=_headers(step), content=content, timeout=_timeout(step)
        )
        return _read_response(response)

    def _client(self, url: str) -> httpx.AsyncClient:
        direct = _is_loopback(url)
        return self._clients.get(direct) or self._clients.setdefault(direct, _make_async_client(url))


RunnerT = TypeVar("RunnerT", SyncRunner, AsyncRunner)


def _make_client(url: str) -> httpx.Client:
    return httpx.Client(verify=_load_certificates(), trust_env=not _is_loopback(url))


def _make_async_client(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(verify=_load_certificates(), trust_env=not _is_loopback(url))


@functools.cache
def _load_certificates() -> ssl.SSLContext:
    """The trusted certificates (SSL_CERT_FILE, else certifi's), read once: that takes longer than a request."""
    return httpx.create_ssl_context()


class _TranslateErrors:
    """Turns httpx's errors into `NotSentError` and `NoResponseError`; their messages name the kind of fault only."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)):
            raise NotSentError(_describe(error)) from None
        if isinstance(error, (httpx.UnsupportedProtocol, httpx.InvalidURL)):
            raise EndpointError("The address is not an http(s) URL. Check it and try again.") from None
        if isinstance(error, httpx.RequestError):
            raise NoResponseError(_describe(error)) from None


def _describe(error: Exception) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "the time is up"
    return str(error) or type(error).__name__


def _is_loopback(url: str) -> bool:
    """Whether a proxy of the environment would be in the way."""
    return (urlsplit(url).hostname or "") in LOOPBACK


def _timeout(step: Call | Fetch | Upload) -> httpx.Timeout:
    return httpx.Timeout(step.timeout_s, connect=min(CONNECT_TIMEOUT_S, step.timeout_s))


def _options(step: Fetch) -> dict[str, Any]:
    """A range counts the bytes of the file only if the file is not compressed on the way."""
    headers = {"Accept-Encoding": "identity", **step.headers}
    return {"headers": headers, "timeout": _timeout(step), "follow_redirects": True}


def _headers(step: Call | Upload) -> dict[str, str]:
    headers = dict(step.headers)
    if isinstance(step, Upload):
        headers["Content-Length"] = str(step.size)
    return headers


def _read_head(response: httpx.Response) -> Response:
    return Response(response.status_code, {name.lower(): value for name, value in response.headers.items()})


def _read_response(response: httpx.Response) -> Response:
    head = _read_head(response)
    return Response(head.status, head.headers, response.content)


def _read_chunks(step: Upload) -> Iterator[bytes]:
    with step.open() as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


async def _read_chunks_async(step: Upload) -> AsyncIterator[bytes]:
    for chunk in _read_chunks(step):
        yield chunk
