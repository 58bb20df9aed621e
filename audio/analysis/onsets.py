"""How strongly notes and drums start at each moment, in three frequency bands.

The positive difference of a logarithmic spectrogram, with a maximum over neighbouring bands that keeps vibrato from
counting (SuperFlux, Boeck and Widmer, DAFx 2013).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from audio.analysis.frames import ANALYSIS_RATE, Floats, Spectra

FRAME_LENGTH = 1024
HOP_LENGTH = 256
FRAME_RATE = ANALYSIS_RATE / HOP_LENGTH  # frames per second
TOTAL, LOW, HIGH = 0, 1, 2  # rows of the onset strengths

_LOWEST_HZ, _HIGHEST_HZ = 40.0, 10_000.0
_BANDS_PER_OCTAVE = 6
_LOW_BELOW_HZ, _HIGH_ABOVE_HZ = 160.0, 2000.0
_COMPRESSION = 5120.0  # log(1 + 5120 x) of a magnitude x relative to the audio's peak: linear below -74 dB
_LAG = 2  # frames between the spectra that are compared
_NORMALIZATION_S = 4.0
_SMOOTHING_FRAMES = 1.5


class OnsetDetector:
    """Measures onset strengths of a stream of samples at 22.05 kHz.

    Args:
        peak: largest absolute sample of the audio; strengths do not depend on its level.
    """

    def __init__(self, peak: float) -> None:
        self._gain = np.float32(_COMPRESSION / max(peak, 1e-9))
        self._spectra = Spectra(FRAME_LENGTH, HOP_LENGTH)
        centres, self._weights = _band_weights()
        self._is_low, self._is_high = centres < _LOW_BELOW_HZ, centres >= _HIGH_ABOVE_HZ
        self._before = np.zeros((0, len(centres)), np.float32)
        self._parts: list[Floats] = []

    def push(self, block: Floats) -> None:
        """Takes the next samples `[n]`."""
        for spectra in self._spectra.push(block):
            self._compare(spectra)

    def finish(self) -> Floats:
        """Onset strengths `[3, T]` of the whole stream: in all bands, below 160 Hz, above 2 kHz."""
        for spectra in self._spectra.finish():
            self._compare(spectra)
        return np.concatenate(self._parts, axis=1)

    def _compare(self, spectra: Floats) -> None:
        levels = np.log1p(self._gain * (spectra @ self._weights.T))
        if not len(self._before):
            self._before = np.repeat(levels[:1], _LAG, axis=0)
        joined = np.concatenate((self._before, levels))
        self._before = joined[-_LAG:]
        earlier = np.pad(joined[:-_LAG], ((0, 0), (1, 1)), mode="edge")
        earlier = np.maximum(np.maximum(earlier[:, :-2], earlier[:, 1:-1]), earlier[:, 2:])
        rises = np.maximum(levels - earlier, 0)
        rows = [rises.sum(axis=1), rises[:, self._is_low].sum(axis=1), rises[:, self._is_high].sum(axis=1)]
        self._parts.append(np.stack(rows))


def _band_weights() -> tuple[NDArray[np.float64], Floats]:
    """Centres of the bands in Hz, and `[bands, bins]` weights that average the bins of each."""
    hz = np.fft.rfftfreq(FRAME_LENGTH, 1 / ANALYSIS_RATE)
    count = int(np.log2(_HIGHEST_HZ / _LOWEST_HZ) * _BANDS_PER_OCTAVE) + 3
    edges = _LOWEST_HZ * 2 ** (np.arange(count) / _BANDS_PER_OCTAVE)
    centres = edges[1:-1]
    reach = np.maximum(edges[2:] - edges[:-2], 2.2 * ANALYSIS_RATE / FRAME_LENGTH) / 2
    weights = np.clip(1 - np.abs(hz - centres[:, None]) / reach[:, None], 0, None)
    return centres, (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def normalize_onsets(strengths: Floats) -> Floats:
    """`[B, T]` strengths above their mean over 4 s, relative to their root mean square over 4 s."""
    width = int(_NORMALIZATION_S * FRAME_RATE) | 1
    above = np.maximum(strengths - _moving_mean(strengths, width), 0)
    level = np.sqrt(_moving_mean(above**2, width))
    floor = 0.15 * level.max(axis=1, keepdims=True) + 1e-9
    return np.asarray(above / np.maximum(level, floor), np.float32)


def smooth_onsets(strength: Floats) -> Floats:
    """`[T]` strengths, averaged over about 50 ms."""
    reach = int(4 * _SMOOTHING_FRAMES) + 1
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / _SMOOTHING_FRAMES) ** 2)
    return np.convolve(np.pad(strength, reach), kernel / kernel.sum(), "valid").astype(np.float32)


def _moving_mean(rows: Floats, width: int) -> NDArray[np.float64]:
    """Mean of the `width` values around each value of `[B, T]` rows; of fewer at the ends."""
    count = rows.shape[1]
    sums = np.concatenate((np.zeros((len(rows), 1)), np.cumsum(rows, axis=1, dtype=np.float64)), axis=1)
    centres = np.arange(count)
    starts, stops = np.maximum(centres - width // 2, 0), np.minimum(centres + width // 2 + 1, count)
    return np.asarray((sums[:, stops] - sums[:, starts]) / (stops - starts))
