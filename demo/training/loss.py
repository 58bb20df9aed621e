"""The spectral loss that the demo's codecs are trained with."""

import math
from collections.abc import Sequence

import torch
from torch import nn


class SpectralLoss(nn.Module):
    """L1 between log mel spectrograms and between magnitudes, at several resolutions (as in DAC and EnCodec).

    Args:
        sample_rate: of the waveforms, Hz.
        fft_sizes: in samples; the hop length is a quarter of each.
        max_bands: the most mel bands; small sizes have fewer.
    """

    def __init__(self, sample_rate: int, *, fft_sizes: Sequence[int], max_bands: int) -> None:
        super().__init__()
        import librosa

        self._fft_sizes = tuple(fft_sizes)
        for size in fft_sizes:
            mel = librosa.filters.mel(sr=sample_rate, n_fft=size, n_mels=min(max_bands, size // 8))
            self.register_buffer(f"mel{size}", torch.from_numpy(mel), persistent=False)
            self.register_buffer(f"window{size}", torch.hann_window(size), persistent=False)

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Compares waveforms `[B, T]`; returns a scalar."""
        loss = torch.zeros(())
        both = torch.cat([output, target])
        for size in self._fft_sizes:
            window, mel = self.get_buffer(f"window{size}"), self.get_buffer(f"mel{size}")
            spectrum = torch.stft(both, size, size // 4, window=window, return_complex=True)
            magnitude = (spectrum.real**2 + spectrum.imag**2 + 1e-9).sqrt()
            log_mel = torch.log(mel @ magnitude + 1e-3)
            loss = loss + compare_halves(log_mel) + 2 * compare_halves(magnitude) / math.sqrt(size)
        return loss / len(self._fft_sizes)


def compare_halves(both: torch.Tensor) -> torch.Tensor:
    """L1 between the first half of a batch and the second."""
    output, target = both.chunk(2)
    return (output - target).abs().mean()
