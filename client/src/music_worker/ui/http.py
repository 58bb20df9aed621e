"""Answers the requests of the page.

Every address begins with the token of the run. Requests that name another host, or come from another site, are refused.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import secrets
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any, BinaryIO, cast
from urllib.parse import parse_qs, quote, urlsplit

from music_worker.errors import MusicWorkerError
from music_worker.ui.files import CHUNK_BYTES, PageError, StoredFile
from music_worker.ui.site import Site

logger = logging.getLogger(__name__)

MAX_JSON_BYTES = 16_000_000
SILENCE_TIMEOUT_S = 60.0
LENGTH = re.compile(r"[0-9]{1,18}")
RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
SECURITY_HEADERS = MappingProxyType(
    {
        "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
        "media-src 'self' blob:; connect-src 'self' blob:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-store",
    }
)
WRONG_ADDRESS = "This is not an address of the page that runs now. Open the one that `music-worker ui` has printed."


class PageHttpServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a browser keeps connections open
    site: Site

    def __init__(self, *args: Any) -> None:
        self._connections: set[socket.socket] = set()
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Stops listening, and ends the connections that browsers keep open."""
        super().server_close()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):  # it may have ended meanwhile
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that closes a connection is no error."""
        logger.debug("A connection of the page ended with an error", exc_info=True)


class PageHttpServer6(PageHttpServer):
    address_family = socket.AF_INET6


@dataclass(frozen=True, slots=True)
class _Route:
    """A kind of request of the page, and the method that answers it with the groups of the pattern."""

    method: str
    pattern: re.Pattern[str]
    answer: Callable[..., None]


class PageHandler(BaseHTTPRequestHandler):
    """Answers one connection of the browser."""

    protocol_version = "HTTP/1.1"
    server_version = "music-worker"
    sys_version = ""
    timeout = SILENCE_TIMEOUT_S
    routes: tuple[_Route, ...] = ()

    @property
    def site(self) -> Site:
        return cast(PageHttpServer, self.server).site

    def do_GET(self) -> None:
        self._respond()

    def do_HEAD(self) -> None:
        self._respond()

    def do_POST(self) -> None:
        self._respond()

    def do_DELETE(self) -> None:
        self._respond()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the name in the base class)
        """Nothing: addresses contain the token."""

    def _respond(self) -> None:
        try:
            self._check_origin()
            self._route()
        except PageError as error:
            self._refuse(error.status, error)
        except MusicWorkerError as error:
            self._refuse(HTTPStatus.BAD_GATEWAY, error)

    def _check_origin(self) -> None:
        """Refuses what another site makes a browser send, and names of hosts that were made to lead here."""
        if self.headers.get_all("Host", []) != [self.site.host]:
            raise PageError(HTTPStatus.FORBIDDEN, WRONG_ADDRESS)
        origin = self.headers.get("Origin")
        changes = self.command not in ("GET", "HEAD")
        if (origin is not None or changes) and origin != f"http://{self.site.host}":
            raise PageError(HTTPStatus.FORBIDDEN, "This request came from another site and was refused.")

    def _route(self) -> None:
        token, _, path = urlsplit(self.path).path.lstrip("/").partition("/")
        if token == "start" and self.site.use_start_code(path):
            self._send(HTTPStatus.SEE_OTHER, headers={"Location": f"/{self.site.token}/"})
            return
        if not secrets.compare_digest(token.encode(), self.site.token.encode()):
            raise PageError(HTTPStatus.NOT_FOUND, WRONG_ADDRESS)
        method = "GET" if self.command == "HEAD" else self.command
        for route in self.routes:
            if route.method == method and (match := route.pattern.fullmatch(path)):
                route.answer(self, *match.groups())
                return
        raise PageError(HTTPStatus.NOT_FOUND, "There is no such address on this page.")

    # --- answers ---

    def _send_asset(self, name: str) -> None:
        if (asset := self.site.assets.get(name or "index.html")) is None:
            raise PageError(HTTPStatus.NOT_FOUND, "There is no such file on this page.")
        self._send(HTTPStatus.OK, asset[1], {"Content-Type": asset[0]})

    def _send_page(self) -> None:
        self._send_json(self.site.describe())

    def _send_worker(self) -> None:
        self._send_json(self.site.connection.describe())

    def _connect(self) -> None:
        self._read_json()
        self.site.connection.connect()
        self._send_json({})

    def _list_jobs(self) -> None:
        self._send_json({"jobs": self.site.jobs.describe_all()})

    def _submit(self) -> None:
        body = self._read_json()
        operation, params = body.get("operation"), body.get("params")
        if not isinstance(operation, str) or not isinstance(params, dict):
            raise PageError(HTTPStatus.BAD_REQUEST, "A request needs `operation`, a text, and `params`, an object.")
        self._send_json(self.site.jobs.submit(operation, params), HTTPStatus.ACCEPTED)

    def _resume(self) -> None:
        body = self._read_json()
        operation, platform_id = body.get("operation"), body.get("platform_id")
        if not isinstance(operation, str) or not isinstance(platform_id, str) or not platform_id:
            raise PageError(HTTPStatus.BAD_REQUEST, "To resume a job, send `operation` and `platform_id`, both texts.")
        self._send_json(self.site.jobs.resume(operation, platform_id), HTTPStatus.ACCEPTED)

    def _send_job(self, job_id: str) -> None:
        self._send_json(self.site.jobs.describe(job_id))

    def _cancel_job(self, job_id: str) -> None:
        self._read_json()
        self._send_json(self.site.jobs.cancel(job_id))

    def _remove_job(self, job_id: str) -> None:
        self.site.jobs.remove(job_id)
        self._send_json({})

    def _upload(self) -> None:
        name = parse_qs(urlsplit(self.path).query).get("name", ["file"])[0]
        stored = self.site.files.upload(name, cast(BinaryIO, self.rfile), self._read_length())
        self._send_json({"id": stored.id, "name": stored.name, "size": stored.size}, HTTPStatus.CREATED)

    def _send_file(self, file_id: str) -> None:
        """A result, whole or the range that a player asks for."""
        stored = self.site.files.get(file_id)
        if not stored.is_result:
            raise PageError(HTTPStatus.NOT_FOUND, "This file is not a result.")
        span = _read_range(self.headers.get("Range"), stored.size)
        headers = {
            "Content-Type": stored.media_type,
            "Content-Disposition": _name_attachment(stored),
            "Accept-Ranges": "bytes",
        }
        if span is None:
            raise PageError(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, f"The file has {stored.size} bytes.")
        start, end = span
        if (start, end) == (0, stored.size) and "Range" not in self.headers:
            self._start(HTTPStatus.OK, {**headers, "Content-Length": str(stored.size)})
        else:
            about = {"Content-Range": f"bytes {start}-{end - 1}/{stored.size}", "Content-Length": str(end - start)}
            self._start(HTTPStatus.PARTIAL_CONTENT, {**headers, **about})
        if self.command != "HEAD":
            with stored.path.open("rb") as file:
                file.seek(start)
                left = end - start
                while left and (chunk := file.read(min(left, CHUNK_BYTES))):
                    self.wfile.write(chunk)
                    left -= len(chunk)

    # --- reading and writing ---

    def _read_length(self) -> int:
        length = self.headers.get("Content-Length", "")
        if not LENGTH.fullmatch(length):
            raise PageError(HTTPStatus.LENGTH_REQUIRED, "The request does not say how long it is.")
        return int(length)

    def _read_json(self) -> Mapping[str, Any]:
        if (size := self._read_length()) > MAX_JSON_BYTES:
            raise PageError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The request is too large. Send files as files.")
        if self.headers.get_content_type() != "application/json":
            raise PageError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The request must be JSON.")
        try:
            body = json.loads(self.rfile.read(size))
        except (ValueError, RecursionError):
            raise PageError(HTTPStatus.BAD_REQUEST, "The request is not valid JSON.") from None
        if not isinstance(body, dict):
            raise PageError(HTTPStatus.BAD_REQUEST, "The request must be a JSON object.")
        return body

    def _send_json(self, value: Any, status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: HTTPStatus, error: MusicWorkerError) -> None:
        self.close_connection = True  # what is left of the request was not read
        body = {"code": error.code, "message": error.message, "details": error.details}
        self._send(status, json.dumps(body).encode(), {"Content-Type": "application/json", "Connection": "close"})

    def _send(self, status: HTTPStatus, body: bytes = b"", headers: Mapping[str, str] = MappingProxyType({})) -> None:
        self._start(status, {**headers, "Content-Length": str(len(body))})
        if self.command != "HEAD":
            self.wfile.write(body)

    def _start(self, status: HTTPStatus, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**SECURITY_HEADERS, **headers}.items():
            self.send_header(name, value)
        self.end_headers()


_ID = r"([0-9a-f]{8,64})"
PageHandler.routes = tuple(
    _Route(method, re.compile(pattern), answer)
    for method, pattern, answer in (
        ("GET", r"([a-z]*\.?[a-z]*)", PageHandler._send_asset),
        ("GET", r"api/page", PageHandler._send_page),
        ("GET", r"api/worker", PageHandler._send_worker),
        ("POST", r"api/worker", PageHandler._connect),
        ("GET", r"api/jobs", PageHandler._list_jobs),
        ("POST", r"api/jobs", PageHandler._submit),
        ("POST", r"api/jobs/resume", PageHandler._resume),
        ("GET", rf"api/jobs/{_ID}", PageHandler._send_job),
        ("POST", rf"api/jobs/{_ID}/cancel", PageHandler._cancel_job),
        ("DELETE", rf"api/jobs/{_ID}", PageHandler._remove_job),
        ("POST", r"api/files", PageHandler._upload),
        ("GET", rf"api/files/{_ID}", PageHandler._send_file),
    )
)


def _read_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Start and end of the bytes to send: all of them without a range or with several; None for a range outside."""
    match = RANGE.fullmatch(header.strip()) if header else None
    if match is None or match.groups() == ("", ""):
        return 0, size
    first, last = match.groups()
    if not first:
        return (max(0, size - int(last)), size) if int(last) else None
    start, end = int(first), min(size, int(last) + 1) if last else size
    return (start, end) if start < end else None


def _name_attachment(stored: StoredFile) -> str:
    """Players and pictures are shown in the page; a file of another type is only saved."""
    kind = "inline" if stored.media_type.startswith(("audio/", "image/png")) else "attachment"
    return f"{kind}; filename*=UTF-8''{quote(stored.name)}"
