"""Suno jobs under the real SDK: they wait at the same time as other jobs, and a stop ends one at once."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from testing.control_plane import ControlPlane, start_control_plane
from testing.processes import HANDLER, Worker, start_worker
from testing.suno_provider import TOKEN, Provider, start_server
from testing.suno_scenarios import Record, Scenario
from testing.tiny_musicgen import write_checkpoint

SLOW = Scenario("done at the second status request", records=(Record("PENDING"), Record("SUCCESS", 2)))
NEVER = Scenario("never ends", records=(Record("PENDING"),))


@pytest.fixture(scope="module")
def install() -> Iterator[Any]:
    with start_server() as install:
        yield install


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, install: Any) -> Iterator[tuple[ControlPlane, Worker]]:
    models_dir = tmp_path_factory.mktemp("models")
    write_checkpoint(models_dir / "tiny")
    provider = install(Provider(SLOW))
    with start_control_plane() as plane:
        env = plane.environment() | {
            "MODELS_DIR": str(models_dir),
            "DEVICE": "cpu",
            "CONCURRENCY": "4",
            "SUNO_API_TOKEN": TOKEN,
            "SUNO_API_BASE_URL": provider.url,
            "SUNO_UPLOAD_BASE_URL": provider.url,
            "ALLOW_PRIVATE_URLS": "1",
        }
        with start_worker(HANDLER, [], home=tmp_path_factory.mktemp("home"), env=env) as worker:
            yield plane, worker


def build_input(**params: Any) -> dict[str, Any]:
    return {"operation": "extend_via_suno", "output_format": "mp3", **params}


def submit_task(plane: ControlPlane) -> str:
    """Submits a task by a job of its own and returns the task's id."""
    reply = plane.result(plane.submit(build_input(audio_id="audio-1", mode="submit")), timeout=60)
    return str(reply["output"]["task_id"])


@pytest.mark.slow
def test_suno_jobs_run_at_the_same_time_as_each_other_and_a_generation(
    platform: tuple[ControlPlane, Worker], install: Any
) -> None:
    plane, worker = platform
    provider = install(Provider(SLOW))
    tasks = [submit_task(plane) for _ in range(2)]
    generation = plane.submit({"operation": "generate_music", "prompt": "x", "model": "tiny", "duration": 600})
    plane.wait(generation, "progress", timeout=120)
    waiting = [plane.submit(build_input(task_id=task_id)) for task_id in tasks]
    replies = [plane.result(job, timeout=120)["output"] for job in waiting]
    assert [len(reply["outputs"]) for reply in replies] == [2, 2]
    assert not plane.find_events(generation, "done"), "the generation should still be running"
    steps = [call for call in provider.calls if "record-info" in call or "/files/" in call]
    assert steps[:2] == ["GET /api/v1/generate/record-info"] * 2, (
        "the second job sent its status request only after the first was done"
    )
    plane.stop(generation)
    assert TOKEN not in worker.read_output()


def test_a_stopped_suno_job_ends_at_once_and_the_next_one_runs(
    platform: tuple[ControlPlane, Worker], install: Any
) -> None:
    plane, worker = platform
    install(Provider(NEVER))
    task_id = submit_task(plane)
    stopped = plane.submit(build_input(task_id=task_id))
    first = plane.wait(stopped, "progress", timeout=60)
    assert first.body["output"]["task_id"] == task_id
    plane.stop(stopped)
    reply = plane.result(plane.submit(build_input(task_id=task_id, mode="poll")), timeout=60)["output"]
    assert (reply["status"], reply["task_id"]) == ("PENDING", task_id)
    assert not plane.find_events(stopped, "done")
    assert wait_for_log(worker, stopped, "cancelled"), "the stopped job did not log that it ended"


def wait_for_log(worker: Worker, job_id: str, word: str, timeout_s: float = 20.0) -> bool:
    """Whether a log line of the job that contains `word` appears in time."""
    ends = time.monotonic() + timeout_s
    while time.monotonic() < ends:
        lines = [json.loads(line) for line in worker.read_output().splitlines() if line.startswith("{")]
        if any(line["requestId"] == job_id and word in line["message"] for line in lines):
            return True
        time.sleep(0.1)
    return False
