"""Logging for people (readable lines) and for the platform (JSON lines); every record carries the job's id."""

from __future__ import annotations

import contextvars
from collections.abc import Iterator
from contextlib import contextmanager

_job_id: contextvars.ContextVar[str] = contextvars.ContextVar("job_id", default="")


@contextmanager
def job_context(job_id: str) -> Iterator[None]:
    """Marks all records logged within as this job's."""
    token = _job_id.set(job_id)
    try:
        yield
    finally:
        _job_id.reset(token)
