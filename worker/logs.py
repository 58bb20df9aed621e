"""Logging as readable lines, or as JSON lines for the platform; every record carries the job's id.

A log line contains no secret of the settings, no base64, no traceback and no local file path.
"""

from __future__ import annotations

import contextvars
import io
import json
import logging
import re
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TextIO
from urllib.parse import quote

OWN_PACKAGES = ("handler", "operations", "models", "worker", "audio", "errors", "demo")
MAX_MESSAGE_CHARS = 2000
MIN_SECRET_CHARS = 4
PLATFORM_LEVELS = {"WARNING": "WARN", "CRITICAL": "ERROR"}

# Character sequences that no sentence contains: base64 (MIME lines have 76 characters) and the repr of bytes.
_PAYLOAD = re.compile(r"[A-Za-z0-9+/_=-]{64,}|(?:\\x[0-9a-fA-F]{2}){8,}")

_job_id: contextvars.ContextVar[str] = contextvars.ContextVar("job_id", default="")


@contextmanager
def job_context(job_id: str) -> Iterator[None]:
    """Marks all records that are logged within as belonging to this job."""
    token = _job_id.set(job_id)
    try:
        yield
    finally:
        _job_id.reset(token)


def configure(*, level: str, as_json: bool, secrets: Iterable[str] = ()) -> None:
    """Logs the records of our packages from `level` on, and the warnings of other libraries.

    Args:
        level: a level name of `logging`.
        as_json: log the platform's JSON lines to stdout, which is line-buffered from then on (`LineBufferedStream`);
            else readable lines to stderr.
        secrets: values to mask wherever they occur.
    """
    if as_json and not isinstance(sys.stdout, LineBufferedStream):
        sys.stdout = LineBufferedStream(sys.stdout)
    stream_handler = logging.StreamHandler(sys.stdout if as_json else sys.stderr)
    stream_handler.setFormatter(LogFormatter(as_json=as_json, secrets=secrets))
    logging.basicConfig(handlers=[stream_handler], level=max(logging.WARNING, logging.getLevelName(level)), force=True)
    for package in OWN_PACKAGES:
        logging.getLogger(package).setLevel(level)
    logging.captureWarnings(True)
    logging.getLogger("urllib3.connection").setLevel(logging.ERROR)  # its warnings quote URLs, signatures included
    logging.getLogger("py.warnings").setLevel(logging.ERROR)  # their text starts with a local file path


def error_location(error: BaseException) -> str:
    """`Type in our_module.function` for the innermost frame of our own code: enough to find a bug, without values."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    modules = [(str(frame.f_globals.get("__name__", "")), frame.f_code.co_name) for frame in frames]
    ours = [f"{module}.{function}" for module, function in modules if module.partition(".")[0] in OWN_PACKAGES]
    return f"{type(error).__name__} in {ours[-1] if ours else 'a library'}"


class LineBufferedStream(io.TextIOBase):
    """A text stream that writes each line to `stream` in one call, also if several threads write at once.

    The SDK logs with `print`, which writes a line and its end separately. Without buffering, another thread's record
    could be written between the two, and the platform could read neither.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._pending = threading.local()

    def write(self, text: str) -> int:
        complete, end, pending = (getattr(self._pending, "text", "") + text).rpartition("\n")
        self._pending.text = pending
        if end:
            with self._lock:
                self._stream.write(complete + end)
                self._stream.flush()
        return len(text)

    def flush(self) -> None:
        with self._lock:
            self._stream.flush()

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        return self._stream.isatty()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding


class LogFormatter(logging.Formatter):
    """Formats a record as one line: cleaned, truncated, and with the job's id."""

    def __init__(self, *, as_json: bool, secrets: Iterable[str] = ()) -> None:
        super().__init__(datefmt="%H:%M:%S")
        self._as_json = as_json
        long_enough = {secret for secret in secrets if len(secret) >= MIN_SECRET_CHARS}
        self._secrets = sorted(long_enough | {quote(secret, safe="") for secret in long_enough}, key=len, reverse=True)

    def format(self, record: logging.LogRecord) -> str:
        message = self.clean(f"{record.name}: {_format_message(record)}")
        job_id = self.clean(_job_id.get())
        if self._as_json:
            level = PLATFORM_LEVELS.get(record.levelname, record.levelname)
            return json.dumps({"requestId": job_id or None, "message": message, "level": level})
        return f"{self.formatTime(record, self.datefmt)} {record.levelname:<7} [{job_id or '-'}] {message}"

    def clean(self, text: str) -> str:
        """`text` on one line, without secrets and payloads, truncated to `MAX_MESSAGE_CHARS`."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        text = _PAYLOAD.sub(lambda match: f"<{len(match[0])} characters>", text)
        text = "".join(c if c.isprintable() else " " for c in text[: MAX_MESSAGE_CHARS + 1])
        return text if len(text) <= MAX_MESSAGE_CHARS else text[:MAX_MESSAGE_CHARS] + "..."


def _format_message(record: logging.LogRecord) -> str:
    if isinstance(record.args, tuple):
        record.args = tuple(map(_replace_bytes, record.args))
    try:
        message = record.getMessage()
    except (TypeError, ValueError, KeyError):  # the arguments do not fit the message; the record is logged without them
        message = str(record.msg)
    error = record.exc_info[1] if record.exc_info else None
    return message if error is None else f"{message} ({error_location(error)})"


def _replace_bytes(argument: object) -> object:
    """Bytes are audio or model data, which no log may contain; their length is enough."""
    return f"<{len(argument)} bytes>" if isinstance(argument, bytes | bytearray) else argument
