"""A Suno provider for tests, over real HTTP on loopback: keeps the sunoapi.org contract and checks what it is sent.

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

from testing.suno_rules import complaints
from testing.suno_scenarios import SCENARIOS, Look, Say, Scenario

TOKEN = "test-key-4c1d9a7be2"
SUBMISSIONS = ("/api/v1/generate", "/api/v1/generate/extend", "/api/v1/generate/upload-extend")
SAMPLE_RATE = 16_000
PRICE = 12


def tone(seconds: float, frequency_hz: float) -> bytes:
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
    """A submission that was taken."""

    id: str
    path: str
    body: Mapping[str, Any]
    looks: int = 0
    downloads: dict[int, int] = field(default_factory=dict)


class Provider:
    """The provider's state. Counts and keeps what it is sent; `complaints` lists all that breaks its contract.

    Args:
        scenario: what it does.
        clock: by which it notes when submissions come.
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
        self.complaints: list[str] = []
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
        self._scripts = {name: iter(getattr(scenario, name)) for name in ("submits", "uploads", "credits")}
        self._numbers = itertools.count(1)

    def forget(self) -> None:
        """Drops what it was sent."""
        for kept in (self.tasks, self.posts, self.submitted_at, self.requested_at, self.uploaded, self.calls):
            kept.clear()

    def get(self, path: str, query: Mapping[str, list[str]], headers: Message) -> Say:
        """Answers a GET."""
        if path.startswith("/files/"):
            return self._file(path, headers)
        self.requested_at.append(self._clock())
        if (refusal := self._refused(headers)) is not None:
            return refusal
        if path == "/api/v1/generate/record-info":
            return self._record(query.get("taskId", [""])[0])
        if path in ("/api/v1/generate/credit", "/api/v1/chat/credit"):
            return self._scripted("credits") or _ok(self.balance)
        self.complaints.append(f"GET {path}")
        return Say(404, {"code": 404, "msg": "unknown endpoint", "data": None})

    def post(self, path: str, body: bytes, headers: Message) -> Say:
        """Answers a POST."""
        if path in SUBMISSIONS:
            with self._lock:
                self.submitted_at.append(self._clock())
                self.requested_at.append(self._clock())
                self.posts.append((path, _json(body)))
        if (refusal := self._refused(headers)) is not None:
            return refusal
        if path == "/api/file-stream-upload":
            fields = _form(headers, body)
            file = fields.pop("file", b"")
            return self.take_upload({name: value.decode() for name, value in fields.items()}, file)
        if path in SUBMISSIONS:
            return self._submit(path, _json(body))
        self.complaints.append(f"POST {path}")
        return Say(404, {"code": 404, "msg": "unknown endpoint", "data": None})

    def _refused(self, headers: Message) -> Say | None:
        if headers.get("Authorization") == f"Bearer {TOKEN}":
            return None
        return Say(401, {"code": 401, "msg": f"bad key {headers.get('Authorization')}", "data": None})

    def _scripted(self, name: str) -> Say | None:
        with self._lock:
            return next(self._scripts[name], None)

    def _submit(self, path: str, body: Any) -> Say:
        found = complaints(path, body, self.upload_sizes)
        self.complaints += found
        if (said := self._scripted("submits")) is not None:
            return said
        if found:
            return Say(200, {"code": 400, "msg": "; ".join(found), "data": None})
        with self._lock:
            if self.balance < PRICE:
                return Say(200, {"code": 429, "msg": "insufficient credits", "data": None})
            task = Task(f"task-{next(self._numbers):04d}", path, body)
            self.tasks[task.id] = task
            self.balance -= PRICE
        return _ok({"taskId": task.id})

    def take_upload(self, fields: Mapping[str, str], file: bytes) -> Say:
        """Answers an upload."""
        name, path = fields.get("fileName", ""), fields.get("uploadPath", "")
        url = f"{self.url}/uploads/{path}/{name}"
        if not path or path != path.strip("/"):
            self.complaints.append("uploadPath is missing or has slashes around it")
            return Say(400, {"success": False, "code": 400, "msg": "Missing required parameter: uploadPath"})
        if url in self.upload_sizes:
            self.complaints.append("a file name was used twice")
        if (said := self._scripted("uploads")) is not None:
            return said
        with self._lock:
            self.uploaded[url] = file
            self.upload_sizes[url] = len(self.uploaded[url])
        data = {"fileName": name, "filePath": path, "downloadUrl": url, "fileSize": self.upload_sizes[url]}
        return Say(200, {"success": True, "code": 200, "msg": "File uploaded successfully", "data": data})

    def _record(self, task_id: str) -> Say:
        with self._lock:
            task = self.tasks.get(task_id)
            if task is None:
                return _ok(None)
            look = self.scenario.looks[min(task.looks, len(self.scenario.looks) - 1)]
            task.looks += 1
        return look if isinstance(look, Say) else _ok(self._told(task, look))

    def _told(self, task: Task, look: Look) -> dict[str, Any]:
        takes = [self._take(task, index, documented=look.shape == "documented") for index in range(look.takes)]
        told: dict[str, Any] = {
            "taskId": task.id,
            "parentMusicId": "",
            "param": json.dumps(task.body),
            "status": look.status,
            "type": "GENERATE",
            "operationType": "upload_extend",
            "errorCode": look.error_code,
            "errorMessage": look.error_message,
            "response": None,
        }
        if takes and look.shape == "result_json":
            return told | {"resultJson": json.dumps({"data": takes})}
        if takes:
            told["response"] = {"taskId": task.id, "sunoData" if look.shape == "documented" else "data": takes}
        return told

    def _take(self, task: Task, index: int, *, documented: bool) -> dict[str, Any]:
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
            "prompt": "[Verse]\nlines that were sung",
            names[2]: "chirp-auk",
            "title": task.body.get("title", "Extension"),
            "tags": task.body.get("style", "calm"),
            "createTime": self.scenario.create_time,
            "duration": self._seconds + index + self.scenario.duration_error_s,
        }

    def _file(self, path: str, headers: Message) -> Say:
        if "Authorization" in headers:
            self.complaints.append("the key was sent with a download")
        _, _, task_id, name = path.split("/")
        index = int(name.partition(".")[0])
        with self._lock:
            task = self.tasks[task_id]
            number = task.downloads.get(index, 0)
            task.downloads[index] = number + 1
        if number < len(self.scenario.files):
            return self.scenario.files[number]
        if self.scenario.file == "page":
            return Say(200, b"<html>moved</html>", "text/html")
        which = 0 if self.scenario.file == "identical" else index
        return Say(200, tone(self._seconds + which, 220.0 * (which + 1)), "audio/wav")


