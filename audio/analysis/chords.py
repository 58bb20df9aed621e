"""Which chord sounds when: the pitch classes of each beat against templates, decoded by a hidden Markov model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from audio.analysis.frames import Floats
from audio.analysis.notes import fold_bass, fold_treble, scale_rows

QUALITIES = {
    "major": (0, 4, 7),
    "minor": (0, 3, 7),
    "diminished": (0, 3, 6),
    "7": (0, 4, 7, 10),
    "maj7": (0, 4, 7, 11),
    "m7": (0, 3, 7, 10),
}
"""Semitones above the root of each kind of chord."""
SUFFIXES = {"major": "", "minor": "m", "diminished": "dim", "7": "7", "maj7": "maj7", "m7": "m7"}
TRIADS = {"major": "major", "minor": "minor", "diminished": "diminished", "7": "major", "maj7": "major", "m7": "minor"}
_RARITY = {"major": 0.0, "minor": 0.0, "diminished": -0.12, "7": -0.03, "maj7": -0.03, "m7": -0.03}

_BASS_ROOT_WEIGHT, _BASS_FIFTH_WEIGHT = 0.2, 0.1
_SHARPNESS = 9.0  # of the likelihood
_CHANGE_COST = 4.0  # on a beat that is not a downbeat
_CHANGE_COST_ON_DOWNBEAT = 3.0
_NO_CHORD_LIKENESS = 0.62  # to a template, below which there is rather no chord
_NOISE_FROM, _NOISE_WEIGHT = 0.64, 12.0  # share that notes do not explain from which there is rather no chord
_CERTAIN = 2.0
_FAINT = 0.05  # of the loudest span's notes


@dataclass(frozen=True)
class Chord:
    """One chord.

    Args:
        start, end: in s.
        root: pitch class, C = 0; None: no chord.
        quality: one of `QUALITIES`; empty: no chord.
    """

    start: float
    end: float
    root: int | None
    quality: str

    @property
    def duration(self) -> float:
        return self.end - self.start


def find_chords(
    notes: Floats, unexplained: Floats, edges: NDArray[np.float64], is_downbeat: NDArray[np.bool_]
) -> list[Chord]:
    """The chords of consecutive spans; equal neighbours are one chord.

    Args:
        notes, unexplained: `[S, notes]` and `[S]` from `explain_notes`.
        edges: `[S + 1]` of the spans, in s.
        is_downbeat: `[S]`, whether each span starts with a downbeat.
    """
    states = [(root, quality) for quality in QUALITIES for root in range(12)]
    likeness = _compare_templates(notes, unexplained, states)
    path = _decode(_SHARPNESS * likeness, np.where(is_downbeat, _CHANGE_COST_ON_DOWNBEAT, _CHANGE_COST))
    chords: list[Chord] = []
    for number, state in enumerate(path):
        root, quality = states[state] if state < len(states) else (None, "")
        start, end = float(edges[number]), float(edges[number + 1])
        if end <= start:  # before a beat at the very start
            continue
        if chords and (chords[-1].root, chords[-1].quality) == (root, quality):
            start = chords.pop().start
        chords.append(Chord(start, end, root, quality))
    return chords


def _compare_templates(notes: Floats, unexplained: Floats, states: Sequence[tuple[int, str]]) -> NDArray[np.float64]:
    """How well each chord, and in the last column no chord, explains each span: `[S, states + 1]`."""
    treble, bass = scale_rows(fold_treble(notes)), scale_rows(fold_bass(notes))
    templates = np.zeros((len(states), 12))
    for row, (root, quality) in enumerate(states):
        intervals = QUALITIES[quality]
        templates[row, [(root + interval) % 12 for interval in intervals]] = len(intervals) ** -0.5
    roots = np.array([root for root, _ in states])
    likeness = treble @ templates.T + np.array([_RARITY[quality] for _, quality in states])
    likeness += _BASS_ROOT_WEIGHT * bass[:, roots] + _BASS_FIFTH_WEIGHT * bass[:, (roots + 7) % 12]
    strength = notes.sum(axis=1)
    is_faint = strength <= _FAINT * strength.max(initial=0.0)
    noise = _NOISE_WEIGHT * np.maximum(unexplained - _NOISE_FROM, 0)
    no_chord = np.where(is_faint, _CERTAIN, _NO_CHORD_LIKENESS + noise)
    return np.concatenate((likeness, no_chord[:, None]), axis=1)


def _decode(scores: NDArray[np.float64], change_costs: NDArray[np.float64]) -> list[int]:
    """The best path of states through `[S, states]` scores, when each change costs as much as its span says."""
    count, num_states = scores.shape
    total = scores[0].copy()
    previous = np.zeros((count, num_states), np.int16)
    for span in range(1, count):
        best = int(total.argmax())
        changed = total[best] - change_costs[span]
        stays = total >= changed
        previous[span] = np.where(stays, np.arange(num_states), best)
        total = np.where(stays, total, changed) + scores[span]
    path = [int(total.argmax())]
    for span in range(count - 1, 0, -1):
        path.append(int(previous[span, path[-1]]))
    return path[::-1]
