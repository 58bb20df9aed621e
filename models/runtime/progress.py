"""The callables by which long work reports its progress and learns that it must end. Importable without torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

Progress = Callable[[float], None]
"""Called with the finished fraction, 0..1. Whatever it raises (cancelled, past the deadline) ends the work."""

Check = Callable[[], None]
"""Called between steps of work that has no measure of its progress. Whatever it raises ends the work."""


class Observer(Protocol):
    """The job on whose behalf a model is downloaded, loaded and run. `worker.job.Job` is one."""

    def check(self) -> None:
        """As `Check`; called several times a second while something is waited for."""

    def warn(self, sentence: str) -> None:
        """Adds a sentence to the warnings of the job's reply."""

    def report_download(self, model: str, done_bytes: int, total_bytes: int) -> None:
        """Reports how many bytes of `model` have arrived, of all that must be downloaded."""


def ignore_progress(fraction: float) -> None:
    """A `Progress` that does nothing."""


def sub_progress(progress: Progress, start: float, end: float) -> Progress:
    """The progress of one part of the work: its 0..1 is reported to `progress` as `start`..`end`."""
    return lambda fraction: progress(start + (end - start) * fraction)


def skip_check() -> None:
    """A `Check` that never ends the work."""


@dataclass(frozen=True, slots=True)
class Unattended:
    """The `Observer` of work that no job waits for: warnings and reports go nowhere."""

    check: Check = skip_check

    def warn(self, sentence: str) -> None: ...

    def report_download(self, model: str, done_bytes: int, total_bytes: int) -> None: ...


UNATTENDED = Unattended()
