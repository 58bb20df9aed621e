"""Audio codes: how they are written, and the tokenizer and detokenizer against arithmetic and diffusers' pipeline."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
import torch

from models.acestep.tokens import NUM_CODES, AudioTokenizer, format_codes, parse_codes
from testing.acestep_reference import build_pipeline
from testing.repository import ROOT
from testing.tiny_acestep import build_tiny_components


@pytest.fixture(scope="module")
def components() -> Any:
    return build_tiny_components()


@pytest.fixture(scope="module")
def tokenizer(components: Any) -> AudioTokenizer:
    return AudioTokenizer(components.audio_tokenizer, components.audio_token_detokenizer, components.silence_latent)


def make_latents(frames: int, channels: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(1, frames, channels, generator=torch.Generator().manual_seed(seed))


def test_codes_are_read_as_they_are_written() -> None:
    codes = (0, 7, 12_345, NUM_CODES - 1)
    assert format_codes(codes) == "<|audio_code_0|><|audio_code_7|><|audio_code_12345|><|audio_code_63999|>"
    assert parse_codes(format_codes(codes)) == codes
    assert parse_codes("\n".join(map(format_codes, [[1], [2, 3]]))) == (1, 2, 3)
    assert parse_codes(" <|audio_code_4|>, <|audio_code_05|> ") == (4, 5)
    assert parse_codes(list(codes)) == codes


@pytest.mark.parametrize(
    ("codes", "reason"),
    [
        ("", "no audio codes"),
        (" \n", "no audio codes"),
        ([], "no audio codes"),
        ("<|audio_code_64000|>", "the code 64000 at position 0"),
        ("<|audio_code_1|><|audio_code_999999999|>", "the code 999999999 at position 1"),
        ([1, -1], "the code -1 at position 1"),
        ([1, True], "type bool at position 1"),
        ([1.0], "type float at position 0"),
        (["1"], "type str at position 0"),
        ("<|audio_code_1|>x", "'x' at character 16"),
        ("<|audio_code_1", "'<|audio_code_1' at character 0"),
        ("<|audio_code_-1|>", "'<|audio_code_-1|>' at character 0"),
        ("<|audio_code_1234567890|>", "at character 0"),
        ("<|audio_code_1|>" + "y" * 1000, "'" + "y" * 40 + "' at character 16"),
        ("1,2,3", "'1,2,3' at character 0"),
    ],
)
def test_malformed_codes_are_refused_with_the_place(codes: Any, reason: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_codes(codes)
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 150


def test_codes_are_read_without_torch() -> None:
    program = (
        "import sys; from models.acestep.tokens import parse_codes; assert parse_codes('<|audio_code_3|>') == (3,);"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


def test_every_code_stands_for_the_levels_of_its_mixed_radix_digits(components: Any) -> None:
    quantizer = components.audio_tokenizer.quantizer
    levels = components.config.sizes.fsq_levels
    assert math.prod(levels) == NUM_CODES == quantizer.codebook_size
    codes = [0, 1, 7, 8, 63_999, *range(0, NUM_CODES, 977)]
    expected = []
    for code in codes:
        vector = []
        for level in levels:  # the first one is the fastest
            code, digit = divmod(code, level)
            vector.append(2 * digit / (level - 1) - 1)
        expected.append(vector)
    found = quantizer.get_codes_from_indices(torch.tensor(codes).view(1, -1, 1))[0, 0]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=1e-6)


@torch.no_grad()
def test_a_code_is_the_mixed_radix_number_of_the_rounded_levels(components: Any, tokenizer: AudioTokenizer) -> None:
    network = components.audio_tokenizer
    latents = 3 * make_latents(200, components.config.sizes.latent_channels)
    pooled = network.attention_pooler(network.audio_acoustic_proj(latents.view(1, 40, 5, -1)))
    bounded = network.quantizer.project_in(pooled)[0].tolist()
    levels = components.config.sizes.fsq_levels
    expected = []
    for vector in bounded:
        code, place = 0, 1
        for value, level in zip(vector, levels, strict=True):
            limit = level / (level - 1)  # soft clamp: the outermost levels have as much room as the inner ones
            clamped = min(max(limit * math.tanh(value / limit), -1), 1)
            code += place * math.floor((level - 1) * (clamped + 1) / 2 + 0.5)
            place *= level
        expected.append(code)
    assert tokenizer.tokenize(latents) == tuple(expected)
    assert len(set(expected)) > 10


@pytest.mark.parametrize("frames", [5, 23, 100])
@torch.no_grad()
def test_latents_of_a_cover_equal_those_of_diffusers_exactly(
    frames: int, components: Any, tokenizer: AudioTokenizer
) -> None:
    latents = make_latents(frames, components.config.sizes.latent_channels)
    network = components.audio_tokenizer
    quantized, _ = network.tokenize(latents, components.silence_latent)
    expected = components.audio_token_detokenizer(quantized)[:, :frames]
    torch.testing.assert_close(tokenizer.resynthesize(latents), expected, rtol=0, atol=1e-6)


def test_what_the_last_code_lacks_is_filled_with_silence(components: Any, tokenizer: AudioTokenizer) -> None:
    latents = make_latents(8, components.config.sizes.latent_channels)
    completed = torch.cat([latents, components.silence_latent[:, :2]], dim=1)
    assert tokenizer.tokenize(latents) == tokenizer.tokenize(completed)
    assert len(tokenizer.tokenize(latents)) == 2
    assert tokenizer.resynthesize(latents).shape == latents.shape


@torch.no_grad()
def test_latents_of_codes_equal_those_of_diffusers_exactly(tokenizer: AudioTokenizer) -> None:
    codes = (0, 1, 5_000, 63_999, 31_234)
    expected, _ = build_pipeline(build_tiny_components()).prepare_src_latents(
        torch.device("cpu"), torch.float32, audio_codes=format_codes(codes)
    )
    found = tokenizer.detokenize(codes)
    assert found.shape[1] == 25
    assert torch.equal(found, expected)
