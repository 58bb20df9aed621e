"""One window of tokens, step by step, through audiocraft's streaming transformer. Knows no text, sound or request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from models.musicgen.conditions import Conditions
from models.musicgen.order import Sampling

UNKNOWN = -1


@dataclass(frozen=True, eq=False)
class Window:
    """What is to be decoded.

    Args:
        prompt: `[B, K, P]` codes that are given.
        length: frames, prompt included; > P.
        generators: B of them, on the CPU.
        on_step: called with (done, of) before each step; what it raises ends the decoding, and leaves no state behind.
    """

    prompt: torch.Tensor
    length: int
    conditions: Conditions
    sampling: Sampling
    generators: Sequence[torch.Generator]
    on_step: Callable[[int, int], None]


@torch.inference_mode()
def decode_window(lm: Any, window: Window) -> torch.Tensor:
    """Continues the window's prompt to its length with audiocraft's `LMModel`: `[B, K, length]` codes, prompt first."""
    prompt, length = window.prompt, window.length
    batch, num_codebooks, prompt_length = prompt.shape
    assert prompt_length < length and len(window.generators) == batch
    codes = prompt.new_full((batch, num_codebooks, length), UNKNOWN)
    codes[..., :prompt_length] = prompt
    # Codebook k runs behind by its delay: a step of the sequence holds codes of several frames, see the MusicGen
    # paper (arXiv 2306.05284), section 2.3.
    pattern = lm.pattern_provider.get_pattern(length)
    sequence, _, mask = pattern.build_pattern_sequence(codes, lm.special_token_id)
    first, steps = pattern.get_first_step_with_timesteps(prompt_length), sequence.shape[-1]
    uniforms = draw_uniforms(window.generators, steps - first, num_codebooks)
    uniforms = uniforms.to(prompt.device, torch.float32 if prompt.device.type == "mps" else torch.float64)
    begin = 0
    with lm.streaming():
        for step in range(first, steps):
            window.on_step(step - first, steps - first)
            logits = _logits(lm, sequence[..., begin:step], window.conditions, window.sampling.cfg_coef)
            token = sample(logits, uniforms[:, step - first], window.sampling)
            token = torch.where(mask[:, step], token, lm.special_token_id)
            sequence[..., step] = torch.where(sequence[..., step] == UNKNOWN, token, sequence[..., step])
            begin = step
    result: torch.Tensor = pattern.revert_pattern_sequence(sequence, special_token=UNKNOWN)[0][..., :length]
    return result


def _logits(lm: Any, sequence: torch.Tensor, conditions: Conditions, cfg_coef: float) -> torch.Tensor:
    """`[B, K, card]` float32 logits that follow `sequence` `[B, K, S]`; the transformer remembers what came before."""
    if conditions.guided:
        sequence = torch.cat([sequence, sequence])
    logits: torch.Tensor = lm(sequence, conditions=[], condition_tensors=dict(conditions.tensors))[:, :, -1].float()
    if not conditions.guided:
        return logits
    conditional, unconditional = logits.chunk(2)
    return unconditional + (conditional - unconditional) * cfg_coef


def draw_uniforms(generators: Sequence[torch.Generator], steps: int, num_codebooks: int) -> torch.Tensor:
    """`[B, steps, K]` in [0, 1), item i from generator i alone: one number decides one token, on every device."""
    draws = [torch.rand(steps, num_codebooks, generator=generator, dtype=torch.float64) for generator in generators]
    return torch.stack(draws)


def sample(logits: torch.Tensor, uniforms: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Draws by the inverse of the cumulative distribution.

    Args:
        logits: `[B, K, card]`.
        uniforms: `[B, K]` in [0, 1), float64 (float32 on devices without it).

    Returns:
        `[B, K]` codes.
    """
    if sampling.temperature == 0:
        return logits.argmax(-1)
    # In the draws' float64 where the device has it, so that rounding does not shift which candidate is hit.
    probabilities = torch.softmax(logits.to(uniforms.dtype) / sampling.temperature, dim=-1)
    if sampling.top_p > 0:
        probabilities = _keep_top_p(probabilities, sampling.top_p)
    elif 0 < sampling.top_k < probabilities.shape[-1]:
        smallest = probabilities.topk(sampling.top_k, dim=-1).values[..., -1:]
        probabilities = probabilities.where(probabilities >= smallest, 0.0)
    cumulative = probabilities.cumsum(-1)
    total = cumulative[..., -1:]
    last = (cumulative < total).sum(-1)  # the last candidate; beyond it only rounding could lead
    return torch.minimum((cumulative <= uniforms.unsqueeze(-1) * total).sum(-1), last)


def _keep_top_p(probabilities: torch.Tensor, top_p: float) -> torch.Tensor:
    """Zeroes every candidate whose likelier ones already sum to more than `top_p`."""
    ranked, order = probabilities.sort(dim=-1, descending=True)
    ranked = ranked.where(ranked.cumsum(-1) - ranked <= top_p, 0.0)
    return torch.zeros_like(probabilities).scatter(-1, order, ranked)
