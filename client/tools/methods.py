"""Writes src/music_worker/_generated.py: the operations as typed methods, made from the schemas that the package ships.

`python -m tools.openapi` in the repository, which writes the schemas, runs this as well.
"""

from __future__ import annotations

import keyword
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

from music_worker.naming import get_name, order_fields
from music_worker.schema import Schema, iterate_branches, load_schemas

TARGET = Path(__file__).parents[1] / "src/music_worker/_generated.py"
TYPES = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "object": "Mapping[str, Any]"}
RESERVED = ("self", "on_progress", "timeout_s", "extra")

HEAD = '''"""The operations as typed methods. Made by tools/methods.py from schema.json: do not edit."""

# ruff: noqa: N803, PLR0913

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypedDict

if TYPE_CHECKING:
    from music_worker.files import AudioInput
    from music_worker.jobs import OnProgress, OnProgressAsync
    from music_worker.results import Result
'''
CLASS = '''

class {name}:
    """The operations of the worker. {more}

    `None` stands for a parameter that is left to the worker. Every method also takes:

        on_progress: called with each `Progress`.
        timeout_s: the longest wait in seconds; the job itself goes on. Default: no limit.
        extra: parameters that a newer worker knows, by name.
    """

    {define} run(
        self,
        operation: str,
        params: Mapping[str, Any] | None = None,
        *,
        on_progress: {on_progress} | None = None,
        timeout_s: float | None = None,
    ) -> Result:
        """Starts a job and waits for its result."""
        raise NotImplementedError
'''


def write_methods() -> str:
    """The text of the module."""
    operations = load_schemas().operations
    parts = [HEAD]
    parts += [_write_item(name, item) for name, item in _list_items(operations).items()]
    for name, define, on_progress, more in (
        ("OperationMethods", "def", "OnProgress", "A method starts a job and returns its result."),
        ("AsyncOperationMethods", "async def", "OnProgressAsync", "A method starts a job and awaits its result."),
    ):
        parts.append(CLASS.format(name=name, define=define, on_progress=on_progress, more=more))
        parts += [
            _write_method(operation, schema, define=define, on_progress=on_progress)
            for operation, schema in operations.items()
        ]
    return _format("\n".join(parts))


def _list_items(operations: Mapping[str, Schema]) -> dict[str, Schema]:
    """The objects in lists by their names."""
    items: dict[str, Schema] = {}
    for schema in operations.values():
        for name, item in schema.get("$defs", {}).items():
            assert items.setdefault(name, item) == item, f"two different objects are called {name}"
    return items


def _write_item(name: str, schema: Schema) -> str:
    required = schema.get("required", ())
    lines = [f"\n\nclass {name}(TypedDict):", *_quote(str(schema.get("description", "")), indent=4), ""]
    for field, one in schema["properties"].items():
        annotation = _annotate(one)
        lines.append(f"    {field}: {annotation if field in required else f'NotRequired[{annotation}]'}")
    return "\n".join(lines) + "\n"


def _write_method(operation: str, schema: Schema, *, define: str, on_progress: str) -> str:
    fields = order_fields(schema)
    required = schema.get("required", ())
    positional = get_name(operation, schema).positional
    names = {field: _to_identifier(field) for field in fields}
    assert not set(names.values()) & set(RESERVED), f"{operation} has a parameter with a reserved name"
    arguments = {
        field: f"{names[field]}: {_annotate(one)}{'' if field in required else ' | None = None'}"
        for field, one in fields.items()
    }
    lines = [f"    {define} {operation}(", "        self,"]
    if positional in arguments:
        lines.append(f"        {arguments.pop(positional)},")
    lines.append("        *,")
    lines += [f"        {argument}," for argument in arguments.values()]
    lines += [
        f"        on_progress: {on_progress} | None = None,",
        "        timeout_s: float | None = None,",
        "        extra: Mapping[str, Any] | None = None,",
        "    ) -> Result:",
        *_write_docstring(operation, schema, names, is_async=define.startswith("async")),
        "        params: dict[str, Any] = {",
        *[f'            "{field}": {name},' for field, name in names.items()],
        "            **(extra or {}),",
        "        }",
    ]
    call = f'self.run("{operation}", params, on_progress=on_progress, timeout_s=timeout_s)'
    lines.append(f"        return {'await ' if define.startswith('async') else ''}{call}")
    return "\n".join(lines) + "\n"


def _write_docstring(operation: str, schema: Schema, names: Mapping[str, str], *, is_async: bool) -> list[str]:
    lines = textwrap.wrap(str(schema.get("summary", "")), 106)
    if names and is_async:
        lines += ["", f"The parameters are those of `Client.{operation}`."]
    elif names:
        lines += ["", "Args:"]
    for field, name in names.items() if not is_async else ():
        text = f"{name}: {' '.join(_describe(schema['properties'][field]))}"
        lines += textwrap.wrap(text, 108, initial_indent="    ", subsequent_indent="        ")
    return _quote("\n".join(lines), indent=8)


def _describe(field: Schema) -> Iterator[str]:
    description = str(field.get("description", "")) or str(field.get("title", ""))
    yield description if description.endswith(".") else f"{description}."
    if reason := field.get("left_out"):
        yield f"Left out, with a warning: {reason}."
    if field.get("default") not in (None, "") and "Default:" not in description:
        default = field["default"]
        yield f"Default: {str(default).lower() if isinstance(default, bool) else default}."


def _quote(text: str, *, indent: int) -> list[str]:
    """`text` as a docstring."""
    lines = text.replace("\\", "\\\\").replace('"""', "'''").splitlines() or [""]
    if len(lines) > 1:
        lines.append("")
    quoted = '"""' + "\n".join(lines) + '"""'
    return textwrap.indent(quoted, " " * indent).splitlines()


def _annotate(field: Schema) -> str:
    """The type of a field without None."""
    if field.get("input"):
        others = [_annotate_branch(branch) for branch in iterate_branches(field) if branch.get("type") == "array"]
        return " | ".join(["AudioInput", *others])
    branches = [_annotate_branch(branch) for branch in iterate_branches(field) if branch.get("type") != "null"]
    return " | ".join(dict.fromkeys(branches))


def _annotate_branch(schema: Schema) -> str:
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if choices := schema.get("enum") or ([schema["const"]] if "const" in schema else []):
        return f"Literal[{', '.join(repr(choice) for choice in choices)}]"
    if schema.get("type") == "array":
        return f"Sequence[{_annotate(schema.get('items', {}))}]"
    return TYPES.get(str(schema.get("type")), "Any")


def _to_identifier(field: str) -> str:
    return f"{field}_" if keyword.iskeyword(field) else field


def _format(text: str) -> str:
    """As `ruff format` writes it."""
    command = [sys.executable, "-m", "ruff", "format", "--line-length", "120", "--stdin-filename", TARGET.name, "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout


def main() -> None:
    """Writes the module; with `--check`, ends with 1 if it is not up to date."""
    text = write_methods()
    if "--check" in sys.argv[1:]:
        sys.exit(TARGET.read_text(encoding="utf-8") != text)
    TARGET.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
