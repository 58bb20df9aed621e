"""The job loop: the unmodified SDK in a process of its own, driven by a local control plane."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from handler import catch_errors
from testing.control_plane import API_KEY, ControlPlane, Fault, start_control_plane
from testing.processes import FAKE_WORKER, Worker, start_worker
from worker.runpod.adapter import Adapter
from worker.settings import Platform, Settings

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


@pytest.mark.parametrize(
    ("job_input", "code"),
    [
        ({"operation": "leave", "by": "exit"}, "internal_error"),
        ({"operation": "leave", "by": "interrupt"}, "internal_error"),
        ({"operation": "exhaust_memory"}, "out_of_memory"),
    ],
)
def test_what_is_raised_around_a_job_becomes_a_posted_error_without_internals(
    concurrent_worker: Run, job_input: Any, code: str
) -> None:
    plane, worker = concurrent_worker
    body = plane.result(plane.submit(job_input))
    assert body["error"] and body["output"]["error_code"] == code
    assert not any(word in json.dumps(body) for word in ("Traceback", "hostname", "worker-1", ".py"))
    assert worker.process.poll() is None


def test_a_job_id_that_no_header_can_carry_gets_its_progress_and_its_result(concurrent_worker: Run) -> None:
    plane, worker = concurrent_worker
    job = plane.submit({"operation": "steps", "count": 5}, job_id="jöb-☃")
    assert plane.result(job)["output"]["steps"] == 5
    assert plane.find_events(job, "progress")
    assert "Exception in thread" not in worker.read_output()


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


def test_a_job_that_is_handed_over_twice_while_it_is_in_progress_runs_once(concurrent_worker: Run) -> None:
    plane, worker = concurrent_worker
    job = plane.submit({"operation": "steps", "count": 60})
    plane.submit({"operation": "steps", "count": 60}, job_id=job)
    plane.submit({"operation": "steps", "count": 60}, job_id=job)
    plane.result(job)
    plane.result(plane.submit({"operation": "steps", "count": 60}))
    assert len(plane.find_events(job, "done")) == 1
    assert f"RunPod handed over job {job} again" in worker.read_output()


def test_a_job_without_an_id_is_ignored_and_the_worker_goes_on(tmp_path: Path) -> None:
    with start_control_plane() as plane, run_default_worker(tmp_path, plane, CONCURRENCY="4") as worker:
        plane.find_fault = lambda kind, job_id, body: Fault(
            handled=True, change=lambda jobs: [{"input": {}}, *jobs] if jobs else jobs
        )
        assert plane.result(plane.submit({"operation": "echo", "value": 1}))["output"]["echo"] == 1
        assert plane.result(plane.submit({"operation": "echo", "value": 2}))["output"]["echo"] == 2
        assert "a job without an id" in worker.read_output()


def measure_cpu_s(worker: Worker) -> float:
    """The processor time that a worker has used so far, in seconds."""
    fields = Path(f"/proc/{worker.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize(
    "fault",
    [
        Fault(cut=True),
        Fault(status=400),
        Fault(status=500),
        Fault(status=200, body=b"<html>", content_type="text/html"),
    ],
    ids=["cut", "400", "500", "garbage"],
)
def test_a_worker_that_can_take_no_job_asks_seldom_and_takes_the_next_one(tmp_path: Path, fault: Fault) -> None:
    with start_control_plane() as plane, run_default_worker(tmp_path, plane) as worker:
        plane.result(plane.submit({"operation": "echo"}))
        asked: list[float] = []

        def find_fault(kind: str, job_id: str, body: Any) -> Fault | None:
            if kind == "take":
                asked.append(time.monotonic())
                return fault
            return None

        plane.find_fault = find_fault
        before = measure_cpu_s(worker)
        time.sleep(2.0)
        assert 1 <= len(asked) <= 12 and measure_cpu_s(worker) - before < 0.5
        plane.find_fault = lambda kind, job_id, body: None
        assert plane.result(plane.submit({"operation": "echo", "value": 5}))["output"]["echo"] == 5


def test_sigterm_ends_an_idle_worker_at_once_though_its_polls_are_long(tmp_path: Path) -> None:
    with start_control_plane() as plane, run_default_worker(tmp_path, plane) as worker:
        plane.result(plane.submit({"operation": "echo"}))
        plane.find_fault = lambda kind, job_id, body: Fault(delay_s=30.0) if kind in ("take", "stop") else None
        time.sleep(1.0)
        started = time.monotonic()
        worker.terminate()
        assert worker.exit_code() == 0
        assert time.monotonic() - started < 2.0  # measured: 0.7 s on 2 busy cores


def test_sigterm_ends_an_idle_worker_while_the_platform_cannot_be_reached(tmp_path: Path) -> None:
    with start_control_plane() as plane, run_default_worker(tmp_path, plane) as worker:
        plane.result(plane.submit({"operation": "echo"}))
        plane.find_fault = lambda kind, job_id, body: Fault(status=429) if kind in ("take", "stop") else Fault(cut=True)
        time.sleep(1.0)
        started = time.monotonic()
        worker.terminate()
        assert worker.exit_code() == 0
        assert time.monotonic() - started < 2.0  # measured: 0.7 s on 2 busy cores


def test_sigterm_gives_running_jobs_a_limited_time_and_then_reports_them(tmp_path: Path) -> None:
    with start_control_plane() as plane, run_default_worker(tmp_path, plane, SHUTDOWN_GRACE_S="0.3") as worker:
        job = plane.submit({"operation": "steps", "count": 100_000})
        plane.wait(job, "progress")
        worker.terminate()
        body = plane.result(job)
        assert body["output"]["error_code"] == "worker_restart" and body["stopPod"] is True
        assert worker.exit_code() == 0


def test_sigterm_ends_the_process_even_if_a_job_does_not_stop(tmp_path: Path) -> None:
    settings = {"SHUTDOWN_GRACE_S": "0.3", "CANCEL_GRACE_S": "0.5"}
    with start_control_plane() as plane, run_default_worker(tmp_path, plane, **settings) as worker:
        job = plane.submit({"operation": "ignore_cancel", "seconds": 60})
        plane.wait(job, "progress")
        started = time.monotonic()
        worker.terminate()
        assert worker.exit_code() == 1
        assert time.monotonic() - started < 3.0
        assert plane.result(job)["output"]["error_code"] == "worker_restart"


def test_a_job_that_does_not_stop_ends_the_process_only_after_its_neighbours_are_reported(tmp_path: Path) -> None:
    settings = {"CANCEL_GRACE_S": "0.5", "CONCURRENCY": "3"}
    with start_control_plane() as plane, run_default_worker(tmp_path, plane, **settings) as worker:
        stuck = plane.submit({"operation": "ignore_cancel", "seconds": 60})
        neighbours = [
            plane.submit({"operation": name, "count": 9999, "seconds": 60}) for name in ("steps", "ignore_cancel")
        ]
        for job in (stuck, *neighbours):
            plane.wait(job, "progress")
        plane.stop(stuck)
        assert worker.exit_code() == 1
        for job in neighbours:
            (done,) = plane.find_events(job, "done")
            assert done.body["output"]["error_code"] == "worker_restart" and done.body["stopPod"] is True
        assert not plane.find_events(stuck, "done")


def test_a_result_that_cannot_be_posted_does_not_keep_a_stuck_worker_alive(tmp_path: Path) -> None:
    settings = {"CANCEL_GRACE_S": "2", "CONCURRENCY": "2"}
    with start_control_plane() as plane, run_default_worker(tmp_path, plane, **settings) as worker:
        jobs = [plane.submit({"operation": "ignore_cancel", "seconds": 60}) for _ in range(2)]
        for job in jobs:
            plane.wait(job, "progress")
        plane.find_fault = lambda kind, job_id, body: Fault(status=503) if kind == "done" else None
        plane.stop(jobs[0])
        assert worker.exit_code() == 1
        assert f"before RunPod has a reply for these jobs: {jobs[1]}" in worker.read_output()
        kinds = [event.kind for event in plane.find_events(jobs[1], "progress", "lost done")]
        assert "progress" not in kinds[kinds.index("lost done") :]  # though its thread goes on


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


def build_loop(handled: list[str]) -> Any:
    """The loop alone, without a platform; `handled` receives the ids of the jobs that it runs to their end."""
    from worker.runpod.job_loop import JobLoop

    async def handle(session: object, config: object, job: dict[str, Any]) -> None:
        await asyncio.sleep(0.01)
        handled.append(job["id"])

    adapter = Adapter(lambda job, settings: {}, catch_errors, settings=Settings(), platform=Platform())
    loop = JobLoop(adapter.config, adapter=adapter, shutdown_grace_s=1.0)
    loop.jobs_handler = handle
    return loop


def test_a_job_that_is_stopped_before_its_first_step_does_not_count_as_in_progress_for_ever() -> None:
    job = {"id": "stopped-at-once", "input": {}}

    async def scenario() -> Any:
        loop = build_loop([])
        await loop.jobs_queue.put(job)
        loop.job_progress.add(await loop.jobs_queue.get())
        task = loop.jobs_tasks[job["id"]] = asyncio.create_task(loop.handle_job(None, job))
        assert await loop.stop_job(job["id"])
        await asyncio.wait([task])
        assert task.cancelled()
        return loop.job_progress.get(job["id"])

    assert asyncio.run(scenario()) is None


def test_a_job_that_is_taken_at_the_moment_of_the_shutdown_is_run() -> None:
    handled: list[str] = []

    async def scenario() -> None:
        loop = build_loop(handled)
        loop.kill_worker()
        running = asyncio.create_task(loop.run_jobs(None))
        await asyncio.sleep(0.01)  # nothing is in the queue, so there is nothing to run yet
        await loop.jobs_queue.put({"id": "last", "input": {}})
        await loop.get_jobs(None)
        await running

    asyncio.run(scenario())
    assert handled == ["last"]
