"""The command line, the schemas and the OpenAPI document against the worker of this repository.

WORKER_PYTHON names the interpreter with the worker's packages; default: the repository's `.venv`.
"""

from __future__ import annotations

import base64
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fake_platform import make_wav
from jsonschema import Draft202012Validator

from music_worker.local import LocalWorker
from music_worker.schema import load_schemas
from music_worker.validation import find_errors

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT: dict[str, Any] = json.loads((ROOT / "docs/openapi.json").read_text(encoding="utf-8"))
WRONG: tuple[Any, ...] = ("x", 3, -(10**9), 0.5, 10**9, True, ["x"] * 300, {}, "y" * 6000, [{"audio": 3, "no": 1}])
FIELDS_A_REQUEST = 15  # the worker shows up to 20 errors
# Of these the worker says more than their schemas: text that stands for a list, and objects that may be JSON.
SPECIAL = {"timesteps", "audio_codes", "audio_code_string", "codes", "continuation_codes", "time_signature"}
SPECIAL |= {"param_obj", "metas", "meta", "metadata", "user_metadata", "userMetadata", "track_classes", "master"}
LIMIT_S = 300
QUIET = {"OMP_NUM_THREADS": "1"}  # several workers of tests share the machine


@pytest.fixture(scope="module")
def worker() -> Iterator[LocalWorker]:
    with LocalWorker(ROOT, env=QUIET) as started:
        yield started


@pytest.fixture(scope="module")
def http(worker: LocalWorker) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=worker.url, timeout=LIMIT_S) as opened:
        yield opened


def ask(http: httpx.Client, operation: str, **params: Any) -> dict[str, Any]:
    """The status object of a job that has ended; it is what the OpenAPI document says."""
    body = {"input": {"operation": operation, "params": params}}
    status: dict[str, Any] = http.post("/runsync", json=body).json()
    components = DOCUMENT["components"]
    Draft202012Validator({"$ref": "#/components/schemas/JobStatus", "components": components}).validate(status)
    return status


def run_command(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **QUIET, "MUSIC_WORKER_REPOSITORY": str(ROOT)}
    command = [sys.executable, "-c", "from music_worker.cli import main; main()", *words]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=LIMIT_S
    )


def test_a_new_user_makes_music_with_one_command(tmp_path: Path) -> None:
    made = run_command(tmp_path, "--local", "music", "rock beat", "--duration", "2", "-o", "beat.wav", "--waveform")
    assert made.returncode == 0, made.stderr
    assert made.stdout == "beat.wav\n" and (tmp_path / "beat.wav").read_bytes()[:4] == b"RIFF"
    assert "model_used: demo" in made.stderr and "differ" not in made.stderr
    assert re.search("[▁▂▃▄▅▆▇█]{20}", made.stderr), "the waveform; how loud it is depends on the seed"


def test_the_worker_and_the_client_refuse_the_same_values_in_the_same_words(http: httpx.Client) -> None:
    compared = 0
    for operation, schema in load_schemas().operations.items():
        fields = [*schema["properties"], "promt"]
        for start in range(0, len(fields), FIELDS_A_REQUEST):
            for wrong in WRONG:
                params = dict.fromkeys(fields[start : start + FIELDS_A_REQUEST], wrong)
                body = {"input": {"operation": operation, "params": params}}
                reply = http.post("/runsync", json=body).json()
                assert reply["output"]["error_code"] == "invalid_request", (operation, wrong, reply)
                theirs = {entry["field"]: entry["problem"] for entry in reply["output"]["details"]["errors"]}
                ours = {entry["field"]: entry["problem"] for entry in find_errors(schema, params)}
                for field, problem in ours.items():  # the worker's may be more: it knows models and languages
                    special = field.partition(".")[0] in SPECIAL
                    assert (field in theirs or special) and theirs, (operation, field, wrong)
                    assert special or problem == theirs[field], (operation, field, wrong)
                    compared += 1
    assert compared > 2000


def test_real_replies_are_what_the_document_says(http: httpx.Client) -> None:
    assert ask(http, "health_check")["output"]["status"] in ("healthy", "degraded")
    listed = ask(http, "list_models", schemas=True)["output"]
    assert listed["schemas"] == load_schemas().operations and listed["version"] == load_schemas().version
    song = base64.b64encode(make_wav(1.0)).decode()
    made = ask(http, "generate_music", prompt="drums", duration=0.5, model="demo", n_samples=2)["output"]
    assert len(made["outputs"]) == 2
    assert ask(http, "analyze", audio=song, picture=True)["output"]["files"]["waveform"]["format"] == "png"
    assert ask(http, "mix_audio", tracks=[{"audio": song}, {"audio": song, "pan": 0.5}])["output"]["tracks"]
    encoded = ask(http, "encode_audio", audio=song, model="demo")["output"]
    assert ask(http, "decode_audio", codes=encoded["codes"], model="demo")["status"] == "COMPLETED"
    steps = [{"id": "a", "operation": "analyze", "params": {"audio": song, "features": ["loudness"]}}]
    assert ask(http, "pipeline", steps=steps)["output"]["steps"][0]["id"] == "a"
    assert ask(http, "create_random_sample")["output"]["caption"]
    assert ask(http, "plan_music", mode="random")["output"]["request"]
    failed = ask(http, "generate_music", prompt="x", model="no-such-model")
    assert failed["status"] == "FAILED" and failed["output"]["error_code"] == "unknown_model"


def test_the_comparison_of_schemas_finds_no_difference_to_its_own_worker(worker: LocalWorker, tmp_path: Path) -> None:
    ended = run_command(tmp_path, "--url", worker.url, "models", "--json")
    assert ended.returncode == 0 and json.loads(ended.stdout)["reply"]["music"]
    health = run_command(tmp_path, "--url", worker.url, "health")
    assert health.returncode == 0 and "status: " in health.stdout and "Warning" not in health.stderr
    assert math.isfinite(
        json.loads(run_command(tmp_path, "--url", worker.url, "health", "--json").stdout)["reply"]["uptime_s"]
    )
