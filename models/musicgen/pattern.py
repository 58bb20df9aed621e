"""The delay pattern: codebook k runs `delays[k]` steps behind the first one (arXiv 2306.05284, section 2.3).

A sequence begins with a start column. Column 1 + t + delays[k] then holds codebook k's code of frame t. Places that no
frame falls on hold the special token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

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


def read_delays(settings: Mapping[str, Any], codebooks: int) -> tuple[int, ...]:
    """The delays that a checkpoint's `codebooks_pattern` settings ask for.

    Raises:
        ValueError: they ask for a pattern that no MusicGen or AudioGen uses.
    """
    modeling = settings.get("modeling") or "delay"
    if modeling == "parallel":
        return (0,) * codebooks
    if modeling != "delay":
        raise ValueError(f"the codebook pattern '{modeling}'")
    delay = settings.get("delay") or {}
    if not isinstance(delay, Mapping):
        raise ValueError(f"a delay pattern with the settings {delay!r:.50}")
    if delay.get("flatten_first") or delay.get("empty_initial"):
        raise ValueError("a delay pattern with a flattened or empty start")
    delays: Sequence[int] = delay.get("delays") or range(codebooks)
    return tuple(int(step) for step in delays)
