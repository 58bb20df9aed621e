"""The contract's rules about requests, from the JSON that comes in to the error that goes out, over every operation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from errors import InvalidRequestError, RequestError, UnknownNameError
from models import Models
from models.checkpoints.locations import WeightLocations
from models.musicgen import MusicGenFamily
from operations.operation import load_operations
from testing.dispatch import answer
from testing.repository import ROOT
from worker.settings import Settings

MAX_REPLY_BYTES = 10_000
NOWHERE = Path("/nonexistent")


def refused(job: object) -> RequestError:
    """The error that a job is refused with."""
    with pytest.raises(RequestError) as caught:
        asked(job)
    return caught.value


def asked(job: object) -> dict[str, Any]:
    family = MusicGenFamily(WeightLocations(), demo=NOWHERE)
    models = Models({"musicgen": family}, device="cpu", budget_bytes=1)
    return answer(job, settings=Settings(volume_dirs=()), models=models)


def request(operation: object = "generate_music", **params: Any) -> dict[str, Any]:
    return {"id": "test", "input": {"operation": operation, "params": params}}


def fits(error: RequestError) -> bool:
    """Whether the reply of an error is sound: strict JSON, short, a sentence that is not empty."""
    text = json.dumps(error.reply(), allow_nan=False)
    return bool(error.message.strip()) and len(text.encode()) < MAX_REPLY_BYTES


@pytest.mark.parametrize("job", [None, [], "job", 3, {}, {"id": 3}, {"input": None}, {"input": []}, {"input": "x"}])
def test_a_job_that_is_no_object_with_input_is_refused(job: object) -> None:
    assert isinstance(refused(job), InvalidRequestError)


@pytest.mark.parametrize("operation", [None, 3, [], {}, True])
def test_an_operation_that_is_no_string_is_refused(operation: object) -> None:
    assert "'operation' is required" in refused(request(operation)).message


def test_an_unknown_operation_is_named_with_the_nearest_and_all_valid_ones() -> None:
    error = refused(request("generate_musik"))
    assert isinstance(error, UnknownNameError) and error.error_code == "unknown_operation"
    assert "'generate_musik'" in error.message and "Did you mean 'generate_music'" in error.message
    assert set(load_operations()) <= set(error.details["valid"])


def test_an_unknown_field_is_named_with_the_nearest_and_all_valid_ones() -> None:
    error = refused(request(prompt="x", temprature=1))
    assert "'temprature' is unknown. Did you mean 'temperature'?" in error.message
    assert {"prompt", "temperature", "output_format"} <= set(error.details["valid"])


@pytest.mark.parametrize("operation", sorted(load_operations()))
def test_every_operation_refuses_a_field_that_it_does_not_know(operation: str) -> None:
    error = refused(request(operation, no_such_field=1))
    assert "'no_such_field' is unknown" in error.message and fits(error)


@pytest.mark.parametrize(
    ("value", "told"),
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
def test_a_number_must_be_a_json_number_in_range(value: object, told: str) -> None:
    error = refused(request(prompt="x", duration=value))
    assert error.details["faults"][0]["field"] == "duration" and told in error.details["faults"][0]["problem"]
    assert fits(error)


def test_a_whole_number_may_be_written_as_a_float() -> None:
    error = refused(request(prompt="x", n_samples=2.0, seed=3.0, top_k=10.5))
    assert [fault["field"] for fault in error.details["faults"]] == ["top_k"]


def test_all_faults_are_told_together() -> None:
    error = refused(request(prompt="x", duration=-1, bit_depth=20, sed=1, n_samples="two", key="Q"))
    told = {fault["field"] for fault in error.details["faults"]}
    assert told == {"duration", "bit_depth", "sed", "n_samples"}
    assert all(f"'{field}'" in error.message for field in told)


def test_a_null_counts_as_left_out() -> None:
    error = refused(request(prompt="x", duration=None, seed=None, temperature="hot"))
    assert [fault["field"] for fault in error.details["faults"]] == ["temperature"]


def test_parameters_in_two_places_are_refused_and_the_stray_ones_named() -> None:
    error = refused({"input": {"operation": "generate_music", "params": {"prompt": "x"}, "seed": 3, "mbd": True}})
    assert error.details["stray"] == ["seed", "mbd"]


def test_parameters_may_stand_beside_the_operation() -> None:
    error = refused({"input": {"operation": "generate_music", "prompt": "x", "duration": 0}})
    assert [fault["field"] for fault in error.details["faults"]] == ["duration"]


@pytest.mark.parametrize("params", [[], "x", 3, True])
def test_params_must_be_an_object(params: object) -> None:
    error = refused({"input": {"operation": "generate_music", "params": params}})
    assert "'params' must be a JSON object" in error.message


def test_one_field_under_two_names_is_refused() -> None:
    assert "'prompt' was given twice" in refused(request(prompt="x", description="y")).message


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
def test_megabytes_of_garbage_get_a_short_answer(job: dict[str, Any]) -> None:
    assert fits(refused(job))


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "small/../../x", "..", "x\0y", "~/.ssh", "C:\\x", "models/"]
)
def test_a_model_name_that_is_a_path_is_refused_without_telling_of_the_machine(name: str) -> None:
    error = refused(request(prompt="x", model=name))
    assert error.error_code in ("invalid_model_name", "unknown_model") and str(ROOT) not in error.message


@pytest.mark.parametrize("form", ["nope", "WAV", 3, "flac "])
def test_an_unknown_format_is_told_the_valid_ones(form: object) -> None:
    error = refused(request(prompt="x", output_format=form))
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
        "    except RequestError as error: return error.reply()\n"
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


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(job=JSON | st.builds(lambda value: {"input": value}, JSON))
def test_any_json_in_is_a_reply_or_a_request_error(job: Any) -> None:
    sound(job)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_values_in_real_fields_are_a_reply_or_a_request_error(data: st.DataObject) -> None:
    operation = data.draw(st.sampled_from(LOCAL))
    names = st.sampled_from(fields_of(operation) or ["x"]) | st.text(max_size=8)
    params = data.draw(st.dictionaries(names, JSON, max_size=6))
    beside: Mapping[str, Any] = params if data.draw(st.booleans()) else {"params": params}
    sound({"input": {"operation": operation, **beside}})


def sound(job: Any) -> None:
    before = repr(job)
    try:
        reply = asked(job)
    except RequestError as error:
        assert fits(error)
    else:
        assert reply["success"] is True
        json.dumps(reply, allow_nan=False)
    assert repr(job) == before, "a job is never changed"
