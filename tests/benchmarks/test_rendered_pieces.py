"""The measures of benchmarks.analyze, on estimates whose score is known."""

from __future__ import annotations

import numpy as np
import pytest

from audio import Audio
from benchmarks.analyze import summarize
from benchmarks.rendered_pieces import (
    Estimate,
    KnownPiece,
    judge_key,
    judge_tempo,
    measure_f,
    measure_overlap,
    score,
)

C_MAJOR = (0, "major")


@pytest.mark.parametrize(
    ("bpm", "verdict"),
    [(120, "right"), (124.7, "right"), (126, "wrong"), (60, "octave"), (245, "octave"), (None, "wrong")],
)
def test_tempi_within_4_percent_are_right_and_octaves_are_counted_apart(bpm: float | None, verdict: str) -> None:
    assert judge_tempo(bpm, 120) == verdict


@pytest.mark.parametrize(
    ("key", "verdict"),
    [
        (C_MAJOR, "right"), ((7, "major"), "fifth"), ((5, "major"), "fifth"), ((9, "minor"), "relative"),
        ((0, "minor"), "parallel"), ((4, "minor"), "wrong"), (None, "wrong"),
    ],
)  # fmt: skip
def test_keys_are_judged_by_their_relation(key: tuple[int, str] | None, verdict: str) -> None:
    assert judge_key(key, C_MAJOR) == verdict


def test_the_relative_of_a_minor_key_is_its_major() -> None:
    assert judge_key(C_MAJOR, (9, "minor")) == "relative"


def test_each_beat_counts_once_within_70_ms() -> None:
    assert measure_f([1, 2, 3], [1.05, 1.06, 2.08, 3.0]) == pytest.approx(2 * 2 / 7)
    assert measure_f([1, 2], [1, 2]) == 1 and measure_f([1, 2], []) == 0


def test_chords_count_by_the_time_that_they_share() -> None:
    truth = [(0.0, 2.0, 0, "major"), (2.0, 4.0, 9, "minor")]
    estimate = [(0.0, 1.0, 0, "minor"), (1.0, 2.5, 0, "major"), (2.5, 4.0, 9, "minor")]
    roots, triads = measure_overlap(truth, estimate)
    assert roots == pytest.approx(3.5 / 4) and triads == pytest.approx(2.5 / 4)


def test_a_perfect_estimate_has_a_perfect_score() -> None:
    beats = np.arange(0.0, 8.0, 0.5)
    piece = KnownPiece(
        audio=Audio(np.zeros((1, 8), np.float32), 1),
        arrangement="full",
        bpm=120,
        beats=beats,
        downbeats=beats[::4],
        key=C_MAJOR,
        chords=[(0.0, 8.0, 0, "major")],
    )
    estimate = Estimate(120, list(beats), list(beats[::4]), C_MAJOR, piece.chords)
    figures = summarize([score(piece, estimate)])
    assert {name: value for name, value in figures.items() if value != 1} == {"tempo octave": 0}
