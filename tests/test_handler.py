"""The door itself: `handler(job)` as a plain function, and what importing and refusing cost."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import handler as door
import operations
from handler import handler
from testing.processes import environment
from testing.repository import ROOT
from worker.output.strict_json import dump_json

HEAVY = ("torch", "runpod", "numpy", "pydantic", "transformers", "soundfile", "requests", "boto3")

NO_JOBS: dict[str, Any] = {
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
    "keys that are no text": {3: 4, "input": {5: 6}},
}


@pytest.mark.parametrize("job", NO_JOBS.values(), ids=NO_JOBS)
def test_what_is_no_request_gets_a_clear_error(job: Any) -> None:
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


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(JSON | st.fixed_dictionaries({"id": JSON, "input": INPUTS}))
def test_the_door_never_raises_and_never_changes_what_it_is_given(job: Any) -> None:
    before = repr(job)
    reply = handler(job)
    assert repr(job) == before
    assert reply.get("error_code") != "internal_error"
    assert dump_json(reply)


def test_health_check_answers() -> None:
    assert handler({"id": "a", "input": {"operation": "health_check"}})["status"] in ("healthy", "degraded")


class Hostile(dict[str, Any]):
    """A job that fails in our hands, as only a fault of ours could."""

    def __init__(self, error: Exception) -> None:
        super().__init__(input={})
        self._error = error

    def get(self, *_: Any) -> Any:
        raise self._error


def test_a_fault_of_ours_has_an_id_that_the_log_knows_and_says_nothing_of_the_inside(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reply = handler(Hostile(KeyError("/home/someone/secret")))
    assert reply["error_code"] == "internal_error" and reply["details"]["error_id"] in reply["error"]
    (message,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert message == f"Error {reply['details']['error_id']}: KeyError in operations.dispatch._job"
    assert "secret" not in json.dumps(reply) + caplog.text and "Traceback" not in caplog.text


def test_too_little_memory_is_told_as_that() -> None:
    reply = handler(Hostile(MemoryError()))
    assert reply["error_code"] == "out_of_memory" and "Ask for less" in reply["error"]


def test_too_deep_a_request_is_told_as_that() -> None:
    assert "nested too deeply" in handler(Hostile(RecursionError()))["error"]


def test_an_interrupt_passes_through() -> None:
    class Interrupted(dict[str, Any]):
        def get(self, *_: Any) -> Any:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        handler(Interrupted())


def imported(code: str, home: Path, modules: tuple[str, ...]) -> Any:
    """Which of `modules` are imported once `code` has run, in a process of its own."""
    return python(f"import json, sys; {code}; print(json.dumps([m for m in {modules} if m in sys.modules]))", home)


def python(code: str, home: Path, **env: str) -> Any:
    """What `code` prints, in a process of its own, as JSON."""
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=home,
        env=environment(home, env),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return json.loads(ended.stdout)


def test_importing_the_door_imports_nothing_heavy_and_has_no_effect(tmp_path: Path) -> None:
    assert imported("path = sys.path[:]; import handler; assert path == sys.path", tmp_path, HEAVY) == []
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "given",
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
def test_health_checks_lists_and_refusals_answer_without_torch(tmp_path: Path, given: Any) -> None:
    code = f"import handler; handler.handler({{'input': {given!r}}})"
    assert imported(code, tmp_path, ("torch", "runpod", "transformers")) == []


def test_a_setting_that_cannot_be_read_is_named_in_the_reply(tmp_path: Path) -> None:
    code = "import json, handler; print(json.dumps(handler.handler({'input': {'operation': 'health_check'}})))"
    reply = python(code, tmp_path, CONCURRENCY="none")
    assert reply["error_code"] == "invalid_settings" and "CONCURRENCY" in reply["error"]


def test_one_models_object_serves_all_requests() -> None:
    settings_ = door.settings_once()
    assert door.models_once(settings_) is door.models_once(settings_)


def test_test_input_json_is_a_request_for_music_that_the_door_takes() -> None:
    given = json.loads((ROOT / "test_input.json").read_text())["input"]
    name, operation = operations.get(given["operation"])
    assert name == "generate_music" and operation.Params.parse(given["params"]).used()["duration"] == 10
