"""A RunPod endpoint, a bucket and a file server on loopback that play every fault over real HTTP.

A route plays its planned faults first, one a request, and then works. Jobs run through a list of statuses, one a poll.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import struct
import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "rpa_TESTKEY0123456789"
ENDPOINT = "/v2/endpoint1"


@dataclass(frozen=True)
class Answer:
    """A fault: an HTTP response in place of the route's own."""

    status: int
    body: bytes | str | Mapping[str, Any] = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Drop:
    """A fault: the connection is closed without a response. `after_work`: the request is carried out before."""

    after_work: bool = False


@dataclass(frozen=True)
class Delay:
    """A fault: the response comes `seconds` late; `then` another fault, if any."""

    seconds: float
    then: Answer | Drop | None = None


@dataclass(frozen=True)
class Cut:
    """A fault of a file: the connection breaks after `sent` bytes of the body."""

    sent: int


Fault = Answer | Drop | Delay | Cut
Statuses = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Request:
    """A request that arrived."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def input(self) -> dict[str, Any]:
        """The `input` of a job."""
        content: dict[str, Any] = json.loads(self.body)["input"]
        return content


@dataclass
class StoredFile:
    """A file of the file server. `takes_ranges` off: every response is the whole file."""

    content: bytes
    etag: str | None = None
    takes_ranges: bool = True


@dataclass
class _Job:
    statuses: deque[Mapping[str, Any]]
    is_cancelled: bool = False


def make_wav(seconds: float = 0.1, *, sample_rate: int = 8000) -> bytes:
    """A mono wav file of 16 bits: a ramp."""
    count = int(seconds * sample_rate)
    data = struct.pack(f"<{count}h", *(n % 1000 for n in range(count)))
    header = (
        b"RIFF",
        36 + len(data),
        b"WAVE",
        b"fmt ",
        16,
        1,
        1,
        sample_rate,
        2 * sample_rate,
        2,
        16,
        b"data",
        len(data),
    )
    return struct.pack("<4sI4s4sIHHIIHH4sI", *header) + data


def make_artefact(content: bytes, filename: str = "music.wav", *, url: str | None = None) -> dict[str, Any]:
    """The keys of an artefact in a reply: inline, or as a link to `url`."""
    where = {"output_url": url} if url else {"output_audio": base64.b64encode(content).decode()}
    fields = {"filename": filename, "format": "wav", "size": len(content), "sample_rate": 8000, "channels": 1}
    return {**where, **fields, "duration": 0.1, "sha256": hashlib.sha256(content).hexdigest()}


def make_reply(operation: str = "generate_music", **fields: Any) -> dict[str, Any]:
    """A success reply with an inline wav, unless `fields` say otherwise."""
    base = {"success": True, "operation": operation, "parameters": {}, "timings": {"total_s": 0.1}, "warnings": []}
    return {**base, **(fields or make_artefact(make_wav()))}


def in_queue() -> dict[str, Any]:
    return {"status": "IN_QUEUE"}


def in_progress(stage: str = "", percent: float | None = None, **details: Any) -> dict[str, Any]:
    return {"status": "IN_PROGRESS"} | ({"output": {"stage": stage, "percent": percent, **details}} if stage else {})


def make_completed(reply: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {"status": "COMPLETED", "output": make_reply() if reply is None else reply}


def make_failed(error: str, code: str | None = None, **details: Any) -> dict[str, Any]:
    return {"status": "FAILED", "error": error} | ({"output": {"error_code": code, "details": details}} if code else {})


completed, failed = make_completed, make_failed


class FakePlatform:
    """What the endpoint does, and what it has received.

    Args:
        key: the API key that requests must carry; None: any.
    """

    def __init__(self, key: str | None = KEY) -> None:
        self.key = key
        self.origin = ""
        self.requests: list[Request] = []
        self.files: dict[str, StoredFile] = {}
        self.jobs: dict[str, _Job] = {}
        self.statuses: Callable[[Mapping[str, Any]], Statuses] = lambda job_input: [completed()]
        self._faults: defaultdict[str, deque[Fault]] = defaultdict(deque)
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """The endpoint's address."""
        return self.origin + ENDPOINT

    def plan_faults(self, route: str, *faults: Fault) -> None:
        """The next requests of `route` get these faults.

        Routes: `run`, `runsync`, `status`, `cancel`, `health`, `file`, `put`.
        """
        self._faults[route].extend(faults)

    def script(self, *statuses: Mapping[str, Any]) -> None:
        """Every job from now on goes through these statuses, one at each poll; the last one stays."""
        self.statuses = lambda job_input: statuses

    def serve_file(self, name: str, content: bytes, **options: Any) -> str:
        """Serves a file and returns its URL."""
        self.files[name] = StoredFile(content, **options)
        return f"{self.origin}/files/{name}?X-Amz-Signature=secret-signature"

    def list_requests(self, route: str) -> list[Request]:
        return [request for request in self.requests if _find_route(request.path) == route]

    def take_fault(self, route: str) -> Fault | None:
        with self._lock:
            return self._faults[route].popleft() if self._faults[route] else None

    def start_job(self, job_input: Mapping[str, Any]) -> dict[str, Any]:
        with self._lock:
            job_id = f"job-{len(self.jobs) + 1}"
            self.jobs[job_id] = _Job(deque(self.statuses(job_input)))
        return {"id": job_id, "status": "IN_QUEUE"}

    def read_status(self, job_id: str) -> dict[str, Any] | None:
        with self._lock:
            if (job := self.jobs.get(job_id)) is None:
                return None
            if job.is_cancelled:
                return {"id": job_id, "status": "CANCELLED"}
            status = job.statuses.popleft() if len(job.statuses) > 1 else job.statuses[0]
            return {"id": job_id, **status}

    def cancel_job(self, job_id: str) -> dict[str, Any] | None:
        if (job := self.jobs.get(job_id)) is None:
            return None
        job.is_cancelled = True
        return {"id": job_id, "status": "CANCELLED"}


