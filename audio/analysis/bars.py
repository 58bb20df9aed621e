"""Which beats start a bar, and whether bars have three beats or four."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from audio.analysis.frames import Floats
from audio.analysis.hypotheses import find_strengths
from audio.analysis.notes import fold_bass, fold_treble
from audio.analysis.onsets import FRAME_RATE, LOW, TOTAL

_CHANGE_BEATS = 2  # beats before and after a beat whose notes are compared
_CHANGE_WEIGHT, _LOW_WEIGHT, _TOTAL_WEIGHT = 12.0, 0.2, 0.2
_TRIPLE_COST = 0.1  # evidence per beat by which three beats must be better than four, which are far more frequent
_SWITCH_COST = 10.0  # of a bar that is longer or shorter than the others


@dataclass(frozen=True)
class Bars:
    """Where bars start.

    Args:
        beats_per_bar: 3 or 4; if a model has found the bars, any number.
        is_downbeat: of each beat.
    """

    beats_per_bar: int
    is_downbeat: NDArray[np.bool_]


def find_bars(onsets: Floats, notes: Floats, beats: NDArray[np.float64]) -> Bars:
    """Finds the bars of audio with at least two beats.

    Args:
        onsets: `[3, T]`, normalised.
        notes: `[B + 1, notes]`: before the first beat, between each two, after the last.
        beats: `[B]` in s.
    """
    evidence = _measure_evidence(onsets, notes, beats)
    paths = {length: _place_downbeats(evidence, length) for length in (3, 4)}
    length = 3 if paths[3][0] > paths[4][0] + _TRIPLE_COST else 4
    return Bars(length, paths[length][1])


def describe_tracked_bars(beats: NDArray[np.float64], downbeats: NDArray[np.float64]) -> Bars | None:
    """The bars that a model has found; None for less than one bar. Most bars have `beats_per_bar` beats."""
    is_downbeat = np.isin(beats, downbeats)
    lengths = np.diff(np.flatnonzero(is_downbeat))
    return Bars(int(np.bincount(lengths).argmax()), is_downbeat) if len(lengths) else None


def _measure_evidence(onsets: Floats, notes: Floats, beats: NDArray[np.float64]) -> NDArray[np.float64]:
    """How much each beat is like the first of a bar: its notes are new, and drums and bass are strong. Mean 0."""
    frames = beats * FRAME_RATE
    changes = _measure_changes(notes)
    low, total = find_strengths(onsets[LOW], frames), find_strengths(onsets[TOTAL], frames)
    evidence = _CHANGE_WEIGHT * changes + _LOW_WEIGHT * low + _TOTAL_WEIGHT * total
    return np.asarray(evidence - evidence.mean(), np.float64)


def _measure_changes(notes: Floats) -> NDArray[np.float64]:
    """How different the pitch classes of two spans before and after each beat are, 0 to 1: `[B]`."""
    folded = [fold_treble(notes), fold_bass(notes)]
    lengths = [np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6) for rows in folded]
    classes = np.concatenate([rows / length for rows, length in zip(folded, lengths, strict=True)], axis=1)
    sums = np.concatenate((np.zeros((1, classes.shape[1])), np.cumsum(classes, axis=0, dtype=np.float64)))
    middle = np.arange(1, len(classes))
    before = sums[middle] - sums[np.maximum(middle - _CHANGE_BEATS, 0)]
    after = sums[np.minimum(middle + _CHANGE_BEATS, len(classes))] - sums[middle]
    products = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    likeness = (before * after).sum(axis=1) / np.where(products > 0, products, 1.0)
    return np.where(products > 0, 1.0 - likeness, 0.0)


def _place_downbeats(evidence: NDArray[np.float64], length: int) -> tuple[float, NDArray[np.bool_]]:
    """The likeliest downbeats of bars of `length` beats, with their mean evidence per beat.

    A bar of another length costs `_SWITCH_COST`, so that a pause or a missing beat shifts those that follow.
    """
    count = len(evidence)
    scores = np.zeros(length)
    back = np.zeros((count, length), int)
    for beat in range(count):  # state: which beat of the bar it is
        steps = np.roll(scores, 1)
        jump = int(scores.argmax())
        jumps = steps < scores[jump] - _SWITCH_COST
        back[beat] = np.where(jumps, jump, np.roll(np.arange(length), 1))
        scores = np.where(jumps, scores[jump] - _SWITCH_COST, steps)
        scores[0] += evidence[beat] * (length - 1) / length
        scores[1:] -= evidence[beat] / length
    state = int(scores.argmax())
    best = float(scores[state]) / count
    is_downbeat = np.zeros(count, bool)
    for beat in range(count - 1, -1, -1):
        is_downbeat[beat] = state == 0
        state = int(back[beat, state])
    return best, is_downbeat
