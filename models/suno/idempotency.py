"""Which jobs of this process have submitted what, so that a job that the platform delivers twice is not paid twice."""

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


def fingerprint(job_id: str, content: Mapping[str, Any]) -> str:
    """A key for one job's one request; the same job id with another request is another key."""
    text = json.dumps([job_id, content], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass
class Claim:
    """One request's submission: the task it has, or whether one may exist without our knowing its id."""

    task_id: str | None = None
    in_doubt: bool = False


class Ledger:
    """The last submissions by fingerprint."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._claims: OrderedDict[str, Claim] = OrderedDict()

    @contextmanager
    def claim(self, key: str) -> Iterator[Claim]:
        """What this very request has submitted before; kept afterwards unless nothing was submitted.

        Raises `UpstreamError` (`submit_unknown`) where it was sent before and nobody knows (yet) what came of it.
        """
        with self._lock:
            fresh = key not in self._claims
            claim = self._claims.setdefault(key, Claim())
            while len(self._claims) > MAX_ENTRIES:
                self._claims.popitem(last=False)
        if not fresh and claim.task_id is None:
            raise UpstreamError(
                f"This job was delivered a second time. {UNKNOWN_OUTCOME}",
                code=ErrorCode.SUBMIT_UNKNOWN,
                details={"submitted": "unknown"},
            )
        try:
            yield claim
        finally:
            if claim.task_id is None and not claim.in_doubt:
                with self._lock:
                    self._claims.pop(key, None)
