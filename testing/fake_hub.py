"""A server on loopback that speaks the Hugging Face hub's API, for the hub's real client.

It answers `/api/models/<id>/revision/<revision>` (commit, files and sizes) and `/<id>/resolve/<commit>/<file>` with the
hub's headers and error codes. Tests set what is slow, cut, refused or wrong. `FolderHub` stands for the client itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from models.runtime.progress import UNATTENDED, Observer
from testing.loopback import Request, Write, serve

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass(frozen=True)
class Refusal:
    """An error response as the hub gives it.

    Args:
        status: `404 Not Found`.
        code: the header `X-Error-Code`, by which the client tells errors apart.
    """

    status: str
    code: str = ""


@dataclass
class FakeHub:
    """One repository under every id.

    Args:
        files: by name.
        refusal: of every request; None: none.
        failures: how many requests for files fail with status 500 before the first succeeds.
        announced: sizes that the list of files gives in place of the real ones.
        chunk_bytes, pause_s: files are sent in chunks of that size with that pause before each.
        cuts: how many of the next connections end in the middle of a file.
        drops: how many of the next requests get no answer: the connection is closed.
        go_on: files are sent only as long as this is set.
    """

    files: dict[str, bytes]
    commit: str = COMMIT
    refusal: Refusal | None = None
    failures: int = 0
    announced: dict[str, int] = field(default_factory=dict)
    chunk_bytes: int = 1 << 20
    pause_s: float = 0.0
    cuts: int = 0
    drops: int = 0
    go_on: threading.Event = field(default_factory=threading.Event)
    endpoint: str = ""
    asked: list[str] = field(default_factory=list)  # the paths of all requests, in order
    sent: list[str] = field(default_factory=list)  # the files whose content was requested, in order

    def respond(self, request: Request, write: Write) -> None:
        method, path = request.line.split(" ")[:2]
        path = path.partition("?")[0]
        self.asked.append(path)
        if self.drops > 0:
            self.drops -= 1
        elif self.refusal is not None:
            write_head(write, self.refusal.status, {"X-Error-Code": self.refusal.code})
        elif path.startswith("/api/models/"):
            self._list_files(path, write)
        else:
            name = unquote(path.partition(f"/resolve/{self.commit}/")[2])
            self._send(method, name, request.headers.get("range", "bytes=0-"), write)

    def _list_files(self, path: str, write: Write) -> None:
        hub_id, _, revision = path.removeprefix("/api/models/").partition("/revision/")
        if revision not in ("main", self.commit):
            write_head(write, "404 Not Found", {"X-Error-Code": "RevisionNotFound"})
            return
        sizes = {name: self.announced.get(name, len(content)) for name, content in self.files.items()}
        siblings = [{"rfilename": name, "size": size} for name, size in sizes.items()]
        body = json.dumps({"id": hub_id, "sha": self.commit, "siblings": siblings}).encode()
        write_head(write, "200 OK", {"Content-Type": "application/json"}, size=len(body))
        write(body)

    def _send(self, method: str, name: str, requested_range: str, write: Write) -> None:
        if name not in self.files:
            write_head(write, "404 Not Found", {"X-Error-Code": "EntryNotFound"})
            return
        content = self.files[name]
        if method == "GET" and self.failures > 0:
            self.failures -= 1
            write_head(write, "500 Internal Server Error", {})
            return
        start = int(requested_range.removeprefix("bytes=").partition("-")[0])
        size = self.announced.get(name, len(content)) if method == "HEAD" else len(content) - start
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": self.commit}
        write_head(write, "206 Partial Content" if start else "200 OK", headers, size=size)
        if method == "GET":
            self.sent.append(name)
            self._send_body(content, start, write)

    def _send_body(self, content: bytes, start: int, write: Write) -> None:
        end = len(content)
        if self.cuts > 0:
            self.cuts -= 1
            end = (start + end) // 2
        for first in range(start, end, self.chunk_bytes):
            self.go_on.wait()
            time.sleep(self.pause_s)
            write(content[first : min(first + self.chunk_bytes, end)])


def write_head(write: Write, status: str, headers: Mapping[str, str], *, size: int = 0) -> None:
    """Writes the status line and the headers that have a value; the server closes each connection afterwards."""
    given = {"Connection": "close", "Content-Length": str(size), **headers}
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in given.items() if value)]
    write(("\r\n".join(lines) + "\r\n\r\n").encode())


@contextlib.contextmanager
def start_fake_hub(files: dict[str, bytes]) -> Iterator[FakeHub]:
    """Runs a hub until the block ends."""
    hub = FakeHub(files)
    hub.go_on.set()
    with serve(hub.respond) as server:
        hub.endpoint = server.url("")
        yield hub


@dataclass
class FolderHub:
    """A hub whose repositories are folders; fetching copies them into a hub cache."""

    repositories: dict[str, Path]
    cache: Path
    fetched: list[str] = field(default_factory=list)

    def fetch(self, hub_id: str, patterns: Sequence[str], observer: Observer = UNATTENDED) -> Path:
        self.fetched.append(hub_id)
        return into_cache(self.repositories[hub_id], self.cache, hub_id)


def into_cache(folder: Path, cache: Path, hub_id: str, revision: str = "0123abcd" * 5) -> Path:
    """`folder` as the hub's client would have cached it."""
    repository = cache / f"models--{hub_id.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True, exist_ok=True)
    (repository / "refs" / "main").write_text(revision)
    return Path(shutil.copytree(folder, repository / "snapshots" / revision, dirs_exist_ok=True))
