"""Draws codes from logits, each decided by one uniform number, without a look from the host. Knows no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Rule:
    """Which candidates a code is drawn from: what a captured graph is fixed to.

    Args:
        greedy: takes the likeliest; the rest does not count.
        top_k: how many candidates are kept; 0: all. `nucleus` goes before it.
        nucleus: keeps the smallest set of candidates whose probability is more than the state's `top_p`.
    """

    greedy: bool = False
    top_k: int = 250
    nucleus: bool = False


def draw_uniforms(generators: Sequence[torch.Generator], steps: int, codebooks: int) -> torch.Tensor:
    """`[B, steps, K]` float64 in [0, 1), item i's from generator i alone, so that no item changes with its neighbours.

    The generators are on the CPU: one number decides one code, the same on every device.
    """
    draws = [torch.rand(steps, codebooks, generator=generator, dtype=torch.float64) for generator in generators]
    return torch.stack(draws)


def pick(
    logits: torch.Tensor, uniforms: torch.Tensor, rule: Rule, *, temperature: torch.Tensor, top_p: torch.Tensor
) -> torch.Tensor:
    """Draws by the inverse of the cumulative distribution.

    Args:
        logits: `[B, K, card]`.
        uniforms: `[B, K]` in [0, 1), float64 (float32 on devices without it).
        temperature: > 0, one number.
        top_p: one number; counts where the rule has `nucleus`.

    Returns:
        `[B, K]` codes.
    """
    if rule.greedy:
        return logits.argmax(-1)
    # In the draws' float64 where the device has it, so that rounding does not shift which candidate is hit.
    probabilities = torch.softmax(logits.to(uniforms.dtype) / temperature, dim=-1)
    if rule.nucleus:
        probabilities = _keep_top_p(probabilities, top_p)
    elif 0 < rule.top_k < probabilities.shape[-1]:
        smallest = probabilities.topk(rule.top_k, dim=-1, sorted=False).values.amin(-1, keepdim=True)
        probabilities = probabilities * (probabilities >= smallest)
    cumulative = probabilities.cumsum(-1)
    total = cumulative[..., -1:]
    last = (cumulative < total).sum(-1)  # the last candidate; beyond it only rounding could lead
    hit = torch.searchsorted(cumulative, uniforms.unsqueeze(-1) * total, right=True).squeeze(-1)
    return torch.minimum(hit, last)


def _keep_top_p(probabilities: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """Zeroes every candidate whose likelier ones already sum to more than `top_p`."""
    ranked, order = probabilities.sort(dim=-1, descending=True)
    ranked = ranked * (ranked.cumsum(-1) - ranked <= top_p)
    return torch.zeros_like(probabilities).scatter(-1, order, ranked)
