"""Samples the latents of one clip: from noise to latents by the velocities that the transformer predicts.

Flow matching: `x_t = t noise + (1 - t) latents`, and the velocity is `noise - latents`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from models.acestep.guidance import choose_guidance
from models.acestep.request import DiffusionSampling
from models.acestep.schedule import compute_timesteps, pair_timesteps
from models.acestep.steps import Conditions, Predict

STEPS_AHEAD = 2  # queued on the device: it never waits for the host, and a cancellation takes effect within so many


class StepRunner(Protocol):
    """What the sampler uses of a `StepBackend`."""

    def start(self, conditions: Conditions, *, guided: bool) -> Predict:
        """See `StepBackend`."""

    def record_event(self) -> Callable[[], None]:
        """See `StepBackend`."""


@dataclass(frozen=True, slots=True, eq=False)
class KeptLatents:
    """Frames that stay as they are in the source.

    Args:
        source: `[1, T, C]` float32.
        is_generated: `[1, T, 1]`: True in the window.
        num_steps: as many of the first steps end, outside the window, with the source's frames with the noise of their
            timestep.
        weights: `[1, T, 1]`: at the end, of the sampled latents against the source's.
    """

    source: torch.Tensor
    is_generated: torch.Tensor
    num_steps: int
    weights: torch.Tensor


@dataclass(frozen=True, slots=True, eq=False)
class ClipPlan:
    """What guides the sampling of a clip.

    Args:
        conditions: of the first steps.
        later: of the steps from `switch_step` on; None: the same.
        switch_step: index of the first step with other conditions.
        kept: frames that are not sampled freely; None: none.
    """

    conditions: Conditions
    later: Conditions | None = None
    switch_step: int = 0
    kept: KeptLatents | None = None

    def at(self, step: int) -> Conditions:
        """The conditions of a step."""
        return self.conditions if self.later is None or step < self.switch_step else self.later


def count_steps(sampling: DiffusionSampling) -> int:
    """Steps of one clip."""
    return len(compute_timesteps(sampling))


def sample_latents(
    backend: StepRunner,
    plan: ClipPlan,
    sampling: DiffusionSampling,
    *,
    seed: int,
    on_step: Callable[[int], None],
) -> torch.Tensor:
    """Samples the latents of one clip.

    The unconditional branch runs only in steps that are guided. Noise is drawn on the CPU, so that a seed means the
    same on every device.

    Args:
        on_step: called with the step's index before each step. Whatever it raises ends the sampling.

    Returns:
        `[1, T, C]` float32 on the transformer's device.
    """
    context = plan.conditions.context
    generator = torch.Generator().manual_seed(seed)

    def draw_noise() -> torch.Tensor:
        shape = (1, context.shape[1], context.shape[2] // 2)
        return torch.randn(shape, generator=generator).to(context.device)

    guidance = choose_guidance(sampling.cfg_coef, use_adg=sampling.use_adg)
    noise = draw_noise()
    latents, predict, phase = noise, None, None
    queued: deque[Callable[[], None]] = deque()
    for index, (timestep, following) in enumerate(pair_timesteps(compute_timesteps(sampling))):
        on_step(index)
        conditions, guided = plan.at(index), is_guided(sampling, timestep)
        if predict is None or phase != (id(conditions), guided):
            predict, phase = backend.start(conditions, guided=guided), (id(conditions), guided)
        velocity = predict(latents, timestep)
        if guided:
            velocity = guidance(velocity[:1], velocity[1:], latents=latents, timestep=timestep)
        if sampling.method == "sde" and following > 0:
            latents = following * draw_noise() + (1 - following) * (latents - timestep * velocity)
        else:
            latents = latents + (following - timestep) * velocity
        if plan.kept is not None and index < plan.kept.num_steps:
            noisy = following * noise + (1 - following) * plan.kept.source
            latents = torch.where(plan.kept.is_generated, latents, noisy)
        queued.append(backend.record_event())
        if len(queued) > STEPS_AHEAD:
            queued.popleft()()
    if plan.kept is not None:
        latents = torch.lerp(plan.kept.source, latents, plan.kept.weights)  # exact at weights of 0 and 1
    return latents


def is_guided(sampling: DiffusionSampling, timestep: float) -> bool:
    """Whether the step at `timestep` is guided.

    The interval is in t, as in the original: 1 is the first step. diffusers measures it in 1 - t.
    """
    start, end = sampling.cfg_interval
    return sampling.cfg_coef > 1 and start <= timestep <= end
