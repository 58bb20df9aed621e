"""Requests to the server of the page as a browser makes them, or as nobody should."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from music_worker.ui_server import PageServer


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def call(
    server: PageServer,
    path: str,
    *,
    method: str = "GET",
    body: bytes | None = None,
    headers: Mapping[str, str | None] | None = None,
) -> Answer:
    """A request to `path` below the page, or to a path of the whole server if it begins with `/`.

    Requests that change something have the page's own origin. A header that is None is left out.
    """
    address = urlsplit(server.url)
    ours = {"Origin": f"http://{address.netloc}"} if method not in ("GET", "HEAD") else {}
    sent = {name: value for name, value in {**ours, **(headers or {})}.items() if value is not None}
    connection = http.client.HTTPConnection(address.netloc, timeout=10)
    try:
        target = path if path.startswith("/") else address.path + path
        connection.request(method, target, body=body, headers=sent)
        response = connection.getresponse()
        return Answer(response.status, dict(response.getheaders()), response.read())
    finally:
        connection.close()


def post(server: PageServer, path: str, value: Any) -> Answer:
    return call(
        server, path, method="POST", body=json.dumps(value).encode(), headers={"Content-Type": "application/json"}
    )


def upload(server: PageServer, content: bytes, name: str = "song.wav") -> Answer:
    return call(server, f"api/files?name={name}", method="POST", body=content)


def wait_for_state(server: PageServer, job_id: str, *states: str) -> dict[str, Any]:
    """The job's description once it is in one of `states`."""
    for _ in range(500):
        job: dict[str, Any] = call(server, f"api/jobs/{job_id}").json()
        if job["state"] in states:
            return job
        time.sleep(0.02)
    raise AssertionError(f"The job is {job['state']}, not {' or '.join(states)}.")


def run(server: PageServer, operation: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Submits a job and waits for its end."""
    job = post(server, "api/jobs", {"operation": operation, "params": params}).json()
    return wait_for_state(server, job["id"], "done", "failed", "cancelled")
