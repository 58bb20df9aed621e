"""The sampler's arithmetic, with a transformer whose velocities are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import pytest
import torch

from errors import CancelledError
from models.acestep.request import DiffusionSampling, InferMethod
from models.acestep.sampler import STEPS_AHEAD, ClipPlan, KeptLatents, count_steps, is_guided, sample_latents
from models.acestep.schedule import compute_timesteps
from models.acestep.steps import Conditions, Predict

FRAMES, CHANNELS = 30, 3
ODE = DiffusionSampling(num_steps=6, cfg_coef=1.0, shift=2.0)
TARGET = torch.randn(1, FRAMES, CHANNELS, generator=torch.Generator().manual_seed(1))


@dataclass
class Flow:
    """A backend whose velocities lead straight to `target`; the unconditional branch's lead to zero."""

    target: torch.Tensor = field(default_factory=lambda: TARGET)
    calls: list[tuple[float, bool, Conditions]] = field(default_factory=list)
    latents: list[torch.Tensor] = field(default_factory=list)
    waited: list[int] = field(default_factory=list)

    def start(self, conditions: Conditions, *, guided: bool) -> Predict:
        def predict(latents: torch.Tensor, timestep: float) -> torch.Tensor:
            self.calls.append((timestep, guided, conditions))
            self.latents.append(latents)
            goals = [self.target, torch.zeros_like(self.target)][: 2 if guided else 1]
            return torch.cat([(latents - goal) / timestep for goal in goals])

        return predict

    def record_event(self) -> Callable[[], None]:
        step = len(self.calls)
        return lambda: self.waited.append(step)


def make_conditions() -> Conditions:
    return Conditions(torch.zeros(1, FRAMES, 2 * CHANNELS), ())


def sample(
    flow: Flow, sampling: DiffusionSampling, plan: ClipPlan | None = None, steps: list[int] | None = None
) -> torch.Tensor:
    on_step = (steps if steps is not None else []).append
    return sample_latents(flow, plan or ClipPlan(make_conditions()), sampling, seed=5, on_step=on_step)


def draw_noises(count: int) -> Sequence[torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(1, FRAMES, CHANNELS, generator=generator) for _ in range(count)]


@pytest.mark.parametrize("method", ["ode", "sde"])
def test_a_straight_flow_ends_at_its_target(method: InferMethod) -> None:
    flow = Flow()
    steps: list[int] = []
    sampling = replace(ODE, method=method)
    latents = sample(flow, sampling, steps=steps)
    assert (latents - TARGET).abs().max() < 1e-5
    assert steps == list(range(6)) and count_steps(sampling) == 6
    assert [call[0] for call in flow.calls] == list(compute_timesteps(ODE))


def test_the_ode_starts_from_the_seeds_noise_and_draws_no_more() -> None:
    flow = Flow()
    sample(flow, ODE)
    (noise,) = draw_noises(1)
    for latents, timestep in zip(flow.latents, compute_timesteps(ODE), strict=True):
        assert (latents - (timestep * noise + (1 - timestep) * TARGET)).abs().max() < 1e-5


def test_the_sde_renoises_its_prediction_to_the_next_timestep_of_the_shifted_schedule() -> None:
    flow = Flow()
    sample(flow, replace(ODE, method="sde"))
    for latents, timestep, noise in zip(flow.latents, compute_timesteps(ODE), draw_noises(6), strict=True):
        assert (latents - (timestep * noise + (1 - timestep) * TARGET)).abs().max() < 1e-5


def test_guidance_is_applied_in_its_interval_of_t_alone() -> None:
    sampling = replace(ODE, shift=1.0, cfg_coef=3.0, cfg_interval=(0.3, 0.7))
    flow = Flow()
    guided = sample(flow, sampling)
    by_timestep = {round(timestep, 3): guided for timestep, guided, _ in flow.calls}
    assert by_timestep == {1.0: False, 0.833: False, 0.667: True, 0.5: True, 0.333: True, 0.167: False}
    assert not torch.equal(guided, sample(Flow(), replace(sampling, cfg_coef=1.0)))
    outside = replace(sampling, cfg_interval=(0.51, 0.52))
    assert torch.equal(sample(Flow(), outside), sample(Flow(), replace(sampling, cfg_coef=1.0)))


