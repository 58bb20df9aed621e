"""Writes docs/openapi.json (OpenAPI 3.1), the client's copy of the schemas, and the client's methods made from it.

`make docs` runs this.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from errors import ErrorCode
from operations.operation import list_schemas
from operations.version import read_version
from testing.repository import ROOT
from tools.openapi_replies import ARTEFACTS, REPLY_FIELDS, build_common_reply
from worker.request_file import replace_references

OPENAPI = ROOT / "docs/openapi.json"
CLIENT = ROOT / "client"
CLIENT_SCHEMA = CLIENT / "src/music_worker/schema.json"
EXAMPLES = ROOT / "examples"
DIALECT = "https://json-schema.org/draft/2020-12/schema"

Schema = dict[str, Any]


def build_client_schema() -> Schema:
    """What the client ships: the worker's version, the schemas of all operations as `list_models` returns them, and the
    remedy of each error.
    """
    remedies = {code.value: code.remedy for code in sorted(ErrorCode)}
    return {"version": read_version(), "schemas": list_schemas(), "remedies": remedies}


def build_openapi() -> Schema:
    """The whole document."""
    operations = list_schemas()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Music AI worker",
            "summary": "The routes of a RunPod endpoint that runs this worker.",
            "description": "A job names an operation and its parameters. `/run` queues it and `/status/{id}` tells its"
            " progress and its reply; `/runsync` waits for the reply. Parameters may also stand beside `operation` in"
            " place of `params`.\n\nThe local API (`python handler.py --rp_serve_api`) has the same routes and no key.",
            "version": read_version(),
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "jsonSchemaDialect": DIALECT,
        "servers": [
            {
                "url": "https://api.runpod.ai/v2/{endpoint_id}",
                "description": "RunPod",
                "variables": {"endpoint_id": {"default": "endpoint_id", "description": "The id of your endpoint."}},
            },
            {"url": "http://localhost:8000", "description": "The worker's local API"},
        ],
        "security": [{"bearer": []}],
        "tags": [{"name": "jobs", "description": "Run operations."}, {"name": "endpoint", "description": "Workers."}],
        "paths": _build_paths(),
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "Your RunPod API key. Local: none."}
            },
            "parameters": {
                "job_id": {
                    "name": "id",
                    "in": "path",
                    "required": True,
                    "description": "The job's id, from `/run`.",
                    "schema": {"type": "string"},
                }
            },
            "responses": _build_responses(),
            "schemas": {**_build_envelope(operations), **_build_operations(operations)},
        },
    }


def _build_paths() -> Schema:
    body = {
        "required": True,
        "content": {"application/json": {"schema": _ref("JobRequest"), "examples": read_examples()}},
    }
    faults = {
        "400": {"$ref": "#/components/responses/Refused"},
        "401": {"$ref": "#/components/responses/Unauthorized"},
        "404": {"$ref": "#/components/responses/NotFound"},
        "429": {"$ref": "#/components/responses/TooManyRequests"},
    }
    job = [{"$ref": "#/components/parameters/job_id"}]
    status = {"200": _respond("The job's status, and its reply when it has ended.", "JobStatus"), **faults}
    get_status = {
        "tags": ["jobs"],
        "summary": "Status, progress and reply of a job",
        "description": "Replies are kept for 30 minutes (`/run`) or 1 minute (`/runsync`).",
        "responses": status,
    }
    return {
        "/run": {
            "post": {
                "operationId": "run",
                "tags": ["jobs"],
                "summary": "Queue a job",
                "description": "Returns the job's id at once. A body has at most 10 MB.",
                "requestBody": body,
                "responses": {"200": _respond("The job is queued.", "JobStatus"), **faults},
            }
        },
        "/runsync": {
            "post": {
                "operationId": "runsync",
                "tags": ["jobs"],
                "summary": "Run a job and wait for its reply",
                "description": "A job that takes longer than the platform waits is returned as it is; ask"
                " `/status/{id}` for its reply. A body has at most 20 MB.",
                "requestBody": body,
                "responses": status,
            }
        },
        "/status/{id}": {
            "parameters": job,
            "get": {"operationId": "get_status", **get_status},
            "post": {
                "operationId": "post_status",
                **get_status,
                "description": "RunPod: as GET. The local API answers when the job has ended.",
            },
        },
        "/cancel/{id}": {
            "parameters": job,
            "post": {
                "operationId": "cancel",
                "tags": ["jobs"],
                "summary": "Cancel a job",
                "description": "A queued job is removed. A running job stops within one step of its work.",
                "responses": {"200": _respond("The job is cancelled.", "JobStatus"), **faults},
            },
        },
        "/health": {
            "get": {
                "operationId": "health",
                "tags": ["endpoint"],
                "summary": "Number of workers and jobs of the endpoint",
                "responses": {"200": _respond("Workers and jobs by state.", "EndpointHealth"), **faults},
            }
        },
    }


def read_examples() -> Schema:
    """Every request in examples/, by its name; its files as paths on a volume."""
    return {
        path.stem: {
            "summary": path.stem.replace("_", " ").capitalize(),
            "value": replace_references(json.loads(path.read_text()), lambda name: f"/runpod-volume/{Path(name).name}"),
        }
        for path in sorted(EXAMPLES.glob("*.json"))
    }


def _build_responses() -> Schema:
    texts = {
        "Refused": "The body is not a request, or is too large.",
        "Unauthorized": "The key is missing or wrong.",
        "NotFound": "There is no such endpoint or job, or the job's reply has expired.",
        "TooManyRequests": "The queue is full, or requests come too fast. Send the request again later.",
    }
    return {name: _respond(text, "PlatformError") for name, text in texts.items()}


def _build_envelope(operations: Mapping[str, Schema]) -> Schema:
    """What surrounds the operations' parameters and replies."""
    names = {name: _to_type_name(name) for name in operations}
    spelled = {spelling: names[name] for name, schema in operations.items() for spelling in (name, *schema["aliases"])}
    return {
        "JobRequest": {
            "type": "object",
            "description": "One job.",
            "required": ["input"],
            "properties": {
                "input": _ref("OperationInput"),
                "webhook": {"type": "string", "format": "uri", "description": "RunPod posts the result there."},
                "policy": {
                    "type": "object",
                    "description": "RunPod's limits of the job.",
                    "properties": {
                        "executionTimeout": {
                            "type": "integer",
                            "minimum": 1,
                            "description": "Longest run in ms. The worker ends the job shortly before, with a reply.",
                        },
                        "ttl": {"type": "integer", "minimum": 1, "description": "Longest life of the job in ms."},
                        "lowPriority": {"type": "boolean", "description": "Start no further worker for the job."},
                    },
                },
                "s3Config": {
                    "type": "object",
                    "description": "The bucket for the results of this job.",
                    "properties": {
                        "endpointUrl": {"type": "string"},
                        "accessId": {"type": "string"},
                        "accessSecret": {"type": "string"},
                        "bucketName": {"type": "string"},
                    },
                },
            },
        },
        "OperationInput": {
            "description": "The operation and its parameters.",
            "oneOf": [_ref(f"{name}Input") for name in names.values()],
            "discriminator": {
                "propertyName": "operation",
                "mapping": {spelling: f"#/components/schemas/{name}Input" for spelling, name in spelled.items()},
            },
        },
        "JobStatus": {
            "type": "object",
            "required": ["id", "status"],
            "properties": {
                "id": {"type": "string", "description": "The job's id."},
                "status": {
                    "type": "string",
                    "enum": ["IN_QUEUE", "IN_PROGRESS", "COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"],
                },
                "output": {
                    "anyOf": [_ref("Reply"), _ref("Progress"), _ref("ErrorOutput"), {"type": "null"}],
                    "description": "The reply of a completed job, the progress of a running one, or the code and the"
                    " details of an error.",
                },
                "error": {"type": ["string", "null"], "description": "What went wrong, in one sentence."},
                "delayTime": {"type": "integer", "description": "Time in the queue in ms."},
                "executionTime": {"type": "integer", "description": "Time on the worker in ms."},
                "workerId": {"type": "string"},
            },
        },
        "Progress": {
            "type": "object",
            "description": "The last progress update of a running job.",
            "required": ["stage", "percent"],
            "properties": {
                "stage": {"type": "string", "description": "What the worker is doing."},
                "percent": {"type": "number", "minimum": 0, "maximum": 100},
                "download": {
                    "type": "object",
                    "description": "The model that is being downloaded.",
                    "properties": {
                        "model": {"type": "string"},
                        "bytes": {"type": "integer"},
                        "total_bytes": {"type": "integer"},
                    },
                },
            },
        },
        "ErrorReply": {
            "type": "object",
            "description": "The worker's reply to a request that failed. RunPod shows `error` beside `status`, and the"
            " rest in `output`.",
            "required": ["error", "error_code", "details"],
            "properties": {
                "error": {"type": "string", "description": "One sentence: what is wrong, and what to do."},
                "error_code": _ref("ErrorCode"),
                "details": {"type": "object", "description": "What the error's documentation names."},
            },
        },
        "ErrorOutput": {
            "type": "object",
            "description": "The code and the details of an error, in the `output` of a failed job.",
            "required": ["error_code"],
            "properties": {"error_code": _ref("ErrorCode"), "details": {"type": "object"}},
        },
        "ErrorCode": {
            "type": "string",
            "enum": sorted(code.value for code in ErrorCode),
            "description": "\n".join(f"- `{code.value}`: {code.meaning} {code.remedy}" for code in sorted(ErrorCode)),
        },
        "PlatformError": {"type": "object", "description": "What RunPod says about a request that it refuses."},
        "EndpointHealth": {
            "type": "object",
            "properties": {
                "jobs": {"type": "object", "additionalProperties": {"type": "integer"}},
                "workers": {"type": "object", "additionalProperties": {"type": "integer"}},
            },
        },
        "Reply": {
            "description": "The reply of an operation.",
            "oneOf": [_ref(f"{name}Reply") for name in names.values()],
            "discriminator": {
                "propertyName": "operation",
                "mapping": {own: f"#/components/schemas/{name}Reply" for own, name in names.items()},
            },
        },
        "SuccessReply": build_common_reply(),
        **ARTEFACTS,
    }


