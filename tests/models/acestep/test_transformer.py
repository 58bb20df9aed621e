"""The transformer's own forward pass against that of diffusers, and sliding attention by blocks against one mask."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from models.acestep.attention import attend, attend_by_groups, attend_sliding, make_sliding_mask
from models.acestep.network import Components
from models.acestep.transformer import DiffusionTransformer, StepInputs
from testing.tiny_acestep import build_tiny_components

CHANNELS = 4


@pytest.fixture(scope="module", params=[False, True], ids=["2B", "XL"])
def components(request: pytest.FixtureRequest) -> Components:
    return build_tiny_components(seed=1, xl=request.param)


def draw(frames: int, length: int = 57, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latents, context and conditions."""
    generator = torch.Generator().manual_seed(seed)
    sizes = (1, frames, CHANNELS), (1, frames, 2 * CHANNELS), (1, length, 32)
    latents, context, conditions = (torch.randn(size, generator=generator) for size in sizes)
    return latents, context, conditions


def predict(components: Components, frames: int, *, guided: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Our velocities, and those of diffusers' forward."""
    latents, context, conditions = draw(frames)
    null = components.condition_encoder.get_parameter("null_condition_emb")
    transformer = DiffusionTransformer(components.transformer, null)
    timestep = torch.tensor([0.7])
    with torch.inference_mode():
        inputs = StepInputs(
            context, transformer.compute_cross_kv(conditions), transformer.make_positions(frames), guided
        )
        ours = transformer.predict(latents, timestep, inputs)
        rows = 2 if guided else 1
        theirs = components.transformer(
            hidden_states=latents.expand(rows, -1, -1),
            timestep=timestep.expand(rows),
            timestep_r=timestep.expand(rows),
            encoder_hidden_states=torch.cat([conditions, null.expand_as(conditions)])[:rows],
            context_latents=context.expand(rows, -1, -1),
            return_dict=False,
        )[0]
    return ours, theirs


@pytest.mark.parametrize("frames", [20, 33, 129])  # 33 and 129 are padded to whole patches
def test_a_step_equals_diffusers_exactly(components: Components, frames: int) -> None:
    ours, theirs = predict(components, frames, guided=False)
    assert ours.shape == (1, frames, CHANNELS)
    print(f"a step of {frames} frames: difference to diffusers {float((ours - theirs).abs().max())}")
    assert torch.equal(ours, theirs)


def test_a_step_with_sliding_attention_by_blocks_differs_by_rounding_alone(components: Components) -> None:
    ours, theirs = predict(components, 501, guided=False)
    difference = float((ours - theirs).abs().max() / theirs.abs().max())
    print(f"a step of 501 frames, by blocks: relative difference to diffusers {difference:.2g}")
    assert difference < 1e-6


@pytest.mark.parametrize("frames", [33, 501])
def test_both_branches_of_a_guided_step_equal_diffusers_but_for_rounding(components: Components, frames: int) -> None:
    """The unconditional branch has no attention to its conditions here, because they are all the same."""
    ours, theirs = predict(components, frames, guided=True)
    assert ours.shape == (2, frames, CHANNELS)
    assert (theirs[0] - theirs[1]).abs().max() > 0.1, "the branches must differ for this test to mean anything"
    difference = float((ours - theirs).abs().max() / theirs.abs().max())
    print(f"a guided step of {frames} frames: relative difference to diffusers {difference:.2g}")
    assert difference < 1e-6


def test_the_conditional_branch_does_not_depend_on_guidance(components: Components) -> None:
    alone, _ = predict(components, 64, guided=False)
    both, _ = predict(components, 64, guided=True)
    difference = float((both[:1] - alone).abs().max() / alone.abs().max())
    assert difference < 1e-6


def test_a_step_in_bfloat16_is_near_that_in_float32() -> None:
    """As near as diffusers' own: norms are rounded once here, and twice there."""
    latents, context, conditions = draw(501)
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        components = build_tiny_components(seed=1)
        module: Any = components.transformer.to(dtype=dtype)
        transformer = DiffusionTransformer(module, components.condition_encoder.get_parameter("null_condition_emb"))
        with torch.inference_mode():
            kept = transformer.compute_cross_kv(conditions), transformer.make_positions(501)
            inputs = StepInputs(context.to(dtype), *kept, guided=True)
            results.append(transformer.predict(latents.to(dtype), torch.tensor([0.5], dtype=dtype), inputs))
    exact, rounded = results
    assert rounded.dtype == torch.bfloat16
    error = float((rounded.float() - exact).norm() / exact.norm())
    print(f"a step in bfloat16: relative error {error:.2g}")
    assert error < 0.01


@pytest.mark.parametrize("length", [10, 17, 18, 96, 97, 128, 301])  # in a window of 16: blocks from 97 on
@pytest.mark.parametrize("rows", [1, 2])
def test_sliding_attention_equals_one_dense_mask(length: int, rows: int) -> None:
    generator = torch.Generator().manual_seed(length)
    query = torch.randn(rows, length, 4, 8, generator=generator)
    key, value = (torch.randn(rows, length, 2, 8, generator=generator) for _ in range(2))
    mask = make_sliding_mask(length, 16, groups=2, dtype=torch.float32, device=torch.device("cpu"))
    assert (mask.num_blocks > 0) == (length > 96)
    position = torch.arange(length)
    is_seen = (position[:, None] - position).abs() <= 16
    expected = F.scaled_dot_product_attention(
        query.double().transpose(1, 2),
        key.double().transpose(1, 2).repeat_interleave(2, 1),
        value.double().transpose(1, 2).repeat_interleave(2, 1),
        attn_mask=is_seen,
    )
    difference = attend_sliding(query, key, value, mask) - expected.transpose(1, 2).flatten(2)
    assert difference.abs().max() < 2e-6


def test_padding_of_keys_is_not_seen() -> None:
    generator = torch.Generator().manual_seed(3)
    query = torch.randn(1, 9, 4, 8, generator=generator)
    key, value = (torch.randn(1, 12, 2, 8, generator=generator) for _ in range(2))
    bias = torch.zeros(1, 12)
    bias[:, 7:] = float("-inf")
    expected = attend(query, key[:, :7], value[:, :7])
    assert (attend(query, key, value, bias=bias) - expected).abs().max() < 1e-6
    assert (attend_by_groups(query, key, value, bias) - expected).abs().max() < 1e-6
