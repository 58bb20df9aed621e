"""Counts the jobs of a process: how many were done, how many failed, and how long each operation took on average."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass
class MeasuredJob:
    """A job that runs; `operation` is empty until it is known."""

    operation: str = ""


@dataclass
class _Count:
    done: int = 0
    failed: int = 0
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        average = round(self.seconds / self.done, 3) if self.done else None
        return {"done": self.done, "failed": self.failed, "average_s": average}


@dataclass
class JobStats:
    """The jobs since the process started. One object serves every thread of it."""

    _counts: dict[str, _Count] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def measure(self) -> Iterator[MeasuredJob]:
        """Counts the block as a job: as done, or as failed if it raises."""
        job, started, is_done = MeasuredJob(), time.monotonic(), False
        try:
            yield job
            is_done = True
        finally:
            seconds = time.monotonic() - started
            with self._lock:
                count = self._counts.setdefault(job.operation, _Count())
                count.done += is_done
                count.failed += not is_done
                count.seconds += seconds if is_done else 0.0

    def to_json(self) -> dict[str, Any]:
        """The value of `stats` in a reply of health_check: `average_s` is that of the jobs that were done; a job
        without a valid operation counts in the totals only."""
        with self._lock:
            counts = {name: replace(count) for name, count in sorted(self._counts.items())}
        return {
            "jobs_done": sum(count.done for count in counts.values()),
            "jobs_failed": sum(count.failed for count in counts.values()),
            "operations": {name: count.to_json() for name, count in counts.items() if name},
        }
