"""docs/openapi.json and the client's copy of the schemas say what the operations say.

The client's suite validates the document, and holds examples and real replies against it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from operations.operation import list_schemas, load_operations
from tools.openapi import build_openapi, generated_files, run_client_tool
from tools.openapi_replies import REPLY_FIELDS


def iterate_schemas(schema: Any) -> Iterator[dict[str, Any]]:
    """Every object in a JSON value."""
    if isinstance(schema, dict):
        yield schema
        for value in schema.values():
            yield from iterate_schemas(value)
    if isinstance(schema, list):
        for value in schema:
            yield from iterate_schemas(value)


@pytest.mark.parametrize("path", list(generated_files()), ids=lambda path: path.name)
def test_the_generated_file_is_up_to_date(path: Any) -> None:
    assert path.read_text(encoding="utf-8") == generated_files()[path], "run `make docs`"


def test_the_methods_of_the_client_are_up_to_date() -> None:
    assert run_client_tool("--check") == 0, "run `make docs`"


def test_every_operation_has_its_parameters_its_input_and_its_reply_in_the_document() -> None:
    document = build_openapi()
    mapping = document["components"]["schemas"]["OperationInput"]["discriminator"]["mapping"]
    spelled = {alias for operation in load_operations().values() for alias in operation.aliases}
    assert set(mapping) == {*load_operations(), *spelled}
    assert set(REPLY_FIELDS) == set(load_operations())


def test_every_reference_of_the_document_has_a_target() -> None:
    document = build_openapi()
    for schema in iterate_schemas(document):
        if isinstance(reference := schema.get("$ref"), str):
            target: Any = document
            for part in reference.removeprefix("#/").split("/"):
                target = target[part]
            assert isinstance(target, dict), reference


def test_bounds_of_numbers_have_the_names_that_readers_of_json_schemas_know() -> None:
    schemas = list_schemas()
    assert schemas["generate_music"]["properties"]["bpm"]["anyOf"][0]["minimum"] == 20
    bounds = {key for schema in iterate_schemas(schemas) for key, value in schema.items() if isinstance(value, int)}
    assert not bounds & {"ge", "le", "gt", "lt"}


def test_schemas_say_which_fields_are_inputs_and_what_else_fields_and_operations_are_called() -> None:
    schemas = list_schemas()
    for name, operation in load_operations().items():
        properties = schemas[name]["properties"]
        marked = {field: schema["input"] for field, schema in properties.items() if "input" in schema}
        assert marked == operation.params.input_fields()
        aliases = {alias: field for field, schema in properties.items() for alias in schema.get("aliases", ())}
        assert aliases == dict(operation.params.list_aliases())
        assert aliases.keys() | operation.params.model_fields.keys() <= set(operation.params.names())
    assert schemas["mix_audio"]["$defs"]["Track"]["properties"]["audio"]["input"] == "audio"
    assert schemas["generate_cover"]["aliases"] == ["generate_cover_from_separate_audio"]


def test_every_operation_has_a_summary_of_one_sentence() -> None:
    for name, schema in list_schemas().items():
        assert schema["summary"].endswith(".") and 20 < len(schema["summary"]) < 140, name