def _find_route(path: str) -> str:
    path = path.partition("?")[0]
    if path.startswith("/files/"):
        return "file"
    if path.startswith("/bucket/"):
        return "put"
    match = re.fullmatch(rf"{ENDPOINT}/(run|runsync|health|status|cancel)(/[^/]+)?", path)
    return match[1] if match else ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    platform: FakePlatform

    def log_message(self, format: str, *args: Any) -> None:
        """Keeps the tests' output quiet."""

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_PUT = do_GET  # noqa: N815  (the names that http.server calls)

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.platform.requests.append(Request(self.command, self.path, headers, body))
        route = _find_route(self.path)
        fault = self.platform.take_fault(route)
        if isinstance(fault, Delay):
            time.sleep(fault.seconds)
            fault = fault.then
        if isinstance(fault, Answer):
            content = json.dumps(fault.body) if isinstance(fault.body, Mapping) else fault.body
            self._send(fault.status, content, fault.headers)
            return
        if isinstance(fault, Drop):
            if fault.after_work:
                self._find_answer(route, body)
            self._break_connection()
        elif route in ("file", "put"):
            self._take_file(body) if self.command == "PUT" else self._serve_file(fault)
        else:
            self._send(*self._find_answer(route, body))

    def _find_answer(self, route: str, body: bytes) -> tuple[int, Any]:
        platform = self.platform
        if not route:
            return 404, json.dumps({"error": "not found"})
        if platform.key is not None and self.headers.get("Authorization") != f"Bearer {platform.key}":
            return 401, json.dumps({"error": "unauthorized"})
        job_id = self.path.partition("?")[0].rpartition("/")[2]
        if route in ("run", "runsync"):
            found: Any = platform.start_job(json.loads(body)["input"])
        elif route == "status":
            found = platform.read_status(job_id)
        elif route == "cancel":
            found = platform.cancel_job(job_id)
        else:
            found = {"jobs": {"inQueue": 0, "inProgress": 1}, "workers": {"idle": 1, "running": 1}}
        return (404, json.dumps({"error": "job not found"})) if found is None else (200, json.dumps(found))

    def _serve_file(self, fault: Fault | None) -> None:
        name = self.path.partition("?")[0].rpartition("/")[2]
        if (file := self.platform.files.get(name)) is None:
            self._send(403, b"<Error><Code>AccessDenied</Code></Error>")
            return
        content, total = file.content, len(file.content)
        headers = {"ETag": f'"{file.etag}"'} if file.etag else {}
        status, condition = 200, self.headers.get("If-Range")
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if match and file.takes_ranges and condition in (None, f'"{file.etag}"'):
            start = int(match[1])
            if start >= total:
                self._send(416, b"", {"Content-Range": f"bytes */{total}"})
                return
            status, content = 206, content[start:]
            headers["Content-Range"] = f"bytes {start}-{total - 1}/{total}"
        self._send(status, content, headers, sent=fault.sent if isinstance(fault, Cut) else None)

    def _take_file(self, body: bytes) -> None:
        name = self.path.partition("?")[0].rpartition("/")[2]
        self.platform.files[name] = StoredFile(body)
        self._send(200, b"")

    def _send(
        self, status: int, content: bytes | str, headers: Mapping[str, str] | None = None, *, sent: int | None = None
    ) -> None:
        data = content.encode() if isinstance(content, str) else content
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data if sent is None else data[:sent])
        if sent is not None:
            self._break_connection()

    def _break_connection(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is gone is no fault of a test."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def start_platform(key: str | None = KEY) -> Iterator[FakePlatform]:
    """Serves until the block ends."""
    platform = FakePlatform(key)
    handler = type("Handler", (_Handler,), {"platform": platform})
    server = _Server(("127.0.0.1", 0), handler)
    platform.origin = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield platform
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
