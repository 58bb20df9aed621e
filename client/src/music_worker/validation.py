"""Refuses values that an operation's schema does not allow, in the words of the worker, before anything is sent."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from music_worker.errors import WorkerError
from music_worker.schema import Schema, Schemas, load_schemas, resolve_aliases

if TYPE_CHECKING:
    from jsonschema import ValidationError

INVALID_REQUEST = "invalid_request"
MAX_ERRORS_SHOWN = 20
MAX_NAME_SHOWN = 64
CHOICES = ("enum", "const")
TYPES = {
    "string": "string",
    "integer": "integer",
    "number": "number",
    "boolean": "boolean",
    "array": "list",
    "object": "dictionary",
}


def check_params(
    operation: str, params: Mapping[str, Any], *, schemas: Schemas | None = None, allow_unknown: Iterable[str] = ()
) -> None:
    """Raises `WorkerError` with every error of `params`, as the worker would.

    What depends on several parameters together, on models or on audio is left to the worker.

    Args:
        schemas: those of the server, if they are known; default: the shipped ones.
        allow_unknown: parameters that a newer worker may know.
    """
    schemas = schemas or load_schemas()
    found = schemas.find(operation)
    if found is None:
        names = list(schemas.operations)
        raise WorkerError(
            "unknown_operation",
            f"There is no operation '{_sanitize(operation)}'.{_suggest(operation, names)} Valid: {', '.join(names)}.",
            {"valid": names},
        )
    schema = found[1]
    errors = find_errors(schema, params, allow_unknown=allow_unknown)
    if errors:
        raise _build_error(errors, schema)


def find_errors(
    schema: Schema, params: Mapping[str, Any], *, allow_unknown: Iterable[str] = ()
) -> list[dict[str, str]]:
    """`field` and `problem` of every error that the schema shows."""
    from jsonschema import Draft202012Validator

    skipped = set(allow_unknown) - set(schema.get("properties", {}))
    values = {name: value for name, value in resolve_aliases(schema, params).items() if name not in skipped}
    if schema.get("empty_is_absent"):
        values = {name: value for name, value in values.items() if value not in ("", "N/A")}
    # As in the worker: of a field's alternatives, a value of the right type that is out of range tells more.
    types: dict[str, dict[str, None]] = {}
    others: dict[str, dict[str, None]] = {}
    found = _drop_consequences(_list_branch_errors(Draft202012Validator(schema).iter_errors(values)))
    order = {name: number for number, name in enumerate(schema.get("properties", {}))}
    for error in sorted(found, key=lambda error: order.get(next(iter(error.absolute_path), None), -1)):
        for field, problem, is_type in _describe(error, schema):
            (types if is_type else others).setdefault(field, {})[problem] = None
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value) and name not in types | others:
            others[name] = {"must be a finite number": None}
    return [{"field": field, "problem": " or ".join(texts)} for field, texts in (types | others).items()]


def _list_branch_errors(errors: Iterable[ValidationError]) -> list[ValidationError]:
    """The errors of all alternatives of a field, but for null."""
    flat: list[ValidationError] = []
    for error in errors:
        if error.validator == "anyOf":
            flat += _list_branch_errors(error.context or ())
        elif not (error.validator == "type" and error.validator_value == "null"):
            flat.append(error)
    return flat


def _drop_consequences(errors: list[ValidationError]) -> list[ValidationError]:
    """The errors that the worker reports.

    It reports no type of a value that is none of the choices, no range of a value of the wrong type, no items of a list
    that is too long, and no length of a short list whose items are wrong.
    """
    wrong_types = {_locate(error) for error in errors if error.validator == "type"}
    wrong_choices = {_locate(error) for error in errors if error.validator in CHOICES}
    too_long = [tuple(error.absolute_path) for error in errors if error.validator == "maxItems"]
    paths = [tuple(error.absolute_path) for error in errors]

    def is_shown(error: ValidationError) -> bool:
        path = tuple(error.absolute_path)
        if error.validator == "minItems":
            return not any(other[: len(path)] == path and len(other) > len(path) for other in paths)
        if any(path[: len(outer)] == outer and len(path) > len(outer) for outer in too_long):
            return False
        if _locate(error) in wrong_choices:
            return error.validator in CHOICES
        return error.validator == "type" or _locate(error) not in wrong_types

    return [error for error in errors if is_shown(error)]


def _locate(error: ValidationError) -> tuple[Any, Any]:
    """The place of the value, and of the schema that it was checked by."""
    return tuple(error.absolute_path), tuple(error.absolute_schema_path)[:-1]


def _describe(error: ValidationError, schema: Schema) -> Iterator[tuple[str, str, bool]]:
    """Field and problem of an error, and whether it is about the type alone."""
    path = list(error.absolute_path)
    is_item = len(path) > 1 and "$ref" in schema["properties"].get(path[0], {}).get("items", {})
    if error.validator in ("required", "additionalProperties") and (is_item or not path):
        yield from _describe_names(error, path)
        return
    field = ".".join(str(part) for part in path[: 3 if is_item else 1]) or "params"
    if error.validator == "type":
        is_whole_item = is_item and len(path) == 2
        kind = str(error.validator_value)
        yield field, "must be a JSON object" if is_whole_item else f"must be a valid {TYPES.get(kind, kind)}", True
    else:
        yield field, _describe_value(error), False


def _describe_names(error: ValidationError, path: list[Any]) -> Iterator[tuple[str, str, bool]]:
    """Fields that are missing or unknown, of the request or of an object in a list."""
    fields = error.schema.get("properties", {}) if isinstance(error.schema, Mapping) else {}
    prefix = "".join(f"{part}." for part in path)
    given = dict(error.instance) if isinstance(error.instance, Mapping) else {}
    if error.validator == "required":
        for name in cast(list[str], error.validator_value):
            if name not in given:
                yield f"{prefix}{name}", "is required", False
        return
    known = list_names({"properties": fields})
    for name in given:
        if name in fields:
            continue
        if path:
            text = f"is no such field.{_suggest(name, known)} Valid: {', '.join(known)}"
        else:
            text = f"is unknown.{_suggest(name, known)}"
        yield f"{prefix}{_sanitize(name)}", text, False


def _describe_value(error: ValidationError) -> str:
    limit: Any = error.validator_value
    match error.validator:
        case "enum":
            return f"must be {_list_choices(limit)}"
        case "const":
            return f"must be {_list_choices([limit])}"
        case "minimum":
            return f"must be greater than or equal to {_show_number(limit)}"
        case "maximum":
            return f"must be less than or equal to {_show_number(limit)}"
        case "exclusiveMinimum":
            return f"must be greater than {_show_number(limit)}"
        case "exclusiveMaximum":
            return f"must be less than {_show_number(limit)}"
        case "maxLength":
            return f"String must have at most {_count(limit, 'character')}"
        case "minLength":
            return f"String must have at least {_count(limit, 'character')}"
        case "maxItems":
            return f"List must have at most {_count(limit, 'item')} after validation, not {_measure(error)}"
        case "minItems":
            return f"List must have at least {_count(limit, 'item')} after validation, not {_measure(error)}"
        case "pattern":
            return f"String should match pattern '{limit}'"
        case _:
            return "is not allowed by the worker's schema"


def _measure(error: ValidationError) -> int:
    return len(cast(list[Any], error.instance))


def _show_number(number: float) -> str:
    return str(int(number)) if float(number).is_integer() else str(number)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _list_choices(values: list[Any]) -> str:
    shown = [repr(value) for value in values]
    return f"{', '.join(shown[:-1])} or {shown[-1]}" if len(shown) > 1 else shown[0]


def list_names(schema: Schema) -> list[str]:
    """Every name of every field."""
    properties: Mapping[str, Any] = schema.get("properties", {})
    return sorted({*properties, *(alias for one in properties.values() for alias in one.get("aliases", ()))})


def _suggest(name: str, valid: list[str]) -> str:
    nearest = difflib.get_close_matches(name[:MAX_NAME_SHOWN].lower(), valid, n=1)
    return f" Did you mean '{nearest[0]}'?" if nearest else ""


def _sanitize(name: str) -> str:
    clean = "".join(character if character.isprintable() else "?" for character in name[:MAX_NAME_SHOWN])
    return clean if len(name) <= MAX_NAME_SHOWN else f"{clean}..."


def _build_error(errors: list[dict[str, str]], schema: Schema) -> WorkerError:
    shown = errors[:MAX_ERRORS_SHOWN]
    text = "; ".join(f"'{error['field']}' {error['problem'].rstrip('.')}" for error in shown)
    more = f"; and {len(errors) - len(shown)} more" if len(errors) > len(shown) else ""
    details: dict[str, Any] = {"errors": shown}
    if any(error["problem"].startswith("is unknown") for error in shown):
        details["valid"] = list_names(schema)
        more += f". Valid: {', '.join(details['valid']) or 'none'}"
    return WorkerError(INVALID_REQUEST, f"Invalid request: {text}{more}.", details)
