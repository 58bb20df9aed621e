"""Who may talk to the page, and what its addresses answer."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from fake_client import FakeClient, make_music, make_wav
from page_calls import call, post, run, upload

from music_worker.client import Client
from music_worker.ui.files import Limits
from music_worker.ui_server import PageServer


@pytest.fixture
def server() -> Iterator[PageServer]:
    with PageServer(FakeClient(), port=0, limits=Limits(file_bytes=50_000, total_bytes=80_000)) as server:
        yield server


def test_the_page_and_its_parts_load_nothing_from_elsewhere(server: PageServer) -> None:
    page = call(server, "")
    assert page.status == 200
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    for name in ("style.css", "app.js", "player.js", "icon.svg"):
        part = call(server, name)
        assert part.status == 200
        assert part.headers["X-Content-Type-Options"] == "nosniff"
        outside = part.body.replace(b"http://www.w3.org/2000/svg", b"")
        assert b"http://" not in outside
        assert b"https://" not in outside


@pytest.mark.parametrize("path", ["/", "/wrong-token/", "/wrong-token/api/jobs", "/start/guess"])
def test_without_the_token_nothing_is_served(server: PageServer, path: str) -> None:
    answer = call(server, path)
    assert answer.status == 404
    assert "music-worker ui" in answer.json()["message"]
    assert urlsplit(server.url).path.strip("/").encode() not in answer.body


@pytest.mark.parametrize("path", ["../ui_server.py", "%2e%2e/schema.json", "__init__.py", "api/files/..", "static"])
def test_an_address_is_never_the_path_of_a_file(server: PageServer, path: str) -> None:
    assert call(server, path).status == 404


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1"])
def test_a_request_to_another_host_name_is_refused(server: PageServer, host: str) -> None:
    assert call(server, "api/jobs", headers={"Host": host}).status == 403


@pytest.mark.parametrize("origin", ["https://evil.example", "null", None])
def test_a_change_that_another_site_asks_for_is_refused(server: PageServer, origin: str | None) -> None:
    answer = call(server, "api/jobs", method="POST", body=b"{}", headers={"Origin": origin})
    assert answer.status == 403
    assert call(server, "api/jobs").json() == {"jobs": []}


def test_a_reading_from_another_site_is_refused(server: PageServer) -> None:
    assert call(server, "api/page", headers={"Origin": "https://evil.example"}).status == 403


def test_the_address_that_the_browser_is_started_with_works_once(server: PageServer) -> None:
    start = urlsplit(server.make_start_url()).path
    first = call(server, start)
    assert (first.status, first.headers["Location"]) == (303, urlsplit(server.url).path)
    assert call(server, start).status == 404


def test_the_api_key_never_reaches_the_page() -> None:
    key = "rpa_SECRETSECRET"
    with PageServer(Client(url="http://127.0.0.1:9", api_key=key), port=0) as server:
        for path in ("", "api/page", "api/worker", "api/jobs"):
            assert key.encode() not in call(server, path).body


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"[]", {"Content-Type": "application/json"}, 400),
        (b"{", {"Content-Type": "application/json"}, 400),
        (b"{}", {"Content-Type": "text/plain"}, 415),
        (b"{}", {"Content-Type": "application/json", "Content-Length": "99999999"}, 413),
        (b'{"operation": 3, "params": {}}', {"Content-Type": "application/json"}, 400),
    ],
)
def test_a_request_that_is_not_one_is_refused(
    server: PageServer, body: bytes, headers: dict[str, str], status: int
) -> None:
    assert call(server, "api/jobs", method="POST", body=body, headers=headers).status == status


def test_an_upload_over_the_limit_is_refused_before_it_is_read(server: PageServer) -> None:
    answer = call(server, "api/files?name=a", method="POST", headers={"Content-Length": "50001"})
    assert answer.status == 413
    assert "0 MB are allowed" in answer.json()["message"]


@pytest.mark.parametrize("length", ["-1", "many", "9" * 5000])
def test_an_upload_without_a_length_is_refused(server: PageServer, length: str) -> None:
    assert call(server, "api/files?name=a", method="POST", headers={"Content-Length": length}).status == 411


def test_all_uploads_together_have_a_limit(server: PageServer) -> None:
    assert upload(server, bytes(50_000)).status == 201
    assert upload(server, bytes(30_001)).status == 413
    assert upload(server, bytes(30_000)).status == 201


def test_an_empty_upload_is_refused(server: PageServer) -> None:
    assert upload(server, b"").status == 400


def test_an_upload_that_breaks_off_frees_its_place(server: PageServer) -> None:
    address = urlsplit(server.url)
    with socket.create_connection((str(address.hostname), int(address.port or 0))) as connection:
        head = f"POST {address.path}api/files?name=a HTTP/1.1\r\nHost: {address.netloc}\r\n"
        connection.sendall(f"{head}Origin: http://{address.netloc}\r\nContent-Length: 50000\r\n\r\n".encode())
        connection.sendall(bytes(1000))
        connection.shutdown(socket.SHUT_WR)
        assert b" 400 " in connection.recv(100)
    assert upload(server, bytes(50_000)).status == 201


def test_the_name_of_an_upload_is_only_shown(server: PageServer) -> None:
    answer = upload(server, b"x", "..%2F..%2Fetc%2Fpasswd").json()
    assert answer["name"] == "passwd"


def test_an_upload_is_not_served_again(server: PageServer) -> None:
    file_id = upload(server, b"x").json()["id"]
    assert call(server, f"api/files/{file_id}").status == 404


WAV = make_wav()


@pytest.mark.parametrize(
    ("header", "status", "start", "end"),
    [
        (None, 200, 0, len(WAV)),
        ("bytes=0-", 206, 0, len(WAV)),
        ("bytes=10-19", 206, 10, 20),
        ("bytes=10-999999", 206, 10, len(WAV)),
        ("bytes=-5", 206, len(WAV) - 5, len(WAV)),
        ("items=1-2", 206, 0, len(WAV)),
        (f"bytes={'9' * 5000}-", 206, 0, len(WAV)),
    ],
)
def test_a_player_gets_the_range_it_asks_for(
    server: PageServer, header: str | None, status: int, start: int, end: int
) -> None:
    (output,) = run(server, "generate_music", {})["result"]["files"]
    answer = call(server, f"api/files/{output['file']}", headers={"Range": header})
    assert (answer.status, answer.body) == (status, WAV[start:end])
    assert answer.headers["Content-Type"] == "audio/wav"
    if header is not None:
        assert answer.headers["Content-Range"] == f"bytes {start}-{end - 1}/{len(WAV)}"


@pytest.mark.parametrize("header", ["bytes=99999-", "bytes=-0", "bytes=9-3"])
def test_a_range_outside_of_the_file_is_refused(server: PageServer, header: str) -> None:
    (output,) = run(server, "generate_music", {})["result"]["files"]
    assert call(server, f"api/files/{output['file']}", headers={"Range": header}).status == 416


def test_head_tells_the_size_without_the_file(server: PageServer) -> None:
    (output,) = run(server, "generate_music", {})["result"]["files"]
    answer = call(server, f"api/files/{output['file']}", method="HEAD")
    assert (answer.status, answer.headers["Content-Length"], answer.body) == (200, str(len(WAV)), b"")


def test_a_file_that_is_no_sound_is_only_saved() -> None:
    def script(job: object) -> dict[str, object]:
        return {"files": {"page": {"output_file": "PGI+", "filename": "page.html", "format": "html"}}}

    with PageServer(FakeClient(analyze=script), port=0) as server:
        (output,) = run(server, "analyze", {})["result"]["files"]
        answer = call(server, f"api/files/{output['file']}")
    assert answer.body == b"<b>"
    assert answer.headers["Content-Disposition"].startswith("attachment")


def test_the_description_of_the_page_is_ready_before_the_worker_answers() -> None:
    with PageServer(FakeClient(generate_music=make_music), port=0) as server:
        page = call(server, "api/page").json()
    assert page["request_url"] == "https://api.runpod.ai/v2/abc123/run"
    assert page["needs_key"] is True
    assert "generate_music" in page["schemas"]


def test_jobs_are_refused_that_are_no_jobs(server: PageServer) -> None:
    assert call(server, "api/jobs/0123456789abcdef").status == 404
    assert post(server, "api/jobs/resume", {"operation": "separate"}).status == 400
