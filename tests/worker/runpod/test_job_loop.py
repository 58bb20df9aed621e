"""The platform's loop: the unmodified SDK in a process of its own, driven by a control plane on this machine."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testing import control_plane
from testing.control_plane import API_KEY, ControlPlane
from testing.processes import FAKE_WORKER, Worker, running

SECRET = "suno-token-of-the-tests"
Run = tuple[ControlPlane, Worker]


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A worker that takes eight jobs at once, at the most talkative level of the SDK's log."""
    home = tmp_path_factory.mktemp("crowd")
    settings = {"CONCURRENCY": "8", "RUNPOD_LOG_LEVEL": "DEBUG", "SUNO_API_TOKEN": SECRET}
    with (
        control_plane.serving() as plane,
        running(FAKE_WORKER, [], home=home, env=plane.environment() | settings) as worker,
    ):
        yield plane, worker


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A worker as it is by default: one job at a time."""
    home = tmp_path_factory.mktemp("single")
    with control_plane.serving() as plane, running(FAKE_WORKER, [], home=home, env=plane.environment()) as worker:
        yield plane, worker


def test_a_result_is_posted_under_the_jobs_id(crowd: Run) -> None:
    plane, _ = crowd
    assert plane.result(plane.submit({"operation": "echo", "value": "ümläut"}))["output"]["echo"] == "ümläut"


def test_a_failure_is_posted_as_a_string_with_its_code_beside_it(crowd: Run) -> None:
    plane, _ = crowd
    assert plane.result(plane.submit({"operation": "refuse"})) == {
        "error": "'duration' must be at most 600.",
        "output": {"error_code": "invalid_request", "details": {"field": "duration"}},
    }


def test_a_fault_of_ours_is_posted_without_anything_of_the_inside(crowd: Run) -> None:
    plane, _ = crowd
    body = plane.result(plane.submit({"operation": "crash"}))
    assert body["output"]["error_code"] == "internal_error"
    assert not any(word in json.dumps(body) for word in ("secret-value", "/home", "Traceback", "KeyError", ".py"))


@pytest.mark.parametrize("value", ["nan", "bytes", "surrogate", "object", "set"])
def test_a_reply_that_json_cannot_carry_becomes_a_posted_error(crowd: Run, value: str) -> None:
    plane, _ = crowd
    body = plane.result(plane.submit({"operation": "odd", "value": value}))
    assert body["error"] and body["output"]["error_code"] == "internal_error"


def test_an_empty_reply_becomes_a_posted_error(crowd: Run) -> None:
    plane, _ = crowd
    assert plane.result(plane.submit({"operation": "empty"}))["output"]["error_code"] == "internal_error"


def test_a_reply_over_the_budget_becomes_a_posted_error_and_one_within_it_arrives(crowd: Run) -> None:
    plane, _ = crowd
    large, small = (plane.submit({"operation": "huge", "size": size}) for size in (9_600_000, 9_400_000))
    body = plane.result(large)
    assert body["output"]["error_code"] == "reply_too_large" and "9500000" in body["error"]
    assert len(plane.result(small)["output"]["output_audio"]) == 9_400_000
    assert not [event for event in plane.events if event.kind == "refused"]


def test_concurrency_runs_jobs_side_by_side(crowd: Run) -> None:
    plane, _ = crowd
    jobs = [plane.submit({"operation": "steps", "count": 75}) for _ in range(4)]
    done = [plane.wait(job, "done").at for job in jobs]
    assert max(plane.wait(job, "take").at for job in jobs) < min(done)


def test_progress_comes_in_order_and_about_one_a_second_and_never_after_the_result(crowd: Run) -> None:
    plane, _ = crowd
    job = plane.submit({"operation": "steps", "count": 130})
    plane.result(job)
    next_one = plane.submit({"operation": "steps", "count": 60})  # time for a straggler to show up
    plane.result(next_one)
    events = plane.of(job, "progress", "done")
    assert [event.kind for event in events] == ["progress"] * (len(events) - 1) + ["done"]
    updates = events[:-1]
    assert len(updates) >= 2
    percents = [update.body["output"]["percent"] for update in updates]
    assert percents == sorted(percents)
    assert all(later.at - earlier.at > 0.9 for earlier, later in itertools.pairwise(updates))


def test_progress_is_posted_just_as_the_result_is(crowd: Run) -> None:
    plane, _ = crowd
    job = plane.submit({"operation": "steps", "count": 3})
    plane.result(job)
    update, result = plane.of(job, "progress", "done")
    assert set(update.body) == {"status", "output"} and update.query == result.query
    for header in ("Authorization", "Content-Type", "X-Request-ID", "charset"):
        assert update.headers[header] == result.headers[header]


def test_logs_are_json_lines_with_the_jobs_id_and_hold_no_audio_and_no_secret(crowd: Run) -> None:
    plane, worker = crowd
    job = plane.submit({"operation": "sing"})
    audio = plane.result(job)["output"]["output_audio"]
    plane.result(plane.submit({"operation": "echo"}))
    lines = [json.loads(line) for line in worker.printed().splitlines() if line.startswith("{")]
    ours = [line for line in lines if line["requestId"] == job and line["message"].startswith("worker.fake")]
    assert [line["message"] for line in ours] == [
        "worker.fake: key ***",
        f"worker.fake: made <{len(audio)} characters>",
    ]
    assert {frozenset(line) for line in lines} == {frozenset({"requestId", "message", "level"})}
    for hidden in (SECRET, API_KEY, audio[:64], "Traceback"):
        assert hidden not in worker.printed()


def test_a_stopped_job_ends_and_posts_nothing_and_the_next_one_runs_clean(single: Run) -> None:
    plane, worker = single
    endless = plane.submit({"operation": "steps", "count": 100_000})
    plane.wait(endless, "progress")
    plane.stop(endless)
    after = plane.submit({"operation": "steps", "count": 20})
    assert plane.result(after)["output"]["steps"] == 20
    assert not plane.of(endless, "done")
    taken = plane.wait(after, "take").at
    assert all(event.at < taken for event in plane.of(endless, "progress"))
    printed = worker.printed()
    stopped = printed.index('"message": "worker.fake: stopped at step')
    assert stopped < printed.index(json.dumps({"requestId": after, "message": "Started."})[:-1])


def test_by_default_one_job_runs_at_a_time(single: Run) -> None:
    plane, _ = single
    first, second = (plane.submit({"operation": "steps", "count": 25}) for _ in range(2))
    plane.result(second)
    assert plane.wait(second, "take").at > plane.wait(first, "done").at


def test_heartbeats_name_the_worker_while_it_works(single: Run) -> None:
    plane, _ = single
    job = plane.submit({"operation": "steps", "count": 75})
    plane.result(job)
    assert any(job in event.query.get("job_id", [""])[0] for event in plane.events if event.kind == "ping")


def running_alone(home: Path, plane: ControlPlane, **settings: str) -> Any:
    return running(FAKE_WORKER, [], home=home, env=plane.environment() | settings)


def test_sigterm_finishes_the_job_in_hand_and_posts_it(tmp_path: Path) -> None:
    with control_plane.serving() as plane, running_alone(tmp_path, plane) as worker:
        job = plane.submit({"operation": "steps", "count": 75})
        plane.wait(job, "progress")
        worker.terminate()
        assert worker.exit_code() == 0
        assert plane.result(job, timeout=0.1)["output"]["steps"] == 75


def test_a_job_that_wants_a_fresh_worker_is_posted_and_ends_this_one(tmp_path: Path) -> None:
    with control_plane.serving() as plane, running_alone(tmp_path, plane) as worker:
        job = plane.submit({"operation": "exhaust"})
        body = plane.result(job)
        assert body["stopPod"] is True and body["output"]["error_code"] == "out_of_memory" and body["error"]
        assert worker.exit_code() == 0


def test_a_cancelled_job_that_does_not_stop_ends_the_process(tmp_path: Path) -> None:
    with control_plane.serving() as plane, running_alone(tmp_path, plane, CANCEL_GRACE_S="0.3") as worker:
        job = plane.submit({"operation": "deaf", "seconds": 60})
        plane.wait(job, "progress")
        plane.stop(job)
        assert worker.exit_code() == 1
        assert "did not stop in 0.3 s" in worker.printed() and not plane.of(job, "done")
        ended = time.monotonic()
        time.sleep(1.5)  # the heartbeat is a process of its own, once a second here
        assert all(event.at < ended + 0.3 for event in plane.events if event.kind == "ping")


def test_a_model_that_cannot_be_preloaded_stops_the_start_and_says_so(tmp_path: Path) -> None:
    with control_plane.serving() as plane, running_alone(tmp_path, plane, PRELOAD="bad") as worker:
        assert worker.exit_code() == 1
        line = json.loads(worker.printed())
        assert "PRELOAD" in line["message"] and "Unknown model family 'bad'" in line["message"]
        assert not plane.events


def test_preloaded_models_do_not_hinder_the_first_job(tmp_path: Path) -> None:
    with control_plane.serving() as plane, running_alone(tmp_path, plane, PRELOAD="good"):
        assert plane.result(plane.submit({"operation": "echo", "value": 1}))["output"]["echo"] == 1


def test_a_setting_that_cannot_be_read_stops_the_start_and_is_named(tmp_path: Path) -> None:
    with control_plane.serving() as plane, running_alone(tmp_path, plane, CONCURRENCY="none") as worker:
        assert worker.exit_code() == 1
        assert "CONCURRENCY" in worker.printed() and "Traceback" not in worker.printed()
