"""Which tempi explain the onsets of a section, and the beats of each.

Periods come from the autocorrelation of the onset strength; beats are the best path through the onsets by dynamic
programming (Ellis, "Beat tracking by dynamic programming", JNMR 2007).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from audio.analysis.frames import Floats
from audio.analysis.onsets import FRAME_RATE

LOWEST_BPM, HIGHEST_BPM = 40.0, 240.0
_TEMPI_PER_OCTAVE = 48
_MAX_LAG_S = 7.0
_NUM_PERIODS = 4  # beats that are looked ahead for a repetition
# Of the autocorrelation at 1 to 4 beats. Noise reaches 0.06 in 30 s, 0.17 in 8 s and 0.45 in 3 s; music has 0.3 to 1.
_LOWEST_SALIENCE, _HIGHEST_SALIENCE = 0.1, 0.5
_SALIENCE_SECONDS = 2.0
_NUM_PEAKS = 5
_PEAK_RATIO = 0.3
_DISTINCT_OCTAVES = 0.06
_OCTAVE_RANGE = 45.0, 220.0  # bpm in which halves and doubles are tried
_STEADINESS = 100.0
_SHORTEST, _LONGEST = 0.6, 1.6  # of the distance of two beats relative to the period

TEMPI = LOWEST_BPM * 2 ** (
    np.arange(int(np.log2(HIGHEST_BPM / LOWEST_BPM) * _TEMPI_PER_OCTAVE) + 1) / _TEMPI_PER_OCTAVE
)


def measure_salience(strength: Floats) -> NDArray[np.float64]:
    """How well the `[T]` onset strength repeats after 1 to 4 beats of each of `TEMPI`; at most 1."""
    max_lag = min(int(_MAX_LAG_S * FRAME_RATE), len(strength) * 3 // 4)
    if max_lag < 2 or not strength.any():
        return np.zeros(len(TEMPI))
    centred = strength - strength.mean()
    size = 1 << (2 * len(centred) - 1).bit_length()
    spectrum = np.abs(np.fft.rfft(centred, size)) ** 2
    correlation = np.fft.irfft(spectrum, size)[:max_lag] / (len(centred) - np.arange(max_lag))
    correlation /= max(correlation[0], 1e-12)
    lags = 60 / TEMPI * FRAME_RATE * np.arange(1, _NUM_PERIODS + 1)[:, None]
    inside = lags < max_lag
    values = np.interp(lags, np.arange(max_lag), correlation) * inside
    return np.asarray(np.maximum(values.sum(axis=0) / np.maximum(inside.sum(axis=0), 1) * inside[0], 0))


def list_tempi(salience: NDArray[np.float64], seconds: float) -> list[float]:
    """The tempi in bpm that may be the beat: the highest peaks, their halves and doubles. Empty: nothing repeats.

    Args:
        salience: of each of `TEMPI`.
        seconds: that it was measured in; the shorter, the clearer a repetition must be.
    """
    if salience.max() < np.clip(_SALIENCE_SECONDS / seconds, _LOWEST_SALIENCE, _HIGHEST_SALIENCE):
        return []
    inner = salience[1:-1]
    is_peak = (inner >= salience[:-2]) & (inner > salience[2:]) & (inner > _PEAK_RATIO * salience.max())
    peaks = np.flatnonzero(is_peak) + 1
    closeness = np.exp(-0.5 * np.log2(TEMPI[peaks] / 120) ** 2)
    tempi = [float(TEMPI[peak]) for peak in peaks[np.argsort(-salience[peaks] * closeness)][:_NUM_PEAKS]]
    for tempo in tuple(tempi):
        for other in (tempo / 2, tempo * 2):
            is_new = all(abs(np.log2(other / known)) > _DISTINCT_OCTAVES for known in tempi)
            if is_new and _OCTAVE_RANGE[0] <= other <= _OCTAVE_RANGE[1]:
                tempi.append(other)
    return tempi


def track_beats(strength: Floats, periods: NDArray[np.float64]) -> NDArray[np.int64]:
    """The frames of the beats.

    Args:
        strength: `[T]` onset strength with a root mean square of about 1.
        periods: `[T]` frames between beats around each frame.
    """
    total = len(strength)
    shortest, longest = int(_SHORTEST * periods.min()), int(np.ceil(_LONGEST * periods.max()))
    lags = np.arange(shortest, longest + 1)
    scores = np.concatenate((np.zeros(longest), strength)).astype(np.float64)
    previous = np.full(total, -1)
    for start in range(0, total, shortest):  # no frame depends on one that is closer than the shortest distance
        frames = np.arange(start, min(start + shortest, total))
        penalties = -_STEADINESS * np.log(lags / periods[frames, None]) ** 2
        paths = scores[longest + frames[:, None] - lags] + penalties
        best = paths.argmax(axis=1)
        gains = paths[np.arange(len(frames)), best]
        continues = (gains > 0) & (frames - lags[best] >= 0)
        scores[longest + frames] += np.where(continues, gains, 0)
        previous[frames] = np.where(continues, frames - lags[best], -1)
    path = [int(scores[longest:].argmax())]
    while previous[path[-1]] >= 0:
        path.append(int(previous[path[-1]]))
    return np.array(path[::-1])


def shift_by_half(strength: Floats, beats: NDArray[np.int64], period: float) -> NDArray[np.int64]:
    """The beats halfway between `beats`, each at the nearest strong onset."""
    reach = max(int(0.06 * period), 1)
    halfway = (beats[:-1] + beats[1:]) // 2
    first = beats[0] - (beats[1] - beats[0]) // 2
    shifted = np.concatenate(([first], halfway)) if first >= 0 else halfway
    around = np.clip(shifted[:, None] + np.arange(-reach, reach + 1), 0, len(strength) - 1)
    strongest = strength[around].argmax(axis=1)
    is_strong = strength[around].max(axis=1) > 0.1
    return np.where(is_strong, around[np.arange(len(around)), strongest], shifted)
