"""Temporary files, and the one error for a temporary folder that is full, missing or read-only."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from errors import DiskFullError

_DISK_RESERVE_BYTES = 256 << 20
_TRIAL_BYTES = 4096
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextmanager
def translate_disk_errors() -> Iterator[None]:
    """Turns the `OSError` of a temporary file into `DiskFullError`."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFullError(
                "The worker's temporary disk is full. Send shorter audio, request fewer stems or clips, or give the "
                "container more disk."
            ) from error
        reason = os.strerror(error.errno or errno.EIO)
        raise DiskFullError(
            f"The worker's temporary folder cannot be written ({reason}). Mount one that can be written at /tmp, or "
            "set TMPDIR to its path."
        ) from error


def require_disk_space(needed_bytes: int) -> None:
    """Raises `DiskFullError` if the temporary folder has less than `needed_bytes` and a reserve free."""
    with translate_disk_errors():
        free = shutil.disk_usage(tempfile.gettempdir()).free
    if needed_bytes + _DISK_RESERVE_BYTES > free:
        raise DiskFullError(
            f"This request needs {needed_bytes / 1e9:.1f} GB of temporary disk space and {free / 1e9:.1f} GB are free. "
            "Send shorter audio, request fewer stems or clips, or give the container more disk.",
            details={"needed_bytes": needed_bytes, "free_bytes": free},
        )


def require_temporary_folder() -> None:
    """Raises `DiskFullError` if not even a small temporary file can be written."""
    with translate_disk_errors():
        try_writing(Path(tempfile.gettempdir()))


def try_writing(folder: Path) -> None:
    """Writes a small file into `folder` and removes it. Raises `OSError` if that fails."""
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        if file.write(bytes(_TRIAL_BYTES)) < _TRIAL_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class SpooledFile(tempfile.SpooledTemporaryFile[bytes]):
    """A binary file in memory, which moves to a temporary file as soon as it exceeds `max_size` bytes.

    A write that finds the disk full raises `DiskFullError`; the base class would raise `OSError`, and often only when
    the file is read or closed.
    """

    def write(self, data: bytes) -> int:  # type: ignore[override]
        with translate_disk_errors():
            count = super().write(data)
            self.flush()
        return count

    def rollover(self) -> None:
        with translate_disk_errors():
            super().rollover()
            self.flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        with suppress(OSError):  # from data that could not be written before; that write has raised already
            super().close()
