"""Runs our language model on given descriptions, step by step, and records the logits of every step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from models.checkpoints.locations import WeightLocations
from models.musicgen.conditioning import BatchConditions, ConditioningProvider
from models.musicgen.decode import EagerBackend, Window, decode_window
from models.musicgen.engine import Engine
from models.musicgen.forward import prefill
from models.musicgen.inspect import inspect_checkpoint
from models.musicgen.lm import LanguageModel
from models.musicgen.load import load_engine
from models.musicgen.request import GenerationRequest, Sampling
from models.musicgen.sampling import SamplingMode
from models.runtime.linear import Linear

GREEDY = Sampling(temperature=0.0)


def load_cpu_engine(folder: Path, dtype: torch.dtype = torch.float32) -> Engine:
    """The engine of a checkpoint folder, on the CPU."""
    return load_engine(inspect_checkpoint(folder, WeightLocations()), device="cpu", dtype=dtype)


def prepare_conditions(
    conditioning: ConditioningProvider, descriptions: list[str], sampling: Sampling = GREEDY
) -> BatchConditions:
    """The conditions of one batch with these descriptions."""
    seeds = [0] * len(descriptions)
    request = GenerationRequest(descriptions, seeds, duration=1.0, stride=1.0, sampling=sampling)
    return conditioning.prepare(request, None).prepare_batch(range(len(descriptions)), 0.0)


def make_window(lm: LanguageModel, conditions: BatchConditions, **fields: Any) -> Window:
    """A window of 40 frames without a prompt, decoded greedily; `fields` replace those of `Window`, or `batch`."""
    batch = fields.pop("batch", 1)
    defaults: dict[str, Any] = {
        "prompt": torch.zeros(batch, lm.config.codebooks, 0, dtype=torch.long),
        "length": 40,
        "conditions": conditions,
        "sampling": GREEDY,
        "generators": [torch.Generator().manual_seed(seed) for seed in range(batch)],
        "on_step": lambda done, total: None,
    }
    return Window(**(defaults | fields))


class RecordingLinear:
    """A linear layer that records its results."""

    def __init__(self, inner: Linear) -> None:
        self._inner, self.nbytes = inner, inner.nbytes
        self.results: list[torch.Tensor] = []

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        self.results.append(self._inner(x))
        return self.results[-1]

    def add_to(self, residual: torch.Tensor, x: torch.Tensor) -> None:
        residual.add_(self(x))


def decode_with_logits(
    lm: LanguageModel, window: Window, *, static_shapes: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes `[B, K, length]`, and `[steps, rows, K, card]` logits of every step."""
    head = RecordingLinear(lm.head)
    recording = replace(lm, head=head)
    codes = decode_window(recording, EagerBackend(recording, static_shapes=static_shapes), window)
    return codes, torch.stack([step.view(-1, lm.config.codebooks, lm.config.card) for step in head.results])


@torch.inference_mode()
def teacher_forced_logits(lm: LanguageModel, conditions: BatchConditions, codes: torch.Tensor) -> torch.Tensor:
    """`[frames, rows, K, card]`: each column's logits after the codes `[1, K, frames]` before it.

    Every column but the first is read by `decode_step`, as in decoding.
    """
    head = RecordingLinear(lm.head)
    recording = replace(lm, head=head)
    window = make_window(recording, conditions, prompt=codes, length=codes.shape[-1] + 1)
    mode, start = SamplingMode.choose(window.sampling), window.num_prepended + 1
    decoding = EagerBackend(recording).start(window)
    prefill(recording, decoding.state, mode, prepended=conditions.prepended, num_known=start)
    for _ in decoding.run(mode, start, window.num_known - 1):
        pass
    return torch.stack([step.view(-1, lm.config.codebooks, lm.config.card) for step in head.results])
