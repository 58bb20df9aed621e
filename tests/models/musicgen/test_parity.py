"""Our language model, sampling and delay pattern against audiocraft's, with the same random weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from errors import CancelledError, DeadlineError
from models.musicgen.conditioning import BatchConditions
from models.musicgen.decode import EagerBackend, decode_window
from models.musicgen.engine import Engine
from models.musicgen.pattern import UNKNOWN_CODE, DelayPattern
from models.musicgen.request import Sampling
from models.musicgen.sampling import SamplingMode, draw_uniforms, find_kth, sample
from models.runtime.linear import PackedLinear, PlainLinear, build_linear
from testing.audiocraft_reference import compute_audiocraft_conditions, compute_audiocraft_logits, load_audiocraft_lm
from testing.musicgen_steps import (
    GREEDY,
    decode_with_logits,
    load_cpu_engine,
    make_window,
    prepare_conditions,
    teacher_forced_logits,
)
from testing.tiny_musicgen import Shape, write_checkpoint

SHAPES = {
    "text": Shape(),
    "stereo": Shape(stereo=True),
    "melody": Shape(melody=True),
    "biased": Shape(biased=True),
}
TEXTS = ["slow piano", "fast techno with drums and bass 120 bpm", ""]
DRAWS = 20_000


@dataclass(frozen=True)
class Pair:
    """An engine and audiocraft's `LMModel` with the same weights."""

    engine: Engine
    reference: Any

    def conditions(self, texts: list[str], sampling: Sampling = GREEDY) -> BatchConditions:
        return prepare_conditions(self.engine.conditioning, texts, sampling)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pair]:
    root = tmp_path_factory.mktemp("checkpoints")
    folders = {name: write_checkpoint(root / name, shape) for name, shape in SHAPES.items()}
    return {name: Pair(load_cpu_engine(folder), load_audiocraft_lm(folder)) for name, folder in folders.items()}


@pytest.fixture(params=SHAPES)
def pair(request: pytest.FixtureRequest, pairs: dict[str, Pair]) -> Pair:
    return pairs[request.param]


@pytest.mark.parametrize("text", TEXTS[:2])
def test_logits_of_every_step_equal_audiocrafts_to_1e_4(pair: Pair, text: str) -> None:
    lm = pair.engine.lm
    codes, ours = decode_with_logits(lm, make_window(lm, pair.conditions([text])))
    theirs = compute_audiocraft_logits(pair.reference, codes, compute_audiocraft_conditions(pair.reference, [text]))
    assert ours.shape == theirs.shape == (40 + lm.config.pattern.max_delay, 2, lm.config.codebooks, lm.config.card)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_logits_after_a_prompt_equal_audiocrafts_to_1e_4(pair: Pair) -> None:
    lm = pair.engine.lm
    prompt = torch.randint(lm.config.card, (1, lm.config.codebooks, 17), generator=torch.Generator().manual_seed(3))
    codes, ours = decode_with_logits(lm, make_window(lm, pair.conditions(TEXTS[:1]), prompt=prompt))
    assert torch.equal(codes[..., :17], prompt)
    theirs = compute_audiocraft_logits(pair.reference, codes, compute_audiocraft_conditions(pair.reference, TEXTS[:1]))
    torch.testing.assert_close(ours, theirs[17:], atol=1e-4, rtol=0)


def test_logits_of_teacher_forced_codes_equal_audiocrafts_to_1e_4(pair: Pair) -> None:
    lm = pair.engine.lm
    codes = torch.randint(lm.config.card, (1, lm.config.codebooks, 30), generator=torch.Generator().manual_seed(4))
    ours = teacher_forced_logits(lm, pair.conditions(TEXTS[:1]), codes)
    theirs = compute_audiocraft_logits(pair.reference, codes, compute_audiocraft_conditions(pair.reference, TEXTS[:1]))
    assert len(ours) == 30
    torch.testing.assert_close(ours, theirs[:30], atol=1e-4, rtol=0)