def _build_operations(operations: Mapping[str, Schema]) -> Schema:
    """The parameters, the input and the reply of every operation."""
    components: Schema = {}
    for operation, schema in operations.items():
        name = _to_type_name(operation)
        definitions = schema.get("$defs", {})
        for definition, content in definitions.items():
            components[f"{name}{definition}"] = _build_params(f"{name}{definition}", content, name)
        components[f"{name}Params"] = _build_params(f"{name}Params", schema, name)
        components[f"{name}Input"] = {
            "type": "object",
            "description": schema["summary"],
            "required": ["operation", *(["params"] if schema.get("required") else [])],
            "properties": {
                "operation": {"type": "string", "enum": [operation, *schema["aliases"]]},
                "params": _ref(f"{name}Params"),
            },
            "additionalProperties": False,
        }
        components[f"{name}Reply"] = {
            "description": f"The reply of `{operation}`.",
            "allOf": [
                _ref("SuccessReply"),
                {
                    "type": "object",
                    "properties": {"operation": {"const": operation}, **REPLY_FIELDS[operation]},
                },
            ],
        }
    return components


def _build_params(component: str, schema: Schema, operation: str) -> Schema:
    """The parameters as a component: other names of a field are fields too, and references point to components."""
    content = {key: value for key, value in schema.items() if key not in ("$defs", "summary", "aliases", "required")}
    properties: Schema = {}
    required: list[Schema | str] = []
    for name, field in schema["properties"].items():
        aliases = field.get("aliases", [])
        properties[name] = field
        for alias in aliases:
            properties[alias] = {
                "$ref": f"#/components/schemas/{component}/properties/{name}",
                "description": f"Another name of `{name}`.",
            }
        if name in schema.get("required", ()):
            required.append({"anyOf": [{"required": [one]} for one in (name, *aliases)]} if aliases else name)
    content["properties"] = properties
    if names := [one for one in required if isinstance(one, str)]:
        content["required"] = names
    if choices := [one for one in required if not isinstance(one, str)]:
        content["allOf"] = choices
    return dict(_redirect(content, f"#/components/schemas/{operation}"))


