"""A local control plane as the SDK expects it: hands out jobs and records results, progress, cancels and pings.

Like the platform, it answers 204 if there is nothing within the poll interval, and 400 to a result over 10 MB. Faults
can be injected into every request.
"""

from __future__ import annotations

import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

POLL_S = 0.3
MAX_BODY_BYTES = 10_000_000
API_KEY = "platform-key-of-the-tests"


@dataclass(frozen=True)
class Event:
    """One request of the worker.

    `kind` is `take`, `stop`, `ping`, `progress`, `done`, `refused` (a result over 10 MB), or `lost done` or
    `lost progress` if a fault kept it from having its effect.
    """

    at: float
    kind: str
    job_id: str
    body: Any
    headers: Mapping[str, str]
    query: Mapping[str, list[str]]


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request.

    Args:
        delay_s: the response comes this much later.
        status: answered in place of the right response, with `body`; 0 = none.
        body: the wrong body.
        content_type: its type.
        cut: the connection is closed without a response.
        handled: the request has its effect all the same.
        change: changes the jobs that a take hands out.
    """

    delay_s: float = 0.0
    status: int = 0
    body: bytes = b""
    content_type: str = "application/json"
    cut: bool = False
    handled: bool = False
    change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] = lambda jobs: jobs


RIGHT = Fault(handled=True)
FindFault = Callable[[str, str, Any], Fault | None]
"""The fault for a request of a kind (as in `Event`), job id and body; None = it is answered rightly."""


@dataclass
class ControlPlane:
    """The endpoint's state; `start_control_plane()` starts one that listens."""

    url: str = ""
    find_fault: FindFault = lambda kind, job_id, body: None
    events: list[Event] = field(default_factory=list)
    _jobs: list[dict[str, Any]] = field(default_factory=list)
    _stops: list[str] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def environment(self) -> dict[str, str]:
        """What the platform sets in a worker's environment."""
        return {
            "RUNPOD_ENDPOINT_ID": "ep",
            "RUNPOD_POD_ID": "worker-1",
            "RUNPOD_AI_API_KEY": API_KEY,
            "RUNPOD_WEBHOOK_GET_JOB": f"{self.url}/v2/ep/job-take/$ID?gpu=none",
            "RUNPOD_WEBHOOK_POST_OUTPUT": f"{self.url}/v2/ep/job-done/$RUNPOD_POD_ID/$ID?gpu=none",
            "RUNPOD_WEBHOOK_POST_STREAM": f"{self.url}/v2/ep/job-stream/$RUNPOD_POD_ID/$ID?gpu=none",
            "RUNPOD_WEBHOOK_PING": f"{self.url}/v2/ep/ping/$RUNPOD_POD_ID",
            "RUNPOD_PING_INTERVAL": "1000",
            "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
            "RUNPOD_SKIP_GPU_CHECK": "true",
        }

    def submit(self, job_input: Any, *, job_id: str = "", **extra: Any) -> str:
        """Queues a job with this input and returns its id."""
        job_id = job_id or f"job-{next(self._numbers)}"
        with self._changed:
            self._jobs.append({"id": job_id, "input": job_input, **extra})
            self._changed.notify_all()
        return job_id

    def stop(self, job_id: str) -> None:
        """Tells the worker to cancel a job."""
        with self._changed:
            self._stops.append(job_id)
            self._changed.notify_all()

    def find_events(self, job_id: str, *kinds: str) -> list[Event]:
        """The events of these kinds about a job, in order."""
        with self._changed:
            return [event for event in self.events if event.job_id == job_id and event.kind in kinds]

    def wait(self, job_id: str, *kinds: str, timeout: float = 20.0) -> Event:
        """Waits for the first event of these kinds about a job."""
        with self._changed:
            found = self._changed.wait_for(lambda: self.find_events(job_id, *kinds), timeout)
        assert found, f"no {' or '.join(kinds)} for {job_id} within {timeout} s"
        return found[0]

    def result(self, job_id: str, *, timeout: float = 20.0) -> dict[str, Any]:
        """The body that was posted as the job's result."""
        body = self.wait(job_id, "done", timeout=timeout).body
        assert isinstance(body, dict)
        return body

    def record(self, event: Event) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def take(self, max_jobs: int) -> list[dict[str, Any]]:
        with self._changed:
            self._changed.wait_for(lambda: self._jobs, POLL_S)
            taken, self._jobs = self._jobs[:max_jobs], self._jobs[max_jobs:]
            return taken

    def take_stops(self) -> list[str]:
        with self._changed:
            self._changed.wait_for(lambda: self._stops, POLL_S)
            taken, self._stops = self._stops, []
            return taken


@contextmanager
def start_control_plane() -> Iterator[ControlPlane]:
    """Starts a control plane on a free local port."""
    plane = ControlPlane()

    class Handler(_Handler):
        control_plane = plane

    server = _Server(("127.0.0.1", 0), Handler)
    plane.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield plane
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores the broken connections of a worker that was killed."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    control_plane: ControlPlane

    def do_GET(self) -> None:  # noqa: N802
        action, query = self._parse_path()
        kind = {"job-take": "take", "job-take-batch": "take", "job-stop": "stop"}.get(action, "ping")
        fault = self._find_fault(kind, "", None)
        time.sleep(fault.delay_s)  # before jobs are taken: they are for a worker that still listens
        if not fault.handled:
            self._answer_to(fault)
        elif kind == "take":
            jobs = fault.change(self.control_plane.take(int(query.get("batch_size", ["1"])[0])))
            for job in jobs:
                self._record("take", job.get("id", ""), None)
            if not jobs:
                self._answer(204)
            else:
                self._answer(200, jobs if action == "job-take-batch" else jobs[0])
        elif kind == "stop":
            stops = self.control_plane.take_stops()
            for job_id in stops:
                self._record("stop", job_id, None)
            self._answer(200, {"jobsToStop": stops}) if stops else self._answer(204)
        else:
            self._record("ping", "", None)
            self._answer(200, {})

    def do_POST(self) -> None:  # noqa: N802
        content = self.rfile.read(int(self.headers["Content-Length"]))
        job_id = unquote(urlsplit(self.path).path.rpartition("/")[2])
        if len(content) > MAX_BODY_BYTES:
            self._record("refused", job_id, len(content))
            self._answer(400)
            return
        body = json.loads(content, parse_constant=_refuse_constant)
        kind = "progress" if isinstance(body, dict) and body.get("status") == "IN_PROGRESS" else "done"
        fault = self._find_fault(kind, job_id, body)
        self._record(kind if fault.handled else f"lost {kind}", job_id, body)
        time.sleep(fault.delay_s)
        self._answer_to(fault)

    def _find_fault(self, kind: str, job_id: str, body: Any) -> Fault:
        return self.control_plane.find_fault(kind, job_id, body) or RIGHT

    def _answer_to(self, fault: Fault) -> None:
        if fault.cut:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif fault.status == 0:
            self._answer(200, {})
        else:
            self._answer(fault.status, fault.body, fault.content_type)

    def _parse_path(self) -> tuple[str, dict[str, list[str]]]:
        address = urlsplit(self.path)
        return address.path.split("/")[3], parse_qs(address.query)

    def _record(self, kind: str, job_id: str, body: Any) -> None:
        query = parse_qs(urlsplit(self.path).query)
        self.control_plane.record(Event(time.monotonic(), kind, job_id, body, dict(self.headers), query))

    def _answer(self, status: int, body: Any = None, content_type: str = "application/json") -> None:
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        try:
            self.send_response(status)
            if status != 204:
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        except ConnectionError:  # the worker was killed in the meantime
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None: ...


def _refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")
