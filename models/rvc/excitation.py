"""The sine that a voice with f0 is made from (rvc-python's `SineGen` of one harmonic), continuous over a whole song."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

AMPLITUDE: Final = 0.1
NOISE_VOICED: Final = 0.003
NOISE_UNVOICED: Final = AMPLITUDE / 3


def phases(f0: NDArray[np.float32], frame_rate: float) -> NDArray[np.float32]:
    """Where in its period the sine is as each frame begins, 0 to 1, `[T]`, starting with 0; summed in float64.

    Args:
        f0: `[T]` in Hz, constant over a frame; the sine stands still where it is 0.
        frame_rate: frames a second.
    """
    cycles = np.cumsum(f0.astype(np.float64) / frame_rate)
    return np.concatenate([[0.0], np.mod(cycles[:-1], 1.0)]).astype(np.float32)


def sine(f0: Tensor, phase: Tensor, noise: Tensor, *, sample_rate: float) -> Tensor:
    """The sine with its noise, `[B, T * hop]` float32.

    Args:
        f0: `[B, T]` in Hz.
        phase: `[B, T]`, of each frame's beginning, from `phases`.
        noise: `[B, T, hop]` standard normal.
        sample_rate: samples a second, hop of them a frame.
    """
    steps = torch.arange(1, noise.shape[-1] + 1, device=f0.device, dtype=torch.float32)
    turns = phase[..., None] + (f0 / sample_rate)[..., None] * steps
    voiced = (f0 > 0)[..., None]
    level = torch.where(voiced, NOISE_VOICED, NOISE_UNVOICED)
    tone = torch.where(voiced, torch.sin(turns * (2 * math.pi)) * AMPLITUDE, 0.0)
    return (tone + level * noise).flatten(1)
