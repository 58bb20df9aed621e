"""The progress of a part is reported as a fraction of the whole."""

from __future__ import annotations

import pytest

from models.runtime.progress import ignore_progress, skip_check, sub_progress


def test_nested_parts_report_the_progress_of_the_whole() -> None:
    reported: list[float] = []
    second_half = sub_progress(reported.append, 0.5, 1.0)
    first_fifth_of_it = sub_progress(second_half, 0.0, 0.2)
    for report in (first_fifth_of_it, second_half):
        for fraction in (0.0, 0.5, 1.0):
            report(fraction)
    assert reported == pytest.approx([0.5, 0.55, 0.6, 0.5, 0.75, 1.0])


def test_callers_without_progress_or_cancellation_are_not_stopped() -> None:
    ignore_progress(0.5)
    skip_check()