def _ok(data: Any) -> Say:
    return Say(200, {"code": 200, "msg": "success", "data": data})


def _json(body: bytes) -> Any:
    with contextlib.suppress(ValueError):
        return json.loads(body)
    return None


def _form(headers: Message, body: bytes) -> dict[str, bytes]:
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

    def do_GET(self) -> None:  # noqa: N802  (the library's name)
        parts = urlsplit(self.path)
        self._answer(self.server.provider.get(parts.path, parse_qs(parts.query), self.headers))

    def do_POST(self) -> None:  # noqa: N802  (the library's name)
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self._answer(self.server.provider.post(urlsplit(self.path).path, body, self.headers))

    def _answer(self, said: Say) -> None:
        provider = self.server.provider
        provider.calls.append(f"{self.command} {urlsplit(self.path).path}")
        self.close_connection = True
        if said.delay_s and provider.closing.wait(said.delay_s):
            return
        body = said.content()
        if said.cut and not body:
            return
        self.send_response(said.status)
        for name, value in (*said.headers, ("Content-Type", said.content_type), ("Connection", "close")):
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) + (10 if said.cut else 0)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Silent; `Provider.calls` tells."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.provider = Provider(SCENARIOS["happy"])

    def play(self, provider: Provider) -> Provider:
        """From now on it is `provider` that answers."""
        self.provider.closing.set()
        provider.url = f"http://127.0.0.1:{self.server_port}"
        self.provider = provider
        return provider

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is part of the tests."""


@contextmanager
def listening(port: int = 0) -> Iterator[Callable[[Provider], Provider]]:
    """A server on loopback; gives the function that puts a provider on it."""
    with _Server(port) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server.play
        finally:
            server.provider.closing.set()
            server.shutdown()
            thread.join()


@contextmanager
def serving(provider: Provider, port: int = 0) -> Iterator[Provider]:
    """Serves `provider` at `provider.url` meanwhile."""
    with listening(port) as play:
        yield play(provider)


def main() -> None:
    """Serves one scenario until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenario", choices=sorted(SCENARIOS), default="happy")
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--seconds", type=float, default=20.0, help="length of the takes")
    parser.add_argument("--list", action="store_true", help="name all scenarios and end")
    arguments = parser.parse_args()
    if arguments.list:
        for name, scenario in SCENARIOS.items():
            print(f"{name:24} {scenario.about}")  # noqa: T201  (a program for people)
        return
    provider = Provider(SCENARIOS[arguments.scenario], seconds=arguments.seconds)
    with serving(provider, arguments.port), contextlib.suppress(KeyboardInterrupt):
        variables = {
            "SUNO_API_TOKEN": TOKEN,
            "SUNO_API_BASE_URL": provider.url,
            "SUNO_UPLOAD_BASE_URL": provider.url,
            "ALLOW_PRIVATE_URLS": "1",
        }
        print(" ".join(f"{name}={value}" for name, value in variables.items()), flush=True)
        seen = 0
        while True:
            time.sleep(0.5)
            for call in provider.calls[seen:]:
                print(call, flush=True)
            seen = len(provider.calls)
            while provider.complaints:
                print("complaint:", provider.complaints.pop(0), flush=True)


if __name__ == "__main__":
    main()
