"""The delay pattern: codebook k runs `delays[k]` steps behind the first one (arXiv 2306.05284, section 2.3).

A sequence begins with a start column. Column 1 + t + delays[k] then holds codebook k's code of frame t. Places that no
frame falls on hold the special token.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from models.checkpoints.errors import CheckpointError
from models.checkpoints.settings import Settings

UNKNOWN_CODE = -1
"""Marks a place in a sequence whose code is still to be generated. No codebook has it."""


@dataclass(frozen=True, slots=True)
class DelayPattern:
    """Turns frames of codes into a sequence of columns, and back.

    Args:
        delays: steps, one for each codebook, ascending from 0.
        special_token: fills the places that no frame falls on.
    """

    delays: tuple[int, ...]
    special_token: int

    def __post_init__(self) -> None:
        if list(self.delays) != sorted(self.delays) or self.delays[0] != 0:
            raise ValueError(f"the delays {self.delays} do not ascend from 0")

    @property
    def max_delay(self) -> int:
        """Steps from a frame's first code to its last one."""
        return self.delays[-1]

    def num_columns(self, frames: int) -> int:
        """Length of the sequence for so many frames, start column included."""
        return 1 + frames + self.max_delay

    def num_complete_frames(self, columns: int) -> int:
        """How many frames have all their codes in the first `columns` columns."""
        return max(columns - 1 - self.max_delay, 0)

    def mask(self, frames: int) -> torch.Tensor:
        """`[K, columns]` bool, True at places that a frame falls on."""
        frame = torch.arange(self.num_columns(frames)) - 1 - torch.tensor(self.delays)[:, None]
        return (frame >= 0) & (frame < frames)

    def build_sequence(self, prompt: torch.Tensor, frames: int) -> torch.Tensor:
        """Lays out known codes for generation.

        Args:
            prompt: `[B, K, P]` codes of the first P frames, P < frames.
            frames: of the whole, prompt included.

        Returns:
            `[B, K, num_columns(frames)]`, with `UNKNOWN_CODE` at the places of the frames from P on.
        """
        batch, codebooks, known = prompt.shape
        assert codebooks == len(self.delays), f"{codebooks} codebooks for a pattern of {len(self.delays)}"
        assert known < frames, f"a prompt of {known} frames leaves nothing to generate of {frames}"
        sequence = prompt.new_full((batch, codebooks, self.num_columns(frames)), self.special_token)
        for k, delay in enumerate(self.delays):
            sequence[:, k, 1 + delay : 1 + delay + known] = prompt[:, k]
            sequence[:, k, 1 + delay + known : 1 + delay + frames] = UNKNOWN_CODE
        return sequence

    def revert_sequence(self, sequence: torch.Tensor, frames: int) -> torch.Tensor:
        """The inverse of `build_sequence`: `[B, K, columns]` to the codes `[B, K, frames]` of the first frames."""
        codes = [sequence[:, k, 1 + delay : 1 + delay + frames] for k, delay in enumerate(self.delays)]
        return torch.stack(codes, dim=1)


def read_delays(settings: Settings, codebooks: int) -> tuple[int, ...]:
    """Reads the delay of each codebook, in steps, from a checkpoint's `codebooks_pattern` settings.

    Raises:
        CheckpointError: a pattern that no MusicGen or AudioGen uses.
    """
    settings.require("modeling", None, "delay", "parallel")
    if settings.get("modeling") == "parallel":
        return (0,) * codebooks
    settings.require("delay.flatten_first", None, 0, False)
    settings.require("delay.empty_initial", None, 0, False)
    delays = settings.integers("delay.delays", (), least=0) or tuple(range(codebooks))
    if len(delays) != codebooks or list(delays) != sorted(delays) or delays[0] != 0:
        raise CheckpointError(f"its codebooks' delays are not {codebooks} numbers that ascend from 0")
    return delays
