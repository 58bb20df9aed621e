"""From the text of options and arguments to JSON values, as the schema says. The validation says what is wrong."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from music_worker.schema import Kind, Schema, read_kind

ITEM = re.compile(r"(?P<path>.+?):(?P<values>\w+=[^,=]*(?:,\w+=[^,=]*)*)", re.DOTALL)


def parse_value(text: str, field: Schema, definitions: Mapping[str, Schema]) -> Any:
    """The JSON value of an option.

    `@FILE` reads the value from a file, `@-` from standard input, `@@` stands for an `@`. Lists are JSON or have commas
    between their items; objects are JSON. Text that is no number stays text: the validation says so.
    """
    kind = read_kind(field)
    if kind.input:
        return _parse_json(text) if "array" in kind.types and text.lstrip().startswith("[") else text
    if text.startswith("@@"):
        text = text[1:]
    elif text.startswith("@"):
        text = read_text(text[1:])
    if kind.types & {"array", "object"} and text.lstrip()[:1] in ("[", "{"):
        value = _parse_json(text, lenient="string" in kind.types)
        if not isinstance(value, str):
            return value
    if "array" in kind.types and "string" not in kind.types and (item := find_item(kind, definitions)) is not None:
        return [parse_item(text, item, definitions)]
    if "array" in kind.types and "string" not in kind.types and (len(kind.types) == 1 or "," in text):
        return [_parse_scalar(part.strip(), read_kind(kind.items)) for part in text.split(",")]
    return _parse_scalar(text, kind)


def parse_values(texts: Sequence[str], field: Schema, definitions: Mapping[str, Schema]) -> Any:
    """The value of an option that may be given several times: one list of all of them."""
    values = [parse_value(text, field, definitions) for text in texts]
    if len(values) == 1:
        return values[0]
    return [item for value in values for item in (value if isinstance(value, list) else [value])]


def parse_item(text: str, item: Schema, definitions: Mapping[str, Schema]) -> Any:
    """An object in a list: JSON, or `FILE` for its input, or `FILE:name=value,name=value`."""
    if text.lstrip().startswith("{"):
        return _parse_json(text)
    fields: Mapping[str, Schema] = item["properties"]
    source = next((name for name, field in fields.items() if field.get("input")), None)
    if source is None:
        raise click.UsageError(f"An object must be JSON: {_shorten(text)}")
    found = ITEM.fullmatch(text)
    if found is None or Path(text).exists():
        return {source: text}
    values = dict(pair.split("=", 1) for pair in found["values"].split(","))
    return {
        source: found["path"],
        **{
            name: parse_value(value, fields[name], definitions) if name in fields else value
            for name, value in values.items()
        },
    }


def find_item(kind: Kind, definitions: Mapping[str, Schema]) -> Schema | None:
    """The schema of the objects in a list; None if its items are none."""
    reference = str(kind.items.get("$ref", ""))
    return definitions.get(reference.rpartition("/")[2])


def parse_unknown(text: str) -> tuple[str, Any]:
    """`NAME=VALUE` of a parameter that the shipped schema does not have: JSON if it is, else text."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.BadParameter("must be NAME=VALUE.", param_hint="--param")
    return name.strip().replace("-", "_"), _parse_json(value, lenient=True)


def read_request(text: str) -> Any:
    """The JSON in a file, from standard input (`-`), or the text itself if it is JSON."""
    if text.lstrip()[:1] in ("{", "["):
        return _parse_json(text)
    return _parse_json(read_text(text.removeprefix("@")))


def read_text(path: str) -> str:
    """The text of a file, or of standard input (`-`)."""
    try:
        return sys.stdin.read() if path == "-" else Path(path).expanduser().read_text(encoding="utf-8")
    except OSError as error:
        raise click.UsageError(f"{_shorten(path)} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise click.UsageError(f"{_shorten(path)} is not a text file.") from None


def _parse_scalar(text: str, kind: Kind) -> Any:
    if kind.types & {"integer", "number"}:
        for number in (int, float):
            try:
                return number(text)
            except ValueError:
                continue
    if "boolean" in kind.types and text.lower() in ("true", "false"):
        return text.lower() == "true"
    return text


def _parse_json(text: str, *, lenient: bool = False) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        if lenient:
            return text
        reason = str(error) if isinstance(error, ValueError) else "it is nested too deeply"
        raise click.UsageError(f"Invalid JSON: {reason}.") from None


def _shorten(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:80]}..."
