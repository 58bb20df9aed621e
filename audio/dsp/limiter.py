"""A look-ahead true-peak limiter that is a real ceiling. Knows nothing of loudness or requests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from audio.dsp.loudness import OVERSAMPLING, oversampled
from audio.types import Audio, Waveform

LOOK_AHEAD_S: Final = 0.005
RELEASE_S: Final = 0.075

_TOLERANCE: Final = 10.0 ** (0.02 / 20.0)  # above the ceiling, in the measure that decides on another pass
_MOST_PASSES: Final = 4
_BLOCK_FRAMES: Final = 1 << 19
_INAUDIBLE_DB: Final = 1e-3  # of gain reduction: below, the release ends and the gain is exactly 1


@dataclass(frozen=True, slots=True)
class Limited:
    """What the limiter made.

    Args:
        sounds: in the order given, each of its own length; the same objects where nothing exceeded the ceiling.
        limited_db: the most that was taken away at any moment, 0.0 where nothing was.
    """

    sounds: tuple[Audio, ...]
    limited_db: float = 0.0


def limit(sounds: Sequence[Audio], *, ceiling_dbtp: float = -1.0) -> Limited:
    """Holds the 4 times oversampled peak of every sound at or below `ceiling_dbtp`, with one gain for all of them.

    Gain falls over the 5 ms before a peak and recovers exponentially in dB with 75 ms; moments further from any peak
    stay as they are, to the bit. The gain is the same for all channels and sounds, so images and balances do not move.
    Changing gain shifts the peaks between samples a little; what is left above the ceiling is limited again, and in the
    extreme removed by one last constant gain.
    """
    sounds = tuple(sounds)
    assert len({sound.sample_rate for sound in sounds}) <= 1, "sounds that are limited together share a sample rate"
    ceiling = 10.0 ** (ceiling_dbtp / 20.0)
    limited_db = 0.0
    for attempt in range(_MOST_PASSES + 1):
        peaks = _linked_peaks(sounds)
        highest = float(peaks.max(initial=0.0))
        if highest <= ceiling * (_TOLERANCE if attempt else 1.0):
            break
        if attempt == _MOST_PASSES:
            gain: Waveform = np.full(1, ceiling / highest, np.float32)
        else:
            gain = _gain(peaks, ceiling, sounds[0].sample_rate)
        limited_db += -20.0 * math.log10(float(gain.min()))
        sounds = tuple(_apply(sound, gain) for sound in sounds)
    return Limited(sounds, limited_db)


def _apply(sound: Audio, gain: Waveform) -> Audio:
    return Audio(sound.waveform * gain[: sound.num_samples], sound.sample_rate)


def _linked_peaks(sounds: Sequence[Audio]) -> Waveform:
    """`[T]`: the highest level of any channel of any sound at, just before and just after each sample."""
    peaks = np.zeros(max((sound.num_samples for sound in sounds), default=0), np.float32)
    for sound in sounds:
        own = peaks[: sound.num_samples]
        for channel in sound.waveform:
            np.maximum(own, np.abs(channel), out=own)
        start = 0
        for block in oversampled(sound):
            between = np.zeros(block.shape[1] // OVERSAMPLING, np.float32)
            for fine in block.reshape(-1, len(between), OVERSAMPLING).transpose(0, 2, 1).reshape(-1, len(between)):
                np.maximum(between, np.abs(fine), out=between)
            stop = start + len(between)
            np.maximum(own[start:stop], between, out=own[start:stop])
            after = own[start + 1 : stop + 1]
            np.maximum(after, between[: len(after)], out=after)
            start = stop
    return peaks


def _gain(peaks: Waveform, ceiling: float, sample_rate: int) -> Waveform:
    """`[T]` gain, at most `ceiling / peaks` everywhere.

    Reduction in dB is held for half the look-ahead to both sides (maximum filter), let go with the release, and
    averaged over as long as the hold: each average covers nothing but values high enough for the sample in its midst.
    In blocks with the margins that the filters need, for float64 arrays of a whole hour would not fit.
    """
    margin = max(round(LOOK_AHEAD_S / 2 * sample_rate), 1)
    padded = np.pad(peaks, 2 * margin)
    gain = np.ones(len(peaks), np.float32)
    level_before = 0.0
    for start in range(0, len(peaks), _BLOCK_FRAMES):
        stop = min(start + _BLOCK_FRAMES, len(peaks))
        around = padded[start : stop + 4 * margin]
        if level_before == 0.0 and around.max() <= ceiling:
            continue
        needed = 20.0 * np.log10(np.maximum(around.astype(np.float64) / ceiling, 1.0))
        released = _released(_held(needed, margin), level_before, sample_rate)
        level_before = float(released[stop - start - 1])
        reduction = np.maximum(_averaged(released, margin), needed[2 * margin : -2 * margin])
        gain[start:stop] = 10.0 ** (-reduction / 20.0)
    return gain


def _held(needed: NDArray[np.float64], margin: int) -> NDArray[np.float64]:
    """Highest value within `margin` to either side; `margin` values shorter at both ends.

    Running maxima from both ends of pieces as long as the window: every window is the end of one piece and the start
    of the next (van Herk 1992). In numpy, for importing scipy.ndimage costs a cold worker more than limiting a song.
    """
    window = 2 * margin + 1
    length = len(needed) - window + 1
    pieces = np.pad(needed, (0, -len(needed) % window)).reshape(-1, window)
    from_start = np.maximum.accumulate(pieces, axis=1).reshape(-1)
    from_end = np.maximum.accumulate(pieces[:, ::-1], axis=1)[:, ::-1].reshape(-1)
    return np.maximum(from_end[:length], from_start[window - 1 :][:length])


def _averaged(released: NDArray[np.float64], margin: int) -> NDArray[np.float64]:
    """Mean over `margin` to either side; `margin` values shorter at both ends."""
    window = 2 * margin + 1
    sums = np.concatenate(([0.0], np.cumsum(released)))
    average = (sums[window:] - sums[:-window]) / window
    average[average < _INAUDIBLE_DB / 100] = 0.0  # what rounding leaves of a difference of sums
    return average


def _released(reduction_db: NDArray[np.float64], level_before: float, sample_rate: int) -> NDArray[np.float64]:
    """Each value falls no faster than by exp(-1 / (release * rate)) a sample: y[n] = max(x[n], y[n - 1] * decay).

    In logarithms the decay is a straight line, and the recursion a running maximum above it.
    """
    line = np.arange(len(reduction_db) + 1) / (RELEASE_S * sample_rate)
    with np.errstate(divide="ignore"):
        levels = np.log(np.concatenate(([level_before], reduction_db)))
    released = np.exp(np.maximum.accumulate(levels + line) - line)[1:]
    released[released < _INAUDIBLE_DB] = 0.0
    return released
