"""Files that appear when they are complete: a part file beside the final one, resumed downloads, free names."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO, NoReturn

from music_worker.errors import ChecksumError, DiskFullError, DownloadError, LinkExpiredError, OutputError
from music_worker.exchange import Fetch, Flow, NoResponseError, NotSentError, Pause, Response

MAX_FAILURES = 5
FIRST_DELAY_S = 0.5
MAX_NAME = 120
LINK_GONE = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.GONE})
O_BINARY = getattr(os, "O_BINARY", 0)
DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def choose_name(path: str | Path | None, filename: str) -> Path:
    """The path to write: `path`, or `filename` in it if it is a folder. Nothing of `filename` but its name counts."""
    if path is None:
        return Path(clean_name(filename))
    target = Path(path).expanduser()
    return target / clean_name(filename) if str(path).endswith(("/", os.sep)) or target.is_dir() else target


def clean_name(filename: str) -> str:
    """`filename` as a plain file name that every system takes."""
    name = re.sub(r'[\x00-\x1f<>:"/\\|?*\x7f]', "_", filename.replace("\\", "/").rsplit("/", 1)[-1]).strip(" .")
    stem, dot, suffix = name.rpartition(".")
    return f"{stem[:MAX_NAME]}{dot}{suffix[:16]}" if stem else name[:MAX_NAME] or "result"


class PartialFile:
    """A file that gets its final name when it is complete; an existing one is kept, and the new one gets a number.

    Args:
        path: the final path, if it is free.
        overwrite: replace a file that exists.
        size: bytes that will be written, to refuse early what does not fit on the disk; None if unknown.
        mode: permissions from the first byte on, less the user's umask.
    """

    def __init__(self, path: Path, *, overwrite: bool = False, size: int | None = None, mode: int = 0o666) -> None:
        self._path = path
        self._mode = mode
        self._overwrite = overwrite
        self._size = size
        self._part: Path | None = None
        self._file: BinaryIO | None = None

    def write(self, content: bytes) -> Path:
        """Writes the whole content and returns the final path."""
        with self:
            self.append(content)
            return self.finish()

    def __enter__(self) -> PartialFile:
        folder = self._path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if self._size is not None and (free := shutil.disk_usage(folder).free) < self._size:
                raise DiskFullError(
                    f"{self._path.name} needs {self._size / 1e6:.1f} MB, and {folder} has {free / 1e6:.1f} MB left. "
                    "Free space there, or choose another folder.",
                    details={"needed": self._size, "free": free},
                )
            part = folder / f".{self._path.name[:40]}.{secrets.token_hex(6)}.part"
            self._file = os.fdopen(os.open(part, os.O_CREAT | os.O_EXCL | os.O_RDWR | O_BINARY, self._mode), "wb")
        except OSError as error:
            raise_output_error(error, self._path)
        self._part = part
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            with suppress(OSError):  # a full disk was reported when it was written to
                self._file.close()
        if self._part is not None:
            self._part.unlink(missing_ok=True)
        self._part = self._file = None

    def append(self, chunk: bytes) -> None:
        assert self._file is not None, "append is called inside of the block"
        try:
            self._file.write(chunk)
        except OSError as error:
            raise_output_error(error, self._path)

    def restart(self) -> None:
        """Drops what has been written."""
        assert self._file is not None, "restart is called inside of the block"
        self._file.seek(0)
        self._file.truncate()

    def finish(self) -> Path:
        """Gives the file its name, which is returned. It is on the disk by then."""
        assert self._file is not None and self._part is not None, "finish is called inside of the block"
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            path = self._rename(self._part)
        except OSError as error:
            raise_output_error(error, self._path)
        self._part = self._file = None
        return path

    def _rename(self, part: Path) -> Path:
        if self._overwrite:
            os.replace(part, self._path)
            return self._path
        path, number = self._path, 1
        while True:
            try:
                os.link(part, path)  # fails if the name is taken, also by another process in this moment
            except FileExistsError:
                number += 1
                path = self._path.with_name(f"{self._path.stem}-{number}{self._path.suffix}")
                continue
            except OSError:  # a file system without hard links
                if path.exists():
                    number += 1
                    path = self._path.with_name(f"{self._path.stem}-{number}{self._path.suffix}")
                    continue
                os.replace(part, path)
                return path
            part.unlink()
            return path


def raise_output_error(error: OSError, path: Path) -> NoReturn:
    """Raises what a failed write to `path` means."""
    if error.errno in DISK_FULL:
        raise DiskFullError(
            f"The disk is full: {path} was not written. Free space, or choose another folder.",
            details={"path": str(path)},
        ) from None
    raise OutputError(f"{path} cannot be written: {error.strerror or error}.", details={"path": str(path)}) from None


def fetch_to_file(url: str, part: PartialFile, *, size: int | None, sha256: str | None) -> Flow[Path]:
    """Downloads `url` and returns the path of the complete file; an interrupted download is resumed."""
    with part:
        yield from _fetch(url, part.append, part.restart, size=size, sha256=sha256)
        return part.finish()


def fetch_bytes(url: str, *, size: int | None, sha256: str | None) -> Flow[bytes]:
    """Downloads `url` into memory; an interrupted download is resumed."""
    content = bytearray()
    yield from _fetch(url, content.extend, content.clear, size=size, sha256=sha256)
    return bytes(content)


class _Download:
    """How much of a file has arrived, and from which version of it.

    Args:
        has_checksum: whether a mixture of two versions would be noticed at the end.
    """

    def __init__(self, append: Callable[[bytes], None], restart: Callable[[], None], *, has_checksum: bool) -> None:
        self._has_checksum = has_checksum
        self._append = append
        self._restart = restart
        self.received = 0
        self.total: int | None = None
        self._etag: str | None = None
        self.digest = hashlib.sha256()

    @property
    def range_headers(self) -> dict[str, str]:
        """Asks for the rest, if it is of the same version; with neither a version nor a checksum, for the whole."""
        if self.received == 0 or not (self._etag or self._has_checksum):
            return {}
        headers = {"Range": f"bytes={self.received}-"}
        return headers | ({"If-Range": self._etag} if self._etag else {})

    def begin(self, response: Response) -> Callable[[bytes], None] | None:
        """Takes the response's head; the body is wanted if it is the file, or the rest of it."""
        length = response.headers.get("content-length", "")
        if response.status == HTTPStatus.PARTIAL_CONTENT:
            start, total = _parse_range(response.headers.get("content-range", ""))
            if start != self.received:
                self.restart()
                return None
            self.total = total
            return self._take
        if response.status != HTTPStatus.OK:
            return None
        self.restart()
        self.total = int(length) if length.isdecimal() else None
        etag = response.headers.get("etag", "")
        self._etag = etag if etag.startswith('"') else None  # a weak one does not promise equal bytes
        return self._take

    def _take(self, chunk: bytes) -> None:
        self._append(chunk)
        self.digest.update(chunk)
        self.received += len(chunk)

    def restart(self) -> None:
        if self.received:
            self._restart()
        self.received, self.total, self.digest = 0, None, hashlib.sha256()


