"""What drives a voice's decoder besides its features: the sine of f0, continuous over a song, and seeded noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

SINE_AMPLITUDE = 0.1
VOICED_NOISE = 0.003  # standard deviation of the noise added to the sine
UNVOICED_NOISE = SINE_AMPLITUDE / 3
_BLOCK_FRAMES = 100
_BLOCK_OFFSET = 1 << 20  # makes the numbers of blocks before a song's start positive


def accumulate_phase(f0: NDArray[np.float32], frame_rate: float) -> NDArray[np.float32]:
    """Phase of the sine at the start of each frame, in periods.

    Args:
        f0: `[T]` in Hz, constant over a frame; in frames of 0 Hz the phase does not advance.
        frame_rate: frames per second.

    Returns:
        `[T]`, 0 to 1, starting with 0; summed in float64, so that it is exact after hours.
    """
    cycles = np.cumsum(f0.astype(np.float64) / frame_rate)
    return np.concatenate([[0.0], np.mod(cycles[:-1], 1.0)]).astype(np.float32)


def generate_sine(f0: torch.Tensor, phase: torch.Tensor, noise: torch.Tensor, *, sample_rate: float) -> torch.Tensor:
    """The noisy sine that a voice's excitation is made from: rvc-python's `SineGen` with one harmonic.

    Args:
        f0: `[B, T]` in Hz, 0 = unvoiced.
        phase: `[B, T]`, in periods, at the start of each frame, from `accumulate_phase`.
        noise: `[B, T, hop_length]`, standard normal.
        sample_rate: samples per second.

    Returns:
        `[B, T * hop_length]` float32.
    """
    assert f0.shape == phase.shape == noise.shape[:2], "f0 and phase are [B, T], the noise is [B, T, hop_length]"
    steps = torch.arange(1, noise.shape[-1] + 1, device=f0.device, dtype=torch.float32)
    periods = phase[..., None] + (f0 / sample_rate)[..., None] * steps
    voiced = (f0 > 0)[..., None]
    level = torch.where(voiced, VOICED_NOISE, UNVOICED_NOISE)
    tone = torch.where(voiced, torch.sin(periods * (2 * math.pi)) * SINE_AMPLITUDE, 0.0)
    return (tone + level * noise).flatten(1)


@dataclass(frozen=True, slots=True)
class FrameNoise:
    """Standard normal noise that depends on the seed and the frame only, however the song is split into chunks.

    Args:
        seed: at least 0.
        stream: noise of one seed and different streams is independent.
        width: values per frame.
        device: where the noise is drawn; CPU and CUDA draw different values.
    """

    seed: int
    stream: int
    width: int
    device: torch.device

    def draw(self, start: int, count: int) -> torch.Tensor:
        """Noise for the frames `start` to `start + count`, `[count, width]` float32; `start` may be negative."""
        first, last = start // _BLOCK_FRAMES, (start + count - 1) // _BLOCK_FRAMES
        blocks = torch.cat([self._draw_block(block) for block in range(first, last + 1)])
        offset = start - first * _BLOCK_FRAMES
        return blocks[offset : offset + count]

    def _draw_block(self, block: int) -> torch.Tensor:
        entropy = np.random.SeedSequence((self.seed, self.stream, block + _BLOCK_OFFSET)).generate_state(1, np.uint64)
        generator = torch.Generator(self.device).manual_seed(int(entropy[0]) >> 1)
        return torch.randn(_BLOCK_FRAMES, self.width, generator=generator, device=self.device)
