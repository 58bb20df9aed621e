"""The HTTP client against real servers on loopback: what it sends, and how it ends when a server does not cooperate."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from errors import CancelledError, HttpError, NoResponseError, NotSentError
from testing.loopback import Request, Write, make_certificate, redirect_to, respond_with, serve
from worker.http.client import HttpClient
from worker.http.connection import NetworkBackend, Timeout
from worker.http.errors import (
    CertificateError,
    ConnectError,
    ConnectTimeoutError,
    IncompleteBodyError,
    PrivateAddressError,
    ProtocolError,
    ReadTimeoutError,
    ResponseTooLargeError,
)

BODY = bytes(range(256)) * 4000  # 1 MB
LOCAL = HttpClient(allow_private=True)


def respond_after_body(bodies: list[bytes], *, status: str = "200 OK") -> Callable[[Request, Write], None]:
    """A response that reads the whole request body first."""

    def respond(request: Request, write: Write) -> None:
        bodies.append(request.body(int(request.headers["content-length"])))
        respond_with(b"done", status=status)(request, write)

    return respond


@contextlib.contextmanager
def start_dripping_server(start: bytes = b"") -> Iterator[int]:
    """A port where every connection gets `start` and then one byte every 20 ms."""
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as stack:
        stopped = threading.Event()

        def run() -> None:
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(start)
                    while not stopped.wait(0.02):
                        connection.sendall(b"\x00")

        thread = threading.Thread(target=run)
        thread.start()
        stack.callback(thread.join)
        stack.callback(stopped.set)
        stack.callback(lambda: listener.shutdown(socket.SHUT_RDWR))
        yield listener.getsockname()[1]


@pytest.mark.parametrize("status", ["200 OK", "404 Not Found", "500 Oops"])
def test_a_response_is_returned_whatever_its_status(status: str) -> None:
    with serve(respond_with(b"text", status=status, headers="Retry-After: 7\r\n")) as server:
        response = LOCAL.request("GET", server.url("/a?b=1"))
    assert (response.status, response.body) == (int(status[:3]), b"text")
    assert response.headers["retry-after"] == "7"


def test_the_request_carries_its_headers_and_asks_for_a_connection_of_its_own() -> None:
    with serve(respond_with(b"")) as server:
        LOCAL.request("GET", server.url(), headers={"Authorization": "Bearer key", "Accept": "application/json"})
    headers = server.requests[0].headers
    assert headers["host"] == f"127.0.0.1:{server.port}"
    assert (headers["authorization"], headers["accept"]) == ("Bearer key", "application/json")
    assert (headers["connection"], headers["accept-encoding"]) == ("close", "identity")


@pytest.mark.parametrize("body", [b"", BODY], ids=["empty", "1 MB"])
def test_bytes_and_files_are_sent_whole_with_their_length(body: bytes) -> None:
    bodies: list[bytes] = []
    file = io.BytesIO(body)
    file.seek(len(body) // 2)
    with serve(respond_after_body(bodies)) as server:
        assert LOCAL.request("POST", server.url(), body=body).body == b"done"
        assert LOCAL.request("PUT", server.url(), body=file).body == b"done"
    assert bodies == [body, body]
    assert "transfer-encoding" not in server.requests[0].headers


def test_a_response_before_the_end_of_the_body_is_read() -> None:
    with serve(respond_with(b"too large", status="413 Content Too Large")) as server:
        response = LOCAL.request("PUT", server.url(), body=bytes(1 << 20))
    assert response.status == 413


def test_a_redirect_is_returned_unless_the_client_follows_them() -> None:
    with serve(respond_with(BODY)) as other, serve(redirect_to(other.url())) as server:
        assert LOCAL.request("GET", server.url()).status == 302
        assert not other.requests
        assert HttpClient(allow_private=True, max_redirects=1).request("GET", server.url()).body == BODY


def test_only_a_get_can_follow_redirects() -> None:
    with pytest.raises(AssertionError, match="POST"):
        HttpClient(max_redirects=1).request("POST", "http://127.0.0.1/")


def test_a_private_address_is_refused_unless_the_client_allows_it() -> None:
    with serve(respond_with(b"")) as server:
        with pytest.raises(PrivateAddressError):
            HttpClient().request("GET", server.url())
        assert not server.requests


def test_a_body_over_the_limit_is_not_returned() -> None:
    client = HttpClient(allow_private=True, max_bytes=len(BODY) - 1)
    for packed, headers in ((BODY, ""), (gzip.compress(BODY), "Content-Encoding: gzip\r\n")):
        with serve(respond_with(packed, headers=headers)) as server, pytest.raises(ResponseTooLargeError):
            client.request("GET", server.url())


def test_a_body_that_is_cut_short_is_not_returned() -> None:
    def respond(request: Request, write: Write) -> None:
        write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")

    with serve(respond) as server, pytest.raises(IncompleteBodyError):
        LOCAL.request("GET", server.url())


def test_a_connection_that_is_refused_sent_nothing() -> None:
    with serve(respond_with(b"")) as server:
        url = server.url()
    with pytest.raises(ConnectError):
        LOCAL.request("POST", url, body=b"x")


def test_a_certificate_that_is_not_trusted_is_found_before_anything_is_sent(tmp_path: Path) -> None:
    server_tls, _ = make_certificate(tmp_path, "localhost")
    with serve(respond_with(b""), tls=server_tls) as server, pytest.raises(CertificateError) as caught:
        LOCAL.request("POST", server.url(scheme="https", host="localhost"), body=b"x")
    assert isinstance(caught.value, NotSentError)
    assert not server.requests


def test_a_name_with_a_dot_at_its_end_is_verified_without_it(tmp_path: Path) -> None:
    server_tls, client_tls = make_certificate(tmp_path, "localhost")
    network = NetworkBackend(resolve=lambda host, port: ["127.0.0.1"], tls=client_tls)
    with serve(respond_with(b"text"), tls=server_tls) as server:
        client = HttpClient(allow_private=True, network=network)
        assert client.request("GET", server.url(scheme="https", host="localhost.")).body == b"text"


def test_a_connection_that_ends_without_a_response_may_have_been_received() -> None:
    with serve(lambda request, write: None) as server, pytest.raises(ProtocolError) as caught:
        LOCAL.request("POST", server.url(), body=b"x")
    assert isinstance(caught.value, NoResponseError)
    assert len(server.requests) == 1


CONNECTED_S = 1.5  # a deadline that a connection is made within, also on a busy machine


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_the_deadline_ends_a_response_that_drips(start: bytes) -> None:
    with start_dripping_server(start) as port, pytest.raises(ReadTimeoutError):
        LOCAL.request("GET", f"http://127.0.0.1:{port}/", timeout_s=CONNECTED_S)


def test_the_deadline_ends_a_tls_handshake_that_drips() -> None:
    record_of_16_kb = b"\x16\x03\x03\x40\x00"
    with start_dripping_server(record_of_16_kb) as port, pytest.raises(ConnectTimeoutError):
        LOCAL.request("GET", f"https://127.0.0.1:{port}/", timeout_s=0.3)


def test_the_deadline_ends_an_upload_that_the_server_does_not_read() -> None:
    with serve(lambda request, write: time.sleep(3)) as server, pytest.raises(ReadTimeoutError):
        LOCAL.request("PUT", server.url(), body=bytes(32 << 20), timeout_s=CONNECTED_S)


def test_a_server_that_stops_sending_ends_by_the_read_timeout() -> None:
    client = HttpClient(allow_private=True, timeout=Timeout(read_s=0.2))
    with serve(lambda request, write: time.sleep(3)) as server, pytest.raises(ReadTimeoutError):
        client.request("GET", server.url())


@pytest.fixture
def hanging() -> Iterator[threading.Event]:
    """Set when the test ends, so that what hangs until then ends too."""
    event = threading.Event()
    yield event
    event.set()


def make_hanging_networks(hanging: threading.Event) -> list[NetworkBackend]:
    """One whose name server does not answer, and one whose address accepts no connection."""

    def resolve(host: str, port: int) -> Sequence[str]:
        hanging.wait(30)
        return []

    def connect(address: tuple[str, int], timeout: float) -> socket.socket:
        hanging.wait(30)
        raise TimeoutError

    return [NetworkBackend(resolve=resolve), NetworkBackend(resolve=lambda host, port: ["10.0.0.1"], connect=connect)]


@pytest.mark.parametrize("number", [0, 1], ids=["name server", "connection"])
def test_the_deadline_and_a_cancel_end_the_wait_for_a_connection(number: int, hanging: threading.Event) -> None:
    client = HttpClient(allow_private=True, network=make_hanging_networks(hanging)[number])
    cancelled = threading.Event()
    started = time.monotonic()
    with pytest.raises(ConnectTimeoutError):
        client.request("POST", "http://slow.example/", body=b"x", timeout_s=0.2)
    threading.Timer(0.2, cancelled.set).start()
    with pytest.raises(CancelledError):
        client.request("POST", "http://slow.example/", body=b"x", check=make_check(cancelled))
    assert time.monotonic() - started < 10


def test_a_connection_that_is_made_after_the_cancel_is_closed(hanging: threading.Event) -> None:
    ours, theirs = socket.socketpair()

    def connect(address: tuple[str, int], timeout: float) -> socket.socket:
        hanging.wait(30)
        return ours

    client = HttpClient(network=NetworkBackend(resolve=lambda host, port: ["93.184.215.14"], connect=connect))
    with theirs:
        with pytest.raises(ConnectTimeoutError):
            client.request("GET", "http://slow.example/", timeout_s=0.1)
        hanging.set()
        theirs.settimeout(10)
        assert theirs.recv(1) == b""


def make_check(cancelled: threading.Event) -> Callable[[], None]:
    def check() -> None:
        if cancelled.is_set():
            raise CancelledError("The job was cancelled.")

    return check


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_a_cancel_ends_the_wait_for_a_response(tls: bool, tmp_path: Path) -> None:
    server_tls, client_tls = make_certificate(tmp_path, "localhost")
    cancelled = threading.Event()

    def respond(request: Request, write: Write) -> None:
        cancelled.set()
        time.sleep(5)

    client = HttpClient(allow_private=True, network=NetworkBackend(tls=client_tls))
    started = time.monotonic()
    with serve(respond, tls=server_tls if tls else None) as server, pytest.raises(CancelledError):
        url = server.url(scheme="https" if tls else "http", host="localhost")
        client.request("GET", url, check=make_check(cancelled))
    assert time.monotonic() - started < 4


def test_a_cancel_ends_a_body_that_would_end_with_the_connection() -> None:
    """The connection that is shut down looks like the end of such a body; it is not returned as complete."""
    cancelled = threading.Event()

    def respond(request: Request, write: Write) -> None:
        write(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        cancelled.set()
        time.sleep(5)

    with serve(respond) as server, pytest.raises(CancelledError):
        LOCAL.request("GET", server.url(), check=make_check(cancelled))


def test_a_cancelled_job_connects_to_nothing() -> None:
    def check() -> None:
        raise CancelledError("The job was cancelled.")

    with serve(respond_with(b"")) as server:
        with pytest.raises(CancelledError):
            LOCAL.request("GET", server.url(), check=check)
        assert not server.requests


def test_no_thread_is_left_after_a_request() -> None:
    with serve(respond_with(BODY)) as server:
        for _ in range(3):
            LOCAL.request("GET", server.url())
        assert not [thread for thread in threading.enumerate() if thread.name == "http-watch"]


def test_proxies_of_the_environment_and_netrc_are_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with serve(respond_with(b"text")) as server:
        assert LOCAL.request("GET", server.url()).body == b"text"
    assert "authorization" not in server.requests[0].headers


def make_failing_requests() -> Iterator[Callable[[], object]]:
    """Requests whose URL and headers contain `secret`, each failing in another way."""
    with serve(respond_with(b"")) as server:
        closed = server.url("/secret?key=secret")
    yield lambda: LOCAL.request("GET", closed)
    yield lambda: HttpClient().request("GET", closed)
    for url in ("http://secret.example:99999/", "http://secret secret/", "ftp://secret.example/", "http://a:secret@b/"):
        yield lambda url=url: LOCAL.request("GET", url)  # type: ignore[misc]
    network = NetworkBackend(resolve=lambda host, port: [], tls=ssl.create_default_context())
    yield lambda: HttpClient(network=network).request("GET", "https://secret.example/")
    for response in (b"", b"nonsense", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", b"HTTP/1.1 200 OK\r\n" * 200):

        def exchange(response: bytes = response) -> object:
            with serve(lambda request, write: write(response)) as server:
                return LOCAL.request("GET", server.url("/secret"), headers={"Authorization": "secret"})

        yield exchange


@pytest.mark.parametrize("send", list(make_failing_requests()))
def test_no_error_contains_the_url_the_host_or_a_key(send: Callable[[], object]) -> None:
    with pytest.raises(HttpError) as caught:
        send()
    assert "secret" not in str(caught.value) and "127.0.0.1" not in str(caught.value)


def test_the_url_of_a_response_with_invalid_headers_is_not_logged() -> None:
    script = (
        "import sys; from worker import logs; from worker.http.client import HttpClient\n"
        "logs.configure(level='INFO', as_json=False)\n"
        "print(HttpClient(allow_private=True).request('GET', sys.argv[1]).status)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with serve(lambda request, write: write(b"HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 0\r\n\r\n")) as server:
        command = [sys.executable, "-c", script, server.url("/?signature=secret")]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert result.stdout == "200\n" and "secret" not in result.stderr
