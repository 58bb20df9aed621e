"""The shipped schemas, what they say about fields, and how a server's differ from them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from music_worker.schema import Schemas, compare, iterate_branches, load_schemas, read_kind, read_schemas

SHIPPED = Path(__file__).parents[1] / "src/music_worker/schema.json"


def read_shipped() -> dict[str, Any]:
    schemas: dict[str, Any] = json.loads(SHIPPED.read_text(encoding="utf-8"))
    return schemas


def test_every_shipped_schema_is_a_valid_json_schema() -> None:
    schemas = load_schemas()
    assert schemas.version and "generate_music" in schemas.operations
    for schema in schemas.operations.values():
        Draft202012Validator.check_schema(schema)


def test_an_operation_is_found_by_each_of_its_names() -> None:
    found = load_schemas().find("generate_cover_from_separate_audio")
    assert found is not None and found[0] == "generate_cover"
    assert load_schemas().find("generate_symphony") is None


def test_equal_schemas_have_no_differences_and_nothing_to_say() -> None:
    differences = compare(load_schemas(), read_schemas(read_shipped()))
    assert not differences and differences.describe() == []


def test_a_newer_server_is_described_with_what_is_new_and_how_to_use_it() -> None:
    server = read_shipped()
    server["version"] = "9.0.0"
    server["schemas"]["sing"] = {"properties": {}}
    server["schemas"]["separate"]["properties"]["sparkle"] = {"type": "number"}
    server["schemas"]["separate"]["properties"]["shifts"]["maximum"] = 99
    differences = compare(load_schemas(), read_schemas(server))
    assert differences.new_operations == ("sing",)
    assert differences.new_fields == ("separate.sparkle",)
    assert differences.changed_fields == ("separate.shifts",)
    text = " ".join(differences.describe())
    assert "9.0.0" in text and "sing" in text and "--param" in text and "Update the client" in text


def test_an_older_server_is_described_with_what_it_lacks() -> None:
    server = read_shipped()
    del server["schemas"]["pipeline"], server["schemas"]["separate"]["properties"]["residual"], server["version"]
    differences = compare(load_schemas(), read_schemas(server))
    assert differences.gone_operations == ("pipeline",) and differences.gone_fields == ("separate.residual",)
    assert "Update the worker" in " ".join(differences.describe())


def test_other_descriptions_and_defaults_are_no_difference() -> None:
    server = copy.deepcopy(read_shipped())
    field = server["schemas"]["separate"]["properties"]["shifts"]
    field["description"], field["default"] = "Something else.", 5
    assert not compare(load_schemas(), read_schemas(server))


def test_a_reply_without_schemas_is_a_server_without_operations() -> None:
    assert read_schemas({"schemas": None}) == Schemas("", {})


def test_the_kind_of_a_field_merges_its_alternatives() -> None:
    music = load_schemas().operations["generate_music"]["properties"]
    duration = read_kind(music["duration"])
    assert duration.types == {"number"} and duration.bounds == (0.5, 600)
    assert read_kind(music["melody_audio"]).input == "audio"
    assert read_kind(music["output_format"]).choices == ("wav", "flac", "mp3", "ogg", "opus", "auto")
    assert read_kind(music["bpm"]).choices == (), "a number is possible, too"
    assert {"string", "array"} <= read_kind(music["prompt"]).types
    assert all("anyOf" not in branch for branch in iterate_branches(music["prompt"]))
