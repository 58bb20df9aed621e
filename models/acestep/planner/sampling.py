"""Draws tokens from logits. Each is decided by one uniform number, without a value read back from a GPU."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from models.acestep.planner.request import LmSampling


@dataclass(frozen=True, slots=True)
class SamplingMode:
    """Which kernels draw tokens, and so what a CUDA graph is captured for. The settings' values are tensors.

    Args:
        is_greedy: the most likely token is taken.
        limits_count: whether `top_k` counts.
        limits_mass: whether `top_p` counts.
        is_penalised: whether tokens that came before are less likely.
    """

    is_greedy: bool
    limits_count: bool
    limits_mass: bool
    is_penalised: bool

    @classmethod
    def choose(cls, sampling: LmSampling) -> SamplingMode:
        """The mode of a request's sampling settings."""
        is_penalised = sampling.repetition_penalty != 1
        if sampling.temperature == 0 or sampling.top_k == 1:
            return cls(True, False, False, is_penalised)
        return cls(False, sampling.top_k > 0, sampling.top_p < 1, is_penalised)


@dataclass(frozen=True, slots=True, eq=False)
class SamplingValues:
    """The numbers of a request's settings, on the device. `top_k` is `[1]`, from 1 on; the others are scalars."""

    temperature: torch.Tensor
    top_k: torch.Tensor
    top_p: torch.Tensor
    penalty: torch.Tensor
    cfg_coef: torch.Tensor

    @classmethod
    def allocate(cls, device: torch.device) -> SamplingValues:
        """Values to be filled in."""

        def number() -> torch.Tensor:
            return torch.ones((), dtype=torch.float32, device=device)

        return cls(number(), torch.ones(1, dtype=torch.long, device=device), number(), number(), number())

    def fill(self, sampling: LmSampling) -> None:
        """Writes a request's settings."""
        self.temperature.fill_(sampling.temperature or 1.0)
        self.top_k.fill_(max(sampling.top_k, 1))
        self.top_p.fill_(sampling.top_p)
        self.penalty.fill_(sampling.repetition_penalty)
        self.cfg_coef.fill_(sampling.cfg_coef)


def penalise(logits: torch.Tensor, seen: torch.Tensor, penalty: torch.Tensor) -> torch.Tensor:
    """Divides the positive logits of tokens that came before by the penalty, and multiplies the others by it.

    Args:
        logits: `[B, n]`.
        seen: `[B, n]` bool.
    """
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def sample(logits: torch.Tensor, uniforms: torch.Tensor, mode: SamplingMode, values: SamplingValues) -> torch.Tensor:
    """Draws by the inverse of the cumulative distribution: temperature, then `top_k`, then `top_p`.

    Args:
        logits: `[B, n]`; minus infinity: not a candidate.
        uniforms: `[B]` in [0, 1].

    Returns:
        `[B]` indices.
    """
    if mode.is_greedy:
        return logits.argmax(-1)
    probabilities = torch.softmax(logits / values.temperature, dim=-1)
    if mode.limits_count or mode.limits_mass:
        smallest = _find_smallest(_rank(probabilities), mode, values)
        probabilities = probabilities * (probabilities >= smallest)
    cumulative = probabilities.cumsum(-1)
    total = cumulative[..., -1:]
    last = (cumulative < total).sum(-1)  # the last candidate; rounding alone could lead beyond it
    drawn = torch.searchsorted(cumulative, uniforms.unsqueeze(-1) * total, right=True).squeeze(-1)
    return torch.minimum(drawn, last)


def _rank(probabilities: torch.Tensor) -> torch.Tensor:
    """The probabilities of each row, the largest first."""
    if probabilities.device.type == "cpu":  # ten times as fast as torch's
        return torch.from_numpy(np.sort(probabilities.numpy(), axis=-1)[..., ::-1].copy())
    return probabilities.sort(dim=-1, descending=True).values


def _find_smallest(ranked: torch.Tensor, mode: SamplingMode, values: SamplingValues) -> torch.Tensor:
    """`[B, 1]`, the smallest probability of a candidate."""
    smallest = torch.zeros_like(ranked[..., :1])
    if mode.limits_count:
        smallest = ranked.index_select(-1, values.top_k.clamp_max(ranked.shape[-1]) - 1)
        ranked = ranked * (ranked >= smallest)
    if mode.limits_mass:
        cumulative = ranked.cumsum(-1)
        is_kept = cumulative - ranked < values.top_p * cumulative[..., -1:]
        kept = torch.where(is_kept, ranked, ranked[..., :1])  # the most likely one in any case
        smallest = torch.maximum(smallest, kept.amin(-1, keepdim=True))
    return smallest
