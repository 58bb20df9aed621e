"""Silence of one sound carried over to another made from it, as networks make faint noise of silence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from audio.recording import Sound, blocks
from audio.sound import Waveform

FRAMES_PER_S: Final = 100
THRESHOLD_DB: Final = -70.0
"""Peak in 10 ms below which a sound counts as silent: below any room's noise, above what dither leaves."""
_HOLD: Final = 5  # frames that stay open before and after sound
_RAMP: Final = 2  # frames of fading in before and out after those


def openness(sound: Sound) -> NDArray[np.float32]:
    """`[F]`, at 100 a second: 1 where there is sound, 0 in silence, ramps of 20 ms between."""
    frames = np.arange(-(-sound.num_samples * FRAMES_PER_S // sound.sample_rate))
    starts = -(-frames * sound.sample_rate // FRAMES_PER_S)
    peaks = np.zeros(len(frames), np.float32)
    position = 0
    for block in blocks(sound):
        first = int(np.searchsorted(starts, position, side="right")) - 1
        stop = int(np.searchsorted(starts, position + block.shape[1]))
        within = np.maximum(starts[first:stop] - position, 0)
        loudest = np.maximum.reduceat(np.abs(block).max(axis=0), within)
        peaks[first:stop] = np.maximum(peaks[first:stop], loudest)
        position += block.shape[1]
    heard = np.flatnonzero(peaks > 10 ** (THRESHOLD_DB / 20))
    if not len(heard):
        return np.zeros(len(frames), np.float32)
    after = np.searchsorted(heard, frames)
    nearest = heard[np.maximum(after - 1, 0)], heard[np.minimum(after, len(heard) - 1)]
    distance = np.minimum(np.abs(frames - nearest[0]), np.abs(frames - nearest[1]))
    return np.asarray(np.clip((_HOLD + _RAMP - distance) / _RAMP, 0.0, 1.0), np.float32)


def gated(made: Iterable[Waveform], opened: NDArray[np.float32], sample_rate: int) -> Iterator[Waveform]:
    """Consecutive `[C, n]` blocks, faded to exact silence where `openness` of the sound they were made from says so."""
    centres = np.arange(len(opened)) + 0.5
    position = 0
    for block in made:
        times = (position + np.arange(block.shape[1])) * (FRAMES_PER_S / sample_rate)
        yield block * np.interp(times, centres, opened).astype(np.float32) if len(opened) else block
        position += block.shape[1]
