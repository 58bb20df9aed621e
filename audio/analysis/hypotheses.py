"""Which of the possible beats of a section people would tap: tempo, and on or off the beat."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from audio.analysis.frames import Floats
from audio.analysis.notes import average_spans
from audio.analysis.onsets import FRAME_RATE, HIGH, LOW
from audio.analysis.tempo import TEMPI, list_tempi, measure_salience, shift_by_half, track_beats

MIN_BEATS = 5
_REACH = 2  # frames around a beat in which its onset may be

# How much each property of a beat counts: fitted by logistic regression on 200 rendered pieces (`benchmarks.analyze`
# measures others), rounded.
WEIGHTS = {
    "salience": 2.5,  # the onsets repeat at 1 to 4 beats
    "onset": 0.7,  # logarithm of the mean strength at the beats
    "thirds": -0.8,  # logarithm of the strength at thirds of a beat relative to the beats
    "low_halfway": 0.2,  # logarithm of the strength halfway relative to the beats, below 160 Hz
    "high_halfway": -0.4,  # and above 2 kHz
    "backbeat": 0.45,  # low and high onsets alternate from beat to beat
    "change_of_2": -13.0,  # chords change rather on every second beat than on the others
    "change_of_bar": 15.0,  # and on every third or fourth
    "tempo": 0.65,  # octaves above 120 bpm
    "tempo_squared": -3.1,
}


@dataclass(frozen=True)
class Hypothesis:
    """Beats that a section may have.

    Args:
        beats: frames, at least `MIN_BEATS`.
        period: frames between them.
        score: logarithm of how likely people tap it, up to a constant.
    """

    beats: NDArray[np.int64]
    period: float
    score: float

    @property
    def bpm(self) -> float:
        return 60 * FRAME_RATE / self.period


def list_hypotheses(onsets: Floats, strength: Floats, spectrogram: NDArray[np.float16]) -> Iterator[Hypothesis]:
    """Every hypothesis of a section; none if nothing in it repeats.

    Args:
        onsets: `[3, T]` normalised onset strengths of the section.
        strength: `[T]` smoothed total onset strength.
        spectrogram: the section's note spectrogram.
    """
    for features, beats, period in list_features(onsets, strength, spectrogram):
        yield Hypothesis(beats, period, sum(WEIGHTS[name] * value for name, value in features.items()))


def list_features(
    onsets: Floats, strength: Floats, spectrogram: NDArray[np.float16]
) -> Iterator[tuple[dict[str, float], NDArray[np.int64], float]]:
    """The properties that `WEIGHTS` names, the beats and the period of every hypothesis."""
    salience = measure_salience(strength)
    for bpm in list_tempi(salience, len(strength) / FRAME_RATE):
        period = 60 / bpm * FRAME_RATE
        tracked = track_beats(strength, np.full(len(strength), period))
        if len(tracked) < MIN_BEATS + 1:
            continue
        relative_salience = float(np.interp(bpm, TEMPI, salience)) / salience.max()
        for beats in (tracked, shift_by_half(strength, tracked, period)):
            properties = _describe(onsets, strength, beats, spectrogram) | {"salience": relative_salience}
            octaves = np.log2(bpm / 120)
            yield (
                properties | {"tempo": octaves, "tempo_squared": octaves**2},
                beats,
                (tracked[-1] - tracked[0]) / (len(tracked) - 1),
            )


def _describe(
    onsets: Floats, strength: Floats, beats: NDArray[np.int64], spectrogram: NDArray[np.float16]
) -> dict[str, float]:
    distances = np.diff(beats)
    halfway = beats[:-1] + distances / 2
    thirds = np.concatenate((beats[:-1] + distances / 3, beats[:-1] + 2 * distances / 3))
    on_beat = find_strengths(strength, beats)
    low, high = find_strengths(onsets[LOW], beats), find_strengths(onsets[HIGH], beats)
    contrast = low - high
    changes = measure_changes(spectrogram, beats / FRAME_RATE)
    return {
        "onset": float(np.log(on_beat.mean() + 0.01)),
        "thirds": _compare(find_strengths(strength, thirds), on_beat),
        "low_halfway": _compare(find_strengths(onsets[LOW], halfway), low),
        "high_halfway": _compare(find_strengths(onsets[HIGH], halfway), high),
        "backbeat": abs(float(contrast[::2].mean() - contrast[1::2].mean())),
        "change_of_2": _find_contrast(changes, 2),
        "change_of_bar": max(_find_contrast(changes, 3), _find_contrast(changes, 4)),
    }


def find_strengths(strength: Floats, positions: NDArray[np.float64] | NDArray[np.int64]) -> NDArray[np.float64]:
    """The largest strength close to each position (frames)."""
    around = np.round(positions).astype(int)[:, None] + np.arange(-_REACH, _REACH + 1)
    return np.asarray(strength[np.clip(around, 0, len(strength) - 1)].max(axis=1), np.float64)


def measure_changes(spectrogram: NDArray[np.float16], times: NDArray[np.float64]) -> NDArray[np.float64]:
    """How much the notes change at each of `times` (seconds), 0 to 1; 0 for the first and the last."""
    spectra = average_spans(spectrogram, times)
    spectra /= np.maximum(np.linalg.norm(spectra, axis=1, keepdims=True), 1e-6)
    likeness = (spectra[1:] * spectra[:-1]).sum(axis=1)
    return np.concatenate(([0.0], 1.0 - likeness, [0.0]))


def _compare(values: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    return float(np.log((values.mean() + 0.05) / (reference.mean() + 0.05)))


def _find_contrast(changes: NDArray[np.float64], length: int) -> float:
    """How far the mean change at every `length`-th beat is above the mean of all, for the best first beat."""
    if len(changes) < 2 * length:
        return 0.0
    means = [changes[first::length].mean() for first in range(length)]
    return float(max(means) - np.mean(means))
