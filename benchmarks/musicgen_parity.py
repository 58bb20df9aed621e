"""How far our language model is from audiocraft's on the same full-size weights: in float32, and as it runs."""

from __future__ import annotations

import gc
from pathlib import Path

import torch

from benchmarks.common import print_parity
from models.musicgen.engine import Engine
from testing.audiocraft_reference import compute_audiocraft_conditions, compute_audiocraft_logits, load_audiocraft_lm
from testing.musicgen_steps import (
    decode_with_logits,
    load_cpu_engine,
    make_window,
    prepare_conditions,
    teacher_forced_logits,
)

DESCRIPTION = "slow techno with piano and drums"
FRAMES = 40  # of random codes; the logits of each are compared
GREEDY_FRAMES = 16
GUIDANCE = 3.0
LIMITS = {"float32_logits_max_error": 1e-4, "logits_error": 2e-2, "guided_logits_error": 2e-2}


def run_teacher_forced(engine: Engine) -> torch.Tensor:
    """`[frames, 2, K, card]`: the logits for the random codes, in the engine's own precision, as float32 on the CPU."""
    conditions = prepare_conditions(engine.conditioning, [DESCRIPTION])
    return teacher_forced_logits(engine.lm, conditions, _make_codes(engine).to(engine.lm.device)).float().cpu()


def compare_logits(folder: Path, logits: torch.Tensor) -> dict[str, float | bool]:
    """Errors against audiocraft in float32 on the CPU, of `logits` and of our engine in float32 on the CPU.

    The two models are loaded one after the other, because the largest ones do not fit into memory together.
    """
    engine = load_cpu_engine(folder)
    codes, exact, greedy = _make_codes(engine), run_teacher_forced(engine), _decode_greedily(engine)
    del engine
    gc.collect()
    reference, reference_greedy = _run_audiocraft(folder, codes)
    errors: dict[str, float | bool] = {
        "float32_logits_max_error": _round((exact - reference).abs().max()),
        "logits_error": _relative_error(logits, reference),
        "guided_logits_error": _relative_error(_apply_guidance(logits), _apply_guidance(reference)),
        "float32_greedy_codes_identical": torch.equal(greedy, reference_greedy),
    }
    print_parity(errors, LIMITS)
    return errors


def _make_codes(engine: Engine) -> torch.Tensor:
    """`[1, K, frames]` random codes."""
    config = engine.lm.config
    return torch.randint(config.card, (1, config.codebooks, FRAMES), generator=torch.Generator().manual_seed(0))


def _decode_greedily(engine: Engine) -> torch.Tensor:
    """`[1, K, GREEDY_FRAMES]` codes."""
    conditions = prepare_conditions(engine.conditioning, [DESCRIPTION])
    codes, _ = decode_with_logits(engine.lm, make_window(engine.lm, conditions, length=GREEDY_FRAMES))
    return codes


@torch.no_grad()
def _run_audiocraft(folder: Path, codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """audiocraft's logits for `codes`, and the codes that it decodes greedily."""
    lm = load_audiocraft_lm(folder)  # makes audiocraft importable

    from audiocraft.modules.conditioners import ConditioningAttributes

    logits = compute_audiocraft_logits(lm, codes, compute_audiocraft_conditions(lm, [DESCRIPTION]))[:FRAMES]
    attributes = [ConditioningAttributes(text={"description": DESCRIPTION})]
    return logits, lm.generate(None, attributes, max_gen_len=GREEDY_FRAMES, use_sampling=False, cfg_coef=GUIDANCE)


def _apply_guidance(logits: torch.Tensor) -> torch.Tensor:
    conditional, unconditional = logits.unbind(1)
    return unconditional + GUIDANCE * (conditional - unconditional)


def _relative_error(logits: torch.Tensor, reference: torch.Tensor) -> float:
    return _round((logits - reference).norm() / reference.norm())


def _round(error: torch.Tensor) -> float:
    return float(f"{float(error):.2e}")
