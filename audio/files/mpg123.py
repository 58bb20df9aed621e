"""Turns what libmpg123 writes to standard error into records of the log: the platform's log takes JSON lines.

libsndfile decodes mp3 with libmpg123, and has no way to silence it. It prints through the C library's `stderr`, which
points to a file in memory while libsndfile works. The file descriptor of standard error stays as it is, so that nothing
is lost of what Python, other threads and child processes write, or of a crash.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

logger = logging.getLogger(__name__)

_STDERR = 2
_MAX_KEPT_BYTES = 1 << 20
_MESSAGE = re.compile(
    rb"\[src/libmpg123/|Note: |Warning: (Encountered more data|Big change|Real sample count|Xing stream size)"
)


@contextmanager
def log_mpg123_messages() -> Iterator[None]:
    """Collects what C code prints to standard error within the block, and logs the messages of libmpg123.

    Lines of other libraries go on to standard error when the block ends, which should be soon. Linux only; does nothing
    on other systems.
    """
    collector = _open_collector()
    if collector is None:
        yield
        return
    with collector.lock:
        collector.redirect()
        try:
            yield
        finally:
            _pass_on(collector.restore())


def _pass_on(lines: list[bytes]) -> None:
    """Logs the first message of libmpg123, and writes the lines that are not its to standard error."""
    messages = [line for line in lines if _MESSAGE.match(line)]
    with suppress(OSError):  # nobody reads standard error any more
        os.write(_STDERR, b"".join(line for line in lines if not _MESSAGE.match(line)))
    if messages:
        more = f" (and {len(messages) - 1} more)" if len(messages) > 1 else ""
        logger.info("libmpg123: %s%s", messages[0].decode("utf-8", "replace").strip(), more)


class _Collector:
    """The file in memory. It is never closed: a thread may still print to it when `stderr` has been restored, and what
    it prints is then read the next time."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None)
        libc.fdopen.restype = ctypes.c_void_p
        self.lock = threading.Lock()
        self._descriptor = os.memfd_create("stderr")
        self._file = libc.fdopen(self._descriptor, b"a")
        libc.setvbuf(ctypes.c_void_p(self._file), None, 2, 0)  # _IONBF, as stderr
        self._pointer = ctypes.c_void_p.in_dll(libc, "stderr")
        self._original: int | None = None
        self._read_bytes = 0

    def redirect(self) -> None:
        self._original = self._pointer.value
        self._pointer.value = self._file

    def restore(self) -> list[bytes]:
        """The lines that were printed since the last time."""
        self._pointer.value = self._original
        text = os.pread(self._descriptor, os.fstat(self._descriptor).st_size - self._read_bytes, self._read_bytes)
        self._read_bytes += len(text)
        if self._read_bytes > _MAX_KEPT_BYTES:
            os.ftruncate(self._descriptor, 0)
            self._read_bytes = 0
        return text.splitlines(keepends=True)


@functools.cache
def _open_collector() -> _Collector | None:
    return _Collector() if sys.platform == "linux" else None
