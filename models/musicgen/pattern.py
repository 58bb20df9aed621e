"""The delay pattern: codebook k runs `delays[k]` steps behind (arXiv 2306.05284, section 2.3). Knows no model.

A sequence has one start column, then column 1 + t + delays[k] holds codebook k's code of frame t; what no frame falls
on holds the special token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

UNKNOWN = -1


@dataclass(frozen=True)
class DelayPattern:
    """Turns frames into sequences and back.

    Args:
        delays: one for each codebook, ascending from 0.
        special: the token of places that no frame falls on.
    """

    delays: tuple[int, ...]
    special: int

    def __post_init__(self) -> None:
        if list(self.delays) != sorted(self.delays) or self.delays[0] != 0:
            raise ValueError("delays ascend from 0")

    @property
    def overhang(self) -> int:
        """Steps after the last frame's first codebook until its last one."""
        return self.delays[-1]

    def columns(self, frames: int) -> int:
        """Length of the sequence of so many frames, start column included."""
        return 1 + frames + self.overhang

    def mask(self, frames: int) -> torch.Tensor:
        """`[K, columns]` bool: where a frame falls."""
        frame = torch.arange(self.columns(frames)) - 1 - torch.tensor(self.delays)[:, None]
        return (frame >= 0) & (frame < frames)

    def spread(self, prompt: torch.Tensor, frames: int) -> torch.Tensor:
        """`[B, K, P]` known codes as the sequence `[B, K, columns]` of `frames`; `UNKNOWN` where one is to be found."""
        batch, codebooks, known = prompt.shape
        assert codebooks == len(self.delays) and known < frames
        sequence = prompt.new_full((batch, codebooks, self.columns(frames)), self.special)
        for k, delay in enumerate(self.delays):
            sequence[:, k, 1 + delay : 1 + delay + known] = prompt[:, k]
            sequence[:, k, 1 + delay + known : 1 + delay + frames] = UNKNOWN
        return sequence

    def gather(self, sequence: torch.Tensor, frames: int) -> torch.Tensor:
        """The codes `[B, K, frames]` in a sequence; the inverse of `spread`."""
        rows = [sequence[:, k, 1 + delay : 1 + delay + frames] for k, delay in enumerate(self.delays)]
        return torch.stack(rows, dim=1)

    def complete(self, columns: int) -> int:
        """How many frames are whole in the first `columns` columns."""
        return max(columns - 1 - self.overhang, 0)


def delays_of(settings: dict[str, object], codebooks: int) -> tuple[int, ...]:
    """The delays that a checkpoint's `codebooks_pattern` settings name.

    Raises:
        ValueError: a pattern that no MusicGen or AudioGen uses.
    """
    modeling = settings.get("modeling") or "delay"
    if modeling == "parallel":
        return (0,) * codebooks
    if modeling != "delay":
        raise ValueError(f"the codebook pattern '{modeling}'")
    delay = settings.get("delay") or {}
    assert isinstance(delay, dict)
    if delay.get("flatten_first") or delay.get("empty_initial"):
        raise ValueError("a delay pattern with a flattened or empty start")
    delays: Sequence[int] = delay.get("delays") or range(codebooks)
    return tuple(int(step) for step in delays)
