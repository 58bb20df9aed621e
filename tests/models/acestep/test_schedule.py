"""Timesteps: against diffusers and against the tables of the original."""

from __future__ import annotations

import math

import pytest
import torch

from models.acestep.request import DiffusionSampling
from models.acestep.schedule import (
    compute_timesteps,
    drop_last_zero,
    find_timestep_error,
    list_untrained_timesteps,
    pair_timesteps,
)

# https://github.com/ace-step/ACE-Step-1.5: the eight timesteps that the turbo models were distilled for.
TURBO_TABLES = {
    1.0: (1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125),
    2.0: (1, 0.9333, 0.8571, 0.7692, 0.6667, 0.5455, 0.4, 0.2222),
    3.0: (1, 0.9545, 0.9, 0.8333, 0.75, 0.6429, 0.5, 0.3),
}


def sampling(num_steps: int = 8, shift: float = 1.0, timesteps: tuple[float, ...] | None = None) -> DiffusionSampling:
    return DiffusionSampling(num_steps=num_steps, cfg_coef=1.0, shift=shift, timesteps=timesteps)


@pytest.mark.parametrize("shift", TURBO_TABLES)
def test_eight_steps_are_the_turbo_tables(shift: float) -> None:
    assert compute_timesteps(sampling(8, shift)) == pytest.approx(TURBO_TABLES[shift], abs=5e-5)


def test_timesteps_equal_those_of_diffusers_for_every_number_of_steps() -> None:
    largest = 0.0
    for steps in range(1, 201):
        straight = torch.linspace(1.0, 0.0, steps + 1)[:-1]
        for shift in (1.0, 1.7, 3.0, 5.0):
            expected = straight if shift == 1.0 else shift * straight / (1 + (shift - 1) * straight)
            given = torch.tensor(compute_timesteps(sampling(steps, shift)))
            largest = max(largest, float((given - expected).abs().max()))
    print(f"largest difference of 800 schedules to diffusers' formula in torch: {largest}")
    assert largest == 0.0


def test_custom_timesteps_take_the_place_of_steps_and_shift_without_a_zero_at_the_end() -> None:
    assert compute_timesteps(sampling(8, 3.0, (1.0, 0.5, 0.25, 0.0))) == (1.0, 0.5, 0.25)
    assert drop_last_zero(()) == ()


def test_the_last_step_goes_to_zero() -> None:
    assert list(pair_timesteps((1.0, 0.5))) == [(1.0, 0.5), (0.5, 0.0)]


@pytest.mark.parametrize(
    ("timesteps", "part"),
    [
        ((), "0 above 0"),
        ((0.0,), "0 above 0"),
        ((1.0,) + (0.5,) * 20, "21 above 0, and 1 to 20"),
        ((1.5, 0.5), "number 1 is 1.5"),
        ((0.5, 0.5), "number 2 is 0.5 after 0.5"),
        ((0.5, 0.7), "number 2 is 0.7 after 0.5"),
        ((0.5, -0.1), "number 2 is -0.1"),
        ((1.0, 0.0, 0.0), "number 2 is 0"),
        ((math.nan,), "number 1 is nan"),
    ],
)
def test_timesteps_that_cannot_be_sampled_are_named(timesteps: tuple[float, ...], part: str) -> None:
    assert part in (find_timestep_error(timesteps, most=20) or "")


def test_falling_timesteps_are_accepted_with_and_without_a_zero_at_the_end() -> None:
    assert find_timestep_error((1.0, 0.5, 0.1), most=3) is None
    assert find_timestep_error((1.0, 0.5, 0.1, 0.0), most=3) is None


def test_timesteps_outside_the_tables_of_turbo_models_are_listed() -> None:
    assert list_untrained_timesteps(compute_timesteps(sampling(8, 3.0))) == ()
    assert list_untrained_timesteps((1.0, 0.9545, 0.64, 0.3)) == (0.64,)
    assert list_untrained_timesteps(compute_timesteps(sampling(4, 3.0))) == ()  # every other one of the table
    assert len(list_untrained_timesteps(compute_timesteps(sampling(5, 3.0)))) > 0
