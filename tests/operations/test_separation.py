"""The warning of a separation that takes long."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from operations.separation import warn_if_slow
from worker.job import Job


def run_steps(duration: float, times: list[float], fractions: list[float]) -> list[str]:
    """The warnings after these fractions have been reported, each at its time; the first time is the start."""
    job = Job("job", {})
    clock: Iterator[float] = iter(times)
    progress = warn_if_slow(job, duration, lambda: next(clock))
    for fraction in fractions:
        progress(fraction)
    return job.warnings


def test_a_separation_of_more_than_ten_times_the_song_says_how_long_it_takes() -> None:
    [warning] = run_steps(240.0, [0.0, 30.0], [0.0, 0.0, 0.01, 0.02])
    assert "about 50 minutes on this device, 12 times the length of the audio" in warning


@pytest.mark.parametrize(
    ("duration", "times", "fractions"),
    [
        (240.0, [0.0, 20.0], [0.0, 0.01, 0.02]),  # 2000 s are less than ten times 240 s
        (0.1, [0.0, 5.0], [0.0, 0.5]),  # ten seconds are not worth a warning
        (1.0, [0.0, 500.0], [0.0, 1.0]),  # it is done
    ],
)
def test_a_fast_or_short_separation_gives_no_warning(
    duration: float, times: list[float], fractions: list[float]
) -> None:
    assert run_steps(duration, times, fractions) == []
