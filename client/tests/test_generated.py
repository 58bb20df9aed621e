"""The generated methods are up to date and pass on what they are given."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping
from typing import Any

from tools.methods import TARGET, write_methods

from music_worker._generated import AsyncOperationMethods, OperationMethods
from music_worker.client import AsyncClient, Client
from music_worker.results import Result
from music_worker.schema import load_schemas


class Recorder(OperationMethods):
    """Keeps what is run."""

    def __init__(self) -> None:
        self.runs: list[tuple[str, dict[str, Any]]] = []

    def run(self, operation: str, params: Mapping[str, Any] | None = None, **options: Any) -> Result:
        self.runs.append((operation, {**dict(params or {}), "options": options}))
        return Result(operation=operation, job_id="job")


class AsyncRecorder(AsyncOperationMethods):
    async def run(self, operation: str, params: Mapping[str, Any] | None = None, **options: Any) -> Result:
        return Result(operation=operation, job_id="job", parameters=dict(params or {}))


def test_the_generated_methods_are_up_to_date() -> None:
    assert TARGET.read_text(encoding="utf-8") == write_methods(), "run `make docs`"


def test_both_clients_have_a_method_for_every_operation() -> None:
    for operation in load_schemas().operations:
        assert callable(getattr(Client, operation))
        assert inspect.iscoroutinefunction(getattr(AsyncClient, operation))


def test_a_method_passes_every_parameter_to_its_operation() -> None:
    recorder = Recorder()
    for operation, schema in load_schemas().operations.items():
        method = getattr(recorder, operation)
        fields = list(schema["properties"])
        names = [name for name in inspect.signature(method).parameters if name not in ("on_progress", "timeout_s")]
        values = {name: f"value of {name.rstrip('_')}" for name in names if name != "extra"}
        method(**values, extra={"sparkle": 1}, timeout_s=5.0)
        ran, params = recorder.runs[-1]
        assert ran == operation and params.pop("sparkle") == 1
        assert params.pop("options") == {"on_progress": None, "timeout_s": 5.0}
        assert params == {field: f"value of {field}" for field in fields}


def test_the_first_parameter_needs_no_name_and_the_others_do() -> None:
    recorder = Recorder()
    recorder.separate("song.mp3", two_stems="vocals")
    assert recorder.runs[-1][1]["audio"] == "song.mp3"
    kinds = inspect.signature(recorder.separate).parameters
    assert kinds["two_stems"].kind is inspect.Parameter.KEYWORD_ONLY
    assert kinds["audio"].default is inspect.Parameter.empty, "required"


def test_an_asynchronous_method_awaits_the_result() -> None:
    result = asyncio.run(AsyncRecorder().generate_music("calm piano", duration=2))
    assert result.parameters["prompt"] == "calm piano" and result.parameters["duration"] == 2


def test_docstrings_say_what_every_parameter_means() -> None:
    text = str(Client.generate_music.__doc__)
    assert text.startswith("Makes music") and "duration:" in text and "600" not in text.splitlines()[0]
