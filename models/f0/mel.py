"""The log-mel spectrograms that RMVPE and FCPE were trained on, without librosa. Frame i is centred on sample 160 i."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from models.f0.catalog import HOP_LENGTH, SAMPLE_RATE
from models.f0.estimator import Waveform
from models.runtime.chunks import reflect_pad
from models.runtime.mel_scale import hz_to_slaney_mel, slaney_mel_to_hz

N_FFT = 1024
N_MELS = 128
FLOOR = 1e-5


class LogMel:
    """The logarithm of mel-weighted magnitudes.

    Args:
        f_min: lower edge of the lowest band in Hz.
        htk: spaces the bands by HTK's mel formula instead of Slaney's.
        power_floor: added to squared magnitudes.
        device: where the spectrogram is computed.
    """

    def __init__(self, *, f_min: float, htk: bool, power_floor: float, device: torch.device) -> None:
        bands = make_mel_filterbank(f_min, SAMPLE_RATE / 2, htk=htk)
        self._bands = torch.from_numpy(bands).to(device)
        self._window = torch.hann_window(N_FFT, device=device)
        self._power_floor = power_floor

    def compute(self, waveform: Waveform, start: int, stop: int) -> torch.Tensor:
        """Frames `start` to `stop` of `[T]` at 16 kHz: `[128, stop - start]` float32; the ends are mirrored."""
        half = N_FFT // 2
        samples = reflect_pad(waveform, start * HOP_LENGTH - half, (stop - 1) * HOP_LENGTH + half)
        segment = torch.from_numpy(np.ascontiguousarray(samples)).to(self._window.device)
        spectrum = torch.stft(segment, N_FFT, HOP_LENGTH, window=self._window, center=False, return_complex=True)
        magnitude = (spectrum.real.square() + spectrum.imag.square() + self._power_floor).sqrt()
        return (self._bands @ magnitude).clamp(min=FLOOR).log()


def make_mel_filterbank(f_min: float, f_max: float, *, htk: bool) -> NDArray[np.float32]:
    """Triangular mel bands `[128, 513]` at 16 kHz, each with unit area in Hz, as Slaney normalizes."""
    to_mel, to_hz = (_hz_to_htk_mel, _htk_mel_to_hz) if htk else (hz_to_slaney_mel, slaney_mel_to_hz)
    low, high = to_mel(np.array([f_min, f_max]))
    edges = to_hz(np.linspace(low, high, N_MELS + 2))
    bins = np.linspace(0, SAMPLE_RATE / 2, N_FFT // 2 + 1)
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    triangles = np.maximum(0, np.minimum(rising, falling))
    return (triangles * (2 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32)


def _hz_to_htk_mel(hz: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(2595 * np.log10(1 + hz / 700))


def _htk_mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(700 * (10 ** (mel / 2595) - 1))
