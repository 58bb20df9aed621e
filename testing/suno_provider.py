"""A Suno provider for tests, over real HTTP on loopback: implements the sunoapi.org API and checks every request.

By hand: `uv run python -m testing.suno_provider --scenario happy`, then start the worker with the variables it prints.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import threading
import time
import wave
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np

from testing.suno_rules import find_violations
from testing.suno_scenarios import SCENARIOS, Record, Response, Scenario

TOKEN = "test-key-4c1d9a7be2"
SUBMISSIONS = ("/api/v1/generate", "/api/v1/generate/extend", "/api/v1/generate/upload-extend")
SAMPLE_RATE = 16_000
PRICE = 12


def make_tone(seconds: float, frequency_hz: float) -> bytes:
    """A stereo wav file."""
    t = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    samples = (0.3 * np.sin(2 * np.pi * frequency_hz * t) * 32767).astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((2, 2, SAMPLE_RATE, 0, "NONE", ""))
        writer.writeframes(np.repeat(samples, 2).tobytes())
    return file.getvalue()


@dataclass
class Task:
    """A submission that was accepted; `polls` counts the requests for its record."""

    id: str
    path: str
    body: Mapping[str, Any]
    polls: int = 0
    downloads: dict[int, int] = field(default_factory=dict)


class Provider:
    """The provider's state. Keeps every request; `violations` lists everything that breaks the API's rules.

    Args:
        scenario: how it responds.
        clock: gives the times in `submitted_at` and `requested_at`.
        seconds: the length of the first clip; the second is a second longer.
        balance: the account's credits.
    """

    def __init__(
        self,
        scenario: Scenario,
        *,
        clock: Callable[[], float] = time.monotonic,
        seconds: float = 2.0,
        balance: int = 100,
    ) -> None:
        self.scenario = scenario
        self.url = ""
        self.balance = balance
        self.violations: list[str] = []
        self.tasks: dict[str, Task] = {}
        self.posts: list[tuple[str, Any]] = []
        self.submitted_at: list[float] = []
        self.requested_at: list[float] = []
        self.uploaded: dict[str, bytes] = {}
        self.upload_sizes: dict[str, float] = {}
        self.calls: list[str] = []
        self.closing = threading.Event()
        self._clock = clock
        self._seconds = seconds
        self._lock = threading.Lock()
        self._scripts = {name: iter(getattr(scenario, name)) for name in ("submissions", "uploads", "credits")}
        self._numbers = itertools.count(1)

    def clear(self) -> None:
        """Discards every request so far."""
        for requests in (self.tasks, self.posts, self.submitted_at, self.requested_at, self.uploaded, self.calls):
            requests.clear()

    def get(self, path: str, query: Mapping[str, list[str]], headers: Message) -> Response:
        """The response to a GET."""
        if path.startswith("/files/"):
            return self._serve_file(path, headers)
        self.requested_at.append(self._clock())
        if (refusal := self._check_key(headers)) is not None:
            return refusal
        if path == "/api/v1/generate/record-info":
            return self._get_record(query.get("taskId", [""])[0])
        if path in ("/api/v1/generate/credit", "/api/v1/chat/credit"):
            return self._next_scripted("credits") or _ok(self.balance)
        self.violations.append(f"GET {path}")
        return Response(404, {"code": 404, "msg": "unknown endpoint", "data": None})

    def post(self, path: str, body: bytes, headers: Message) -> Response:
        """The response to a POST."""
        if path in SUBMISSIONS:
            with self._lock:
                self.submitted_at.append(self._clock())
                self.requested_at.append(self._clock())
                self.posts.append((path, _parse_json(body)))
        if (refusal := self._check_key(headers)) is not None:
            return refusal
        if path == "/api/file-stream-upload":
            fields = _parse_form(headers, body)
            file = fields.pop("file", b"")
            return self._accept_upload({name: value.decode() for name, value in fields.items()}, file)
        if path in SUBMISSIONS:
            return self._submit(path, _parse_json(body))
        self.violations.append(f"POST {path}")
        return Response(404, {"code": 404, "msg": "unknown endpoint", "data": None})

    def _check_key(self, headers: Message) -> Response | None:
        if headers.get("Authorization") == f"Bearer {TOKEN}":
            return None
        return Response(401, {"code": 401, "msg": f"bad key {headers.get('Authorization')}", "data": None})

    def _next_scripted(self, name: str) -> Response | None:
        with self._lock:
            return next(self._scripts[name], None)

    def _submit(self, path: str, body: Any) -> Response:
        violations = find_violations(path, body, self.upload_sizes)
        self.violations += violations
        if (scripted := self._next_scripted("submissions")) is not None:
            return scripted
        if violations:
            return Response(200, {"code": 400, "msg": "; ".join(violations), "data": None})
        with self._lock:
            if self.balance < PRICE:
                return Response(200, {"code": 429, "msg": "insufficient credits", "data": None})
            task = Task(f"task-{next(self._numbers):04d}", path, body)
            self.tasks[task.id] = task
            self.balance -= PRICE
        return _ok({"taskId": task.id})

    def _accept_upload(self, fields: Mapping[str, str], file: bytes) -> Response:
        name, path = fields.get("fileName", ""), fields.get("uploadPath", "")
        url = f"{self.url}/uploads/{path}/{name}"
        if not path or path != path.strip("/"):
            self.violations.append("uploadPath is missing or has slashes around it")
            return Response(400, {"success": False, "code": 400, "msg": "Missing required parameter: uploadPath"})
        if url in self.upload_sizes:
            self.violations.append("a file name was used twice")
        if (scripted := self._next_scripted("uploads")) is not None:
            return scripted
        with self._lock:
            self.uploaded[url] = file
            self.upload_sizes[url] = len(self.uploaded[url])
        data = {"fileName": name, "filePath": path, "downloadUrl": url, "fileSize": self.upload_sizes[url]}
        return Response(200, {"success": True, "code": 200, "msg": "File uploaded successfully", "data": data})

    def _get_record(self, task_id: str) -> Response:
        with self._lock:
            task = self.tasks.get(task_id)
            if task is None:
                return _ok(None)
            scripted = self.scenario.records[min(task.polls, len(self.scenario.records) - 1)]
            task.polls += 1
        return scripted if isinstance(scripted, Response) else _ok(self._build_record(task, scripted))

    def _build_record(self, task: Task, scripted: Record) -> dict[str, Any]:
        documented = scripted.shape == "documented"
        clips = [self._build_clip(task, index, documented=documented) for index in range(scripted.clips)]
        record: dict[str, Any] = {
            "taskId": task.id,
            "parentMusicId": "",
            "param": json.dumps(task.body),
            "status": scripted.status,
            "type": "GENERATE",
            "operationType": "upload_extend",
            "errorCode": scripted.error_code,
            "errorMessage": scripted.error_message,
            "response": None,
        }
        if clips and scripted.shape == "result_json":
            return record | {"resultJson": json.dumps({"data": clips})}
        if clips:
            record["response"] = {"taskId": task.id, "sunoData" if documented else "data": clips}
        return record

    def _build_clip(self, task: Task, index: int, *, documented: bool) -> dict[str, Any]:
        url = self.scenario.audio_url or f"{self.url}/files/{task.id}/{index}.wav"
        names = (
            ("audioUrl", "streamAudioUrl", "modelName")
            if documented
            else ("audio_url", "stream_audio_url", "model_name")
        )
        stream = url + "?stream=1" if self.scenario.stream_url else ""
        return {
            "id": f"audio-{task.id}-{index}",
            names[0]: url,
            names[1]: stream,
            "imageUrl": f"{self.url}/image.jpeg",
            "prompt": "[Verse]\nthe lyrics of the clip",
            names[2]: "chirp-auk",
            "title": task.body.get("title", "Extension"),
            "tags": task.body.get("style", "calm"),
            "createTime": self.scenario.create_time,
            "duration": self._seconds + index + self.scenario.duration_error_s,
        }

    def _serve_file(self, path: str, headers: Message) -> Response:
        if "Authorization" in headers:
            self.violations.append("the key was sent with a download")
        _, _, task_id, name = path.split("/")
        index = int(name.partition(".")[0])
        with self._lock:
            task = self.tasks[task_id]
            number = task.downloads.get(index, 0)
            task.downloads[index] = number + 1
        if number < len(self.scenario.files):
            return self.scenario.files[number]
        if self.scenario.file == "page":
            return Response(200, b"<html>moved</html>", "text/html")
        variant = 0 if self.scenario.file == "identical" else index
        return Response(200, make_tone(self._seconds + variant, 220.0 * (variant + 1)), "audio/wav")


def _ok(data: Any) -> Response:
    return Response(200, {"code": 200, "msg": "success", "data": data})


def _parse_json(body: bytes) -> Any:
    with contextlib.suppress(ValueError):
        return json.loads(body)
    return None


def _parse_form(headers: Message, body: bytes) -> dict[str, bytes]:
    """The fields of a multipart/form-data body."""
    head = f"Content-Type: {headers.get('Content-Type', '')}\r\n\r\n".encode()
    message = BytesParser(policy=HTTP).parsebytes(head + body)
    fields = {}
    for part in message.iter_parts() if message.is_multipart() else ():
        name = part.get_param("name", header="content-disposition")
        fields[str(name)] = bytes(part.get_payload(decode=True) or b"")
    return fields


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:  # noqa: N802  (the name is http.server's)
        parts = urlsplit(self.path)
        self._respond(self.server.provider.get(parts.path, parse_qs(parts.query), self.headers))

    def do_POST(self) -> None:  # noqa: N802  (the name is http.server's)
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self._respond(self.server.provider.post(urlsplit(self.path).path, body, self.headers))

    def _respond(self, response: Response) -> None:
        provider = self.server.provider
        provider.calls.append(f"{self.command} {urlsplit(self.path).path}")
        self.close_connection = True
        if response.delay_s and provider.closing.wait(response.delay_s):
            return
        body = response.content()
        if response.cut and not body:
            return
        self.send_response(response.status)
        for name, value in (*response.headers, ("Content-Type", response.content_type), ("Connection", "close")):
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) + (10 if response.cut else 0)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Logs nothing; `Provider.calls` lists the requests."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.provider = Provider(SCENARIOS["happy"])

    def install(self, provider: Provider) -> Provider:
        """Lets `provider` respond from now on."""
        self.provider.closing.set()
        provider.url = f"http://127.0.0.1:{self.server_port}"
        self.provider = provider
        return provider

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignored: clients that disconnect are part of the tests."""


