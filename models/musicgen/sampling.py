"""Draws codes from logits. Each code is decided by one uniform number, without a value read back from the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from models.musicgen.request import Sampling


@dataclass(frozen=True, slots=True)
class SamplingMode:
    """Which kernels draw the codes, and so what a CUDA graph is captured for. Temperature and top_p are tensors.

    Args:
        greedy: takes the most likely code; the other fields do not count.
        top_k: how many candidates are kept; 0 = all. Does not count with `use_top_p`.
        use_top_p: keeps the smallest set of candidates whose probability exceeds `top_p`.
    """

    greedy: bool = False
    top_k: int = 250
    use_top_p: bool = False

    @classmethod
    def of(cls, sampling: Sampling) -> SamplingMode:
        """The mode of a request's sampling settings."""
        if sampling.temperature == 0:
            return cls(greedy=True, top_k=0)
        return cls(top_k=0, use_top_p=True) if sampling.top_p > 0 else cls(top_k=sampling.top_k)


def draw_uniforms(generators: Sequence[torch.Generator], steps: int, codebooks: int) -> torch.Tensor:
    """`[B, steps, K]` float64 in [0, 1); clip b's numbers come from generator b alone, whatever is in its batch.

    The generators are on the CPU: each number decides one code, and is the same on every device.
    """
    draws = [torch.rand(steps, codebooks, generator=generator, dtype=torch.float64) for generator in generators]
    return torch.stack(draws)


def sample(
    logits: torch.Tensor, uniforms: torch.Tensor, mode: SamplingMode, *, temperature: torch.Tensor, top_p: torch.Tensor
) -> torch.Tensor:
    """Draws by the inverse of the cumulative distribution.

    Args:
        logits: `[B, K, card]`.
        uniforms: `[B, K]` in [0, 1), float64 (float32 on devices without it).
        temperature: one number, > 0.
        top_p: one number; counts with `mode.use_top_p`.

    Returns:
        `[B, K]` codes.
    """
    if mode.greedy:
        return logits.argmax(-1)
    # In the draws' float64 if the device has it, so that rounding does not change which candidate is drawn.
    probabilities = torch.softmax(logits.to(uniforms.dtype) / temperature, dim=-1)
    if mode.use_top_p:
        probabilities = _keep_top_p(probabilities, top_p)
    elif 0 < mode.top_k < probabilities.shape[-1]:
        smallest = probabilities.topk(mode.top_k, dim=-1, sorted=False).values.amin(-1, keepdim=True)
        probabilities = probabilities * (probabilities >= smallest)
    cumulative = probabilities.cumsum(-1)
    total = cumulative[..., -1:]
    last = (cumulative < total).sum(-1)  # the last candidate; rounding alone could lead beyond it
    drawn = torch.searchsorted(cumulative, uniforms.unsqueeze(-1) * total, right=True).squeeze(-1)
    return torch.minimum(drawn, last)


def _keep_top_p(probabilities: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """Zeroes every candidate if the more likely ones already sum to more than `top_p`."""
    ranked, order = probabilities.sort(dim=-1, descending=True)
    ranked = ranked * (ranked.cumsum(-1) - ranked <= top_p)
    return torch.zeros_like(probabilities).scatter(-1, order, ranked)
