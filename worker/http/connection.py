"""One connection to a checked address, and the scope that ends its waits: at a deadline, or when the job must end."""

from __future__ import annotations

import functools
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

import certifi
from urllib3.connection import HTTPConnection

from errors import RequestError
from worker.http.addresses import Resolve, Url, resolve_addresses, resolve_host
from worker.http.errors import CONNECT_ERRORS, ErrorTable, to_http_error

Connect = Callable[[tuple[str, int], float], socket.socket]
Check = Callable[[], None]

POLL_S = 0.05
BLOCK_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Timeout:
    """Longest waits in seconds.

    Args:
        connect_s: for an address to accept the connection, and for each step of the TLS handshake.
        read_s: for the next bytes of the response, and for the server to take the next block of the request.
    """

    connect_s: float = 10.0
    read_s: float = 30.0


@dataclass(frozen=True, slots=True)
class NetworkBackend:
    """How a host name becomes a connection.

    Args:
        resolve: `(host, port) -> numeric addresses`.
        connect: `((address, port), timeout in seconds) -> connected socket`.
        tls: the certificates to trust; None = the system's and certifi's.
    """

    resolve: Resolve = resolve_host
    connect: Connect = socket.create_connection
    tls: ssl.SSLContext | None = None


INTERNET = NetworkBackend()


class CancelScope:
    """Ends the waits of one exchange.

    A socket's own timeout counts from the last byte, so a server that sends one byte a second could hold a connection
    for ever. Therefore a thread shuts the connection down at the deadline, or when `check` raises.

    Args:
        deadline: `time.monotonic()` value.
        check: raises a `RequestError` when the job must end; called several times a second, from other threads too.
    """

    def __init__(self, deadline: float, check: Check) -> None:
        self._deadline, self._check = deadline, check
        self._ended_by: RequestError | TimeoutError | None = None

    def remaining(self, at_most: float) -> float:
        """Seconds that the next wait may take. Raises what `check` raises, or `TimeoutError` after the deadline."""
        self._check()
        remaining = self._deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("the deadline has passed")
        return min(at_most, remaining)

    @contextmanager
    def watch(self, sock: socket.socket) -> Iterator[None]:
        """Shuts the connection of `sock` down when this scope ends; stops watching on exit."""
        done = threading.Event()
        # A duplicate, because TLS takes over the descriptor of `sock`, and a closed descriptor may be reused.
        with sock.dup() as duplicate:
            thread = threading.Thread(target=self._watch, args=(duplicate, done), name="http-watch", daemon=True)
            thread.start()
            try:
                yield
            finally:
                done.set()
                thread.join()

    def _watch(self, sock: socket.socket, done: threading.Event) -> None:
        try:
            while not done.wait(POLL_S):
                self.remaining(0)
        except (RequestError, TimeoutError) as error:
            self._ended_by = error
        finally:
            if not done.is_set():
                with suppress(OSError):  # the server has closed the connection already
                    sock.shutdown(socket.SHUT_RDWR)

    def connect(self, function: Callable[[], socket.socket]) -> socket.socket:
        """Runs `function` in a thread, since nothing can interrupt it; stops waiting for it when this scope ends."""
        executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="http-connect")
        future = executor.submit(function)
        executor.shutdown(wait=False)
        try:
            while not futures.wait([future], timeout=POLL_S).done:
                self.remaining(0)
        except (RequestError, TimeoutError):
            future.add_done_callback(_close_late_socket)
            raise
        return future.result()

    def raise_if_ended(self) -> None:
        """Call it when data has come or ended: after `watch` has shut the connection down, that looks like its end."""
        if self._ended_by is not None:
            raise self._ended_by

    @contextmanager
    def translate_errors(self, table: ErrorTable) -> Iterator[None]:
        """Replaces the exceptions in `table` by ours, or by what ended this scope if that was the cause."""
        try:
            yield
        except tuple(table) as error:
            cause = self._ended_by or error
            if isinstance(cause, RequestError):
                raise cause from None
            raise to_http_error(cause, table) from error


@contextmanager
def open_connection(
    url: Url, *, scope: CancelScope, timeout: Timeout, network: NetworkBackend, allow_private: bool
) -> Iterator[HTTPConnection]:
    """Connects to a checked address of the URL's host; closes the connection on exit.

    The name is resolved once, and the connection goes to the address that was checked (no DNS rebinding). The
    certificate is verified against the name. Proxies from the environment are not used.

    Raises:
        NotSentError: no connection; its classes say why.
        RequestError: from the scope's check.
    """
    with ExitStack() as stack:
        with scope.translate_errors(CONNECT_ERRORS):
            scope.remaining(0)
            connect = functools.partial(
                _connect, url, scope=scope, timeout=timeout, network=network, allow_private=allow_private
            )
            sock = stack.enter_context(scope.connect(connect))
            stack.enter_context(scope.watch(sock))
            if url.scheme == "https":
                sock.settimeout(scope.remaining(timeout.connect_s))
                tls = network.tls or _default_tls()
                sock = stack.enter_context(tls.wrap_socket(sock, server_hostname=url.host.rstrip(".")))
            scope.raise_if_ended()
        connection = HTTPConnection(url.host, url.port, timeout=timeout.read_s, blocksize=BLOCK_BYTES)
        connection.auto_open = 0  # it must not connect by itself: only the checked address may be used
        connection.sock = sock
        stack.callback(connection.close)
        yield connection


def _connect(
    url: Url, *, scope: CancelScope, timeout: Timeout, network: NetworkBackend, allow_private: bool
) -> socket.socket:
    failure = OSError("no address answered")
    for address in resolve_addresses(url, resolve=network.resolve, allow_private=allow_private):
        try:
            return network.connect((str(address), url.port), scope.remaining(timeout.connect_s))
        except OSError as error:
            failure = error
    raise failure


def _close_late_socket(future: Future[socket.socket]) -> None:
    if future.exception() is None:
        future.result().close()


@functools.cache
def _default_tls() -> ssl.SSLContext:
    """The system's trusted certificates and certifi's, for slim images that have none."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context
