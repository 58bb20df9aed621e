"""What a language model listens to, as tensors. Knows how no text or melody is encoded."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, eq=False)
class Conditions:
    """For the B items of a batch. Rows are B, or 2B where `guided`: all conditions, then all null conditions.

    Args:
        context: `[A, L, dim]`, what the first A rows attend to; the others' context is zero throughout, and adds
            exactly zero. None: no row attends to anything.
        context_mask: `[A, L]`, False where a row's context is shorter; None where none is.
        prefix: `[rows, P, dim]`, what comes before the first column; shorter ones are padded at their start.
        pads: `[rows]`, by how much; None where none is.
    """

    guided: bool
    context: torch.Tensor | None = None
    context_mask: torch.Tensor | None = None
    prefix: torch.Tensor | None = None
    pads: torch.Tensor | None = None
