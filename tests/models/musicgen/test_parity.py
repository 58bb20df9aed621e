"""Our language model, sampling and steps against audiocraft's on the same random weights, below the level of sound."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from errors import CancelledError, DeadlineError
from models.musicgen.conditions import Conditions
from models.musicgen.decode import StepByStep, decode_window
from models.musicgen.engine import Engine
from models.musicgen.linear import PackedLinear, PlainLinear, linear
from models.musicgen.pattern import UNKNOWN, DelayPattern
from models.musicgen.request import Sampling
from models.musicgen.sampling import Rule, draw_uniforms, pick
from testing.audiocraft_reference import audiocraft_conditions, audiocraft_lm, audiocraft_logits
from testing.musicgen_steps import GREEDY, conditions_of, engine_of, forced_logits, logits_of, window_of
from testing.tiny_musicgen import Shape, write_checkpoint

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPES = {"text": Shape(), "stereo": Shape(stereo=True), "melody": Shape(melody=True)}
TEXTS = ["slow piano", "fast techno with drums and bass 120 bpm", ""]
DRAWS = 20_000


@dataclass(frozen=True)
class Pair:
    """An engine and audiocraft's `LMModel` with the same weights."""

    engine: Engine
    oracle: Any


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pair]:
    root = tmp_path_factory.mktemp("checkpoints")
    folders = {name: write_checkpoint(root / name, shape) for name, shape in SHAPES.items()}
    return {name: Pair(engine_of(folder), audiocraft_lm(folder)) for name, folder in folders.items()}


@pytest.fixture(params=SHAPES)
def pair(request: pytest.FixtureRequest, pairs: dict[str, Pair]) -> Pair:
    return pairs[request.param]


@pytest.mark.parametrize("text", TEXTS[:2])
def test_logits_of_every_step_are_audiocrafts_to_1e_4(pair: Pair, text: str) -> None:
    lm = pair.engine.lm
    codes, ours = logits_of(lm, window_of(lm, conditions_of(pair.engine.listener, [text])))
    theirs = audiocraft_logits(pair.oracle, codes, audiocraft_conditions(pair.oracle, [text]))
    assert ours.shape == theirs.shape == (40 + lm.shape.pattern.overhang, 2, lm.shape.codebooks, lm.shape.card)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_logits_after_a_prompt_are_audiocrafts_to_1e_4(pair: Pair) -> None:
    lm = pair.engine.lm
    prompt = torch.randint(lm.shape.card, (1, lm.shape.codebooks, 17), generator=torch.Generator().manual_seed(3))
    codes, ours = logits_of(lm, window_of(lm, conditions_of(pair.engine.listener, TEXTS[:1]), prompt=prompt))
    assert torch.equal(codes[..., :17], prompt)
    theirs = audiocraft_logits(pair.oracle, codes, audiocraft_conditions(pair.oracle, TEXTS[:1]))
    torch.testing.assert_close(ours, theirs[17:], atol=1e-4, rtol=0)


def test_logits_of_steps_over_given_codes_are_audiocrafts_to_1e_4(pair: Pair) -> None:
    lm = pair.engine.lm
    codes = torch.randint(lm.shape.card, (1, lm.shape.codebooks, 30), generator=torch.Generator().manual_seed(4))
    ours = forced_logits(lm, conditions_of(pair.engine.listener, TEXTS[:1]), codes)
    theirs = audiocraft_logits(pair.oracle, codes, audiocraft_conditions(pair.oracle, TEXTS[:1]))
    assert len(ours) == 30
    torch.testing.assert_close(ours, theirs[:30], atol=1e-4, rtol=0)


def test_in_a_batch_of_texts_of_three_lengths_each_has_audiocrafts_logits_of_it_alone(pair: Pair) -> None:
    lm = pair.engine.lm
    codes, ours = logits_of(lm, window_of(lm, conditions_of(pair.engine.listener, TEXTS), batch=3))
    for index, text in enumerate(TEXTS):
        theirs = audiocraft_logits(pair.oracle, codes[index : index + 1], audiocraft_conditions(pair.oracle, [text]))
        torch.testing.assert_close(ours[:, [index, 3 + index]], theirs, atol=1e-4, rtol=0)


