"""Noise that belongs to moments of a song: what is drawn for a frame depends on the seed and the frame alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

_BLOCK_FRAMES: Final = 100
_BEFORE: Final = 1 << 20  # blocks may be numbered below zero


@dataclass(frozen=True, slots=True)
class NoiseGrid:
    """Standard normal noise, `width` numbers a frame, on one device. Cutting a song elsewhere does not change it.

    Args:
        seed: not negative.
        stream: noises of one seed and different streams are independent.
        width: numbers for each frame.
        device: draws differ from one kind of device to another.
    """

    seed: int
    stream: int
    width: int
    device: torch.device

    def frames(self, start: int, count: int) -> Tensor:
        """`[count, width]` float32: that of the frames `start` to `start + count`; `start` may be negative."""
        first, last = start // _BLOCK_FRAMES, (start + count - 1) // _BLOCK_FRAMES
        drawn = torch.cat([self._block(block) for block in range(first, last + 1)])
        offset = start - first * _BLOCK_FRAMES
        return drawn[offset : offset + count]

    def _block(self, block: int) -> Tensor:
        entropy = np.random.SeedSequence((self.seed, self.stream, block + _BEFORE)).generate_state(1, np.uint64)
        generator = torch.Generator(self.device).manual_seed(int(entropy[0]) >> 1)
        return torch.randn(_BLOCK_FRAMES, self.width, generator=generator, device=self.device)
