"""One job as an operation sees it: its input, progress with cancel and deadline, stage timings, warnings."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from errors import CancelledError, DeadlineError, sanitize
from worker.settings import Settings
from worker.stats import JobStats

if TYPE_CHECKING:  # numpy is not needed to refuse a request
    from audio.types import AudioSource

Report = Callable[[Mapping[str, Any]], None]

MAX_TIMEOUT_MS = 30 * 24 * 3600 * 1000  # far above what RunPod allows; JSON may contain numbers of any size
DELIVERY_SHARE = 0.1
MAX_DELIVERY_S = 10.0


def ignore_progress(update: Mapping[str, Any]) -> None:
    """The `report` of a job whose progress nobody follows."""


@dataclass
class Job:
    """State of one request while it runs.

    Args:
        id: the platform's job id, or a made-up one.
        input: what the platform's job has under `input`, not validated yet; None if there is nothing.
        s3_config: RunPod's own per-request `s3Config`, if the job carries one.
        deadline: `time.monotonic()` value at which work must end, or None.
        cancel: set by the adapter when the platform stops the job.
        report: takes `{"stage", "percent", **details}`; throttled by the sender, not here.
        details: what a caller must learn even if the job fails (a paid task's id); added to every later progress
            update and to the `details` of every later error.
        settings: of the worker that runs the job; the dispatcher sets them.
        stats: of the process; the handler sets them.
        output_dir: the folder to which a local run writes the audio of its inline reply; None: nowhere.
        started: `time.monotonic()` value at which the job was received.
        audio: the request's audio by field; long audio is on disk.
        files: the request's files by field, unchanged.
        exit_stack: closed at the end of the job; temporary files that must live until then are entered here.
    """

    id: str
    input: object = None
    s3_config: Mapping[str, Any] | None = None
    deadline: float | None = None
    cancel: threading.Event = field(default_factory=threading.Event)
    report: Report = ignore_progress
    details: dict[str, Any] = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings)
    stats: JobStats = field(default_factory=JobStats)
    output_dir: Path | None = None
    started: float = field(default_factory=time.monotonic)
    audio: dict[str, AudioSource] = field(default_factory=dict)
    files: dict[str, BinaryIO] = field(default_factory=dict)
    exit_stack: ExitStack = field(default_factory=ExitStack)
    warnings: list[str] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    _stage: str = ""
    _progress_range: tuple[float, float] = (0.0, 1.0)
    _percent: float = 0.0

    def warn(self, sentence: str) -> None:
        """Adds `sentence` to the reply's warnings (what was clamped, skipped or substituted), once."""
        if sentence not in self.warnings:
            self.warnings.append(sentence)

    def check(self) -> None:
        """Raises `CancelledError` or `DeadlineError` if the job must end."""
        if self.cancel.is_set():
            raise CancelledError("The job was cancelled.")
        if self.deadline is not None and time.monotonic() >= self.deadline:
            raise DeadlineError(
                "The job's time is up before the work was done. Ask for less, or raise the execution timeout."
            )

    def progress(self, fraction: float) -> None:
        """Reports that `fraction` (0 to 1) of the stage is done; call it at every decoding step, segment or chunk.

        Raises `CancelledError` or `DeadlineError` if the job must end.
        """
        self.check()
        start, end = self._progress_range
        percent = round(100 * (start + (end - start) * min(max(fraction, 0.0), 1.0)), 1)
        self._percent = max(self._percent, percent)  # work that is started again does not go back
        self.report({"stage": self._stage, "percent": self._percent, **self.details})

    def report_download(self, model: str, done_bytes: int, total_bytes: int) -> None:
        """Reports that `done_bytes` of a model's `total_bytes` have been downloaded; the percentage stays."""
        stage = f"Downloading {model}: {done_bytes / 1e6:.0f} of {total_bytes / 1e6:.0f} MB"
        download = {"model": model, "bytes": done_bytes, "total_bytes": total_bytes}
        self.report({"stage": stage, "percent": self._percent, "download": download, **self.details})

    @contextmanager
    def stage(self, name: str, progress_range: tuple[float, float] = (0.0, 1.0)) -> Iterator[None]:
        """Adds the stage's seconds to `timings["<name>_s"]`; its progress counts as `progress_range` of the job's."""
        self.check()
        before = (self._stage, self._progress_range)
        self._stage, self._progress_range = name, progress_range
        started = time.monotonic()
        try:
            yield
        finally:
            self.timings[f"{name}_s"] = self.timings.get(f"{name}_s", 0.0) + time.monotonic() - started
            self._stage, self._progress_range = before

    def start_step(self, name: str, progress_range: tuple[float, float]) -> Job:
        """A job for one step of this one: cancel, deadline and details are shared.

        Inputs, warnings, timings and temporary files are its own; the caller closes its `exit_stack`. The step's
        progress counts as `progress_range` of this job's, and its stages are reported as `<name>: <stage>`.
        """
        start, end = progress_range

        def report(update: Mapping[str, Any]) -> None:
            percent = round(100 * start + (end - start) * update["percent"], 1)
            self._percent = max(self._percent, percent)
            self.report({**update, "stage": f"{name}: {update['stage']}", "percent": self._percent})

        return Job(
            id=f"{self.id}/{name}",  # two equal submissions of two steps are both wanted
            s3_config=self.s3_config,
            deadline=self.deadline,
            cancel=self.cancel,
            report=report,
            details=self.details,
            settings=self.settings,
        )


def read_job_id(raw_job: object) -> str:
    """The id of a platform's job, short and printable; a random one if the job has none."""
    job_id = raw_job.get("id") if isinstance(raw_job, Mapping) else None
    return sanitize(job_id) if isinstance(job_id, str) and job_id else uuid.uuid4().hex


def build_job(  # noqa: PLR0913  (options by keyword)
    raw_job: object,
    *,
    job_id: str,
    timeout_s: float,
    cancel: threading.Event | None = None,
    report: Report | None = None,
    output_dir: Path | None = None,
) -> Job:
    """The `Job` of what the platform hands over, `{"id", "input", "policy", "s3Config"}`; anything else has no input.

    Args:
        raw_job: never changed.
        job_id: from `read_job_id`.
        timeout_s: the endpoint's execution timeout in seconds; 0 if none is known.
        cancel: set from another thread to end the job at its next step.
        report: takes progress updates.
        output_dir: as in `Job`.
    """
    fields = raw_job if isinstance(raw_job, Mapping) else {}
    s3_config = fields.get("s3Config")
    return Job(
        id=job_id,
        input=fields.get("input"),
        s3_config=dict(s3_config) if isinstance(s3_config, Mapping) else None,
        deadline=compute_deadline(fields.get("policy"), timeout_s=timeout_s, now=time.monotonic()),
        cancel=cancel or threading.Event(),
        report=report or ignore_progress,
        output_dir=output_dir,
    )


def compute_deadline(policy: object, *, timeout_s: float, now: float) -> float | None:
    """When work must end, as `Job.deadline`: a tenth of the time, at most 10 s, is left for the delivery.

    Args:
        policy: the job's own `policy`, whose `executionTimeout` is in ms and counts as at most 30 days; anything else
            is ignored.
        timeout_s: the endpoint's execution timeout in seconds; 0 if none is known.
        now: `time.monotonic()`.
    """
    requested = policy.get("executionTimeout") if isinstance(policy, Mapping) else None
    limits = [timeout_s] if timeout_s > 0 else []
    if isinstance(requested, int | float) and not isinstance(requested, bool) and requested > 0:
        limits.append(min(requested, MAX_TIMEOUT_MS) / 1000)
    if not limits:
        return None
    shortest = min(limits)
    return now + shortest - min(DELIVERY_SHARE * shortest, MAX_DELIVERY_S)
