"""A client of RunPod's local API."""

from __future__ import annotations

import http.client
import json
import socket
import time
from dataclasses import dataclass
from typing import Any

from testing.processes import Worker

JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Api:
    """A running local API and the worker behind it."""

    port: int
    worker: Worker

    def call(self, method: str, path: str, body: str | bytes = b"", headers: Any = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body.encode() if isinstance(body, str) else body, headers or JSON)
            response = connection.getresponse()
            content = response.read()
            return response.status, json.loads(content) if content.startswith((b"{", b"[")) else content
        finally:
            connection.close()

    def runsync(self, **job_input: Any) -> Any:
        status, reply = self.call("POST", "/runsync", json.dumps({"input": job_input}))
        assert status == 200
        return reply


def find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_ready(api: Api) -> None:
    for _ in range(300):
        try:
            api.call("GET", "/docs")
            return
        except OSError:
            assert api.worker.process.poll() is None, api.worker.read_output()
            time.sleep(0.1)
    raise AssertionError("the API did not start within 30 s")
