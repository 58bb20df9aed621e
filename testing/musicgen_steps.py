"""Runs our language model on given texts, step by step, and hears the logits of every step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from models.checkpoints.locations import WeightLocations
from models.musicgen.conditioning.provider import Listener
from models.musicgen.conditions import Conditions
from models.musicgen.decode import StepByStep, Window, decode_window
from models.musicgen.describe import describe
from models.musicgen.engine import Engine
from models.musicgen.forward import prefill
from models.musicgen.lm import LanguageModel
from models.musicgen.load import load_engine
from models.musicgen.request import GenerationRequest, Sampling

GREEDY = Sampling(temperature=0.0)


def engine_of(folder: Path, dtype: torch.dtype = torch.float32) -> Engine:
    return load_engine(describe(folder, WeightLocations()), device="cpu", dtype=dtype)


def conditions_of(listener: Listener, texts: list[str], sampling: Sampling = GREEDY) -> Conditions:
    order = GenerationRequest(texts=texts, seeds=[0] * len(texts), duration=1.0, stride=1.0, sampling=sampling)
    return listener.to(order, None).conditions(range(len(texts)), 0.0)


def window_of(lm: LanguageModel, conditions: Conditions, **fields: Any) -> Window:
    batch = fields.pop("batch", 1)
    generators = [torch.Generator().manual_seed(seed) for seed in range(batch)]
    prompt = torch.zeros(batch, lm.shape.codebooks, 0, dtype=torch.long)
    plain: dict[str, Any] = {"prompt": prompt, "length": 40, "conditions": conditions, "sampling": GREEDY}
    return Window(**(plain | {"generators": generators, "on_step": lambda done, of: None} | fields))


class Heard:
    """A linear layer that keeps what it gives."""

    def __init__(self, inner: Any) -> None:
        self._inner, self.nbytes = inner, inner.nbytes
        self.given: list[torch.Tensor] = []

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        self.given.append(self._inner(x))
        return self.given[-1]

    def plus(self, residual: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return residual + self(x)


def logits_of(lm: LanguageModel, window: Window, *, exact: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes, and `[steps, rows, K, card]` logits of every step."""
    head = Heard(lm.head)
    heard = replace(lm, head=head)
    codes = decode_window(heard, StepByStep(heard, exact=exact), window)
    return codes, torch.stack([step.view(-1, lm.shape.codebooks, lm.shape.card) for step in head.given])


@torch.inference_mode()
def forced_logits(lm: LanguageModel, conditions: Conditions, codes: torch.Tensor) -> torch.Tensor:
    """`[frames, rows, K, card]`: each column's logits where the codes `[1, K, frames]` before it are given.

    Every column but the first is read by `advance`, as in decoding.
    """
    head = Heard(lm.head)
    heard = replace(lm, head=head)
    window = window_of(heard, conditions, prompt=codes, length=codes.shape[-1] + 1)
    runner = StepByStep(heard)
    state = runner.begin(window)
    prefill(heard, state, window.rule, prefix=conditions.prefix, known=window.prefix + 1)
    for _ in runner.run(state, window, window.prefix + 1, window.known - 1):
        pass
    return torch.stack([step.view(-1, lm.shape.codebooks, lm.shape.card) for step in head.given])
