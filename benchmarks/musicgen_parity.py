"""How far our language model is from audiocraft's on the same full-size weights: in float32, and as it runs."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.figures import print_figures
from models.musicgen.engine import Engine
from testing.audiocraft_reference import audiocraft_conditions, audiocraft_lm, audiocraft_logits
from testing.musicgen_steps import (
    decode_with_logits,
    load_cpu_engine,
    make_window,
    prepare_conditions,
    teacher_forced_logits,
)

TEXT = "slow techno with piano and drums"
FRAMES = 40  # of random codes, each column's logits compared
GREEDY_FRAMES = 16
GUIDANCE = 3.0
LIMITS = {"float32_logits_max_error": 1e-4, "logits_error": 2e-2, "guided_logits_error": 2e-2}


@dataclass(frozen=True, eq=False)
class Heard:
    """What one side gave: `[frames, 2, K, card]` logits of the given codes; `[1, K, frames]` codes found greedily."""

    logits: torch.Tensor
    greedy: torch.Tensor | None = None


def hear(engine: Engine) -> Heard:
    """The logits of an engine in whatever precision it runs in."""
    conditions = prepare_conditions(engine.conditioning, [TEXT])
    return Heard(teacher_forced_logits(engine.lm, conditions, _codes(engine).to(engine.lm.device)).float().cpu())


def parity(folder: Path, heard: Heard) -> dict[str, float | bool]:
    """Holds `heard`, and our engine in float32 on the CPU, against audiocraft's float32 there; one after the other,
    since both at once would not fit into the memory with the largest model."""
    exact = load_cpu_engine(folder)
    codes, ours = _codes(exact), _float32(exact)
    del exact
    gc.collect()
    theirs = _audiocrafts(folder, codes)
    assert ours.greedy is not None and theirs.greedy is not None
    figures: dict[str, float | bool] = {
        "float32_logits_max_error": _rounded((ours.logits - theirs.logits).abs().max()),
        "logits_error": _relative(heard.logits, theirs.logits),
        "guided_logits_error": _relative(_guided(heard.logits), _guided(theirs.logits)),
        "float32_greedy_codes_identical": torch.equal(ours.greedy, theirs.greedy),
    }
    print_figures(figures, LIMITS)
    return figures


def _codes(engine: Engine) -> torch.Tensor:
    config = engine.lm.config
    return torch.randint(config.card, (1, config.codebooks, FRAMES), generator=torch.Generator().manual_seed(0))


def _float32(engine: Engine) -> Heard:
    conditions = prepare_conditions(engine.conditioning, [TEXT])
    logits = teacher_forced_logits(engine.lm, conditions, _codes(engine))
    greedy, _ = decode_with_logits(engine.lm, make_window(engine.lm, conditions, length=GREEDY_FRAMES))
    return Heard(logits, greedy)


@torch.no_grad()
def _audiocrafts(folder: Path, codes: torch.Tensor) -> Heard:
    lm = audiocraft_lm(folder)  # makes audiocraft importable

    from audiocraft.modules.conditioners import ConditioningAttributes

    logits = audiocraft_logits(lm, codes, audiocraft_conditions(lm, [TEXT]))[:FRAMES]
    attributes = [ConditioningAttributes(text={"description": TEXT})]
    greedy = lm.generate(None, attributes, max_gen_len=GREEDY_FRAMES, use_sampling=False, cfg_coef=GUIDANCE)
    return Heard(logits, greedy)


def _guided(logits: torch.Tensor) -> torch.Tensor:
    conditional, null = logits.unbind(1)
    return null + GUIDANCE * (conditional - null)


def _relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return _rounded((found - wanted).norm() / wanted.norm())


def _rounded(error: torch.Tensor) -> float:
    return float(f"{float(error):.2e}")
