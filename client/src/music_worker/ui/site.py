"""What the requests of the page share: the token of the run, the files of the page, uploads, jobs, the connection."""

from __future__ import annotations

import functools
import secrets
import threading
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

from music_worker.schema import load_schemas
from music_worker.transport import RUNPOD_URL
from music_worker.ui.connection import Connection
from music_worker.ui.files import FileStore
from music_worker.ui.jobs import JobTable, PageClient

TYPES = MappingProxyType(
    {
        ".html": "text/html; charset=utf-8",
        ".css": "text/css; charset=utf-8",
        ".js": "text/javascript; charset=utf-8",
        ".svg": "image/svg+xml",
    }
)


class Site:
    """What the requests of the page share."""

    def __init__(
        self, *, host: str, client: PageClient, files: FileStore, jobs: JobTable, connection: Connection
    ) -> None:
        self.host = host
        self.token = secrets.token_urlsafe(24)
        self.files = files
        self.jobs = jobs
        self.connection = connection
        self.assets = _load_assets()
        self._client = client
        self._run = secrets.token_hex(8)
        self._start_codes: set[str] = set()
        self._lock = threading.Lock()

    def make_start_code(self) -> str:
        code = secrets.token_urlsafe(24)
        with self._lock:
            self._start_codes.add(code)
        return code

    def use_start_code(self, code: str) -> bool:
        """Whether the code is valid; it is not afterwards."""
        with self._lock:
            is_valid = code in self._start_codes
            self._start_codes.discard(code)
        return is_valid

    def describe(self) -> dict[str, Any]:
        """What the page shows before the worker has answered."""
        is_runpod = self._client.url.startswith(RUNPOD_URL)
        return {
            "run": self._run,
            "endpoint": self._client.url,
            "request_url": f"{self._client.url}/{'run' if is_runpod else 'runsync'}",
            "needs_key": is_runpod,
            "schemas": dict(load_schemas().operations),
            "max_file_bytes": self.files.limits.file_bytes,
        }


@functools.cache
def _load_assets() -> dict[str, tuple[str, bytes]]:
    """Type and content of each file of the page, by its name."""
    folder = resources.files("music_worker").joinpath("ui/static")
    files = {item.name: item for item in folder.iterdir() if Path(item.name).suffix in TYPES}
    return {name: (TYPES[Path(name).suffix], item.read_bytes()) for name, item in files.items()}
