"""The job loop: the unmodified SDK in a process of its own, driven by a local control plane."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testing.control_plane import API_KEY, ControlPlane, start_control_plane
from testing.processes import FAKE_WORKER, Worker, start_worker

SECRET = "suno-token-of-the-tests"
Run = tuple[ControlPlane, Worker]


@pytest.fixture(scope="module")
def concurrent_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A worker that takes eight jobs at once, with the SDK's log at DEBUG."""
    home = tmp_path_factory.mktemp("concurrent")
    settings = {"CONCURRENCY": "8", "RUNPOD_LOG_LEVEL": "DEBUG", "SUNO_API_TOKEN": SECRET}
    with (
        start_control_plane() as plane,
        start_worker(FAKE_WORKER, [], home=home, env=plane.environment() | settings) as worker,
    ):
        yield plane, worker


@pytest.fixture(scope="module")
def default_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A worker with default settings: one job at a time."""
    home = tmp_path_factory.mktemp("single")
    with (
        start_control_plane() as plane,
        start_worker(FAKE_WORKER, [], home=home, env=plane.environment()) as worker,
    ):
        yield plane, worker


def test_a_result_is_posted_under_the_jobs_id(concurrent_worker: Run) -> None:
    plane, _ = concurrent_worker
    assert plane.result(plane.submit({"operation": "echo", "value": "ümläut"}))["output"]["echo"] == "ümläut"


def test_a_failure_is_posted_as_a_string_with_its_code_beside_it(concurrent_worker: Run) -> None:
    plane, _ = concurrent_worker
    assert plane.result(plane.submit({"operation": "refuse"})) == {
        "error": "'duration' must be at most 600.",
        "output": {"error_code": "invalid_request", "details": {"field": "duration"}},
    }


def test_a_bug_of_the_worker_is_posted_without_internals(concurrent_worker: Run) -> None:
    plane, _ = concurrent_worker
    body = plane.result(plane.submit({"operation": "crash"}))
    assert body["output"]["error_code"] == "internal_error"
    assert not any(word in json.dumps(body) for word in ("secret-value", "/home", "Traceback", "KeyError", ".py"))


@pytest.mark.parametrize("value", ["nan", "bytes", "surrogate", "object", "set"])
def test_a_reply_that_is_not_json_becomes_a_posted_error(concurrent_worker: Run, value: str) -> None:
    plane, _ = concurrent_worker
    body = plane.result(plane.submit({"operation": "unserializable", "value": value}))
    assert body["error"] and body["output"]["error_code"] == "internal_error"


def test_an_empty_reply_becomes_a_posted_error(concurrent_worker: Run) -> None:
    plane, _ = concurrent_worker
    assert plane.result(plane.submit({"operation": "empty"}))["output"]["error_code"] == "internal_error"


def test_a_reply_over_the_budget_becomes_a_posted_error_and_one_within_it_arrives(concurrent_worker: Run) -> None:
    plane, _ = concurrent_worker
    large, small = (plane.submit({"operation": "huge", "size": size}) for size in (9_600_000, 9_400_000))
    body = plane.result(large)
    assert body["output"]["error_code"] == "reply_too_large" and "9500000" in body["error"]
    assert len(plane.result(small)["output"]["output_audio"]) == 9_400_000
    assert not [event for event in plane.events if event.kind == "refused"]


def test_concurrency_runs_jobs_in_parallel(concurrent_worker: Run) -> None:
    plane, _ = concurrent_worker
    jobs = [plane.submit({"operation": "steps", "count": 75}) for _ in range(4)]
    done = [plane.wait(job, "done").at for job in jobs]
    assert max(plane.wait(job, "take").at for job in jobs) < min(done)


def test_progress_is_posted_in_order_once_a_second_and_never_after_the_result(concurrent_worker: Run) -> None:
    plane, _ = concurrent_worker
    job = plane.submit({"operation": "steps", "count": 130})
    plane.result(job)
    next_one = plane.submit({"operation": "steps", "count": 60})  # time for a late update to arrive
    plane.result(next_one)
    events = plane.find_events(job, "progress", "done")
    assert [event.kind for event in events] == ["progress"] * (len(events) - 1) + ["done"]
    updates = events[:-1]
    assert len(updates) >= 2
    percents = [update.body["output"]["percent"] for update in updates]
    assert percents == sorted(percents)
    assert all(later.at - earlier.at > 0.9 for earlier, later in itertools.pairwise(updates))


def test_progress_is_posted_with_the_same_headers_as_the_result(concurrent_worker: Run) -> None:
    plane, _ = concurrent_worker
    job = plane.submit({"operation": "steps", "count": 3})
    plane.result(job)
    update, result = plane.find_events(job, "progress", "done")
    assert set(update.body) == {"status", "output"} and update.query == result.query
    for header in ("Authorization", "Content-Type", "X-Request-ID", "charset"):
        assert update.headers[header] == result.headers[header]


def test_logs_are_json_lines_with_the_job_id_and_contain_no_audio_and_no_secret(concurrent_worker: Run) -> None:
    plane, worker = concurrent_worker
    job = plane.submit({"operation": "make_audio"})
    audio = plane.result(job)["output"]["output_audio"]
    plane.result(plane.submit({"operation": "echo"}))
    lines = [json.loads(line) for line in worker.read_output().splitlines() if line.startswith("{")]
    ours = [line for line in lines if line["requestId"] == job and line["message"].startswith("worker.fake")]
    assert [line["message"] for line in ours] == [
        "worker.fake: key ***",
        f"worker.fake: made <{len(audio)} characters>",
    ]
    assert {frozenset(line) for line in lines} == {frozenset({"requestId", "message", "level"})}
    for hidden in (SECRET, API_KEY, audio[:64], "Traceback"):
        assert hidden not in worker.read_output()


def test_a_cancelled_job_ends_and_posts_nothing_and_the_next_one_succeeds(default_worker: Run) -> None:
    plane, worker = default_worker
    endless = plane.submit({"operation": "steps", "count": 100_000})
    plane.wait(endless, "progress")
    plane.stop(endless)
    after = plane.submit({"operation": "steps", "count": 20})
    assert plane.result(after)["output"]["steps"] == 20
    assert not plane.find_events(endless, "done")
    taken = plane.wait(after, "take").at
    assert all(event.at < taken for event in plane.find_events(endless, "progress"))
    printed = worker.read_output()
    stopped = printed.index('"message": "worker.fake: stopped at step')
    assert stopped < printed.index(json.dumps({"requestId": after, "message": "Started."})[:-1])


def test_by_default_one_job_runs_at_a_time(default_worker: Run) -> None:
    plane, _ = default_worker
    first, second = (plane.submit({"operation": "steps", "count": 25}) for _ in range(2))
    plane.result(second)
    assert plane.wait(second, "take").at > plane.wait(first, "done").at


def test_heartbeats_name_the_worker_while_it_works(default_worker: Run) -> None:
    plane, _ = default_worker
    job = plane.submit({"operation": "steps", "count": 75})
    plane.result(job)
    assert any(job in event.query.get("job_id", [""])[0] for event in plane.events if event.kind == "ping")


def run_default_worker(home: Path, plane: ControlPlane, **settings: str) -> Any:
    return start_worker(FAKE_WORKER, [], home=home, env=plane.environment() | settings)


def test_sigterm_lets_the_running_job_finish_and_posts_it(tmp_path: Path) -> None:
    with start_control_plane() as plane, run_default_worker(tmp_path, plane) as worker:
        job = plane.submit({"operation": "steps", "count": 75})
        plane.wait(job, "progress")
        worker.terminate()
        assert worker.exit_code() == 0
        assert plane.result(job, timeout=0.1)["output"]["steps"] == 75


def test_a_job_that_asks_for_a_fresh_worker_is_posted_and_ends_this_one(tmp_path: Path) -> None:
    with start_control_plane() as plane, run_default_worker(tmp_path, plane) as worker:
        job = plane.submit({"operation": "exhaust"})
        body = plane.result(job)
        assert body["stopPod"] is True and body["output"]["error_code"] == "out_of_memory" and body["error"]
        assert worker.exit_code() == 0


def test_a_cancelled_job_that_does_not_stop_ends_the_process(tmp_path: Path) -> None:
    with (
        start_control_plane() as plane,
        run_default_worker(tmp_path, plane, CANCEL_GRACE_S="0.3") as worker,
    ):
        job = plane.submit({"operation": "ignore_cancel", "seconds": 60})
        plane.wait(job, "progress")
        plane.stop(job)
        assert worker.exit_code() == 1
        assert "did not stop within 0.3 s" in worker.read_output() and not plane.find_events(job, "done")
        ended = time.monotonic()
        time.sleep(1.5)  # the heartbeat is a process of its own, once a second here
        assert all(event.at < ended + 0.3 for event in plane.events if event.kind == "ping")


def test_a_worker_that_cannot_use_its_gpu_stops_at_start_and_tells_the_platform(tmp_path: Path) -> None:
    with start_control_plane() as plane, run_default_worker(tmp_path, plane, DEVICE="cuda") as worker:
        job = plane.submit({"operation": "echo", "value": 1})
        assert worker.exit_code() == 1
        lines = worker.read_output().splitlines()
        assert len([line for line in lines if "The worker cannot start: The host's driver is too old." in line]) == 1
        assert not plane.find_events(job, "take")
        (ping,) = [event for event in plane.events if event.kind == "ping"]
        assert ping.query["status"] == ["unhealthy"] and "driver is too old" in ping.query["reason"][0]


@pytest.mark.parametrize("preload", ["good", "bad"])
def test_a_worker_runs_its_first_job_also_if_a_model_cannot_be_preloaded(tmp_path: Path, preload: str) -> None:
    with start_control_plane() as plane, run_default_worker(tmp_path, plane, PRELOAD=preload) as worker:
        assert plane.result(plane.submit({"operation": "echo", "value": 1}))["output"]["echo"] == 1
        assert ("Unknown model family 'bad'" in worker.read_output()) == (preload == "bad")


def test_a_setting_that_cannot_be_read_stops_the_start_and_is_named(tmp_path: Path) -> None:
    with (
        start_control_plane() as plane,
        run_default_worker(tmp_path, plane, CONCURRENCY="none") as worker,
    ):
        assert worker.exit_code() == 1
        assert "CONCURRENCY" in worker.read_output() and "Traceback" not in worker.read_output()
