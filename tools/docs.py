"""Writes the generated parts of docs/ from what the worker itself reads: settings, schemas, catalogues, error codes.

A generated part stands between `<!-- <part> [argument]: made by ... -->` and `<!-- end -->`. `make docs` runs this.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import fields
from itertools import groupby
from pathlib import Path
from typing import Any

from audio.dsp.master import EFFECTS, read_parameters
from errors import ErrorCode
from operations.acestep_api.parameters import ALIASES
from operations.acestep_api.params import ApiParams, list_left_out, list_own_names
from operations.engines import MusicEngine
from operations.operation import find_operation
from operations.params import AudioOutParams, Params, find_item
from testing.repository import ROOT
from worker.settings import Settings

DOCS = ROOT / "docs"
GROUP_TITLES = {
    "models": "Models",
    "limits": "Limits",
    "delivery": "Delivery",
    "suno": "Suno",
    "runtime": "Runtime",
}
PART = re.compile(r"(<!-- (\w+)(?: (\w+))?: made by [^>]*-->\n).*?(<!-- end -->)", re.DOTALL)


def documents() -> list[Path]:
    """README.md and every page of docs/."""
    return [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def fill(text: str) -> str:
    """`text` with every generated part written anew.

    Raises:
        KeyError: a part has no generator.
    """

    def write(match: re.Match[str]) -> str:
        head, part, argument, end = match.groups()
        body = GENERATORS[part](argument) if argument else GENERATORS[part]()
        return f"{head}{body}\n{end}"

    return PART.sub(write, text)


def make_table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    heading = list(head)
    lines = [heading, ["---"] * len(heading), *[[cell.replace("|", "\\|") for cell in row] for row in rows]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_settings() -> str:
    """One table per group of settings."""
    groups = groupby(fields(Settings), key=lambda field: field.metadata["group"])
    return "\n\n".join(
        f"## {GROUP_TITLES[group]}\n\n"
        + make_table(
            ("variable", "default", "meaning"),
            [
                (f"`{field.metadata['variable']}`", _show_default(field.default), field.metadata["doc"])
                for field in members
            ],
        )
        for group, members in groups
    )


def _show_default(value: Any) -> str:
    if value in (None, "", ()):
        return ""
    if isinstance(value, bool):
        return f"`{value:d}`"
    text = ", ".join(str(item) for item in value) if isinstance(value, tuple) else str(value)
    return f"`{text}`"


def write_errors() -> str:
    """Every error code with its meaning and remedy."""
    rows = ((f"`{code.value}`", code.meaning, code.remedy) for code in sorted(ErrorCode))
    return make_table(("`error_code`", "meaning", "what you can do"), rows)


def write_audio_out() -> str:
    """The parameters that every operation with audio in its reply takes."""
    return _write_parameters(AudioOutParams, leave_out=())


def write_parameters(name: str) -> str:
    """The parameters of one operation, without those that all share."""
    _, operation = find_operation(name)
    shared = tuple(AudioOutParams.model_fields) if issubclass(operation.params, AudioOutParams) else ()
    return _write_parameters(operation.params, leave_out=shared)


def write_items(name: str) -> str:
    """The fields of the objects in a list that an operation takes."""
    _, operation = find_operation(name)
    items = [find_item(operation.params, field) for field in operation.params.model_fields]
    return "\n\n".join(_write_parameters(item, leave_out=()) for item in items if item is not None)


def write_effects() -> str:
    """The effects of a master chain, with the range and the default of each parameter."""
    rows = (
        (f"`{name}`", f"`{key}`", f"{effect.ranges[key][0]:g}..{effect.ranges[key][1]:g}", f"`{default:g}`")
        for name, effect in EFFECTS.items()
        for key, default in read_parameters(name).items()
    )
    return make_table(("effect", "parameter", "range", "default"), rows)


def _write_parameters(params: type[Params], *, leave_out: Collection[str]) -> str:
    schema = params.model_json_schema()
    required = set(schema.get("required", ()))
    fields = {key: field for key, field in schema["properties"].items() if key not in leave_out}
    by_engine = len({str(field.get("engines")) for field in fields.values()}) > 1
    rows = [
        (
            f"`{key}`",
            _describe_type(field),
            "required" if key in required else _show_json(field.get("default")),
            *((_describe_engines(field),) if by_engine else ()),
            str(field.get("description", "")),
        )
        for key, field in fields.items()
    ]
    return make_table(("parameter", "type", "default", *(("engine",) if by_engine else ()), "meaning"), rows)


def _describe_engines(field: Mapping[str, Any]) -> str:
    engines = [MusicEngine(name) for name in field.get("engines", ())]
    return ", ".join(engine.label for engine in engines) or "all"


def write_api_parameters(name: str) -> str:
    """The parameters of an operation of the ACE-Step API: their spellings, and what each becomes."""
    _, operation = find_operation(name)
    assert issubclass(operation.params, ApiParams), f"{name} has no parameters of that API"
    own_names, left_out = list_own_names(operation.params), list_left_out(operation.params)
    schema = operation.params.model_json_schema()["properties"]
    rows = [
        (
            ", ".join(f"`{spelling}`" for spelling in (key, *ALIASES.get(key, ()))),
            _describe_type(field),
            _show_json(field.get("default")),
            "nothing" if key in left_out else f"`{own_names[key]}`",
            f"Left out, with a warning: {left_out[key]}." if key in left_out else str(field.get("description", "")),
        )
        for key, field in schema.items()
        if key in own_names | left_out and key not in AudioOutParams.model_fields
    ]
    return make_table(("parameter", "type", "default", "becomes", "meaning, and what differs"), rows)


def _describe_type(field: Mapping[str, Any]) -> str:
    if "$ref" in field:
        return "object"
    if "enum" in field:
        return ", ".join(_show_json(value) for value in field["enum"])
    if "const" in field:
        return _show_json(field["const"])
    if "anyOf" in field:
        return " or ".join(_describe_type(choice) for choice in field["anyOf"] if choice.get("type") != "null")
    if field.get("type") == "array":
        return "list of " + _describe_type(field["items"])
    low = field.get("minimum", field.get("exclusiveMinimum"))
    high = field.get("maximum", field.get("exclusiveMaximum"))
    bounds = f" {low}..{high}" if low is not None and high is not None else ""
    return f"{field.get('type', 'any')}{bounds}"


def _show_json(value: Any) -> str:
    return "" if value in (None, "") else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def write_models() -> str:
    """Every model of the catalogues."""
    from models.registry import list_published_models

    rows = [
        (f"`{row['name']}`", row["engine"], row.get("licence", ""), row.get("about", ""))
        for row in list_published_models()
    ]
    return make_table(("model", "operation", "licence of the weights", "notes"), rows)


def write_memory() -> str:
    """Device memory of the models on a GPU, as the families estimate it before loading."""
    from models.acestep.catalog import CATALOG as SONGS
    from models.acestep.family import AceStepFamily
    from models.acestep.planner.catalog import CATALOG as PLANNERS
    from models.acestep.planner.family import PlannerFamily
    from models.checkpoints.locations import WeightLocations
    from models.demucs import DemucsFamily
    from models.demucs.catalog import CATALOG as SEPARATION
    from models.device import GIBIBYTE, Gpu
    from models.musicgen import MusicGenFamily
    from models.musicgen.catalog import CATALOG as MUSIC

    weights = WeightLocations()
    gpu = Gpu("a card", total_bytes=24 * GIBIBYTE, free_bytes=24 * GIBIBYTE)
    songs = AceStepFamily(weights, gpu_finder=lambda: gpu)
    planners = PlannerFamily(weights, gpu_finder=lambda: gpu)
    music = MusicGenFamily(weights, on_gpu=lambda: True)
    separation = DemucsFamily(weights)
    sizes = [(card.name, music.memory_bytes(card.name)) for card in MUSIC if not card.unsupported]
    sizes += [(name, separation.memory_bytes(name)) for name, card in SEPARATION.items() if not card.unsupported]
    sizes += [(card.name, songs.memory_bytes(card.name)) for card in SONGS]
    sizes += [(card.name, planners.memory_bytes(card.name)) for card in PLANNERS]
    rows = ((f"`{name}`", f"{size / 1e9:.1f}") for name, size in sorted(sizes, key=lambda row: -row[1]))
    return make_table(("model", "GB"), rows)


GENERATORS: Mapping[str, Callable[..., str]] = {
    "settings": write_settings,
    "errors": write_errors,
    "audio_out": write_audio_out,
    "parameters": write_parameters,
    "items": write_items,
    "effects": write_effects,
    "api_parameters": write_api_parameters,
    "models": write_models,
    "memory": write_memory,
}


def main() -> None:
    """Writes every document."""
    for path in documents():
        path.write_text(fill(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
