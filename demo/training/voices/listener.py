"""A network that hears phonemes in the latents of the target singers: its hidden layers are a loss for the synthesizer.

The differences of spectra are mostly those of level and of harmonics. What makes a vowel another one is a small part of
them, which this network weighs. It is trained on the training lines alone and has nothing of the networks that judge.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from demo.training.singing.lexicon import PHONEMES
from demo.training.voices.data import BUILD

CHECKPOINT = BUILD / "listener.pt"
WIDTH = 96
_DILATIONS = (1, 2, 4, 8)
_CROPS, _FRAMES = 16, 100
_PEAK_LR = 2e-3


class Listener(nn.Module):
    """Dilated convolutions over latents.

    Args:
        bands: channels of the latents.
    """

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(bands, WIDTH, 5, padding=2)
        self.layers = nn.ModuleList(nn.Conv1d(WIDTH, WIDTH, 3, padding=step, dilation=step) for step in _DILATIONS)
        self.norms = nn.ModuleList(nn.GroupNorm(1, WIDTH) for _ in self.layers)
        self.last = nn.Conv1d(WIDTH, len(PHONEMES), 1)

    def forward(self, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`[B, bands, T]` -> hidden values of all layers `[B, layers * WIDTH, T]`, logits `[B, phonemes, T]`."""
        x = self.first(latents)
        hidden = []
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = x + F.gelu(layer(norm(x)))
            hidden.append(x)
        return torch.cat(hidden, 1), self.last(x)


def train(latents: torch.Tensor, phonemes: torch.Tensor, steps: int, *, seed: int = 0) -> None:
    """Trains for `steps` steps and saves the weights to `CHECKPOINT`.

    Args:
        latents: `[N, bands, T]` of sung lines at 100 frames/s.
        phonemes: `[N, T]`, numbers in `PHONEMES`.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 3])
    listener = Listener(latents.shape[1])
    optimizer = torch.optim.AdamW(listener.parameters(), lr=_PEAK_LR)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _PEAK_LR, total_steps=steps, pct_start=0.1)
    for step in range(1, steps + 1):
        rows = rng.integers(len(latents), size=_CROPS)
        starts = rng.integers(latents.shape[2] - _FRAMES, size=_CROPS)
        crops = torch.stack([latents[row, :, start : start + _FRAMES] for row, start in zip(rows, starts, strict=True)])
        labels = torch.stack([phonemes[row, start : start + _FRAMES] for row, start in zip(rows, starts, strict=True)])
        color = F.interpolate(torch.randn(_CROPS, 1, 6), size=crops.shape[1], mode="linear", align_corners=True)
        _, logits = listener(crops + 0.15 * color.transpose(1, 2) + 0.15 * torch.randn_like(crops))
        loss = F.cross_entropy(logits, labels, label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            right = (logits.argmax(1) == labels).float().mean()
            print(f"listener, step {step}: loss {loss:.3f}, {right:.3f} right", flush=True)
    torch.save(listener.state_dict(), CHECKPOINT)


def load_listener(bands: int) -> Listener:
    """The trained network, whose weights stay as they are."""
    listener = Listener(bands)
    listener.load_state_dict(torch.load(CHECKPOINT, weights_only=True))
    listener.eval().requires_grad_(False)
    return listener


def compare(listener: Listener, latents: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """The mean difference of what the listener's layers make of two latents, `[B, bands, T]` each."""
    (hidden, logits), (wanted_hidden, wanted_logits) = listener(latents), listener(wanted)
    difference = F.l1_loss(hidden, wanted_hidden) / wanted_hidden.abs().mean()
    divergence = F.kl_div(logits.log_softmax(1), wanted_logits.log_softmax(1), log_target=True, reduction="none")
    total: torch.Tensor = difference + divergence.sum(1).mean()
    return total
