"""The JSON schemas of the worker's operations: those that the package ships, and how a server's differ from them."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

Schema: TypeAlias = Mapping[str, Any]
"""The JSON schema of one operation's parameters, with `summary` and `aliases` of the operation."""

MAX_NAMES_SHOWN = 8
NOTES = frozenset({"title", "description", "summary", "default", "engines", "becomes", "left_out"})


@dataclass(frozen=True, slots=True)
class Schemas:
    """The schemas of all operations of one version of the worker."""

    version: str
    operations: Mapping[str, Schema]

    def find(self, operation: str) -> tuple[str, Schema] | None:
        """The operation's own name and its schema; `operation` may be another of its names. None if there is none."""
        if operation in self.operations:
            return operation, self.operations[operation]
        for name, schema in self.operations.items():
            if operation in schema.get("aliases", ()):
                return name, schema
        return None


@functools.cache
def load_schemas() -> Schemas:
    """The schemas that this package was made with."""
    return read_schemas(json.loads(Path(__file__).with_name("schema.json").read_bytes()))


@functools.cache
def load_remedies() -> Mapping[str, str]:
    """What a user can do about each of the worker's errors, by its code."""
    shipped = json.loads(Path(__file__).with_name("schema.json").read_bytes())
    remedies: dict[str, str] = shipped["remedies"]
    return remedies


def read_schemas(reply: Mapping[str, Any]) -> Schemas:
    """The schemas in a reply of `list_models` with `schemas`. A worker of before the client says no version."""
    operations = reply.get("schemas")
    known = {name: schema for name, schema in operations.items()} if isinstance(operations, Mapping) else {}
    return Schemas(str(reply.get("version") or ""), known)


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences:
    """What a server's schemas have that the shipped ones do not, and the other way round.

    Args:
        new_fields, gone_fields, changed_fields: as `operation.field`, of operations that both have.
    """

    shipped_version: str = ""
    server_version: str = ""
    new_operations: tuple[str, ...] = ()
    gone_operations: tuple[str, ...] = ()
    new_fields: tuple[str, ...] = ()
    gone_fields: tuple[str, ...] = ()
    changed_fields: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return any((self.new_operations, self.gone_operations, self.new_fields, self.gone_fields, self.changed_fields))

    def describe(self) -> list[str]:
        """What differs, one sentence each, and what to do about it; empty if nothing does."""
        if not self:
            return []
        of_versions = ""
        if self.server_version and self.server_version != self.shipped_version:
            of_versions = f" (worker {self.server_version}, client {self.shipped_version})"
        sentences = [f"The worker's operations differ from those that this client knows{of_versions}."]
        for what, names in (
            ("New operations, which `music-worker call` can use", self.new_operations),
            ("Operations that the worker does not have", self.gone_operations),
            ("New parameters, which `--param NAME=VALUE` sends", self.new_fields),
            ("Parameters that the worker does not take", self.gone_fields),
            ("Parameters with other values", self.changed_fields),
        ):
            if names:
                more = f" and {len(names) - MAX_NAMES_SHOWN} more" if len(names) > MAX_NAMES_SHOWN else ""
                sentences.append(f"{what}: {', '.join(names[:MAX_NAMES_SHOWN])}{more}.")
        is_newer = self.new_operations or self.new_fields
        sentences.append("Update the client to use all of it." if is_newer else "Update the worker to use all of it.")
        return sentences


def compare(shipped: Schemas, server: Schemas) -> Differences:
    """How the server's schemas differ. Descriptions and defaults do not count: they change no request."""
    both = [name for name in shipped.operations if name in server.operations]
    fields = {
        name: (shipped.operations[name].get("properties", {}), server.operations[name].get("properties", {}))
        for name in both
    }
    return Differences(
        shipped_version=shipped.version,
        server_version=server.version,
        new_operations=_sort(set(server.operations) - set(shipped.operations)),
        gone_operations=_sort(set(shipped.operations) - set(server.operations)),
        new_fields=_sort(
            {f"{name}.{key}" for name, (ours, theirs) in fields.items() for key in theirs if key not in ours}
        ),
        gone_fields=_sort(
            {f"{name}.{key}" for name, (ours, theirs) in fields.items() for key in ours if key not in theirs}
        ),
        changed_fields=_sort(
            {
                f"{name}.{key}"
                for name, (ours, theirs) in fields.items()
                for key in ours
                if key in theirs and _strip_notes(ours[key]) != _strip_notes(theirs[key])
            }
        ),
    )


def _sort(names: set[str]) -> tuple[str, ...]:
    return tuple(sorted(names))


def _strip_notes(schema: Any) -> Any:
    """The part of a schema that decides which values are valid."""
    if isinstance(schema, Mapping):
        return {key: _strip_notes(value) for key, value in schema.items() if key not in NOTES}
    return [_strip_notes(item) for item in schema] if isinstance(schema, list) else schema


@dataclass(frozen=True, slots=True)
class Kind:
    """What a field takes, read from its schema.

    Args:
        types: JSON types without `null`.
        choices: the values of an enumeration; empty if it takes others as well.
        bounds: lowest and highest value, of a number.
        items: the schema of a list's items.
        input: `audio` or `file` for an input, else empty.
    """

    types: frozenset[str]
    choices: tuple[Any, ...] = ()
    bounds: tuple[float | None, float | None] = (None, None)
    items: Schema = field(default_factory=dict)
    input: str = ""


def read_kind(schema: Schema) -> Kind:
    """The kind of a field; alternatives are merged."""
    branches = [branch for branch in iterate_branches(schema) if branch.get("type") != "null"]
    types: set[str] = set()
    choices: list[Any] = []
    open_ended = False
    low: float | None = None
    high: float | None = None
    items: Schema = {}
    for branch in branches:
        types |= {"object"} if "$ref" in branch else {str(branch.get("type", "object"))}
        if values := branch.get("enum") or ([branch["const"]] if "const" in branch else []):
            choices += values
        else:
            open_ended = True
        low = branch.get("minimum", branch.get("exclusiveMinimum", low))
        high = branch.get("maximum", branch.get("exclusiveMaximum", high))
        items = branch.get("items", items)
    return Kind(
        frozenset(types), () if open_ended else tuple(choices), (low, high), items, str(schema.get("input", ""))
    )


def iterate_branches(schema: Schema) -> Iterator[Schema]:
    """The alternatives of a field's schema; itself if there is one."""
    if "anyOf" in schema:
        for branch in schema["anyOf"]:
            yield from iterate_branches(branch)
    else:
        yield schema


def resolve_aliases(schema: Schema, params: Mapping[str, Any]) -> dict[str, Any]:
    """`params` by the fields' own names; a name that is not known stays. Null counts as absent."""
    own = {alias: name for name, one in schema.get("properties", {}).items() for alias in one.get("aliases", ())}
    return {own.get(name, name): value for name, value in params.items() if value is not None}
