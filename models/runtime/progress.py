"""The callables by which long work reports its progress and learns that it must end. Importable without torch."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[float], None]
"""Called with the finished fraction, 0..1. Whatever it raises (cancelled, past the deadline) ends the work."""

Check = Callable[[], None]
"""Called between steps of work that has no measure of its progress. Whatever it raises ends the work."""


def ignore_progress(fraction: float) -> None:
    """A `Progress` that does nothing."""


def skip_check() -> None:
    """A `Check` that never ends the work."""


def sub_progress(progress: Progress, start: float, end: float) -> Progress:
    """The progress of one part of the work: its 0..1 is reported to `progress` as `start`..`end`."""
    return lambda fraction: progress(start + (end - start) * fraction)