def test_a_batch_padded_as_audiocraft_pads_it_has_audiocrafts_logits(pair: Pair) -> None:
    """audiocraft lets rows attend to the zeros that pad a shorter text; we mask them, and match it when we do not."""
    lm = pair.engine.lm
    theirs_in = audiocraft_conditions(pair.oracle, TEXTS)
    padded, _ = theirs_in["description"]
    if lm.shape.cross:
        conditions = Conditions(guided=True, context=padded)
    else:
        conditions = Conditions(guided=True, prefix=torch.cat([theirs_in["self_wav"][0], padded], dim=1))
    codes, ours = logits_of(lm, window_of(lm, conditions, batch=3))
    torch.testing.assert_close(ours, audiocraft_logits(pair.oracle, codes, theirs_in), atol=1e-4, rtol=0)


def test_steps_over_a_masked_bucket_are_those_over_the_filled_columns(pair: Pair) -> None:
    """What a CUDA graph captures, run as it is."""
    lm = pair.engine.lm
    conditions = conditions_of(pair.engine.listener, TEXTS)
    exact, bucket = (logits_of(lm, window_of(lm, conditions, batch=3), exact=exact) for exact in (True, False))
    assert torch.equal(exact[0], bucket[0])
    torch.testing.assert_close(exact[1], bucket[1], atol=1e-5, rtol=0)


def test_guidance_one_and_no_text_run_at_half_the_rows_and_give_what_the_full_rows_give(pairs: dict[str, Pair]) -> None:
    pair = pairs["text"]
    lm, listener = pair.engine.lm, pair.engine.listener
    unguided = Sampling(temperature=0.0, cfg_coef=1.0)
    for text, sampling in ((TEXTS[0], unguided), ("", GREEDY)):
        half = conditions_of(listener, [text], sampling)
        assert not half.guided
        full = conditions_of(listener, [text, "slow drums"], GREEDY)
        codes, logits = logits_of(lm, window_of(lm, half, sampling=sampling))
        _, both = logits_of(lm, window_of(lm, full, batch=2, prompt=codes[..., :39].expand(2, -1, -1)))
        torch.testing.assert_close(both[0, 0], logits[39, 0], atol=1e-5, rtol=0)


def test_the_delay_pattern_is_audiocrafts(pair: Pair) -> None:
    pattern = pair.engine.lm.shape.pattern
    theirs = pair.oracle.pattern_provider.get_pattern(20)
    prompt = torch.arange(2 * len(pattern.delays) * 7).view(2, -1, 7) % 31
    known = torch.cat([prompt, torch.full((2, len(pattern.delays), 13), UNKNOWN)], dim=-1)
    sequence, _, mask = theirs.build_pattern_sequence(known, pattern.special)
    ours = pattern.spread(prompt, 20)
    assert torch.equal(ours, sequence) and torch.equal(pattern.mask(20), mask)
    assert torch.equal(pattern.gather(ours, 20), known)
    assert pattern.complete(pattern.columns(20)) == 20 and pattern.complete(1) == 0


def test_delays_that_do_not_ascend_from_zero_are_refused() -> None:
    with pytest.raises(ValueError, match="ascend"):
        DelayPattern((1, 0), special=4)


@pytest.mark.parametrize(
    ("rule", "temperature", "top_p"),
    [
        (Rule(top_k=10), 0.8, 0.0),
        (Rule(top_k=0, nucleus=True), 1.0, 0.7),
        (Rule(top_k=0), 1.3, 0.0),
        (Rule(), 1.0, 0.0),
    ],
)
def test_first_step_tokens_have_audiocrafts_distribution(
    pairs: dict[str, Pair], rule: Rule, temperature: float, top_p: float
) -> None:
    """Chi-square of 20,000 draws of ours against 20,000 of audiocraft's own samplers, on a first step's logits."""
    pair = pairs["text"]
    _, steps = logits_of(pair.engine.lm, window_of(pair.engine.lm, conditions_of(pair.engine.listener, TEXTS[:1])))
    logits = steps[0, 1, 0] + 3.0 * (steps[0, 0, 0] - steps[0, 1, 0])
    uniforms = draw_uniforms([torch.Generator().manual_seed(2)], DRAWS, 1)[0]
    rows = logits.expand(DRAWS, 1, -1)
    ours = pick(rows, uniforms, rule, temperature=torch.tensor(temperature), top_p=torch.tensor(top_p))
    theirs = _audiocraft_draws(rows, rule, temperature, top_p)
    counts = torch.stack([codes.flatten().bincount(minlength=len(logits)).double() for codes in (ours, theirs)])
    hit = counts.sum(0) > 0
    chi_square = float(((counts[0] - counts[1]) ** 2 / counts.sum(0))[hit].sum())
    freedom = int(hit.sum()) - 1
    assert freedom >= 2, "the logits leave something to draw"
    assert chi_square < freedom + 4 * (2 * freedom) ** 0.5 + 4


