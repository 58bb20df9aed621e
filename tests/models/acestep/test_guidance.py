"""Guidance: against diffusers, and against the formula computed in float64 frame by frame."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.acestep.guidance import ADG_MAX_ANGLE, AdaptiveProjectedGuidance, AngleGuidance

SHAPE = (1, 40, 6)


def draw(seed: int, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("scale", [0.05, 3.0])  # below and above the limit of the norm
def test_adaptive_projected_guidance_equals_that_of_diffusers_over_several_steps(scale: float) -> None:
    from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer, normalized_guidance

    momentum, guidance, largest = MomentumBuffer(-0.75), AdaptiveProjectedGuidance(7.0), 0.0
    for step in range(4):
        conditional = draw(step)
        unconditional = conditional + draw(100 + step, scale)
        expected = normalized_guidance(
            conditional,
            unconditional,
            guidance_scale=6.0,
            momentum_buffer=momentum,
            eta=0.0,
            norm_threshold=2.5,
            use_original_formulation=True,
            norm_dim=(1,),
        )
        guided = guidance(conditional, unconditional, latents=draw(7), timestep=0.5)
        largest = max(largest, float((guided - expected).abs().max()))
    print(f"adaptive projected guidance, difference to diffusers: {largest}")
    assert largest == 0.0


def test_equal_branches_leave_the_conditional_velocity() -> None:
    velocity = draw(1)
    assert torch.equal(AdaptiveProjectedGuidance(7.0)(velocity, velocity, latents=draw(2), timestep=0.5), velocity)
    turned = AngleGuidance(7.0)(velocity, velocity, latents=draw(2), timestep=0.5)
    assert (turned - velocity).abs().max() < 2e-2  # the angle is bounded from below, at 1.4 mrad


def rotate_frame(
    latent: NDArray[np.float64],
    conditional: NDArray[np.float64],
    unconditional: NDArray[np.float64],
    *,
    timestep: float,
    weight: float,
) -> NDArray[np.float64]:
    """One frame's velocity after angle guidance, in float64: the steps of the formula one by one."""
    wanted, other = latent - timestep * conditional, latent - timestep * unconditional
    cosine = wanted @ other / math.sqrt((wanted @ wanted) * (other @ other))
    angle = math.acos(float(np.clip(cosine, -1 + 1e-6, 1 - 1e-6)))
    turned = min(weight * angle, 3.14 / 6)
    difference = wanted - other
    across = difference - (difference @ other) / (other @ other) * other
    gain = math.sin(turned) / math.sin(angle) if math.sin(angle) > 1e-3 else weight
    rotated: NDArray[np.float64] = math.cos(turned) * wanted + gain * across
    velocity: NDArray[np.float64] = (latent - rotated) / timestep
    return velocity


@pytest.mark.parametrize(("cfg_coef", "scale"), [(1.0, 0.3), (3.0, 0.02), (7.0, 0.3), (7.0, 3.0), (0.5, 0.3)])
def test_angle_guidance_equals_the_formula_in_float64(cfg_coef: float, scale: float) -> None:
    timestep = 0.4
    latents, conditional = draw(1), draw(2)
    unconditional = conditional + draw(3, scale)
    guided = AngleGuidance(cfg_coef)(conditional, unconditional, latents=latents, timestep=timestep)
    weight = max(cfg_coef - 1, 0) + 1e-3
    frames = zip(*(t[0].double().numpy() for t in (latents, conditional, unconditional)), strict=True)
    expected = np.stack([rotate_frame(*frame, timestep=timestep, weight=weight) for frame in frames])
    difference = np.abs(guided[0].double().numpy() - expected).max() / np.abs(expected).max()
    print(f"angle guidance, cfg_coef {cfg_coef}, branches {scale} apart: relative difference {difference:.2g}")
    assert difference < 2e-5


def test_a_large_angle_is_limited() -> None:
    latents, conditional = torch.zeros(1, 1, 2), torch.tensor([[[-1.0, 0.0]]])
    unconditional = torch.tensor([[[0.0, -1.0]]])  # the predicted latents are (1, 0) and (0, 1)
    guided = AngleGuidance(7.0)(conditional, unconditional, latents=latents, timestep=1.0)
    expected = [-(math.cos(ADG_MAX_ANGLE) + math.sin(ADG_MAX_ANGLE)), 0.0]
    assert guided[0, 0].tolist() == pytest.approx(expected, abs=1e-6)
