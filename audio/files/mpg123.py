"""Turns what libmpg123 writes to standard error into records of the log: the platform's log takes JSON lines.

libsndfile decodes mp3 with libmpg123, and has no way to silence it.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

logger = logging.getLogger(__name__)

_STDERR = 2
_MESSAGE = re.compile(
    rb"\[src/libmpg123/|Note: |Warning: (Encountered more data|Big change|Real sample count|Xing stream size)"
)
_LOCK = threading.Lock()  # standard error is one for the whole process


@contextmanager
def log_mpg123_messages() -> Iterator[None]:
    """Collects standard error within the block, which should be short, and logs the messages of libmpg123.

    Everything else that the process has written meanwhile, in any thread, is then written to standard error. Does
    nothing if there is no standard error or no `memfd_create`.
    """
    with _LOCK:
        original = _duplicate_stderr()
        if original is None:
            yield
            return
        collected = os.memfd_create("stderr")
        os.dup2(collected, _STDERR)
        try:
            yield
        finally:
            os.dup2(original, _STDERR)
            os.close(original)
            with open(collected, "rb") as file:
                file.seek(0)
                lines = file.readlines()
            messages = [line for line in lines if _MESSAGE.match(line)]
            others = b"".join(line for line in lines if not _MESSAGE.match(line))
            with suppress(OSError):  # nobody reads standard error any more
                os.write(_STDERR, others)
            if messages:
                more = f" (and {len(messages) - 1} more)" if len(messages) > 1 else ""
                logger.info("libmpg123: %s%s", messages[0].decode("utf-8", "replace").strip(), more)


def _duplicate_stderr() -> int | None:
    if sys.platform != "linux":
        return None
    try:
        return os.dup(_STDERR)
    except OSError:  # it is closed
        return None
