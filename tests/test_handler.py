"""`handler(job)` as a plain function: errors, replies, and what importing and refusing cost."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from handler import get_models, handler, preload, read_settings
from operations.operation import find_operation
from testing.dispatch import answer
from testing.models import make_models
from testing.processes import build_environment
from testing.property_tests import examples
from testing.repository import ROOT
from worker.output.strict_json import dump_json
from worker.settings import Settings

HEAVY_MODULES = ("torch", "runpod", "numpy", "pydantic", "transformers", "soundfile", "requests", "boto3")

INVALID_JOBS: dict[str, Any] = {
    "none": None,
    "a list": [],
    "a text": "job",
    "a number": 3,
    "an empty object": {},
    "no input": {"id": "x"},
    "null input": {"input": None},
    "list input": {"input": []},
    "text input": {"input": "make music"},
    "empty input": {"input": {}},
    "number as operation": {"input": {"operation": 3}},
    "unknown operation": {"input": {"operation": "helth_check"}},
    "unknown field": {"input": {"operation": "health_check", "params": {"loud": True}}},
    "params as list": {"input": {"operation": "health_check", "params": []}},
    "params twice": {"input": {"operation": "health_check", "params": {}, "schemas": True}},
    "id as list": {"id": [1], "input": {}},
    "lone surrogate": {"id": "\ud800", "input": {"operation": "\ud800", "\ud800": "\ud800"}},
    "megabytes": {"input": {"operation": "A" * 3_000_000}},
    "megabytes of keys": {"input": {"operation": "health_check"} | {f"{n}" * 500: n for n in range(2000)}},
    "keys that are not text": {3: 4, "input": {5: 6}},
}


@pytest.mark.parametrize("job", INVALID_JOBS.values(), ids=INVALID_JOBS)
def test_an_invalid_job_gets_a_clear_error(job: Any) -> None:
    before = copy.deepcopy(job)
    reply = handler(job)
    assert isinstance(reply["error"], str) and reply["error"] and reply["error_code"] != "internal_error"
    assert isinstance(reply["details"], dict)
    assert len(dump_json(reply)) < 10_000
    assert job == before


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=12,
)
INPUTS = JSON | st.fixed_dictionaries(
    {"operation": st.sampled_from(["health_check", "list_models", "generate_music", "separate", "none"]) | JSON},
    optional={"params": st.fixed_dictionaries({"prompt": JSON, "duration": st.text() | st.none()})},
)


@examples(60, suppress_health_check=[HealthCheck.too_slow])
@given(JSON | st.fixed_dictionaries({"id": JSON, "input": INPUTS}))
def test_the_handler_never_raises_and_never_changes_the_job(job: Any) -> None:
    before = repr(job)
    reply = handler(job)
    assert repr(job) == before
    assert reply.get("error_code") != "internal_error"
    assert dump_json(reply)


def test_health_check_returns_a_status() -> None:
    assert handler({"id": "a", "input": {"operation": "health_check"}})["status"] in ("healthy", "degraded")


class FailingInput(dict[str, Any]):
    """An `input` that raises when it is read, as only a bug of the worker could."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self._error = error

    def get(self, *_: Any) -> Any:
        raise self._error


def test_a_bug_has_an_id_in_reply_and_log_and_shows_no_internals(caplog: pytest.LogCaptureFixture) -> None:
    reply = handler({"input": FailingInput(KeyError("/home/someone/secret"))})
    assert reply["error_code"] == "internal_error" and reply["details"]["error_id"] in reply["error"]
    (message,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert message == f"Error {reply['details']['error_id']}: KeyError in operations.dispatch._read_envelope"
    assert "secret" not in json.dumps(reply) + caplog.text and "Traceback" not in caplog.text


def test_too_little_memory_has_its_own_error() -> None:
    reply = handler({"input": FailingInput(MemoryError())})
    assert reply["error_code"] == "out_of_memory" and "Ask for less" in reply["error"]


def test_a_request_that_is_nested_too_deeply_has_its_own_error() -> None:
    assert "nested too deeply" in handler({"input": FailingInput(RecursionError())})["error"]


def test_an_interrupt_is_not_caught() -> None:
    with pytest.raises(KeyboardInterrupt):
        handler({"input": FailingInput(KeyboardInterrupt())})


def list_imported(code: str, home: Path, modules: tuple[str, ...]) -> Any:
    """Which of `modules` are imported once `code` has run in a process of its own."""
    return run_python(f"import json, sys; {code}; print(json.dumps([m for m in {modules} if m in sys.modules]))", home)


def run_python(code: str, home: Path, **env: str) -> Any:
    """What `code` prints in a process of its own, parsed as JSON."""
    process = subprocess.run(
        [sys.executable, "-c", code],
        cwd=home,
        env=build_environment(home, env),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return json.loads(process.stdout)


def test_importing_the_handler_imports_nothing_heavy_and_has_no_effect(tmp_path: Path) -> None:
    assert list_imported("path = sys.path[:]; import handler; assert path == sys.path", tmp_path, HEAVY_MODULES) == []
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "envelope",
    [
        {"operation": "health_check"},
        {"operation": "list_models"},
        {"operation": "none"},
        {"operation": "generate_music", "params": {"prompt": 3, "duration": 1e9}},
        {"operation": "generate_music", "params": {"prompt": "x", "model": "../../etc/passwd"}},
        None,
    ],
    ids=str,
)
def test_health_checks_lists_and_refusals_need_no_torch(tmp_path: Path, envelope: Any) -> None:
    code = f"import handler; handler.handler({{'input': {envelope!r}}})"
    assert list_imported(code, tmp_path, ("torch", "runpod", "transformers")) == []


def test_an_invalid_setting_is_named_in_the_reply(tmp_path: Path) -> None:
    code = "import json, handler; print(json.dumps(handler.handler({'input': {'operation': 'health_check'}})))"
    reply = run_python(code, tmp_path, CONCURRENCY="none")
    assert reply["error_code"] == "invalid_settings" and "CONCURRENCY" in reply["error"]


def test_all_requests_share_one_models_object() -> None:
    assert get_models(read_settings()) is get_models(read_settings())


def test_a_reply_after_damage_to_the_process_asks_for_a_fresh_worker() -> None:
    models = make_models()
    job = {"input": {"operation": "list_models"}}
    assert "refresh_worker" not in answer(job, settings=Settings(), models=models)
    models.needs_restart = True
    assert answer(job, settings=Settings(), models=models)["refresh_worker"] is True


def test_test_input_json_is_a_valid_request_for_music() -> None:
    envelope = json.loads((ROOT / "test_input.json").read_text())["input"]
    name, operation = find_operation(envelope["operation"])
    assert name == "generate_music" and operation.params.parse(envelope["params"]).list_values()["duration"] == 10


def test_preload_names_each_model_that_cannot_be_loaded_and_loads_the_others() -> None:
    settings = Settings(preload=("nothing", "f0/harvest", "musicgen/no-such-model"), device="cpu")
    failed = preload(settings)
    assert list(failed) == ["nothing", "musicgen/no-such-model"] and "no-such-model" in failed["musicgen/no-such-model"]
    assert get_models(settings).list_loaded() == ["f0/harvest"]