@contextmanager
def start_server(port: int = 0) -> Iterator[Callable[[Provider], Provider]]:
    """A server on loopback; yields the function that installs a provider on it."""
    with _Server(port) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server.install
        finally:
            server.provider.closing.set()
            server.shutdown()
            thread.join()


@contextmanager
def serve_provider(provider: Provider, port: int = 0) -> Iterator[Provider]:
    """Serves `provider` at `provider.url` inside the `with`."""
    with start_server(port) as install:
        yield install(provider)


def main() -> None:
    """Serves one scenario until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenario", choices=sorted(SCENARIOS), default="happy")
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--seconds", type=float, default=20.0, help="length of the first clip")
    parser.add_argument("--list", action="store_true", help="list all scenarios and exit")
    arguments = parser.parse_args()
    if arguments.list:
        for name, scenario in SCENARIOS.items():
            print(f"{name:24} {scenario.about}")  # noqa: T201  (a command-line program)
        return
    provider = Provider(SCENARIOS[arguments.scenario], seconds=arguments.seconds)
    with serve_provider(provider, arguments.port), contextlib.suppress(KeyboardInterrupt):
        variables = {
            "SUNO_API_TOKEN": TOKEN,
            "SUNO_API_BASE_URL": provider.url,
            "SUNO_UPLOAD_BASE_URL": provider.url,
            "ALLOW_PRIVATE_URLS": "1",
        }
        print(" ".join(f"{name}={value}" for name, value in variables.items()), flush=True)
        printed = 0
        while True:
            time.sleep(0.5)
            for call in provider.calls[printed:]:
                print(call, flush=True)
            printed = len(provider.calls)
            while provider.violations:
                print("violation:", provider.violations.pop(0), flush=True)


if __name__ == "__main__":
    main()
