"""The rules about requests, from the JSON of the request to the error of the reply, for every operation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from audio.files.formats import OUTPUT_FORMATS
from errors import InvalidRequestError, RequestError, UnknownNameError
from models.checkpoints.locations import WeightLocations
from models.musicgen import MusicGenFamily
from operations.operation import load_operations
from operations.params import AudioOutParams
from testing.dispatch import answer
from testing.models import make_models
from testing.property_tests import examples
from testing.repository import ROOT
from worker.reply import AudioOut
from worker.settings import Settings

MAX_REPLY_BYTES = 10_000
MISSING_FOLDER = Path("/nonexistent")


def catch_error(job: object) -> RequestError:
    """The error that `job` gets."""
    with pytest.raises(RequestError) as caught:
        run_job(job)
    return caught.value


def run_job(job: object) -> dict[str, Any]:
    family = MusicGenFamily(WeightLocations(), demo=MISSING_FOLDER)
    models = make_models(music=family, budget_bytes=1)
    return answer(job, settings=Settings(volume_dirs=()), models=models)


def request(operation: object = "generate_music", **params: Any) -> dict[str, Any]:
    return {"id": "test", "input": {"operation": operation, "params": params}}


def is_valid(error: RequestError) -> bool:
    """Whether the error reply is strict JSON, short, and has a sentence."""
    text = json.dumps(error.to_reply(), allow_nan=False)
    return bool(error.message.strip()) and len(text.encode()) < MAX_REPLY_BYTES


@pytest.mark.parametrize("job", [None, [], "job", 3, {}, {"id": 3}, {"input": None}, {"input": []}, {"input": "x"}])
def test_a_job_without_an_input_object_is_refused(job: object) -> None:
    assert isinstance(catch_error(job), InvalidRequestError)


@pytest.mark.parametrize("operation", [None, 3, [], {}, True])
def test_an_operation_that_is_not_a_string_is_refused(operation: object) -> None:
    assert "'operation' is required" in catch_error(request(operation)).message


def test_an_unknown_operation_is_an_error_with_the_nearest_and_all_valid_names() -> None:
    error = catch_error(request("generate_musik"))
    assert isinstance(error, UnknownNameError) and error.error_code == "unknown_operation"
    assert "'generate_musik'" in error.message and "Did you mean 'generate_music'" in error.message
    assert set(load_operations()) <= set(error.details["valid"])


def test_an_unknown_field_is_an_error_with_the_nearest_and_all_valid_names() -> None:
    error = catch_error(request(prompt="x", temprature=1))
    assert "'temprature' is unknown. Did you mean 'temperature'?" in error.message
    assert {"prompt", "temperature", "output_format"} <= set(error.details["valid"])


@pytest.mark.parametrize("operation", sorted(load_operations()))
def test_every_operation_refuses_an_unknown_field(operation: str) -> None:
    error = catch_error(request(operation, no_such_field=1))
    assert "'no_such_field' is unknown" in error.message and is_valid(error)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("3", "must be a valid number"),
        (True, "must be a valid number"),
        (float("nan"), "must be a finite number"),
        (float("inf"), "must be a finite number"),
        (float("-inf"), "must be a finite number"),
        (10**400, "must be"),
        (1e9, "must be less than or equal to 600"),
        (-1, "must be greater than or equal to 0.5"),
        ([1], "must be a valid number"),
        ({"s": 1}, "must be a valid number"),
    ],
)
def test_a_number_must_be_a_json_number_in_range(value: object, problem: str) -> None:
    error = catch_error(request(prompt="x", duration=value))
    assert error.details["errors"][0]["field"] == "duration" and problem in error.details["errors"][0]["problem"]
    assert is_valid(error)


def test_the_errors_are_also_under_the_name_that_the_first_release_used() -> None:
    details = catch_error(request(prompt="x", duration=-1)).details
    assert details["faults"] == details["errors"]


def test_a_whole_number_may_be_written_as_a_float() -> None:
    error = catch_error(request(prompt="x", n_samples=2.0, seed=3.0, top_k=10.5))
    assert [entry["field"] for entry in error.details["errors"]] == ["top_k"]


def test_all_errors_are_reported_together() -> None:
    error = catch_error(request(prompt="x", duration=-1, bit_depth=20, sed=1, n_samples="two", key="Q"))
    names = {entry["field"] for entry in error.details["errors"]}
    assert names == {"duration", "bit_depth", "sed", "n_samples"}
    assert all(f"'{field}'" in error.message for field in names)


def test_a_null_counts_as_absent() -> None:
    error = catch_error(request(prompt="x", duration=None, seed=None, temperature="hot"))
    assert [entry["field"] for entry in error.details["errors"]] == ["temperature"]


def test_parameters_in_two_places_are_refused_and_the_stray_keys_named() -> None:
    error = catch_error({"input": {"operation": "generate_music", "params": {"prompt": "x"}, "seed": 3, "mbd": True}})
    assert error.details["stray"] == ["seed", "mbd"]


def test_parameters_may_be_beside_the_operation() -> None:
    error = catch_error({"input": {"operation": "generate_music", "prompt": "x", "duration": 0}})
    assert [entry["field"] for entry in error.details["errors"]] == ["duration"]


@pytest.mark.parametrize("params", [[], "x", 3, True])
def test_params_must_be_an_object(params: object) -> None:
    error = catch_error({"input": {"operation": "generate_music", "params": params}})
    assert "'params' must be a JSON object" in error.message


def test_one_field_under_two_names_is_refused() -> None:
    assert "'prompt' was given twice" in catch_error(request(prompt="x", description="y")).message


@pytest.mark.parametrize(
    "job",
    [
        request(prompt="garbage " * 500_000),
        request("g" * 5_000_000),
        request(prompt="x", **{"k" * 3_000_000: 1}),
        request(prompt="x", model="m" * 3_000_000),
        request(prompt="x", model="\u0000\u202e" * 90),
        request(prompt="x", key="\ud800" * 15),
        request(prompt="x", **{f"field_{index}": index for index in range(50_000)}),
        request(prompt=["x"] * 100_000),
        request(prompt="x", seed=list(range(100_000))),
        request(prompt=[3] * 32, seed=["s"] * 32),
        {"input": {"operation": "generate_music", "params": {}, **{f"stray_{index}" * 99: 1 for index in range(999)}}},
        {"id": "i" * 4_000_000, "input": {"operation": "nothing"}},
    ],
    ids=lambda job: "garbage",
)
def test_megabytes_of_garbage_get_a_short_error(job: dict[str, Any]) -> None:
    assert is_valid(catch_error(job))


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "small/../../x", "..", "x\0y", "~/.ssh", "C:\\x", "models/"]
)
def test_a_model_name_that_is_a_path_is_refused_without_naming_local_paths(name: str) -> None:
    error = catch_error(request(prompt="x", model=name))
    assert error.error_code in ("invalid_model_name", "unknown_model") and str(ROOT) not in error.message


@pytest.mark.parametrize("form", ["nope", "WAV", 3, "flac "])
def test_an_unknown_format_is_an_error_that_lists_the_valid_ones(form: object) -> None:
    error = catch_error(request(prompt="x", output_format=form))
    assert "output_format" in error.message and "'mp3'" in error.message


def test_a_refused_request_and_a_health_check_import_no_torch() -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from errors import RequestError\n"
        "from models.registry import build\n"
        "from testing.dispatch import answer\n"
        "from worker.settings import Settings\n"
        "models = build(device='auto', models_dir=Path('/nonexistent'))\n"
        "def ask(**job):\n"
        "    try: return answer({'input': job}, settings=Settings(), models=models)\n"
        "    except RequestError as error: return error.to_reply()\n"
        "assert ask(operation='health_check')['success']\n"
        "assert ask(operation='list_models', schemas=True)['schemas']['generate_music']\n"
        "assert 'error' in ask(operation='generate_music', prompt=3)\n"
        "assert 'error' in ask(operation='generate_music', prompt='x', model='smal')\n"
        "assert 'error' in ask(operation='generate_music', prompt='x', style_audio='!')\n"
        "heavy = {'torch', 'transformers', 'audiocraft', 'runpod', 'librosa', 'demucs'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, env=environment)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
OPERATIONS = st.sampled_from(sorted(load_operations())) | st.text(max_size=20)
LOCAL = sorted(name for name in load_operations() if "suno" not in name)


def fields_of(operation: str) -> list[str]:
    params = load_operations()[operation].params
    return sorted({*params.model_fields, *params.ALIASES})


@examples(150, suppress_health_check=[HealthCheck.too_slow])
@given(job=JSON | st.builds(lambda value: {"input": value}, JSON))
def test_any_json_gets_a_reply_or_a_request_error(job: Any) -> None:
    check_outcome(job)


@examples(300, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_values_in_real_fields_get_a_reply_or_a_request_error(data: st.DataObject) -> None:
    operation = data.draw(st.sampled_from(LOCAL))
    names = st.sampled_from(fields_of(operation) or ["x"]) | st.text(max_size=8)
    params = data.draw(st.dictionaries(names, JSON, max_size=6))
    beside: Mapping[str, Any] = params if data.draw(st.booleans()) else {"params": params}
    check_outcome({"input": {"operation": operation, **beside}})


def check_outcome(job: Any) -> None:
    before = repr(job)
    try:
        reply = run_job(job)
    except RequestError as error:
        assert is_valid(error)
    else:
        assert reply["success"] is True
        json.dumps(reply, allow_nan=False)
    assert repr(job) == before, "a job is never changed"


def test_the_audio_out_parameters_have_the_defaults_of_the_delivery() -> None:
    assert AudioOutParams.parse({}).audio_out() == AudioOut()


def test_the_audio_out_parameters_reach_the_delivery() -> None:
    values = {"output_format": "wav", "bit_depth": 24, "bitrate": 96, "delivery": "volume", "normalize": "loudness"}
    params = AudioOutParams.parse({**values, "loudness_lufs": -20.0})
    assert params.audio_out() == AudioOut(**values, loudness_lufs=-20.0)  # type: ignore[arg-type]


def test_the_audio_out_parameters_describe_every_format_of_the_table() -> None:
    properties = AudioOutParams.model_json_schema()["properties"]
    text = properties["bit_depth"]["description"] + properties["bitrate"]["description"]
    assert all(f"{entry.name} " in text and f"default {entry.default}" in text for entry in OUTPUT_FORMATS.values())
