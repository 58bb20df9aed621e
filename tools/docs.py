"""The README's tables, made from what the worker itself reads. `python -m tools.docs` writes them in."""

from __future__ import annotations

import importlib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields
from typing import Any

from operations.operation import Operation, load_operations
from operations.params import AudioOutParams, Params
from testing.repository import ROOT
from worker.settings import Settings

README = ROOT / "README.md"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heading = list(head)
    lines = [heading, ["---"] * len(heading), *[[cell.replace("|", "\\|") for cell in row] for row in rows]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def settings_table() -> str:
    rows = [
        (f"`{field.metadata['variable']}`", _default(field.default), field.metadata["doc"])
        for field in fields(Settings)
        if not field.metadata.get("platform")
    ]
    return table(("variable", "default", "what it is"), rows)


def _default(value: Any) -> str:
    if value in (None, "", ()):
        return ""
    text = ", ".join(str(item) for item in value) if isinstance(value, tuple) else str(value)
    return f"`{text}`"


def operations_text() -> str:
    return "\n\n".join(_operation(name, operation) for name, operation in load_operations().items())


def audio_out_table() -> str:
    return _parameters(AudioOutParams, leave_out=())


def _operation(name: str, operation: Operation[Any, Any]) -> str:
    module = importlib.import_module(f"operations.{name}")
    summary = " ".join((module.__doc__ or "").split("\n\n")[0].split())
    paragraphs = [f"### {name}", summary]
    shared = tuple(AudioOutParams.model_fields) if issubclass(operation.params, AudioOutParams) else ()
    if set(operation.params.model_fields) - set(shared):
        paragraphs.append(_parameters(operation.params, leave_out=shared))
    if shared:
        paragraphs.append("Also takes the audio-out parameters (What comes back).")
    return "\n\n".join(paragraphs)


def _parameters(params: type[Params], *, leave_out: Collection[str]) -> str:
    schema = params.model_json_schema()
    required = set(schema.get("required", ()))
    rows = [
        (f"`{key}`", _takes(field), "required" if key in required else _json(field.get("default")), _meaning(field))
        for key, field in schema["properties"].items()
        if key not in leave_out
    ]
    return table(("parameter", "takes", "default", "meaning"), rows)


def _takes(field: Mapping[str, Any]) -> str:
    if "enum" in field:
        return ", ".join(_json(value) for value in field["enum"])
    if "const" in field:
        return _json(field["const"])
    if "anyOf" in field:
        return " or ".join(_takes(choice) for choice in field["anyOf"] if choice.get("type") != "null")
    if field.get("type") == "array":
        return f"list of {_takes(field['items'])}"
    low = field.get("minimum", field.get("exclusiveMinimum"))
    high = field.get("maximum", field.get("exclusiveMaximum"))
    span = f" {low}..{high}" if low is not None and high is not None else ""
    return f"{field.get('type', 'any')}{span}"


def _json(value: Any) -> str:
    return "" if value in (None, "") else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _meaning(field: Mapping[str, Any]) -> str:
    return str(field.get("description", ""))


def models_table() -> str:
    from models.registry import catalog_rows

    rows = [(f"`{row['name']}`", row["engine"], row.get("licence", ""), row.get("about", "")) for row in catalog_rows()]
    return table(("model", "engine", "licence of the weights", "about"), rows)


SECTIONS = {
    "settings": settings_table,
    "audio_out": audio_out_table,
    "operations": operations_text,
    "models": models_table,
}


def filled(readme: str) -> str:
    """`readme` with every marked section made anew."""
    for name, make in SECTIONS.items():
        marked = re.compile(rf"(<!-- {name}: [^>]*-->\n).*?(<!-- end -->)", re.DOTALL)
        assert marked.search(readme), f"README.md has no section {name}"
        body = make()
        readme = marked.sub(lambda found, body=body: f"{found[1]}{body}\n{found[2]}", readme)  # type: ignore[misc]
    return readme


if __name__ == "__main__":
    README.write_text(filled(README.read_text()))
