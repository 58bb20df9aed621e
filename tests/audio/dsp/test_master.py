"""The master chain: parameters as pedalboard has them, no delay, and the same result for any size of blocks."""

from __future__ import annotations

import inspect

import numpy as np
import pedalboard
import pytest

from audio.dsp.master import (
    EFFECTS,
    PRESETS,
    Effect,
    PresetName,
    apply_master,
    find_effect_errors,
    read_effects,
    read_parameters,
)
from audio.types import Waveform
from testing.signals import make_noise

RATE = 44_100


def apply(waveform: Waveform, *effects: Effect, sizes: tuple[int, ...] = (), rate: int = RATE) -> Waveform:
    blocks = np.split(waveform, np.cumsum(sizes), axis=1) if sizes else [waveform]
    parts = apply_master(iter(blocks), effects, sample_rate=rate, num_samples=waveform.shape[1])
    return np.concatenate(list(parts), axis=1)


@pytest.mark.parametrize("name", EFFECTS)
def test_every_parameter_of_pedalboards_class_has_a_range_that_contains_its_default(name: str) -> None:
    parameters, ranges = read_parameters(name), EFFECTS[name].ranges
    assert set(parameters) == set(ranges) and parameters
    plugin = getattr(pedalboard, EFFECTS[name].plugin)
    settable = {key for key, value in inspect.getmembers(plugin) if isinstance(value, property)}
    assert set(parameters) == settable - {"is_effect", "is_instrument"}
    for key, (low, high) in ranges.items():
        assert low <= parameters[key] <= high


@pytest.mark.parametrize("name", EFFECTS)
def test_both_ends_of_every_range_are_accepted_and_give_finite_sound(name: str) -> None:
    noise = make_noise(2, 20_000)
    for key, limits in EFFECTS[name].ranges.items():
        for value in limits:
            result = apply(noise, Effect(name, {key: value}))
            assert result.shape == noise.shape and np.isfinite(result).all()


@pytest.mark.parametrize("name", EFFECTS)
@pytest.mark.parametrize("channels", [1, 2])
def test_the_result_does_not_depend_on_the_blocks(name: str, channels: int) -> None:
    noise = make_noise(channels, 300_000)
    whole, parts = apply(noise, Effect(name)), apply(noise, Effect(name), sizes=(1, 70_000, 3, 150_000, 5000))
    np.testing.assert_array_equal(whole, parts)


@pytest.mark.parametrize("name", EFFECTS)
def test_no_effect_delays_the_audio(name: str) -> None:
    click = np.zeros((2, 4000), np.float32)
    click[:, 1000] = 0.5
    dry = {"mix": 0.0} if "mix" in EFFECTS[name].ranges else {}
    result = apply(click, Effect(name, dry))
    assert not result[:, :1000].any() and np.argmax(abs(result[0])) == 1000


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_consists_of_valid_effects(name: PresetName) -> None:
    values = [{"effect": effect.name, **effect.parameters} for effect in PRESETS[name]]
    assert not list(find_effect_errors(values)) and read_effects(values) == tuple(PRESETS[name])


@pytest.mark.parametrize("num_samples", [1, 2, 63, 441])
def test_short_audio_keeps_its_length(num_samples: int) -> None:
    noise = make_noise(2, num_samples)
    assert apply(noise, Effect("reverb"), Effect("limiter")).shape == noise.shape


def test_a_filter_above_half_the_sample_rate_gives_finite_sound() -> None:
    result = apply(make_noise(1, 8000), Effect("high_shelf", {"cutoff_frequency_hz": 20_000, "gain_db": 24}), rate=8000)
    assert np.isfinite(result).all() and abs(result).max() < 100