def test_each_text_of_a_batch_has_the_logits_that_audiocraft_gives_it_alone(pair: Pair) -> None:
    lm = pair.engine.lm
    codes, ours = decode_with_logits(lm, make_window(lm, pair.conditions(TEXTS), batch=3))
    for index, text in enumerate(TEXTS):
        theirs = compute_audiocraft_logits(
            pair.reference, codes[index : index + 1], compute_audiocraft_conditions(pair.reference, [text])
        )
        torch.testing.assert_close(ours[:, [index, 3 + index]], theirs, atol=1e-4, rtol=0)


def test_a_batch_that_is_padded_as_audiocraft_pads_it_has_audiocrafts_logits(pair: Pair) -> None:
    """audiocraft lets rows attend to the zeros that pad a shorter text. We mask them, and match it if we do not."""
    lm = pair.engine.lm
    theirs_in = compute_audiocraft_conditions(pair.reference, TEXTS)
    padded, _ = theirs_in["description"]
    if lm.config.cross:
        conditions = BatchConditions(guided=True, context=padded)
    else:
        conditions = BatchConditions(guided=True, prepended=torch.cat([theirs_in["self_wav"][0], padded], dim=1))
    codes, ours = decode_with_logits(lm, make_window(lm, conditions, batch=3))
    torch.testing.assert_close(ours, compute_audiocraft_logits(pair.reference, codes, theirs_in), atol=1e-4, rtol=0)


def test_steps_with_static_shapes_give_the_logits_of_steps_over_the_filled_columns(pair: Pair) -> None:
    """What a CUDA graph captures, run eagerly."""
    lm = pair.engine.lm
    conditions = pair.conditions(TEXTS)
    exact, bucket = (
        decode_with_logits(lm, make_window(lm, conditions, batch=3), static_shapes=static) for static in (False, True)
    )
    assert torch.equal(exact[0], bucket[0])
    torch.testing.assert_close(exact[1], bucket[1], atol=1e-5, rtol=0)


def test_without_guidance_or_text_half_the_rows_give_the_logits_of_all_rows(pairs: dict[str, Pair]) -> None:
    pair = pairs["text"]
    lm = pair.engine.lm
    unguided = Sampling(temperature=0.0, cfg_coef=1.0)
    for text, sampling in ((TEXTS[0], unguided), ("", GREEDY)):
        half = pair.conditions([text], sampling)
        assert not half.guided
        full = pair.conditions([text, "slow drums"])
        codes, logits = decode_with_logits(lm, make_window(lm, half, sampling=sampling))
        _, both = decode_with_logits(lm, make_window(lm, full, batch=2, prompt=codes[..., :39].expand(2, -1, -1)))
        torch.testing.assert_close(both[0, 0], logits[39, 0], atol=1e-5, rtol=0)


def test_the_delay_pattern_equals_audiocrafts(pair: Pair) -> None:
    pattern = pair.engine.lm.config.pattern
    theirs = pair.reference.pattern_provider.get_pattern(20)
    prompt = torch.arange(2 * len(pattern.delays) * 7).view(2, -1, 7) % 31
    known = torch.cat([prompt, torch.full((2, len(pattern.delays), 13), UNKNOWN_CODE)], dim=-1)
    sequence, _, mask = theirs.build_pattern_sequence(known, pattern.special_token)
    ours = pattern.build_sequence(prompt, 20)
    assert torch.equal(ours, sequence) and torch.equal(pattern.mask(20), mask)
    assert torch.equal(pattern.revert_sequence(ours, 20), known)
    assert pattern.num_complete_frames(pattern.num_columns(20)) == 20 and pattern.num_complete_frames(1) == 0


def test_delays_that_do_not_ascend_from_zero_are_refused() -> None:
    with pytest.raises(ValueError, match="ascend"):
        DelayPattern((1, 0), special_token=4)


