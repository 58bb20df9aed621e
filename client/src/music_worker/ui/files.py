"""The files of one run of the page: uploads and results, in a temporary folder. Their names are made here."""

from __future__ import annotations

import mimetypes
import secrets
import shutil
import threading
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO

from music_worker.downloads import clean_name
from music_worker.errors import MusicWorkerError

CHUNK_BYTES = 1 << 18
DISK_RESERVE_BYTES = 200_000_000
# Types that differ between systems, or that browsers know by another name.
MEDIA_TYPES = {
    "wav": "audio/wav",
    "flac": "audio/flac",
    "mp3": "audio/mpeg",
    "ogg": "audio/ogg",
    "opus": "audio/ogg",
    "m4a": "audio/mp4",
    "png": "image/png",
}


class PageError(MusicWorkerError):
    """A request of the page that its server refuses; `status` is the HTTP status of the answer."""

    code = "page_request"

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that the page may upload, in bytes: one file, all files of a run."""

    file_bytes: int = 2_000_000_000
    total_bytes: int = 8_000_000_000


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of the run. `name` is for people; `path` has nothing of it."""

    id: str
    name: str
    path: Path
    size: int
    media_type: str = "application/octet-stream"
    is_result: bool = False


class FileStore:
    """Keeps files in `folder` under names of its own. It can be used from several threads."""

    def __init__(self, folder: Path, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._folder = folder
        self._files: dict[str, StoredFile] = {}
        self._uploaded_bytes = 0
        self._lock = threading.Lock()

    def upload(self, name: str, stream: BinaryIO, size: int) -> StoredFile:
        """Reads `size` bytes of `stream` into a file of the run.

        Raises:
            PageError: the file is empty, too large, or broke off.
        """
        self._reserve(size)
        file_id, path = self.make_path()
        try:
            with path.open("xb") as file:
                left = size
                while left:
                    if not (chunk := stream.read(min(left, CHUNK_BYTES))):
                        raise PageError(HTTPStatus.BAD_REQUEST, "The upload broke off. Choose the file again.")
                    file.write(chunk)
                    left -= len(chunk)
        except BaseException:
            path.unlink(missing_ok=True)
            with self._lock:
                self._uploaded_bytes -= size
            raise
        return self._add(StoredFile(file_id, clean_name(name), path, size))

    def make_path(self) -> tuple[str, Path]:
        """A new id, and the path of the file that will have it."""
        file_id = secrets.token_hex(16)
        return file_id, self._folder / file_id

    def add_result(self, file_id: str, path: Path, *, name: str, form: str) -> StoredFile:
        """Takes in a file that was written to the path of `make_path`."""
        media_type = MEDIA_TYPES.get(form) or mimetypes.guess_type(f"file.{form}")[0] or "application/octet-stream"
        stored = StoredFile(file_id, clean_name(name), path, path.stat().st_size, media_type, is_result=True)
        return self._add(stored)

    def get(self, file_id: str) -> StoredFile:
        """The file with that id; refused if there is none."""
        with self._lock:
            stored = self._files.get(file_id)
        if stored is None:
            raise PageError(HTTPStatus.NOT_FOUND, "This file is not kept any more. Choose it again.")
        return stored

    def remove(self, file_id: str) -> None:
        """Deletes the file, if there is one."""
        with self._lock:
            stored = self._files.pop(file_id, None)
            if stored is not None and not stored.is_result:
                self._uploaded_bytes -= stored.size
        if stored is not None:
            stored.path.unlink(missing_ok=True)

    def _add(self, stored: StoredFile) -> StoredFile:
        with self._lock:
            self._files[stored.id] = stored
        return stored

    def _reserve(self, size: int) -> None:
        if size <= 0:
            raise PageError(HTTPStatus.BAD_REQUEST, "The file is empty. Choose another file.")
        if size > self.limits.file_bytes:
            raise PageError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"The file has {size / 1e6:.0f} MB, and {self.limits.file_bytes / 1e6:.0f} MB are allowed. Send a "
                "compressed file (flac, mp3, opus), or name a URL or a path on the worker's volume.",
            )
        if shutil.disk_usage(self._folder).free < size + DISK_RESERVE_BYTES:
            raise PageError(
                HTTPStatus.INSUFFICIENT_STORAGE,
                "The disk of the temporary folder is full. Free space there and choose the file again.",
            )
        with self._lock:
            if self._uploaded_bytes + size > self.limits.total_bytes:
                raise PageError(
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                    f"The uploads of this run would exceed {self.limits.total_bytes / 1e6:.0f} MB. Start "
                    "`music-worker ui` again; the history stays in the browser.",
                )
            self._uploaded_bytes += size