def _audiocraft_draws(rows: torch.Tensor, rule: Rule, temperature: float, top_p: float) -> torch.Tensor:
    from audiocraft.utils import utils

    probabilities = torch.softmax(rows / temperature, dim=-1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        if rule.nucleus:
            drawn = utils.sample_top_p(probabilities, p=top_p)
        elif rule.top_k:
            drawn = utils.sample_top_k(probabilities, k=min(rule.top_k, rows.shape[-1]))
        else:
            drawn = utils.multinomial(probabilities, num_samples=1)
    assert isinstance(drawn, torch.Tensor)
    return drawn


@pytest.mark.parametrize("edge", [0.0, 1.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_ends_of_the_draw_hit_candidates_only(edge: float, dtype: torch.dtype) -> None:
    logits = torch.tensor([[-1e9, 1.0, 2.0, 0.5, -1e9]])[None]
    uniforms = torch.full((1, 1), edge, dtype=dtype)
    for rule in (Rule(top_k=3), Rule(top_k=0, nucleus=True), Rule(top_k=0)):
        code = pick(logits, uniforms, rule, temperature=torch.tensor(1.0), top_p=torch.tensor(0.99))
        assert int(code) in (1, 2, 3)


def test_draws_are_the_same_whoever_shares_the_batch_and_however_long_the_piece() -> None:
    def draw(seeds: list[int], steps: int) -> torch.Tensor:
        return draw_uniforms([torch.Generator().manual_seed(seed) for seed in seeds], steps, 4)

    assert torch.equal(draw([7], 10)[0], draw([1, 7, 9], 10)[1])
    assert torch.equal(draw([7], 10)[0], draw([7], 30)[0, :10])


def test_bfloat16_logits_are_within_two_percent(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "text")
    exact, rounded = (engine_of(folder, dtype) for dtype in (torch.float32, torch.bfloat16))
    codes = torch.randint(32, (1, 4, 20), generator=torch.Generator().manual_seed(1))
    wanted, found = (forced_logits(e.lm, conditions_of(e.listener, TEXTS[:1]), codes) for e in (exact, rounded))
    assert (found.float() - wanted).norm() / wanted.norm() < 2e-2


@pytest.mark.parametrize("activation", ["none", "gelu", "relu"])
@pytest.mark.parametrize("rows", [1, 2, 16, 100])
def test_a_packed_weight_multiplies_as_a_plain_one(rows: int, activation: Any) -> None:
    generator = torch.Generator().manual_seed(rows)
    weight, bias = torch.randn(48, 32, generator=generator), torch.randn(48, generator=generator)
    x, residual = torch.randn(rows, 32, generator=generator), torch.randn(rows, 48, generator=generator)
    packed, plain = PackedLinear(weight, bias, activation), PlainLinear(weight, bias, activation)
    torch.testing.assert_close(packed(x), plain(x), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(packed.plus(residual, x), plain.plus(residual, x), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(PlainLinear(weight, None, "none").plus(residual, x), residual + x @ weight.T)
    assert linear(weight).nbytes == weight.nbytes


@pytest.mark.parametrize("after", [0, 5, 30])
def test_a_deadline_gives_the_frames_that_are_whole_where_they_are_asked_for(pair: Pair, after: int) -> None:
    lm = pair.engine.lm
    conditions = conditions_of(pair.engine.listener, TEXTS[:1])
    whole = decode_window(lm, StepByStep(lm), window_of(lm, conditions))

    def late(done: int, of: int) -> None:
        if done > after:
            raise DeadlineError("late")

    def cancelled(done: int, of: int) -> None:
        raise CancelledError("stop")

    with pytest.raises(DeadlineError):
        decode_window(lm, StepByStep(lm), window_of(lm, conditions, on_step=late))
    with pytest.raises(CancelledError):
        decode_window(lm, StepByStep(lm), window_of(lm, conditions, on_step=cancelled, partial=True))
    frames = after + 1 - lm.shape.pattern.overhang
    if frames <= 0:
        with pytest.raises(DeadlineError):
            decode_window(lm, StepByStep(lm), window_of(lm, conditions, on_step=late, partial=True))
        return
    part = decode_window(lm, StepByStep(lm), window_of(lm, conditions, on_step=late, partial=True))
    assert part.shape[-1] == frames
    assert torch.equal(part, whole[..., :frames])
