"""The master chain of a mix: pedalboard's effects in any order, block by block with their state kept.

None of them delays the audio. Names, types and defaults of the parameters are those of pedalboard's own classes.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from audio.dsp.effects import END_FADE_S, MIN_FRAMES, equalize_blocks, fade_end
from audio.types import Waveform
from errors import sanitize, suggest_name

Range = tuple[float, float]
PresetName = Literal["glue", "warm", "bright", "loud", "room"]

_DYNAMICS: Mapping[str, Range] = {"threshold_db": (-100, 0), "attack_ms": (0.1, 500), "release_ms": (1, 5000)}
_FILTER: Mapping[str, Range] = {"cutoff_frequency_hz": (10, 20_000), "gain_db": (-24, 24), "q": (0.1, 20)}
_UNIT: Range = (0, 1)
_MAX_CUTOFF = 0.49  # of the sample rate


@dataclass(frozen=True, slots=True)
class EffectInfo:
    """One effect.

    Args:
        plugin: name of pedalboard's class.
        ranges: of its parameters: what pedalboard enforces, or what is usual if it takes anything.
        has_tail: it sounds on after its input has ended.
    """

    plugin: str
    ranges: Mapping[str, Range]
    has_tail: bool = False


EFFECTS: Mapping[str, EffectInfo] = MappingProxyType(
    {
        "compressor": EffectInfo("Compressor", {**_DYNAMICS, "ratio": (1, 100)}),
        "limiter": EffectInfo("Limiter", {"threshold_db": (-60, 0), "release_ms": (1, 5000)}),
        "noise_gate": EffectInfo("NoiseGate", {**_DYNAMICS, "ratio": (1, 100)}),
        "high_shelf": EffectInfo("HighShelfFilter", _FILTER),
        "low_shelf": EffectInfo("LowShelfFilter", _FILTER),
        "peak": EffectInfo("PeakFilter", _FILTER),
        "reverb": EffectInfo(
            "Reverb",
            dict.fromkeys(("room_size", "damping", "wet_level", "dry_level", "width", "freeze_mode"), _UNIT),
            has_tail=True,
        ),
        "delay": EffectInfo(
            "Delay", {"delay_seconds": (0.001, 30), "feedback": (0, 0.98), "mix": _UNIT}, has_tail=True
        ),
        "chorus": EffectInfo(
            "Chorus",
            {
                "rate_hz": (0, 99.9),
                "depth": _UNIT,
                "centre_delay_ms": (1, 100),
                "feedback": (-0.98, 0.98),
                "mix": _UNIT,
            },
            has_tail=True,
        ),
        "distortion": EffectInfo("Distortion", {"drive_db": (0, 60)}),
    }
)


@dataclass(frozen=True, slots=True)
class Effect:
    """One effect of a chain, with the parameters that differ from pedalboard's defaults."""

    name: str
    parameters: Mapping[str, float] = field(default_factory=dict)


PRESETS: Mapping[PresetName, Sequence[Effect]] = MappingProxyType(
    {
        "glue": (Effect("compressor", {"threshold_db": -18, "ratio": 2, "attack_ms": 30, "release_ms": 200}),),
        "warm": (
            Effect("low_shelf", {"cutoff_frequency_hz": 120, "gain_db": 2}),
            Effect("high_shelf", {"cutoff_frequency_hz": 9000, "gain_db": -2}),
        ),
        "bright": (
            Effect("peak", {"cutoff_frequency_hz": 300, "gain_db": -1.5, "q": 0.8}),
            Effect("high_shelf", {"cutoff_frequency_hz": 8000, "gain_db": 3}),
        ),
        "loud": (
            Effect("compressor", {"threshold_db": -16, "ratio": 3, "attack_ms": 10, "release_ms": 120}),
            Effect("limiter", {"threshold_db": -4, "release_ms": 120}),
        ),
        "room": (Effect("reverb", {"room_size": 0.3, "damping": 0.6, "wet_level": 0.12, "dry_level": 0.95}),),
    }
)


@functools.cache
def read_parameters(name: str) -> Mapping[str, float]:
    """The parameters of an effect with their defaults, from the signature of pedalboard's class."""
    import pedalboard

    signature = str(getattr(pedalboard, EFFECTS[name].plugin).__init__.__doc__).partition("\n")[0]
    return {key: float(value) for key, value in re.findall(r"(\w+): float = (-?[\d.]+)", signature)}


def find_effect_errors(values: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """(path, problem) of everything that is wrong with effects as a request has them."""
    for index, value in enumerate(values):
        name = value.get("effect")
        if not isinstance(name, str) or name not in EFFECTS:
            hint = suggest_name(name, EFFECTS) if isinstance(name, str) else ""
            yield f"{index}.effect", f"must be one of {', '.join(EFFECTS)}.{hint}"
            continue
        known, ranges = read_parameters(name), EFFECTS[name].ranges
        for key, number in value.items():
            if key == "effect":
                continue
            if key not in known:
                hint = suggest_name(key, known)
                yield f"{index}.{sanitize(key)}", f"is no parameter of '{name}', which has {', '.join(known)}.{hint}"
                continue
            low, high = ranges[key]
            is_number = isinstance(number, int | float) and not isinstance(number, bool)
            if not is_number or not low <= number <= high:  # NaN and infinity are not within it
                yield f"{index}.{key}", f"must be a number from {low:g} to {high:g}"


def read_effects(values: Sequence[Mapping[str, Any]]) -> tuple[Effect, ...]:
    """The effects of a request in which `find_effect_errors` finds nothing."""
    return tuple(
        Effect(value["effect"], {key: float(number) for key, number in value.items() if key != "effect"})
        for value in values
    )


def apply_master(
    blocks: Iterable[Waveform], effects: Sequence[Effect], *, sample_rate: int, num_samples: int
) -> Iterator[Waveform]:
    """Applies the chain to consecutive `[C, n]` blocks of `num_samples` samples in total; the length stays.

    The last 10 ms fade out if an effect sounds on. Filters above half the sample rate are set just below it.
    """
    if not effects:
        yield from blocks
        return
    plugins = [_build_plugin(effect, sample_rate) for effect in effects]
    has_tail = any(EFFECTS[effect.name].has_tail for effect in effects)
    fade, position = round(END_FADE_S * sample_rate) if has_tail else 0, 0
    for block in equalize_blocks(blocks):
        count = block.shape[1]
        # pedalboard wants at least a few samples, and may work in place.
        processed = np.pad(block, ((0, 0), (0, max(MIN_FRAMES - count, 0))))
        for plugin in plugins:
            processed = plugin.process(processed, sample_rate, reset=False)
        processed = processed[:, :count]
        yield fade_end(processed, num_samples - position, fade) if fade else processed
        position += count


def _build_plugin(effect: Effect, sample_rate: int) -> Any:
    import pedalboard

    parameters = dict(effect.parameters)
    if "cutoff_frequency_hz" in EFFECTS[effect.name].ranges:
        cutoff = parameters.get("cutoff_frequency_hz", read_parameters(effect.name)["cutoff_frequency_hz"])
        parameters["cutoff_frequency_hz"] = min(cutoff, math.floor(_MAX_CUTOFF * sample_rate))
    return getattr(pedalboard, EFFECTS[effect.name].plugin)(**parameters)
