"""Draws codes from logits. Each code is decided by one uniform number, without a value read back from the device."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto

import torch

from models.musicgen.request import Sampling


class SamplingMode(Enum):
    """Which kernels draw the codes, and so what a CUDA graph is captured for. The settings' values are tensors."""

    GREEDY = auto()
    """Takes the most likely code."""
    TOP_K = auto()
    """Keeps the `top_k` most likely candidates."""
    TOP_P = auto()
    """Keeps the smallest set of candidates whose probability exceeds `top_p`."""

    @classmethod
    def choose(cls, sampling: Sampling) -> SamplingMode:
        """The mode of a request's sampling settings."""
        if sampling.temperature == 0:
            return cls.GREEDY
        return cls.TOP_P if sampling.top_p > 0 else cls.TOP_K


def draw_uniforms(generators: Sequence[torch.Generator], steps: int, codebooks: int) -> torch.Tensor:
    """`[B, steps, K]` float64 in [0, 1); clip b's numbers come from generator b alone, whatever is in its batch.

    The generators are on the CPU: each number decides one code, and is the same on every device.
    """
    draws = [torch.rand(steps, codebooks, generator=generator, dtype=torch.float64) for generator in generators]
    return torch.stack(draws)


def sample(  # noqa: PLR0913 - the settings' values, each a tensor
    logits: torch.Tensor,
    uniforms: torch.Tensor,
    mode: SamplingMode,
    *,
    temperature: torch.Tensor,
    top_k: torch.Tensor,
    top_p: torch.Tensor,
) -> torch.Tensor:
    """Draws by the inverse of the cumulative distribution.

    Args:
        logits: `[B, K, card]`.
        uniforms: `[B, K]` in [0, 1].
        temperature: one number, > 0.
        top_k: `[1]`, from 1 to card; counts in the mode `TOP_K`.
        top_p: one number; counts in the mode `TOP_P`.

    Returns:
        `[B, K]` codes.
    """
    if mode is SamplingMode.GREEDY:
        return logits.argmax(-1)
    probabilities = torch.softmax(logits / temperature, dim=-1)
    if mode is SamplingMode.TOP_P:
        probabilities = _keep_top_p(probabilities, top_p)
    else:
        probabilities = _keep_top_k(probabilities, top_k)
    cumulative = probabilities.cumsum(-1)
    total = cumulative[..., -1:]
    last = (cumulative < total).sum(-1)  # the last candidate; rounding alone could lead beyond it
    drawn = torch.searchsorted(cumulative, uniforms.unsqueeze(-1) * total, right=True).squeeze(-1)
    return torch.minimum(drawn, last)


def _keep_top_k(probabilities: torch.Tensor, top_k: torch.Tensor) -> torch.Tensor:
    """Zeroes every candidate that is less likely than the `top_k`-th."""
    if probabilities.device.type == "cpu":  # reading a value costs nothing there, and sorting 20 times as much
        smallest = probabilities.topk(int(top_k), sorted=False).values.amin(-1, keepdim=True)
    else:
        smallest = find_kth(probabilities, top_k)
    return probabilities * (probabilities >= smallest)


def find_kth(probabilities: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """`[..., card]` to `[..., 1]`: the `k`-th largest, `k` being `[1]` on the device. A graph serves every `k`."""
    return probabilities.sort(dim=-1, descending=True).values.index_select(-1, k - 1)


def _keep_top_p(probabilities: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """Zeroes every candidate if the more likely ones already sum to more than `top_p`."""
    ranked, order = probabilities.sort(dim=-1, descending=True)
    ranked = ranked * (ranked.cumsum(-1) - ranked <= top_p)
    return torch.zeros_like(probabilities).scatter(-1, order, ranked)
