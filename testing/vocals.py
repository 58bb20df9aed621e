"""Synthetic singing of known pitch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

RATE = 16_000
HOP = 160
MARGIN = 6  # frames around an onset or end, in which either answer is right


@dataclass(frozen=True)
class Phrase:
    """A sung phrase.

    Args:
        waveform: `[T]` at 16 kHz.
        f0: `[T // 160]` Hz, also where nothing sounds.
        sings: frames well inside notes.
        rests: frames well inside rests.
    """

    waveform: NDArray[np.float32]
    f0: NDArray[np.float64]
    sings: NDArray[np.bool_]
    rests: NDArray[np.bool_]

    def cut(self, frames: slice) -> Phrase:
        """These frames of it."""
        waveform = self.waveform[frames.start * HOP : frames.stop * HOP]
        return Phrase(waveform, self.f0[frames], self.sings[frames], self.rests[frames])


def phrase(seconds: float = 6.0, *, seed: int = 0, noise: float = 1e-4, low: float = 110, high: float = 440) -> Phrase:
    """A glide from `low` to `high` Hz with vibrato (5.5 Hz, 30 cents), ten harmonics, two notes between three rests."""
    count = round(seconds * RATE)
    times = np.arange(count) / RATE
    hz = low * (high / low) ** (times / seconds) * 2 ** (30 / 1200 * np.sin(2 * np.pi * 5.5 * times))
    phase = 2 * np.pi * np.cumsum(hz) / RATE
    voice = sum(np.sin(k * phase) / k for k in range(1, 11))
    place = times / seconds
    sounds = ((place > 0.08) & (place < 0.43)) | ((place > 0.53) & (place < 0.9))
    ramp = np.hanning(800) / np.hanning(800).sum()
    breath = noise * np.random.default_rng(seed).standard_normal(count)
    waveform = 0.2 * voice * np.convolve(sounds, ramp, "same") + breath
    frames = slice(0, count // HOP * HOP, HOP)
    around = sliding_window_view(np.pad(sounds[frames], MARGIN, mode="edge"), 2 * MARGIN + 1)
    return Phrase(waveform.astype(np.float32), hz[frames], np.all(around, axis=1), ~np.any(around, axis=1))


def cents_off(f0: NDArray[np.float32], truth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distances of voiced frames in cents."""
    voiced = (f0 > 0) & (truth > 0)
    return np.asarray(np.abs(1200 * np.log2(f0[voiced] / truth[voiced])))