@pytest.mark.parametrize(
    "sampling", [Sampling(0.8, top_k=10), Sampling(1.0, top_p=0.7), Sampling(1.3, top_k=0), Sampling()]
)
def test_codes_of_a_first_step_have_audiocrafts_distribution(pairs: dict[str, Pair], sampling: Sampling) -> None:
    """Chi-square of 20,000 draws of ours against 20,000 of audiocraft's own samplers, on a first step's logits."""
    pair = pairs["text"]
    _, steps = decode_with_logits(pair.engine.lm, make_window(pair.engine.lm, pair.conditions(TEXTS[:1])))
    logits = steps[0, 1, 0] + 3.0 * (steps[0, 0, 0] - steps[0, 1, 0])
    uniforms = draw_uniforms([torch.Generator().manual_seed(2)], DRAWS, 1)[0]
    rows = logits.expand(DRAWS, 1, -1)
    ours = draw(rows, uniforms, sampling)
    theirs = draw_by_audiocraft(rows, sampling)
    counts = torch.stack([codes.flatten().bincount(minlength=len(logits)).double() for codes in (ours, theirs)])
    hit = counts.sum(0) > 0
    chi_square = float(((counts[0] - counts[1]) ** 2 / counts.sum(0))[hit].sum())
    freedom = int(hit.sum()) - 1
    assert freedom >= 2, "the logits leave nothing to draw"
    assert chi_square < freedom + 4 * (2 * freedom) ** 0.5 + 4


