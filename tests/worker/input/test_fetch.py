"""Downloads from real servers on loopback: valid ones, and ones that attack or fail."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import os
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from errors import CancelledError, RequestError, SourceError
from testing.loopback import LoopbackServer, Request, Write, make_certificate, redirect_to, respond_with, serve
from worker.http.addresses import resolve_host
from worker.http.connection import NetworkBackend
from worker.input.fetch import FetchLimits, fetch

PUBLIC = "93.184.215.14"
BODY = bytes(range(256)) * 1000
ANY_ADDRESS = FetchLimits(max_bytes=1 << 20, timeout_s=20, allow_private=True)
PUBLIC_ONLY = FetchLimits(max_bytes=1 << 20, timeout_s=20)


def fetch_error(url: str, limits: FetchLimits = ANY_ADDRESS, **options: object) -> SourceError:
    with pytest.raises(SourceError) as caught:
        fetch(url, limits=limits, **options)  # type: ignore[arg-type]
    assert "127.0.0.1" not in caught.value.message and "secret" not in caught.value.message
    return caught.value


def test_a_url_is_downloaded_whole() -> None:
    with serve(respond_with(BODY)) as server, fetch(server.url("/song.wav?a=1#part"), limits=ANY_ADDRESS) as file:
        assert file.read() == BODY
    assert server.requests[0].line == "GET /song.wav?a=1 HTTP/1.1"
    assert server.requests[0].headers["host"] == f"127.0.0.1:{server.port}"
    assert server.requests[0].headers["accept-encoding"] == "identity"


def test_a_chunked_body_is_downloaded_whole() -> None:
    def respond(request: Request, write: Write) -> None:
        write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for start in range(0, len(BODY), 50_000):
            piece = BODY[start : start + 50_000]
            write(b"%x\r\n%s\r\n" % (len(piece), piece))
        write(b"0\r\n\r\n")

    with serve(respond) as server, fetch(server.url(), limits=ANY_ADDRESS) as file:
        assert hashlib.sha256(file.read()).digest() == hashlib.sha256(BODY).digest()


def test_a_body_without_a_length_ends_with_the_connection() -> None:
    with (
        serve(lambda request, write: write(b"HTTP/1.0 200 OK\r\n\r\n" + BODY)) as server,
        fetch(server.url(), limits=ANY_ADDRESS) as file,
    ):
        assert file.read() == BODY


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress], ids=["gzip", "deflate"])
def test_a_response_that_is_compressed_without_being_asked_is_decompressed(pack: Callable[[bytes], bytes]) -> None:
    encoding = "gzip" if pack is gzip.compress else "deflate"
    respond = respond_with(pack(BODY), headers=f"Content-Encoding: {encoding}\r\n")
    with serve(respond) as server, fetch(server.url(), limits=ANY_ADDRESS) as file:
        assert file.read() == BODY


def test_a_compression_bomb_stops_at_the_byte_limit() -> None:
    bomb = gzip.compress(bytes(64 << 20))
    with serve(respond_with(bomb, headers="Content-Encoding: gzip\r\n")) as server:
        assert fetch_error(server.url()).error_code == "input_too_large"


def test_damaged_compressed_data_is_an_error() -> None:
    cut = gzip.compress(BODY)[:-20]
    with serve(respond_with(cut, headers="Content-Encoding: gzip\r\n")) as server:
        assert fetch_error(server.url()).error_code == "url_unreachable"


def test_an_unknown_compression_is_refused() -> None:
    with serve(respond_with(BODY, headers="Content-Encoding: br\r\n")) as server:
        assert fetch_error(server.url()).error_code == "unsupported_url"


def test_redirects_are_followed() -> None:
    def respond(request: Request, write: Write) -> None:
        hops = {"/a": redirect_to("/b"), "/b": redirect_to("c?d=1", "307 Temporary Redirect")}
        hops.get(request.path, respond_with(BODY))(request, write)

    with serve(respond) as server, fetch(server.url("/a"), limits=ANY_ADDRESS) as file:
        assert file.read() == BODY
    assert [request.path for request in server.requests] == ["/a", "/b", "/c?d=1"]


def test_five_redirects_are_followed_and_the_sixth_is_not() -> None:
    def respond(request: Request, write: Write) -> None:
        remaining = int(request.path[1:])
        (redirect_to(f"/{remaining - 1}") if remaining else respond_with(BODY))(request, write)

    with serve(respond) as server:
        with fetch(server.url("/5"), limits=ANY_ADDRESS) as file:
            assert file.read() == BODY
        assert fetch_error(server.url("/6")).error_code == "url_unreachable"


def make_public_network(
    *servers: LoopbackServer, table: dict[str, Sequence[str]] | None = None, tls: ssl.SSLContext | None = None
) -> NetworkBackend:
    """A network where `public.example` has a public address that leads to the given servers, one connection each.

    Every other name is resolved by the table or the system. (A test cannot listen on a public address itself.)
    """
    upcoming = iter(servers)

    def connect(address: tuple[str, int], timeout: float) -> socket.socket:
        assert address[0] == PUBLIC, f"connected to {address}"
        return socket.create_connection(("127.0.0.1", next(upcoming).port), timeout)

    def resolve(host: str, port: int) -> Sequence[str]:
        return ({"public.example": [PUBLIC]} | (table or {})).get(host) or resolve_host(host, port)

    return NetworkBackend(resolve=resolve, connect=connect, tls=tls)


def test_a_public_address_is_allowed() -> None:
    with (
        serve(respond_with(BODY)) as server,
        fetch("http://public.example/", limits=PUBLIC_ONLY, network=make_public_network(server)) as file,
    ):
        assert file.read() == BODY
    assert server.requests[0].headers["host"] == "public.example"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f000001", "0177.0.0.1", "127.1"])
def test_a_redirect_to_a_private_address_is_refused(host: str) -> None:
    with serve(respond_with(BODY)) as private, serve(redirect_to(private.url(host=host))) as first:
        assert (
            fetch_error("http://public.example/", PUBLIC_ONLY, network=make_public_network(first)).error_code
            == "private_url"
        )
    assert len(first.requests) == 1
    assert not private.requests


def test_a_redirect_to_a_file_is_refused() -> None:
    with serve(redirect_to("file:///etc/passwd")) as server:
        assert fetch_error(server.url()).error_code == "unsupported_url"


def test_a_redirect_to_a_url_with_credentials_is_refused() -> None:
    with serve(redirect_to("http://user:secret@127.0.0.1/")) as server:
        assert fetch_error(server.url()).error_code == "unsupported_url"


@pytest.mark.parametrize("location", ["http://[", "http://h:99999/", "\x80\xff", "//", "http:///"])
def test_a_redirect_to_an_invalid_url_is_refused(location: str) -> None:
    with serve(redirect_to(location)) as server:
        assert fetch_error(server.url()).error_code in ("unsupported_url", "url_unreachable")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://127.0.0.1:8000/a.wav",
        "http://localhost/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::1]/",
        "http://[::]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:7f00:1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[2002:7f00:1::]/",
        "http://[fe80::1%25lo]/",
        "http://[fd00:ec2::254]/",
        "http://[fec0::1]/",
        "http://0x7f000001/",
        "http://2130706433/",
        "http://0177.0.0.1/",
        "http://127.1/",
        "http://0/",
        "http://0.0.0.0/",
        "http://10.0.0.1/",
        "http://100.64.0.1/",
        "http://100.100.100.200/",
        "http://172.16.0.1/",
        "http://192.168.0.1/",
        "http://192.0.0.192/",
        "http://168.63.129.16/",
        "http://224.0.0.1/",
        "http://255.255.255.255/",
        "https://127.0.0.1/",
    ],
)
def test_a_private_address_is_refused_in_every_spelling(url: str) -> None:
    assert fetch_error(url, PUBLIC_ONLY).error_code == "private_url"


def test_one_private_address_among_public_ones_is_enough_to_refuse() -> None:
    network = make_public_network(table={"mixed.example": [PUBLIC, "10.0.0.1"]})
    assert fetch_error("http://mixed.example/", PUBLIC_ONLY, network=network).error_code == "private_url"


def test_a_name_that_rebinds_after_the_check_is_not_resolved_again() -> None:
    """The second answer of the name server is loopback; one download asks once, and connects to what was checked."""
    answers = iter([[PUBLIC], ["127.0.0.1"], ["127.0.0.1"]])
    resolved: list[str] = []

    def resolve(host: str, port: int) -> Sequence[str]:
        resolved.append(host)
        return next(answers)

    with serve(respond_with(BODY)) as server:
        network = dataclasses.replace(make_public_network(server), resolve=resolve)
        with fetch("http://rebinding.example/", limits=PUBLIC_ONLY, network=network) as file:
            assert file.read() == BODY
        assert fetch_error("http://rebinding.example/", PUBLIC_ONLY, network=network).error_code == "private_url"
    assert resolved == ["rebinding.example"] * 2


def test_the_next_address_is_tried_if_one_does_not_accept_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        silent = closed.getsockname()[1]
    with serve(respond_with(BODY)) as server:
        ports = {"10.0.0.1": silent, "10.0.0.2": server.port}
        network = NetworkBackend(
            resolve=lambda host, port: list(ports),
            connect=lambda address, timeout: socket.create_connection(("127.0.0.1", ports[address[0]]), timeout),
        )
        with fetch("http://two.example/", limits=ANY_ADDRESS, network=network) as file:
            assert file.read() == BODY


def test_a_certificate_is_verified_against_the_name_not_the_address(tmp_path: Path) -> None:
    server_tls, client_tls = make_certificate(tmp_path, "public.example")
    with serve(respond_with(BODY), tls=server_tls) as server:
        network = make_public_network(server, server, table={"other.example": [PUBLIC]}, tls=client_tls)
        with fetch("https://public.example/", limits=PUBLIC_ONLY, network=network) as file:
            assert file.read() == BODY
        error = fetch_error("https://other.example/", PUBLIC_ONLY, network=network)
    assert error.error_code == "url_unreachable"
    assert "certificate" in error.message


def test_a_certificate_that_is_not_trusted_is_refused(tmp_path: Path) -> None:
    server_tls, _ = make_certificate(tmp_path, "public.example")
    with serve(respond_with(BODY), tls=server_tls) as server:
        error = fetch_error("https://public.example/", PUBLIC_ONLY, network=make_public_network(server))
    assert "certificate" in error.message


def test_a_redirect_from_https_to_http_is_refused(tmp_path: Path) -> None:
    server_tls, client_tls = make_certificate(tmp_path, "public.example")
    with serve(redirect_to("http://public.example/"), tls=server_tls) as server:
        error = fetch_error("https://public.example/", PUBLIC_ONLY, network=make_public_network(server, tls=client_tls))
    assert error.error_code == "unsupported_url"


@pytest.mark.parametrize(
    "status", ["404 Not Found", "403 Forbidden", "500 Oops", "204 No Content", "206 Partial Content"]
)
def test_a_status_other_than_200_is_an_error_that_names_it(status: str) -> None:
    with serve(respond_with(b"no", status=status)) as server:
        error = fetch_error(server.url("/x?token=secret"))
    assert error.error_code == "http_status"
    assert error.details["status"] == int(status[:3])


def test_a_content_length_over_the_limit_is_refused_before_the_body() -> None:
    sent = threading.Event()

    def respond(request: Request, write: Write) -> None:
        write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n")
        sent.set()
        time.sleep(1)

    with serve(respond) as server:
        assert fetch_error(server.url()).error_code == "input_too_large"
    assert sent.is_set()


def test_an_endless_body_stops_at_the_byte_limit() -> None:
    def respond(request: Request, write: Write) -> None:
        write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            write(BODY)

    with serve(respond) as server:
        assert fetch_error(server.url()).error_code == "input_too_large"


def test_a_content_length_that_is_too_large_is_an_incomplete_file() -> None:
    def respond(request: Request, write: Write) -> None:
        write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + BODY[:900])

    with serve(respond) as server:
        error = fetch_error(server.url())
    assert error.error_code == "url_unreachable"
    assert "whole file" in error.message


def test_a_content_length_that_is_too_small_bounds_what_is_read() -> None:
    def respond(request: Request, write: Write) -> None:
        write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n" + BODY)

    with serve(respond) as server, fetch(server.url(), limits=ANY_ADDRESS) as file:
        assert file.read() == BODY[:10]


@pytest.mark.parametrize(
    "start", [b"", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\n\r\n"], ids=["status", "headers", "body"]
)
def test_a_server_that_sends_a_byte_at_a_time_is_disconnected_at_the_time_limit(start: bytes) -> None:
    def respond(request: Request, write: Write) -> None:
        write(start)
        while True:
            write(b"a")
            time.sleep(0.02)

    with serve(respond) as server:
        limits = FetchLimits(max_bytes=1 << 20, timeout_s=0.4, allow_private=True)
        assert fetch_error(server.url(), limits).error_code in ("download_timeout",)


def test_a_server_that_sends_nothing_is_disconnected_at_the_time_limit() -> None:
    with serve(lambda request, write: time.sleep(2)) as server:
        limits = FetchLimits(max_bytes=1 << 20, timeout_s=0.3, allow_private=True)
        assert fetch_error(server.url(), limits).error_code == "download_timeout"


def test_a_cancelled_job_ends_the_download() -> None:
    cancelled = threading.Event()

    def check() -> None:
        if cancelled.is_set():
            raise CancelledError("The job was cancelled.")

    def respond(request: Request, write: Write) -> None:
        cancelled.set()
        time.sleep(5)

    with serve(respond) as server, pytest.raises(CancelledError):
        fetch(server.url(), limits=ANY_ADDRESS, check=check)


@pytest.mark.parametrize(
    "garbage", [b"", b"\x00" * 100, b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200]
)
def test_a_response_that_is_not_http_is_an_error(garbage: bytes) -> None:
    with serve(lambda request, write: write(garbage)) as server:
        assert fetch_error(server.url()).error_code == "url_unreachable"


def test_a_name_that_does_not_exist_is_unreachable() -> None:
    def resolve(host: str, port: int) -> Sequence[str]:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    assert (
        fetch_error("http://nowhere.invalid/", network=NetworkBackend(resolve=resolve)).error_code == "url_unreachable"
    )


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://example.com/a.wav",
        "gopher://127.0.0.1/",
        "http://user:secret@example.com/a.wav",
        "http://secret@example.com/",
        "http://",
        "http:///a.wav",
        "http://exa mple.com/",
        "http://example.com/\r\nHost: x",
        "http://example.com:99999/",
        "http://\ud800.com/",
        "http://" + "a" * 300 + ".com/",
        "http://example.com/" + "a" * 10_000,
    ],
)
def test_a_url_of_another_kind_is_unsupported(url: str) -> None:
    assert fetch_error(url).error_code == "unsupported_url"


def test_a_proxy_in_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with serve(respond_with(BODY)) as server, fetch(server.url(), limits=ANY_ADDRESS) as file:
        assert file.read() == BODY


@given(st.text(max_size=60))
def test_any_text_after_the_scheme_is_fetched_or_refused(text: str) -> None:
    def connect(address: tuple[str, int], timeout: float) -> socket.socket:
        raise ConnectionRefusedError

    with pytest.raises(RequestError):
        fetch(
            "http://" + text,
            limits=ANY_ADDRESS,
            network=NetworkBackend(resolve=lambda host, port: [PUBLIC], connect=connect),
        )


def test_no_socket_and_no_file_stays_open_after_a_failure() -> None:
    def descriptors() -> set[str]:
        return {os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is_open(fd)}

    before = descriptors()
    with serve(respond_with(BODY)) as server:
        for _ in range(5):
            fetch_error(server.url(), FetchLimits(max_bytes=1000, timeout_s=5, allow_private=True))
    deadline = time.monotonic() + 5
    while descriptors() - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not descriptors() - before


def _is_open(fd: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{fd}")
