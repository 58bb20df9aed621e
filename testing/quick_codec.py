"""A codec of ACE-Step without networks, for tests of what happens between its encoder and its decoder."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from models.acestep.codec import LatentCodec
from models.runtime.progress import Progress, ignore_progress


class QuickCodec(LatentCodec):
    """Keeps four samples of each hop of 1,920 as latents, and decodes them to steps. It stores what it was given.

    `encoded` holds every waveform `[2, T]`, `decoded` every `[1, T, C]`.
    """

    encoded: list[torch.Tensor]
    decoded: list[torch.Tensor]

    def __init__(self, vae: torch.nn.Module) -> None:
        super().__init__(vae)
        self.encoded, self.decoded = [], []

    def encode(self, waveform: torch.Tensor, *, progress: Progress = ignore_progress) -> torch.Tensor:
        """See `LatentCodec`."""
        self.encoded.append(waveform)
        padded = F.pad(waveform, (0, -waveform.shape[1] % self.hop_length))
        progress(1.0)
        return 10 * padded[0].view(1, -1, self.hop_length)[..., : self.latent_channels]

    def decode(self, latents: torch.Tensor, *, progress: Progress = ignore_progress) -> torch.Tensor:
        """See `LatentCodec`."""
        self.decoded.append(latents)
        progress(0.5)
        progress(1.0)
        return 0.1 * latents[0, :, :2].T.repeat_interleave(self.hop_length, dim=1)
