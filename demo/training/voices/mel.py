"""Log-mel spectrograms of several resolutions, for losses and for the networks that judge."""

from __future__ import annotations

from functools import lru_cache

import librosa
import torch


@lru_cache(maxsize=16)
def _filters(sample_rate: int, size: int, bands: int) -> torch.Tensor:
    return torch.from_numpy(librosa.filters.mel(sr=sample_rate, n_fft=size, n_mels=bands, fmin=0)).float()


def spectrogram(waveforms: torch.Tensor, *, size: int, hop_length: int) -> torch.Tensor:
    """`[B, T]` -> magnitudes `[B, size // 2 + 1, T // hop_length + 1]`, frame i centred at sample i * hop_length."""
    window = torch.hann_window(size)
    spectrum = torch.stft(waveforms, size, hop_length, window=window, return_complex=True, pad_mode="reflect")
    return torch.view_as_real(spectrum).square().sum(-1).clamp_min(1e-9).sqrt()


def log_mel(  # noqa: PLR0913
    waveforms: torch.Tensor, *, sample_rate: int, size: int, hop_length: int, bands: int, floor: float = 1e-4
) -> torch.Tensor:
    """`[B, T]` -> natural logarithm of mel magnitudes, `[B, bands, T // hop_length + 1]`."""
    magnitudes = spectrogram(waveforms, size=size, hop_length=hop_length)
    return torch.log(_filters(sample_rate, size, bands) @ magnitudes + floor)
