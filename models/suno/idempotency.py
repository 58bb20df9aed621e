"""Remembers what each job submitted, so that a job that the platform delivers twice is paid once."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from errors import ErrorCode, UpstreamError
from models.suno.client import UNKNOWN_OUTCOME

MAX_ENTRIES = 2000


def compute_idempotency_key(job_id: str, content: Mapping[str, Any]) -> str:
    """The key of one job's one request: the same job id with another request has another key."""
    text = json.dumps([job_id, content], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(slots=True)
class Reservation:
    """The submission of one request: its task id, or whether a task may exist whose id is not known."""

    task_id: str | None = None
    outcome_unknown: bool = False


class IdempotencyStore:
    """The latest submissions of this process, by idempotency key."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reservations: OrderedDict[str, Reservation] = OrderedDict()

    @contextmanager
    def reserve(self, key: str) -> Iterator[Reservation]:
        """The reservation of `key`, with the task id if the request was submitted before.

        It is kept after the body unless nothing was submitted. Raises `UpstreamError` (`submit_unknown`) if the request
        was submitted before and its outcome is unknown, or is submitted by another thread at this moment.
        """
        with self._lock:
            is_new = key not in self._reservations
            reservation = self._reservations.setdefault(key, Reservation())
            while len(self._reservations) > MAX_ENTRIES:
                self._reservations.popitem(last=False)
        if not is_new and reservation.task_id is None:
            raise UpstreamError(
                f"This job was delivered a second time. {UNKNOWN_OUTCOME}",
                code=ErrorCode.SUBMIT_UNKNOWN,
                details={"submitted": "unknown"},
            )
        try:
            yield reservation
        finally:
            if reservation.task_id is None and not reservation.outcome_unknown:
                with self._lock:
                    self._reservations.pop(key, None)
