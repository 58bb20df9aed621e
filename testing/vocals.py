"""Synthetic vocals: a random melody, and a phrase whose f0 is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

SAMPLE_RATE = 16_000
HOP_LENGTH = 160
MARGIN = 6  # frames around the start or end of a note, in which both voiced and unvoiced are right


def make_vocal(seconds: float, *, sample_rate: int = SAMPLE_RATE, seed: int = 0) -> NDArray[np.float32]:
    """`[T]`: gliding notes with harmonics, vibrato, pauses of about 0.7 s and breath noise; the peak is about 0.6."""
    generator = np.random.default_rng(seed)
    count = round(seconds * sample_rate)
    times = np.arange(count) / sample_rate
    notes = generator.choice([0, 2, 4, 5, 7, 9, 11, 12], size=int(seconds / 0.4) + 2)
    semitones = np.interp(times, np.arange(len(notes)) * 0.4, notes) + 0.3 * np.sin(2 * np.pi * 5.5 * times)
    phase = 2 * np.pi * np.cumsum(180 * 2 ** (semitones / 12)) / sample_rate
    tone = sum(np.sin(k * phase) / k**1.3 for k in range(1, 9))
    level = np.clip(4 * np.sin(2 * np.pi * times / 3.1 + 0.4) + 3, 0, 1)
    noise = generator.standard_normal(count)
    return np.asarray(0.25 * level * tone + 0.004 * noise, np.float32)


@dataclass(frozen=True)
class Phrase:
    """A vocal phrase of known f0.

    Args:
        waveform: `[T]` at 16 kHz.
        f0: `[T // 160]` in Hz, also in the rests.
        voiced: `[T // 160]`, frames well inside notes.
        unvoiced: `[T // 160]`, frames well inside rests.
    """

    waveform: NDArray[np.float32]
    f0: NDArray[np.float64]
    voiced: NDArray[np.bool_]
    unvoiced: NDArray[np.bool_]

    def slice(self, frames: slice) -> Phrase:
        """These frames of the phrase."""
        waveform = self.waveform[frames.start * HOP_LENGTH : frames.stop * HOP_LENGTH]
        return Phrase(waveform, self.f0[frames], self.voiced[frames], self.unvoiced[frames])


def make_phrase(
    seconds: float = 6.0, *, seed: int = 0, noise: float = 1e-4, low: float = 110, high: float = 440
) -> Phrase:
    """A glide from `low` to `high` Hz with vibrato (5.5 Hz, 30 cents), ten harmonics, two notes between three rests."""
    count = round(seconds * SAMPLE_RATE)
    times = np.arange(count) / SAMPLE_RATE
    hz = low * (high / low) ** (times / seconds) * 2 ** (30 / 1200 * np.sin(2 * np.pi * 5.5 * times))
    phase = 2 * np.pi * np.cumsum(hz) / SAMPLE_RATE
    tone = sum(np.sin(k * phase) / k for k in range(1, 11))
    position = times / seconds
    is_note = ((position > 0.08) & (position < 0.43)) | ((position > 0.53) & (position < 0.9))
    ramp = np.hanning(800) / np.hanning(800).sum()
    breath = noise * np.random.default_rng(seed).standard_normal(count)
    waveform = 0.2 * tone * np.convolve(is_note, ramp, "same") + breath
    frames = slice(0, count // HOP_LENGTH * HOP_LENGTH, HOP_LENGTH)
    around = sliding_window_view(np.pad(is_note[frames], MARGIN, mode="edge"), 2 * MARGIN + 1)
    return Phrase(waveform.astype(np.float32), hz[frames], np.all(around, axis=1), ~np.any(around, axis=1))


def measure_cents_error(f0: NDArray[np.float32], truth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Absolute errors in cents of the frames that are voiced in both."""
    voiced = (f0 > 0) & (truth > 0)
    return np.asarray(np.abs(1200 * np.log2(f0[voiced] / truth[voiced])))
