"""docs/openapi.json is valid OpenAPI, and examples and invalid requests are what it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

ROOT = Path(__file__).parents[2]
DOCUMENT: dict[str, Any] = json.loads((ROOT / "docs/openapi.json").read_text(encoding="utf-8"))
EXAMPLES = sorted((ROOT / "examples").glob("*.json"))


def validator(component: str) -> Draft202012Validator:
    return Draft202012Validator({"$ref": f"#/components/schemas/{component}", "components": DOCUMENT["components"]})


def test_the_document_is_valid_by_the_published_validator() -> None:
    assert list(OpenAPIV31SpecValidator(DOCUMENT).iter_errors()) == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_is_a_valid_request(path: Path) -> None:
    validator("JobRequest").validate(json.loads(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "job_input",
    [
        {"operation": "separate", "params": {}},
        {"operation": "separate"},
        {"operation": "symphony", "params": {}},
        {"operation": "generate_music", "params": {"prompt": "x", "duration": 9999}},
        {"operation": "generate_cover", "params": {"audio": "x"}},
        {"operation": "mix_audio", "params": {"tracks": [{"audio": "x"}, {"gain": 3}]}},
    ],
)
def test_a_request_that_the_worker_refuses_is_invalid(job_input: dict[str, Any]) -> None:
    assert not validator("JobRequest").is_valid({"input": job_input})


def test_a_parameter_may_have_each_of_its_names() -> None:
    params = {"song_input": "https://example.com/song.mp3", "rvc_model": "my_voice"}
    validator("JobRequest").validate({"input": {"operation": "generate_cover", "params": params}})
    aliased = {"operation": "generate_cover_from_separate_audio", "params": params}
    validator("JobRequest").validate({"input": aliased})


def test_every_operation_is_in_both_tagged_unions() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    for union in ("OperationInput", "Reply"):
        assert schemas[union]["discriminator"]["propertyName"] == "operation"
        targets = {target.rpartition("/")[2] for target in schemas[union]["discriminator"]["mapping"].values()}
        assert {entry["$ref"].rpartition("/")[2] for entry in schemas[union]["oneOf"]} == targets
        assert targets <= set(schemas)


def test_error_replies_have_the_documented_codes() -> None:
    reply = {"error": "There is no model 'x'.", "error_code": "unknown_model", "details": {}}
    validator("ErrorReply").validate(reply)
    assert not validator("ErrorReply").is_valid({**reply, "error_code": "surprise"})
    validator("JobStatus").validate(
        {"id": "1", "status": "FAILED", "error": reply["error"], "output": {"error_code": "unknown_model"}}
    )