def _redirect(schema: Any, prefix: str) -> Any:
    """The schema with `#/$defs/Name` as `<prefix>Name`."""
    if isinstance(schema, list):
        return [_redirect(item, prefix) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: value.replace("#/$defs/", prefix) if key == "$ref" and isinstance(value, str) else _redirect(value, prefix)
        for key, value in schema.items()
    }


def _respond(text: str, component: str) -> Schema:
    return {"description": text, "content": {"application/json": {"schema": _ref(component)}}}


def _ref(component: str) -> Schema:
    return {"$ref": f"#/components/schemas/{component}"}


def _to_type_name(operation: str) -> str:
    return "".join(word.capitalize() for word in operation.split("_"))


def dump(document: Schema) -> str:
    """The text of a generated file."""
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def generated_files() -> dict[Path, str]:
    """The text of each file that this tool writes."""
    return {OPENAPI: dump(build_openapi()), CLIENT_SCHEMA: dump(build_client_schema())}


def run_client_tool(*arguments: str) -> int:
    """Runs the tool that writes the client's methods; returns its exit code. The client imports nothing from here."""
    command = [sys.executable, "-m", "tools.methods", *arguments]
    return subprocess.run(command, cwd=CLIENT, env={**os.environ, "PYTHONPATH": "src"}, check=False).returncode


def main() -> None:
    """Writes the files."""
    for path, text in generated_files().items():
        path.write_text(text, encoding="utf-8")
    sys.exit(run_client_tool())


if __name__ == "__main__":
    main()