def test_the_ends_of_the_interval_belong_to_it_and_a_coefficient_of_1_is_no_guidance() -> None:
    sampling = replace(ODE, cfg_coef=2.0, cfg_interval=(0.25, 0.75))
    assert [is_guided(sampling, t) for t in (0.76, 0.75, 0.5, 0.25, 0.24)] == [False, True, True, True, False]
    assert not is_guided(replace(sampling, cfg_coef=1.0), 0.5)


@pytest.mark.parametrize("use_adg", [False, True])
def test_each_clip_has_a_guidance_of_its_own(use_adg: bool) -> None:
    sampling = replace(ODE, cfg_coef=4.0, use_adg=use_adg)
    flow = Flow()
    assert torch.equal(sample(flow, sampling), sample(flow, sampling))


def test_conditions_change_at_the_switch_step() -> None:
    flow, first, later = Flow(), make_conditions(), make_conditions()
    sample(flow, ODE, ClipPlan(first, later, 4))
    assert [conditions is first for _, _, conditions in flow.calls] == [True] * 4 + [False] * 2
    sample(flow, ODE, ClipPlan(first, later, 0))
    assert all(conditions is later for _, _, conditions in flow.calls[6:])


def keep_latents(num_steps: int, fade: float = 1.0) -> KeptLatents:
    is_generated = torch.zeros(1, FRAMES, 1, dtype=torch.bool)
    is_generated[:, 10:20] = True
    weights = torch.full((1, FRAMES, 1), fade)
    weights[:, 10:20] = 1.0
    return KeptLatents(torch.full((1, FRAMES, CHANNELS), 8.0), is_generated, num_steps, weights)


def test_during_the_first_steps_frames_outside_the_window_are_those_of_the_source_with_the_same_noise() -> None:
    flow = Flow()
    sample(flow, ODE, ClipPlan(make_conditions(), kept=keep_latents(3)))
    (noise,) = draw_noises(1)
    outside = torch.ones(FRAMES, dtype=torch.bool)
    outside[10:20] = False
    for index, (latents, timestep) in enumerate(zip(flow.latents, compute_timesteps(ODE), strict=True)):
        goal = torch.full_like(TARGET, 8.0) if 1 <= index <= 3 else TARGET
        if index <= 3:
            expected = timestep * noise + (1 - timestep) * goal
            assert (latents - expected)[:, outside].abs().max() < 1e-5
        inside = timestep * noise + (1 - timestep) * TARGET
        assert (latents - inside)[:, ~outside].abs().max() < 1e-5


def test_latents_fade_into_those_of_the_source() -> None:
    latents = sample(Flow(), ODE, ClipPlan(make_conditions(), kept=keep_latents(0, fade=0.25)))
    assert (latents[:, 10:20] - TARGET[:, 10:20]).abs().max() < 1e-5
    assert (latents[:, :10] - (0.25 * TARGET[:, :10] + 0.75 * 8.0)).abs().max() < 1e-5


def test_the_host_runs_ahead_of_the_device_by_a_few_steps_at_most() -> None:
    flow = Flow()
    sample(flow, ODE)
    assert flow.waited == list(range(1, 6 - STEPS_AHEAD + 1))


def test_what_on_step_raises_ends_the_sampling() -> None:
    flow = Flow()

    def cancel(index: int) -> None:
        if index == 3:
            raise CancelledError("The job was cancelled.")

    with pytest.raises(CancelledError):
        sample_latents(flow, ClipPlan(make_conditions()), ODE, seed=5, on_step=cancel)
    assert len(flow.calls) == 3
