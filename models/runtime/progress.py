"""How long work reports its progress and asks whether to go on. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[float], None]
"""Called with the finished fraction, 0..1. Whatever it raises (cancelled, past the deadline) ends the work."""

Check = Callable[[], None]
"""Called between steps of work that has no measure of its progress. Whatever it raises ends the work."""


def ignore_progress(fraction: float) -> None:
    """The `Progress` of a caller who wants none."""


def skip_check() -> None:
    """The `Check` of a caller who cannot be cancelled."""


def sub_progress(progress: Progress, start: float, end: float) -> Progress:
    """The progress of one part of the work: its 0..1 is reported to `progress` as `start`..`end`."""
    return lambda fraction: progress(start + (end - start) * fraction)