def draw(logits: torch.Tensor, uniforms: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Our codes for the logits `[B, K, card]`."""
    card = logits.shape[-1]
    return sample(
        logits,
        uniforms.to(logits.dtype),
        SamplingMode.choose(sampling),
        temperature=torch.tensor(sampling.temperature, dtype=logits.dtype),
        top_k=torch.tensor([min(sampling.top_k or card, card)]),
        top_p=torch.tensor(sampling.top_p, dtype=logits.dtype),
    )


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(top_k=1), Sampling(0.7, top_k=0), Sampling(1.2, top_p=0.9)])
def test_drawing_in_float32_finds_the_codes_of_float64(sampling: Sampling) -> None:
    """But for draws that fall on the edge between two codes: the sum of 2,048 probabilities is rounded by 1e-6."""
    generator = torch.Generator().manual_seed(5)
    logits = 3 * torch.randn(1_000, 1, 2048, generator=generator)
    uniforms = torch.rand(1_000, 1, generator=generator, dtype=torch.float64)
    exact = draw(logits.double(), uniforms, sampling)
    assert int((draw(logits, uniforms, sampling) != exact).sum()) <= 2
    if sampling.top_k == 1 and not sampling.top_p:
        assert torch.equal(exact, logits.argmax(-1))


@given(data=st.data())
@settings(deadline=None)
def test_top_k_keeps_the_candidates_that_are_at_least_as_likely_as_the_kth(data: st.DataObject) -> None:
    logits = torch.tensor(data.draw(st.lists(st.integers(-3, 3), min_size=2, max_size=8), label="logits")) / 4
    top_k = data.draw(st.integers(1, len(logits)), label="top_k")
    uniforms = torch.linspace(0, 1, 500)[:, None]
    drawn = draw(logits.expand(500, 1, -1), uniforms, Sampling(top_k=top_k))
    kth = logits.topk(top_k).values[-1]
    assert set(drawn.flatten().tolist()) == set((logits >= kth).nonzero().flatten().tolist())
    assert float(find_kth(logits, torch.tensor([top_k]))) == float(kth)  # as a GPU finds it


def draw_by_audiocraft(rows: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    from audiocraft.utils import utils

    probabilities = torch.softmax(rows / sampling.temperature, dim=-1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        if sampling.top_p:
            drawn = utils.sample_top_p(probabilities, p=sampling.top_p)
        elif sampling.top_k:
            drawn = utils.sample_top_k(probabilities, k=min(sampling.top_k, rows.shape[-1]))
        else:
            drawn = utils.multinomial(probabilities, num_samples=1)
    assert isinstance(drawn, torch.Tensor)
    return drawn


@pytest.mark.parametrize("edge", [0.0, 1.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_ends_of_the_uniform_range_draw_candidates_only(edge: float, dtype: torch.dtype) -> None:
    logits = torch.tensor([[-1e9, 1.0, 2.0, 0.5, -1e9]])[None]
    uniforms = torch.full((1, 1), edge, dtype=dtype)
    for sampling in (Sampling(top_k=3), Sampling(top_p=0.99), Sampling(top_k=0)):
        assert int(draw(logits.to(dtype), uniforms, sampling)) in (1, 2, 3)


def test_a_clips_draws_depend_neither_on_its_batch_nor_on_its_length() -> None:
    def draw(seeds: list[int], steps: int) -> torch.Tensor:
        return draw_uniforms([torch.Generator().manual_seed(seed) for seed in seeds], steps, 4)

    assert torch.equal(draw([7], 10)[0], draw([1, 7, 9], 10)[1])
    assert torch.equal(draw([7], 10)[0], draw([7], 30)[0, :10])


def test_bfloat16_logits_are_within_two_percent(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "text")
    exact, rounded = (load_cpu_engine(folder, dtype) for dtype in (torch.float32, torch.bfloat16))
    codes = torch.randint(32, (1, 4, 20), generator=torch.Generator().manual_seed(1))
    wanted, found = (
        teacher_forced_logits(e.lm, prepare_conditions(e.conditioning, TEXTS[:1]), codes) for e in (exact, rounded)
    )
    assert (found.float() - wanted).norm() / wanted.norm() < 2e-2


@pytest.mark.parametrize("activation", ["none", "gelu", "relu"])
@pytest.mark.parametrize("rows", [1, 2, 16, 100])
def test_a_packed_weight_multiplies_like_a_plain_one(rows: int, activation: Any) -> None:
    generator = torch.Generator().manual_seed(rows)
    weight, bias = torch.randn(48, 32, generator=generator), torch.randn(48, generator=generator)
    x, residual = torch.randn(rows, 32, generator=generator), torch.randn(rows, 48, generator=generator)
    packed, plain = PackedLinear(weight, bias, activation), PlainLinear(weight, bias, activation)
    torch.testing.assert_close(packed(x), plain(x), atol=1e-5, rtol=1e-5)
    for linear, expected in (
        (packed, residual + plain(x)),
        (plain, residual + plain(x)),
        (PlainLinear(weight, None, "none"), residual + x @ weight.T),
    ):
        found = residual.clone()
        linear.add_to(found, x)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert build_linear(weight).nbytes == weight.nbytes


@pytest.mark.parametrize("after", [0, 5, 30])
def test_after_the_deadline_a_partial_window_returns_its_complete_frames(pair: Pair, after: int) -> None:
    lm = pair.engine.lm
    conditions = pair.conditions(TEXTS[:1])
    whole = decode_window(lm, EagerBackend(lm), make_window(lm, conditions))

    def pass_deadline(done: int, total: int) -> None:
        if done > after:
            raise DeadlineError("late")

    def cancel(done: int, total: int) -> None:
        raise CancelledError("stop")

    with pytest.raises(DeadlineError):
        decode_window(lm, EagerBackend(lm), make_window(lm, conditions, on_step=pass_deadline))
    with pytest.raises(CancelledError):
        decode_window(lm, EagerBackend(lm), make_window(lm, conditions, on_step=cancel, partial=True))
    frames = after + 1 - lm.config.pattern.max_delay
    if frames <= 0:
        with pytest.raises(DeadlineError):
            decode_window(lm, EagerBackend(lm), make_window(lm, conditions, on_step=pass_deadline, partial=True))
        return
    part = decode_window(lm, EagerBackend(lm), make_window(lm, conditions, on_step=pass_deadline, partial=True))
    assert part.shape[-1] == frames
    assert torch.equal(part, whole[..., :frames])
