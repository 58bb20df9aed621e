"""The key of a piece, from its pitch classes and its chords."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from audio.analysis.chords import SUFFIXES, Chord
from audio.analysis.frames import Floats
from audio.analysis.notes import fold_bass, fold_treble, scale_rows

Mode = Literal["major", "minor"]

_SHARPS = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
_FLATS = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")
_TONICS = {
    "major": ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B"),
    "minor": ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "G#", "A", "Bb", "B"),
}
_FLAT_KEYS = {"major": {1, 3, 5, 8, 10}, "minor": {0, 2, 3, 5, 7, 10}}  # written with flats

# How much each semitone above the tonic is heard, and how often each chord (semitones above the tonic, triad) is used.
_PROFILES: dict[Mode, tuple[float, ...]] = {
    "major": (5, 0.1, 3, 0.1, 4, 3, 0.1, 4.5, 0.1, 3, 0.1, 2.5),
    "minor": (5, 0.1, 3, 4, 0.1, 3, 0.1, 4.5, 3, 0.1, 3, 0.1),
}
_CHORDS: dict[Mode, dict[tuple[int, str], float]] = {
    "major": {
        (0, "major"): 0.28, (5, "major"): 0.20, (7, "major"): 0.20, (9, "minor"): 0.13, (2, "minor"): 0.07,
        (4, "minor"): 0.04, (10, "major"): 0.02, (5, "minor"): 0.01, (7, "minor"): 0.005, (11, "diminished"): 0.005,
    },
    "minor": {
        (0, "minor"): 0.28, (8, "major"): 0.15, (10, "major"): 0.15, (5, "minor"): 0.12, (3, "major"): 0.10,
        (7, "minor"): 0.07, (7, "major"): 0.06, (5, "major"): 0.02, (2, "diminished"): 0.01, (1, "major"): 0.01,
    },
}  # fmt: skip
_OTHER_CHORD = 0.002
_PROFILE_WEIGHT = 4.0
_OPENING_WEIGHT = 0.7  # pieces start with the chord of their tonic more often than with any other
_BASS_SHARE = 0.5
_UNHEARD = 0.2  # strength of a third below which it tells little
_RARE_FIFTH, _RARE_DIMINISHED = 0.2, 0.02
_CONFIDENCE_SCALE = 3.0


@dataclass(frozen=True)
class Key:
    """One key.

    Args:
        tonic: pitch class, C = 0.
        confidence: 0 to 1; of all 24 keys together 1.
    """

    tonic: int
    mode: Mode
    confidence: float

    @property
    def tonic_name(self) -> str:
        """With the spelling that has fewer accidentals: `Eb` major, `F#` minor."""
        return _TONICS[self.mode][self.tonic]

    @property
    def name(self) -> str:
        return f"{self.tonic_name} {self.mode}"


def find_key(notes: Floats, edges: NDArray[np.float64], chords: Sequence[Chord]) -> tuple[Key, Key] | None:
    """The key and the runner-up; None if there are no chords.

    Args:
        notes: `[S, notes]` from `explain_notes`.
        edges: `[S + 1]` of the spans, in s.
        chords: of the same spans.
    """
    sounding = [chord for chord in chords if chord.root is not None]
    if not sounding:
        return None
    durations = np.diff(edges)
    treble, bass = scale_rows(fold_treble(notes)), scale_rows(fold_bass(notes))
    classes = (durations @ treble + _BASS_SHARE * (durations @ bass)) / durations.sum()
    roots = [_weigh_triads(chord, treble, edges) for chord in sounding]
    keys: list[tuple[int, Mode]] = [(tonic, mode) for mode in _PROFILES for tonic in range(12)]
    scores = np.array([_score(tonic, mode, classes, roots) for tonic, mode in keys])
    weights = np.exp(_CONFIDENCE_SCALE * (scores - scores.max()))
    shares = weights / weights.sum()
    first, second = (int(number) for number in np.argsort(-shares)[:2])
    return Key(*keys[first], float(shares[first])), Key(*keys[second], float(shares[second]))


@dataclass(frozen=True)
class _WeighedRoot:
    """The root of a chord, how likely each triad on it is, and its share of the time of all chords."""

    root: int
    triads: dict[str, float]
    duration: float


def _weigh_triads(chord: Chord, treble: Floats, edges: NDArray[np.float64]) -> _WeighedRoot:
    """How likely each triad is by its third and its fifth: a bass alone leaves open whether it is major or minor."""
    assert chord.root is not None, "only chords that sound have a root"
    inside = (edges[:-1] >= chord.start - 1e-6) & (edges[1:] <= chord.end + 1e-6)
    strengths = np.roll(treble[inside].mean(axis=0), -chord.root)
    minor_third, major_third, flat_fifth, fifth = (float(strengths[step]) for step in (3, 4, 6, 7))
    major = (major_third + _UNHEARD) / (major_third + minor_third + 2 * _UNHEARD)
    is_flat = (flat_fifth + _RARE_FIFTH * _UNHEARD) / (flat_fifth + fifth + _UNHEARD)
    diminished = is_flat if minor_third > major_third else _RARE_DIMINISHED
    triads = {"major": major, "minor": (1 - major) * (1 - diminished), "diminished": (1 - major) * diminished}
    return _WeighedRoot(chord.root, triads, chord.duration)


def _score(tonic: int, mode: Mode, classes: NDArray[np.float64], roots: Sequence[_WeighedRoot]) -> float:
    """Logarithm of how likely the key is, up to a constant."""
    profile = np.roll(_PROFILES[mode], tonic)
    likeness = float(np.corrcoef(profile, classes)[0, 1]) if classes.std() > 0 else 0.0
    usual = 0.0
    for one in roots:
        step = (one.root - tonic) % 12
        probability = sum(
            weight * _CHORDS[mode].get((step, triad), _OTHER_CHORD) for triad, weight in one.triads.items()
        )
        usual += one.duration * float(np.log(probability))
    usual /= sum(one.duration for one in roots)
    return float(usual + _PROFILE_WEIGHT * likeness + _OPENING_WEIGHT * (roots[0].root == tonic))


def name_chord(chord: Chord, key: Key | None) -> str:
    """The chord as it is written in the key: `Am`, `F#m7`, `Bb`; `N` for no chord."""
    if chord.root is None:
        return "N"
    uses_flats = key is not None and key.tonic in _FLAT_KEYS[key.mode]
    return (_FLATS if uses_flats else _SHARPS)[chord.root] + SUFFIXES[chord.quality]
