"""The planner's own steps compute what transformers' Qwen3ForCausalLM computes on the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from models.acestep.metas import Metas
from models.acestep.planner.checkpoint import read_checkpoint
from models.acestep.planner.decode import PREFILL_CHUNK, EagerBackend, fill_state, read_prompt
from models.acestep.planner.engine import PlannerEngine
from models.acestep.planner.forward import DecodeState, allocate_state, read_token
from models.acestep.planner.load import load_engine
from models.acestep.planner.prompts import encode_codes_prompt, encode_unconditional_prompt
from models.acestep.planner.request import CodesRequest, LmSampling, PlannedSong
from testing.planner_reference import generate_codes, load_reference
from testing.tiny_planner import write_tiny_planner

TOLERANCE = 1e-5  # of logits up to 6


@pytest.fixture(scope="module")
def reference(folder: Path) -> Any:
    return load_reference(folder)


def random_tokens(count: int, seed: int = 0) -> list[int]:
    return [int(token) for token in torch.randint(0, 600, (count,), generator=torch.Generator().manual_seed(seed))]


def assert_same_logits(engine: PlannerEngine, hidden: torch.Tensor, reference: Any, sequences: list[list[int]]) -> None:
    found = torch.cat([engine.lm.compute_text_logits(hidden), engine.lm.compute_code_logits(hidden)], dim=1)
    expected = torch.stack([reference(torch.tensor([tokens])).logits[0, -1] for tokens in sequences])
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("dense", [True, False])
@torch.inference_mode()
def test_logits_are_those_of_transformers(engine: PlannerEngine, reference: Any, dense: bool) -> None:
    """Prompts of unequal lengths, one of them longer than a chunk, then single tokens."""
    sequences = [random_tokens(PREFILL_CHUNK + 40), random_tokens(11, seed=1)]
    longest = len(sequences[0])
    state: DecodeState = allocate_state(engine.lm, rows=2, columns=longest + 20, padded=True, dense=dense)
    hidden = fill_state(state, [read_prompt(engine.lm, tokens) for tokens in sequences])
    assert_same_logits(engine, hidden, reference, sequences)
    for step, masked in enumerate([False, True, False, True]):
        tokens = [7 + step, 300 + step]
        for sequence, token in zip(sequences, tokens, strict=True):
            sequence.append(token)
        state.tokens.copy_(torch.tensor(tokens))
        length = state.columns if masked else longest + step + 1
        hidden = read_token(engine.lm, state, length=length, masked=masked)
        assert_same_logits(engine, hidden, reference, sequences)


@torch.inference_mode()
def test_text_that_is_read_in_parts_gives_the_logits_of_transformers(engine: PlannerEngine, reference: Any) -> None:
    tokens = random_tokens(PREFILL_CHUNK + 30)
    for static_shapes in (False, True):
        decoding = EagerBackend(engine.lm, static_shapes=static_shapes).start_text(len(tokens))
        decoding.begin()
        read = 0
        for count in (3, 1, 1, PREFILL_CHUNK + 4, 1, 20):
            logits = decoding.read(tokens[read : read + count])
            read += count
        expected = reference(torch.tensor([tokens[:read]])).logits[:, -1, : engine.vocabulary.num_text]
        assert read == len(tokens)
        torch.testing.assert_close(logits, expected, atol=TOLERANCE, rtol=0)


SONG = PlannedSong(caption="a slow song", lyrics=None, metas=Metas(bpm=80), language="en")


@pytest.mark.parametrize(("cfg_coef", "penalty"), [(2.5, 1.0), (1.0, 1.0), (1.0, 1.3)])
def test_the_most_likely_codes_are_those_that_generate_finds(
    engine: PlannerEngine, reference: Any, cfg_coef: float, penalty: float
) -> None:
    sampling = LmSampling(temperature=0, cfg_coef=cfg_coef, repetition_penalty=penalty)
    request = CodesRequest(caption="piano", lyrics="la", song=SONG, duration=12, seeds=(0,), sampling=sampling)
    (expected,) = generate_codes(
        reference,
        encode_codes_prompt(request, engine.vocabulary),
        encode_unconditional_prompt("", engine.vocabulary),
        num_text=engine.vocabulary.num_text,
        num_codes=engine.vocabulary.num_codes,
        steps=60,
        sampling=sampling,
    )
    (found,) = engine.generate_codes(request)
    assert list(found) == expected
    assert len(set(found)) > 3


def test_weights_may_be_in_shards_and_without_their_prefix(tmp_path: Path, engine: PlannerEngine) -> None:
    other = write_tiny_planner(tmp_path, prefixed=False, num_shards=3)
    loaded = load_engine(read_checkpoint(other), device="cpu", dtype=torch.float32)
    request = CodesRequest(caption="piano", lyrics="la", song=SONG, duration=10, seeds=(3,))
    assert loaded.generate_codes(request) == engine.generate_codes(request)


def test_in_bfloat16_the_logits_are_close(folder: Path, engine: PlannerEngine) -> None:
    rounded = load_engine(read_checkpoint(folder), device="cpu", dtype=torch.bfloat16)
    tokens = random_tokens(50)
    exact = engine.lm.compute_code_logits(read_prompt(engine.lm, tokens).hidden)
    found = rounded.lm.compute_code_logits(read_prompt(rounded.lm, tokens).hidden)
    assert float((found - exact).norm() / exact.norm()) < 0.02
