"""One job as an operation sees it: progress with cancel and deadline, stage timings, warnings. Knows no SDK."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final

from audio import Audio
from audio.types import AudioSource
from errors import CancelledError, DeadlineError

Report = Callable[[Mapping[str, Any]], None]

DELIVERY_SHARE: Final = 0.1
MOST_DELIVERY_S: Final = 10.0


@dataclass
class Job:
    """State of one request while it runs.

    Args:
        id: the platform's job id, or a made-up one.
        s3_config: RunPod's own per-request `s3Config`, if the job carries one.
        deadline: `time.monotonic()` value at which work must end, or None.
        cancel: set by the adapter when the control plane stops the job.
        report: takes `{"stage", "percent", **facts}`; throttled by whoever sends it, not here.
        facts: what a caller must learn even if the job fails (a paid task's id): stands in every later progress
            update and in the details of every later error.
        audio: the request's sounds by field.
        long_audio: those of fields that are read by blocks, which may lie on disk.
        files: the request's files by field, as they came.
        closing: ends with the job; what lies on disk until then is entered here.
    """

    id: str
    s3_config: Mapping[str, Any] | None = None
    deadline: float | None = None
    cancel: threading.Event = field(default_factory=threading.Event)
    report: Report = field(default=lambda update: None)
    audio: dict[str, Audio] = field(default_factory=dict)
    long_audio: dict[str, AudioSource] = field(default_factory=dict)
    files: dict[str, BinaryIO] = field(default_factory=dict)
    closing: ExitStack = field(default_factory=ExitStack)
    warnings: list[str] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    _stage: str = ""
    _span: tuple[float, float] = (0.0, 1.0)

    def warn(self, sentence: str) -> None:
        """Names in the reply what was clamped, skipped or substituted; the same sentence once."""
        if sentence not in self.warnings:
            self.warnings.append(sentence)

    def check(self) -> None:
        """Raises `CancelledError` or `DeadlineError` where the job must end."""
        if self.cancel.is_set():
            raise CancelledError("The job was cancelled.")
        if self.deadline is not None and time.monotonic() >= self.deadline:
            raise DeadlineError(
                "The job's time is up before the work was done. Ask for less, or raise the execution timeout."
            )

    def progress(self, fraction: float) -> None:
        """To be called at every decoding step, segment or chunk of a stage; `fraction` of the stage, 0..1."""
        self.check()
        start, end = self._span
        percent = 100 * (start + (end - start) * min(max(fraction, 0.0), 1.0))
        self.report({"stage": self._stage, "percent": round(percent, 1), **self.facts})

    @contextmanager
    def stage(self, name: str, span: tuple[float, float] = (0.0, 1.0)) -> Iterator[None]:
        """Times a stage into `timings["<name>_s"]` and maps its progress into `span` of the whole job's 0..1."""
        self.check()
        before = (self._stage, self._span)
        self._stage, self._span = name, span
        started = time.monotonic()
        try:
            yield
        finally:
            self.timings[f"{name}_s"] = self.timings.get(f"{name}_s", 0.0) + time.monotonic() - started
            self._stage, self._span = before


def deadline_of(policy: object, *, timeout_s: float, now: float) -> float | None:
    """When work must end, as `Job.deadline`: a tenth of the time, 10 s at most, is left for handing over what there is.

    Args:
        policy: the job's own `policy`, whose `executionTimeout` is in ms; anything else in its place is passed over.
        timeout_s: the endpoint's; 0: none is known.
        now: `time.monotonic()`.
    """
    asked = policy.get("executionTimeout") if isinstance(policy, Mapping) else None
    known = [timeout_s] if timeout_s > 0 else []
    if isinstance(asked, int | float) and not isinstance(asked, bool) and 0 < asked < math.inf:
        known.append(asked / 1000)
    if not known:
        return None
    shortest = min(known)
    return now + shortest - min(DELIVERY_SHARE * shortest, MOST_DELIVERY_S)