def _fetch(
    url: str, append: Callable[[bytes], None], restart: Callable[[], None], *, size: int | None, sha256: str | None
) -> Flow[None]:
    download, failures, checked = _Download(append, restart, has_checksum=sha256 is not None), 0, 0
    while True:
        before, status, fault = download.received, 0, "the connection broke off"
        try:
            response = yield Fetch(url=url, begin=download.begin, headers=download.range_headers)
            status = response.status
        except NotSentError as error:
            fault = str(error)
        except NoResponseError as error:
            fault = str(error)
        expected = size if size is not None else download.total
        if status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT) and download.received == (
            expected if expected is not None else download.received
        ):
            if download.received and (sha256 is None or download.digest.hexdigest() == sha256):
                return
            checked += 1
            if checked > 1:
                raise ChecksumError("The download is complete, but not what the worker made. Fetch the result again.")
            download.restart()
            continue
        if status in LINK_GONE:
            raise LinkExpiredError(
                f"The link to the result is no longer valid (HTTP status {status}). Run the job again, or fetch the "
                "file from the bucket.",
                details={"status": status},
            )
        if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or (
            expected is not None and download.received > expected
        ):
            download.restart()
        elif (
            status
            and HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.INTERNAL_SERVER_ERROR
            and (status != HTTPStatus.TOO_MANY_REQUESTS)
        ):
            raise DownloadError(f"The result cannot be downloaded (HTTP status {status}).", details={"status": status})
        failures = 1 if download.received > before else failures + 1
        if failures > MAX_FAILURES:
            reason = f"HTTP status {status}" if status >= HTTPStatus.MULTIPLE_CHOICES else fault
            raise DownloadError(
                f"The download stopped after {download.received} bytes ({reason}). Nothing was kept. Try again."
            )
        yield Pause(min(FIRST_DELAY_S * 2.0 ** (failures - 1), 10.0))


def _parse_range(header: str) -> tuple[int, int | None]:
    """First byte and total size in `bytes 100-199/200`; (-1, None) if the header is something else."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", header.strip())
    if match is None:
        return -1, None
    return int(match[1]), None if match[2] == "*" else int(match[2])
