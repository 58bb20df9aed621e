"""What the operations of the ACE-Step API share: parameters in any of that server's spellings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from pydantic import GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from errors import InvalidRequestError
from operations.acestep_api.parameters import NESTED, collect_parameters, list_spellings
from operations.params import Params, build_error

ParamsT = TypeVar("ParamsT", bound=Params)


def becomes(name: str) -> dict[str, Any]:
    """For a field's `json_schema_extra`: what the parameter is called here."""
    return {"becomes": name}


def leave_out(why: str) -> dict[str, Any]:
    """For a field's `json_schema_extra`: the parameter is accepted, and left out with a warning that says why."""
    return {"left_out": why}


def list_own_names(params: type[Params]) -> dict[str, str]:
    """What each parameter is called here."""
    return {name: extra.get("becomes", name) for name, extra in _list_extras(params) if "left_out" not in extra}


def list_left_out(params: type[Params]) -> dict[str, str]:
    """The parameters that are left out, each with the reason."""
    return {name: extra["left_out"] for name, extra in _list_extras(params) if "left_out" in extra}


def _list_extras(params: type[Params]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, field in params.model_fields.items():
        extra = field.json_schema_extra
        yield name, extra if isinstance(extra, dict) else {}


def parse_as(target: type[ParamsT], values: Mapping[str, Any], *, source: type[Params]) -> ParamsT:
    """The parameters of the operation that does the work; errors name fields as the request of `source` does."""
    try:
        return target.parse(values)
    except InvalidRequestError as error:
        names = {own: name for name, own in list_own_names(source).items()}
        errors = [
            {"field": names.get(entry["field"], entry["field"]), "problem": entry["problem"]}
            for entry in error.details["errors"]
        ]
        raise build_error(errors, source) from error


def to_text(value: Any) -> Any:
    """A time signature may be a number of beats."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class ApiParams(Params):
    """Parameters of the ACE-Step API server, in all its spellings."""

    @classmethod
    def resolve_names(cls, values: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, str]]]:
        return collect_parameters(values, cls.spellings())

    @classmethod
    def spellings(cls) -> dict[str, str]:
        """The own name of each spelling."""
        own = {name: name for name in cls.model_fields}
        return {spelling: name for name in cls.model_fields for spelling in list_spellings(name)} | own

    @classmethod
    def list_aliases(cls) -> dict[str, str]:
        return {spelling: name for spelling, name in cls.spellings().items() if spelling != name}

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The JSON schema, with the objects in which parameters may stand."""
        schema = super().__get_pydantic_json_schema__(core_schema, handler)
        nested = {
            "anyOf": [{"type": "object"}, {"type": "string"}],
            "description": "An object, or a string with its JSON, in which parameters may stand as well.",
        }
        schema["properties"] |= {name: dict(nested) for name in NESTED}
        return schema | {"empty_is_absent": True}

    @classmethod
    def names(cls) -> list[str]:
        return sorted({*cls.spellings(), *NESTED})
