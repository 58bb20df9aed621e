"""Downloads against real servers on loopback, well-behaved and hostile."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import ipaddress
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
from testing.loopback import Loopback, Request, Write, certificate, redirect, serve, whole
from worker.http.addresses import is_public, resolve_host
from worker.http.connection import NetworkBackend
from worker.input.fetch import FetchLimits, fetch

PUBLIC = "93.184.215.14"
BODY = bytes(range(256)) * 1000
OPEN = FetchLimits(max_bytes=1 << 20, timeout_s=20, allow_private=True)
GUARDED = FetchLimits(max_bytes=1 << 20, timeout_s=20)


def refusal(url: str, limits: FetchLimits = OPEN, **options: object) -> SourceError:
    with pytest.raises(SourceError) as caught:
        fetch(url, limits=limits, **options)  # type: ignore[arg-type]
    assert "127.0.0.1" not in caught.value.message and "secret" not in caught.value.message
    return caught.value


def test_a_url_is_downloaded_whole() -> None:
    with serve(whole(BODY)) as server, fetch(server.url("/song.wav?a=1#part"), limits=OPEN) as file:
        assert file.read() == BODY
    assert server.requests[0].line == "GET /song.wav?a=1 HTTP/1.1"
    assert server.requests[0].headers["host"] == f"127.0.0.1:{server.port}"
    assert server.requests[0].headers["accept-encoding"] == "identity"


def test_a_chunked_body_is_downloaded_whole() -> None:
    def answer(request: Request, write: Write) -> None:
        write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for start in range(0, len(BODY), 50_000):
            piece = BODY[start : start + 50_000]
            write(b"%x\r\n%s\r\n" % (len(piece), piece))
        write(b"0\r\n\r\n")

    with serve(answer) as server, fetch(server.url(), limits=OPEN) as file:
        assert hashlib.sha256(file.read()).digest() == hashlib.sha256(BODY).digest()


def test_a_body_without_a_length_ends_with_the_connection() -> None:
    with (
        serve(lambda request, write: write(b"HTTP/1.0 200 OK\r\n\r\n" + BODY)) as server,
        fetch(server.url(), limits=OPEN) as file,
    ):
        assert file.read() == BODY


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress], ids=["gzip", "deflate"])
def test_a_server_that_compresses_unasked_is_understood(pack: Callable[[bytes], bytes]) -> None:
    encoding = "gzip" if pack is gzip.compress else "deflate"
    answer = whole(pack(BODY), headers=f"Content-Encoding: {encoding}\r\n")
    with serve(answer) as server, fetch(server.url(), limits=OPEN) as file:
        assert file.read() == BODY


def test_a_compression_bomb_stops_at_the_byte_limit() -> None:
    bomb = gzip.compress(bytes(64 << 20))
    with serve(whole(bomb, headers="Content-Encoding: gzip\r\n")) as server:
        assert refusal(server.url()).error_code == "input_too_large"


def test_broken_compressed_data_is_unreachable() -> None:
    cut = gzip.compress(BODY)[:-20]
    with serve(whole(cut, headers="Content-Encoding: gzip\r\n")) as server:
        assert refusal(server.url()).error_code == "url_unreachable"


def test_an_unknown_compression_is_refused() -> None:
    with serve(whole(BODY, headers="Content-Encoding: br\r\n")) as server:
        assert refusal(server.url()).error_code == "unsupported_url"


def test_redirects_are_followed() -> None:
    def answer(request: Request, write: Write) -> None:
        hops = {"/a": redirect("/b"), "/b": redirect("c?d=1", "307 Temporary Redirect")}
        hops.get(request.path, whole(BODY))(request, write)

    with serve(answer) as server, fetch(server.url("/a"), limits=OPEN) as file:
        assert file.read() == BODY
    assert [request.path for request in server.requests] == ["/a", "/b", "/c?d=1"]


def test_five_redirects_are_followed_and_the_sixth_is_not() -> None:
    def answer(request: Request, write: Write) -> None:
        left = int(request.path[1:])
        (redirect(f"/{left - 1}") if left else whole(BODY))(request, write)

    with serve(answer) as server:
        with fetch(server.url("/5"), limits=OPEN) as file:
            assert file.read() == BODY
        assert refusal(server.url("/6")).error_code == "url_unreachable"


def public(
    *servers: Loopback, table: dict[str, Sequence[str]] | None = None, tls: ssl.SSLContext | None = None
) -> NetworkBackend:
    """A network where `public.example` is a public address (nothing public can be listened on here), behind which
    the given servers take one connection each in turn; every other name is the system's or the table's.
    """
    turn = iter(servers)

    def connect(address: tuple[str, int], timeout: float) -> socket.socket:
        assert address[0] == PUBLIC, f"connected to {address}"
        return socket.create_connection(("127.0.0.1", next(turn).port), timeout)

    def resolve(host: str, port: int) -> Sequence[str]:
        return ({"public.example": [PUBLIC]} | (table or {})).get(host) or resolve_host(host, port)

    return NetworkBackend(resolve=resolve, connect=connect, tls=tls)


def test_a_public_address_passes_the_guard() -> None:
    with (
        serve(whole(BODY)) as server,
        fetch("http://public.example/", limits=GUARDED, network=public(server)) as file,
    ):
        assert file.read() == BODY
    assert server.requests[0].headers["host"] == "public.example"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f000001", "0177.0.0.1", "127.1"])
def test_a_redirect_to_a_private_address_is_refused(host: str) -> None:
    with serve(whole(BODY)) as private, serve(redirect(private.url(host=host))) as first:
        assert refusal("http://public.example/", GUARDED, network=public(first)).error_code == "private_url"
    assert len(first.requests) == 1
    assert not private.requests


def test_a_redirect_to_a_file_is_refused() -> None:
    with serve(redirect("file:///etc/passwd")) as server:
        assert refusal(server.url()).error_code == "unsupported_url"


def test_a_redirect_into_credentials_is_refused() -> None:
    with serve(redirect("http://user:secret@127.0.0.1/")) as server:
        assert refusal(server.url()).error_code == "unsupported_url"


@pytest.mark.parametrize("location", ["http://[", "http://h:99999/", "\x80\xff", "//", "http:///"])
def test_a_redirect_to_nonsense_is_refused(location: str) -> None:
    with serve(redirect(location)) as server:
        assert refusal(server.url()).error_code in ("unsupported_url", "url_unreachable")


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
def test_an_address_inside_is_refused_in_every_spelling(url: str) -> None:
    assert refusal(url, GUARDED).error_code == "private_url"


@given(st.ip_addresses(v=4))
def test_an_address_is_judged_alike_in_all_its_ipv6_forms(address: ipaddress.IPv4Address) -> None:
    number = int(address)
    verdict = is_public(address)
    assert is_public(ipaddress.IPv6Address(0xFFFF << 32 | number)) == verdict
    assert is_public(ipaddress.IPv6Address(int(ipaddress.IPv6Address("64:ff9b::")) | number)) == verdict
    assert not is_public(ipaddress.IPv6Address(0x2002 << 112 | number << 80))
    assert verdict <= (not (address.is_private or address.is_multicast or address.is_reserved))


def test_one_private_address_among_public_ones_is_enough_to_refuse() -> None:
    network = public(table={"mixed.example": [PUBLIC, "10.0.0.1"]})
    assert refusal("http://mixed.example/", GUARDED, network=network).error_code == "private_url"


def test_a_name_that_rebinds_after_the_check_changes_nothing() -> None:
    """The resolver turns to loopback at its second answer; there is no second question, and no other address."""
    answers = iter([[PUBLIC], ["127.0.0.1"], ["127.0.0.1"]])
    asked: list[str] = []

    def resolve(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return next(answers)

    with serve(whole(BODY)) as server:
        network = dataclasses.replace(public(server), resolve=resolve)
        with fetch("http://rebinding.example/", limits=GUARDED, network=network) as file:
            assert file.read() == BODY
        assert refusal("http://rebinding.example/", GUARDED, network=network).error_code == "private_url"
    assert asked == ["rebinding.example"] * 2


def test_the_next_address_is_tried_where_one_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        silent = closed.getsockname()[1]
    with serve(whole(BODY)) as server:
        ports = {"10.0.0.1": silent, "10.0.0.2": server.port}
        network = NetworkBackend(
            resolve=lambda host, port: list(ports),
            connect=lambda address, timeout: socket.create_connection(("127.0.0.1", ports[address[0]]), timeout),
        )
        with fetch("http://two.example/", limits=OPEN, network=network) as file:
            assert file.read() == BODY


def test_a_certificate_is_verified_against_the_name_not_the_address(tmp_path: Path) -> None:
    server_tls, client_tls = certificate(tmp_path, "public.example")
    with serve(whole(BODY), tls=server_tls) as server:
        network = public(server, server, table={"other.example": [PUBLIC]}, tls=client_tls)
        with fetch("https://public.example/", limits=GUARDED, network=network) as file:
            assert file.read() == BODY
        error = refusal("https://other.example/", GUARDED, network=network)
    assert error.error_code == "url_unreachable"
    assert "certificate" in error.message


def test_a_certificate_that_nobody_signed_is_refused(tmp_path: Path) -> None:
    server_tls, _ = certificate(tmp_path, "public.example")
    with serve(whole(BODY), tls=server_tls) as server:
        error = refusal("https://public.example/", GUARDED, network=public(server))
    assert "certificate" in error.message


def test_a_redirect_from_https_to_http_is_refused(tmp_path: Path) -> None:
    server_tls, client_tls = certificate(tmp_path, "public.example")
    with serve(redirect("http://public.example/"), tls=server_tls) as server:
        error = refusal("https://public.example/", GUARDED, network=public(server, tls=client_tls))
    assert error.error_code == "unsupported_url"


@pytest.mark.parametrize(
    "status", ["404 Not Found", "403 Forbidden", "500 Oops", "204 No Content", "206 Partial Content"]
)
def test_a_status_other_than_200_is_named(status: str) -> None:
    with serve(whole(b"no", status=status)) as server:
        error = refusal(server.url("/x?token=secret"))
    assert error.error_code == "http_status"
    assert error.details["status"] == int(status[:3])


def test_an_announced_length_over_the_limit_is_refused_before_the_body() -> None:
    sent = threading.Event()

    def answer(request: Request, write: Write) -> None:
        write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n")
        sent.set()
        time.sleep(1)

    with serve(answer) as server:
        assert refusal(server.url()).error_code == "input_too_large"
    assert sent.is_set()


def test_an_endless_body_stops_at_the_byte_limit() -> None:
    def answer(request: Request, write: Write) -> None:
        write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            write(BODY)

    with serve(answer) as server:
        assert refusal(server.url()).error_code == "input_too_large"


def test_a_length_that_promises_too_much_is_an_incomplete_file() -> None:
    def answer(request: Request, write: Write) -> None:
        write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + BODY[:900])

    with serve(answer) as server:
        error = refusal(server.url())
    assert error.error_code == "url_unreachable"
    assert "whole file" in error.message


def test_a_length_that_promises_too_little_bounds_what_is_read() -> None:
    def answer(request: Request, write: Write) -> None:
        write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n" + BODY)

    with serve(answer) as server, fetch(server.url(), limits=OPEN) as file:
        assert file.read() == BODY[:10]


@pytest.mark.parametrize(
    "start", [b"", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\n\r\n"], ids=["status", "headers", "body"]
)
def test_a_server_that_drips_is_cut_off_at_the_time_limit(start: bytes) -> None:
    def answer(request: Request, write: Write) -> None:
        write(start)
        while True:
            write(b"a")
            time.sleep(0.02)

    with serve(answer) as server:
        limits = FetchLimits(max_bytes=1 << 20, timeout_s=0.4, allow_private=True)
        assert refusal(server.url(), limits).error_code in ("download_timeout",)


def test_a_server_that_says_nothing_is_cut_off_at_the_time_limit() -> None:
    with serve(lambda request, write: time.sleep(2)) as server:
        limits = FetchLimits(max_bytes=1 << 20, timeout_s=0.3, allow_private=True)
        assert refusal(server.url(), limits).error_code == "download_timeout"


def test_a_cancelled_job_ends_the_download() -> None:
    cancelled = threading.Event()

    def check() -> None:
        if cancelled.is_set():
            raise CancelledError("The job was cancelled.")

    def answer(request: Request, write: Write) -> None:
        cancelled.set()
        time.sleep(5)

    with serve(answer) as server, pytest.raises(CancelledError):
        fetch(server.url(), limits=OPEN, check=check)


@pytest.mark.parametrize(
    "garbage", [b"", b"\x00" * 100, b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200]
)
def test_what_is_not_http_is_unreachable(garbage: bytes) -> None:
    with serve(lambda request, write: write(garbage)) as server:
        assert refusal(server.url()).error_code == "url_unreachable"


def test_a_name_that_does_not_exist_is_unreachable() -> None:
    def resolve(host: str, port: int) -> Sequence[str]:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    assert refusal("http://nowhere.invalid/", network=NetworkBackend(resolve=resolve)).error_code == "url_unreachable"


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
    assert refusal(url).error_code == "unsupported_url"


def test_a_proxy_in_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with serve(whole(BODY)) as server, fetch(server.url(), limits=OPEN) as file:
        assert file.read() == BODY


@given(st.text(max_size=60))
def test_any_text_after_the_scheme_is_fetched_or_refused(text: str) -> None:
    def connect(address: tuple[str, int], timeout: float) -> socket.socket:
        raise ConnectionRefusedError

    with pytest.raises(RequestError):
        fetch(
            "http://" + text, limits=OPEN, network=NetworkBackend(resolve=lambda host, port: [PUBLIC], connect=connect)
        )


def test_no_socket_and_no_file_stays_open_after_a_failure() -> None:
    def descriptors() -> set[str]:
        return {os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is_open(fd)}

    before = descriptors()
    with serve(whole(BODY)) as server:
        for _ in range(5):
            refusal(server.url(), FetchLimits(max_bytes=1000, timeout_s=5, allow_private=True))
    deadline = time.monotonic() + 5
    while descriptors() - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not descriptors() - before


def _is_open(fd: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{fd}")
