"""Which engine takes a parameter: MusicGen (and AudioGen), ACE-Step, Suno. It is declared in the parameter's field."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from enum import StrEnum
from typing import Any

from operations.params import Params


class MusicEngine(StrEnum):
    """What generates music; the value is what the schema of a parameter has under `engines`."""

    MUSICGEN = "musicgen"
    ACESTEP = "acestep"
    SUNO = "suno"

    @property
    def label(self) -> str:
        """The name in prose."""
        return _TITLES[self]


_TITLES = {MusicEngine.MUSICGEN: "MusicGen", MusicEngine.ACESTEP: "ACE-Step", MusicEngine.SUNO: "Suno"}
_EXAMPLES = {
    MusicEngine.MUSICGEN: "small",
    MusicEngine.ACESTEP: "acestep-v15-turbo",
    MusicEngine.SUNO: "suno/<version>",
}


def only(*engines: MusicEngine) -> dict[str, Any]:
    """For a field's `json_schema_extra`: the engines that take the parameter. Without it, all do."""
    return {"engines": [engine.value for engine in engines]}


def list_engines(params: type[Params], name: str) -> list[MusicEngine]:
    """The engines that take the parameter `name`."""
    extra = params.model_fields[name].json_schema_extra
    names = extra.get("engines") if isinstance(extra, dict) else None
    return list(MusicEngine) if not isinstance(names, list) else [MusicEngine(str(value)) for value in names]


def list_unused(params: type[Params], engine: MusicEngine) -> Collection[str]:
    """The parameters that a reply of `engine` leaves out: those of ACE-Step alone, or all that ACE-Step does not take.

    MusicGen and Suno show each other's parameters, as they always did.
    """
    return {
        name
        for name in params.model_fields
        if engine not in (takers := list_engines(params, name))
        and (engine is MusicEngine.ACESTEP or takers == [MusicEngine.ACESTEP])
    }


def find_foreign(params: Params, engine: MusicEngine) -> Iterator[tuple[str, str]]:
    """(field, problem) for each parameter of the request that only other engines take."""
    for name in sorted(params.model_fields_set):
        takers = list_engines(type(params), name)
        if engine not in takers:
            labels = " and ".join(f"{taker.label} ('model': '{_EXAMPLES[taker]}')" for taker in takers)
            yield name, f"is a parameter of {labels}, and this model is one of {engine.label}"
