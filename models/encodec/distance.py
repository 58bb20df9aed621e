"""How far audio is from its original: SI-SDR (arXiv 1811.02508) and a distance of log-mel spectrograms.

Both are measured block by block, so that audio may have any length. Importable without torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from audio.types import Waveform
from models.runtime.mel_scale import hz_to_slaney_mel, slaney_mel_to_hz

N_MELS = 64
WINDOW_S = 0.043
FLOOR = 1e-10  # of power, added before the logarithm: -100 dB
_FRAMES_AT_ONCE = 512


@dataclass(eq=False)
class Distance:
    """Compares audio with its original as both come in.

    Args:
        sample_rate: of both, Hz.
        channels: of both.
    """

    sample_rate: int
    channels: int
    _products: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))  # <s, s>, <s, x>, <x, x>
    _difference: float = 0.0
    _frames: int = 0

    def __post_init__(self) -> None:
        self._size = 2 ** round(math.log2(WINDOW_S * self.sample_rate))
        self._window = np.hanning(self._size + 1)[:-1].astype(np.float32)
        self._bands = make_mel_bands(self.sample_rate, self._size)
        self._waiting = np.zeros(
            (2, self.channels, self._size // 2), np.float32
        )  # the first frame is centred on sample 0

    def add(self, original: Waveform, other: Waveform) -> None:
        """Takes the next samples of both, `[C, n]` each."""
        assert original.shape == other.shape, f"{original.shape} of the original and {other.shape} of the other"
        s, x = original.astype(np.float64), other.astype(np.float64)
        self._products += ((s * s).sum(), (s * x).sum(), (x * x).sum())
        self._waiting = np.concatenate([self._waiting, np.stack([original, other])], axis=2)
        self._compare_frames()

    @property
    def si_sdr_db(self) -> float | None:
        """The original's part of the audio against the rest, in dB, at its best gain; None if either is silent."""
        ss, sx, xx = self._products
        if ss <= 0 or xx <= 0 or sx == 0:
            return None
        part = sx * sx / ss
        rest = max(xx - part, 1e-15 * xx)
        return float(10 * np.log10(part / rest))

    def finish(self) -> float:
        """Mean absolute difference of the two log-mel spectrograms, in dB, over bands, frames and channels.

        Call it once, after all samples.
        """
        self._waiting = np.pad(self._waiting, ((0, 0), (0, 0), (0, self._size // 2)))
        self._compare_frames()
        return self._difference / self._frames

    def _compare_frames(self) -> None:
        hop = self._size // 4
        while (count := (self._waiting.shape[2] - self._size) // hop + 1) > 0:
            count = min(count, _FRAMES_AT_ONCE)
            frames = np.lib.stride_tricks.sliding_window_view(self._waiting, self._size, axis=2)[
                :, :, : count * hop : hop
            ]
            power = np.abs(np.fft.rfft(frames * self._window, axis=-1)).astype(np.float32) ** 2
            levels = 10 * np.log10(power @ self._bands + FLOOR)
            self._difference += float(np.abs(levels[0] - levels[1]).mean(axis=(0, 2)).sum())
            self._frames += count
            self._waiting = self._waiting[:, :, count * hop :]


def make_mel_bands(sample_rate: int, size: int) -> NDArray[np.float32]:
    """Triangular bands `[size / 2 + 1, N_MELS]` that are evenly spaced on the mel scale, for power spectra of windows
    of `size` samples; a full-scale sine is at 0 dB."""
    low, high = hz_to_slaney_mel(np.array([0.0, sample_rate / 2]))
    edges = slaney_mel_to_hz(np.linspace(low, high, N_MELS + 2))
    bins = np.linspace(0, sample_rate / 2, size // 2 + 1)[:, None]
    rising = (bins - edges[:-2]) / np.diff(edges)[:-1]
    falling = (edges[2:] - bins) / np.diff(edges)[1:]
    return (np.maximum(0, np.minimum(rising, falling)) * (4 / size) ** 2).astype(np.float32)
