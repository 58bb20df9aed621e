"""Jobs on an endpoint, and every fault of the platform."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import PATIENCE, open_async
from fake_platform import (
    KEY,
    Answer,
    Delay,
    Drop,
    FakePlatform,
    Fault,
    completed,
    failed,
    in_progress,
    in_queue,
    make_reply,
)

from music_worker import Client, JobState, MusicWorkerError, Patience, Progress, WorkerError, errors
from music_worker.exchange import Call, Pause, Response
from music_worker.jobs import wait_for_reply
from music_worker.transport import Endpoint


def test_a_job_is_submitted_waited_for_and_saved(platform: FakePlatform, client: Client, tmp_path: Path) -> None:
    result = client.run("generate_music", {"prompt": "calm piano", "duration": 2, "seed": None})
    assert result.operation == "generate_music" and result.job_id == "job-1"
    assert result.save(tmp_path / "song.wav") == tmp_path / "song.wav"
    assert result.array().shape == (1, 800) and result.sample_rate == 8000
    [request] = platform.list_requests("run")
    assert request.input == {"operation": "generate_music", "params": {"prompt": "calm piano", "duration": 2}}
    assert request.headers["authorization"] == f"Bearer {KEY}"


def test_progress_names_state_stage_percentage_and_the_time_that_is_left(
    platform: FakePlatform, client: Client
) -> None:
    platform.script(
        in_queue(),
        in_progress(),
        in_progress("load", 0.0),
        in_progress("generate", 40.0, download={"bytes": 1}),
        in_progress("generate", 80.0),
        completed(),
    )
    seen: list[Progress] = []
    client.run("generate_music", {}, on_progress=seen.append)
    states = [(progress.state, progress.stage, progress.percent) for progress in seen]
    assert states[-6:] == [
        (JobState.IN_QUEUE, "", None),
        (JobState.IN_PROGRESS, "", None),
        (JobState.IN_PROGRESS, "load", 0.0),
        (JobState.IN_PROGRESS, "generate", 40.0),
        (JobState.IN_PROGRESS, "generate", 80.0),
        (JobState.COMPLETED, "", None),
    ]
    assert seen[-3].details == {"download": {"bytes": 1}}
    assert seen[-4].remaining_s is None
    left_s, done_s = seen[-2].remaining_s, seen[-2].elapsed_s - seen[-4].elapsed_s
    assert left_s is not None and left_s == pytest.approx(done_s / 4, rel=1e-6)


def test_a_job_is_resumed_by_its_id(platform: FakePlatform, client: Client) -> None:
    platform.script(in_queue(), in_progress("generate", 10.0), completed())
    job_id = client.submit("generate_music", {"prompt": "x"}).id
    job = client.job(job_id)
    assert job.status().state is JobState.IN_QUEUE
    assert job.wait().outputs[0].filename == "music.wav"
    assert len(platform.list_requests("run")) == 1


def test_a_refusal_of_the_worker_is_an_error_with_its_code_and_details(platform: FakePlatform, client: Client) -> None:
    platform.script(failed("'duration' must be at most 600.", "invalid_request", field="duration"))
    with pytest.raises(WorkerError, match="at most 600") as caught:
        client.run("generate_music", {"duration": 601})
    assert (caught.value.code, caught.value.details) == ("invalid_request", {"field": "duration"})
    assert caught.value.job_id == "job-1"


def test_a_refusal_that_counts_as_completed_is_an_error_all_the_same(platform: FakePlatform, client: Client) -> None:
    platform.script(completed({"error": "No.", "error_code": "disk_full", "details": {}}))
    with pytest.raises(WorkerError, match="No."):
        client.run("separate", {})


ENDINGS: dict[str, tuple[dict[str, Any], type[MusicWorkerError], str]] = {
    "the worker dies": (failed("worker exited with exit code 137"), errors.JobFailedError, "exit code 137"),
    "the worker dies without a word": ({"status": "FAILED"}, errors.JobFailedError, "Send the request again"),
    "the SDK reports a crash": (
        failed(json.dumps({"error_type": "KeyError", "error_message": "'x'", "error_traceback": "secret line"})),
        errors.JobFailedError,
        "KeyError: 'x'$",
    ),
    "the execution timeout": ({"status": "TIMED_OUT"}, errors.JobTimedOutError, "execution timeout"),
    "cancelled by someone else": ({"status": "CANCELLED"}, errors.JobCancelledError, "was cancelled"),
    "the reply was dropped": ({"status": "COMPLETED"}, errors.ReplyMissingError, "too large"),
    "an empty reply": (completed({}), errors.ReplyMissingError, "too large"),
}


@pytest.mark.parametrize(("status", "kind", "sentence"), ENDINGS.values(), ids=ENDINGS)
def test_each_ending_of_a_job_has_an_exception(
    platform: FakePlatform, client: Client, status: dict[str, Any], kind: type[MusicWorkerError], sentence: str
) -> None:
    platform.script(in_progress("generate", 50.0), status)
    with pytest.raises(kind, match=sentence) as caught:
        client.run("generate_music", {})
    assert caught.value.job_id == "job-1" and KEY not in repr(caught.value)


def test_a_reply_that_has_expired_is_an_error_that_says_how_long_it_is_kept(
    platform: FakePlatform, client: Client
) -> None:
    with pytest.raises(errors.JobNotFoundError, match="30 minutes") as caught:
        client.job("job-old").wait()
    assert caught.value.job_id == "job-old"
    with pytest.raises(errors.JobNotFoundError):
        client.job("job-old").cancel()


@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_key_is_an_error_that_does_not_repeat_it(platform: FakePlatform, client: Client, status: int) -> None:
    platform.plan_faults("run", Answer(status, {"error": f"bad key {KEY}"}))
    with pytest.raises(errors.AuthenticationError, match="API key") as caught:
        client.run("health_check")
    assert KEY not in str(caught.value) and caught.value.details == {"status": status}
    assert len(platform.list_requests("run")) == 1


def test_an_endpoint_that_does_not_exist_is_an_error(platform: FakePlatform) -> None:
    with (
        Client(url=f"{platform.origin}/v2/nothing", api_key=KEY, patience=PATIENCE) as client,
        pytest.raises(errors.EndpointNotFoundError, match="Check the endpoint id"),
    ):
        client.run("health_check")


def test_a_full_queue_is_waited_for_and_then_an_error(platform: FakePlatform, client: Client) -> None:
    platform.plan_faults("run", Answer(429), Answer(429, headers={"Retry-After": "0"}))
    assert client.run("generate_music").outputs
    assert len(platform.list_requests("run")) == 3 and len(platform.jobs) == 1
    platform.plan_faults("run", *[Answer(429)] * 50)
    with pytest.raises(errors.QueueFullError, match="No job was started"):
        client.run("generate_music")
    assert len(platform.jobs) == 1


UNKNOWN: dict[str, Fault] = {
    "no answer": Drop(after_work=True),
    "status 502": Answer(502, b"<html>bad gateway</html>"),
    "status 500": Answer(500),
    "not JSON": Answer(200, b"<html></html>"),
    "no id": Answer(200, {"status": "IN_QUEUE"}),
    "too late": Delay(3.0),
}


@pytest.mark.parametrize("fault", UNKNOWN.values(), ids=UNKNOWN)
def test_a_submission_that_may_have_started_a_job_is_never_sent_again(
    platform: FakePlatform, client: Client, fault: Fault
) -> None:
    platform.plan_faults("run", fault)
    with pytest.raises(errors.SubmissionUnknownError, match="not sent again"):
        client.run("generate_music")
    assert len(platform.list_requests("run")) == 1


def test_a_rejected_request_repeats_what_the_platform_says(platform: FakePlatform, client: Client) -> None:
    platform.plan_faults("run", Answer(400, {"error": "input is missing"}))
    with pytest.raises(errors.RequestRejectedError, match="input is missing"):
        client.run("generate_music")


def test_a_connection_that_cannot_be_made_is_tried_again_and_nothing_was_sent(platform: FakePlatform) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (
        Client(url=f"http://127.0.0.1:{port}", patience=PATIENCE) as client,
        pytest.raises(errors.ConnectionFailedError, match="Nothing was sent"),
    ):
        client.run("generate_music")


def test_the_status_is_asked_for_again_after_faults(platform: FakePlatform, client: Client) -> None:
    platform.plan_faults("status", Drop(), Answer(500), Answer(429), Answer(503), Drop())
    assert client.run("generate_music").outputs
    assert len(platform.jobs) == 1


def test_an_endpoint_that_stays_broken_is_an_error_with_the_job_still_known(
    platform: FakePlatform, client: Client
) -> None:
    platform.plan_faults("status", *[Answer(500)] * 100)
    job = client.submit("generate_music")
    with pytest.raises(errors.EndpointError, match="HTTP status 500") as caught:
        job.wait()
    assert caught.value.job_id == job.id


def test_the_wait_ends_in_time_and_the_job_goes_on(platform: FakePlatform, client: Client) -> None:
    platform.script(in_progress("generate", 1.0))
    with pytest.raises(errors.WaitTimeoutError, match="job-1") as caught:
        client.run("generate_music", timeout_s=0.2)
    assert isinstance(caught.value, TimeoutError) and not platform.jobs["job-1"].is_cancelled


def test_the_wait_ends_in_time_although_the_endpoint_does_not_answer(platform: FakePlatform) -> None:
    platform.plan_faults("status", *[Delay(5.0)] * 4)
    with Client(url=platform.url, api_key=KEY, patience=Patience(first_poll_s=0.01)) as client:
        job, started = client.submit("generate_music"), time.monotonic()
        with pytest.raises(errors.WaitTimeoutError):
            job.wait(timeout_s=0.2)
        assert time.monotonic() - started < 4.0


def test_a_worker_without_the_route_of_get_status_is_asked_by_post(platform: FakePlatform, client: Client) -> None:
    platform.plan_faults("status", Answer(405))
    assert client.run("generate_music").outputs
    assert [request.method for request in platform.list_requests("status")] == ["GET", "POST"]


def test_health_has_the_counts_of_the_platform(platform: FakePlatform, client: Client) -> None:
    platform.plan_faults("health", Drop(), Answer(502))
    assert client.health().workers == {"idle": 1, "running": 1}
    platform.plan_faults("health", Answer(200, b"[]"))
    with pytest.raises(errors.EndpointError, match="not a JSON object"):
        client.health()


@pytest.fixture
def interrupted_after() -> Iterator[Callable[[float], None]]:
    timers = []

    def start(seconds: float) -> None:
        timers.append(threading.Timer(seconds, signal.raise_signal, (signal.SIGINT,)))
        timers[-1].start()

    yield start
    for timer in timers:
        timer.cancel()


def test_an_interrupt_cancels_the_job_on_the_platform(
    platform: FakePlatform, client: Client, interrupted_after: Callable[[float], None]
) -> None:
    platform.script(in_progress("generate", 1.0))
    platform.plan_faults("cancel", Answer(500))
    interrupted_after(0.3)
    with pytest.raises(KeyboardInterrupt):
        client.run("generate_music")
    assert platform.jobs["job-1"].is_cancelled


def test_an_interrupt_before_the_jobs_id_is_known_cancels_the_job_too(
    platform: FakePlatform, client: Client, interrupted_after: Callable[[float], None]
) -> None:
    platform.script(in_progress("generate", 1.0))
    for start in (client.run, client.submit):
        platform.plan_faults("run", Delay(0.6))
        interrupted_after(0.2)
        with pytest.raises(KeyboardInterrupt):
            start("generate_music")
    assert [job.is_cancelled for job in platform.jobs.values()] == [True, True]


def test_an_interrupted_submission_that_starts_no_job_has_nothing_to_cancel(
    platform: FakePlatform, client: Client, interrupted_after: Callable[[float], None]
) -> None:
    for fault in (Delay(0.4, Answer(500)), Delay(0.4, Drop())):
        platform.plan_faults("run", fault)
        interrupted_after(0.2)
        with pytest.raises(KeyboardInterrupt):
            client.submit("generate_music")
    assert not platform.list_requests("cancel")


def test_an_exception_of_the_callers_function_cancels_the_job_and_a_wait_alone_does_not(
    platform: FakePlatform, client: Client
) -> None:
    def fail(progress: Progress) -> None:
        raise ZeroDivisionError

    platform.script(in_progress("generate", 1.0))
    with pytest.raises(ZeroDivisionError):
        client.run("generate_music", on_progress=fail)
    assert platform.jobs["job-1"].is_cancelled
    with pytest.raises(ZeroDivisionError):
        client.submit("generate_music").wait(on_progress=fail)
    assert not platform.jobs["job-2"].is_cancelled


def test_an_interrupted_wait_leaves_the_job_alone(
    platform: FakePlatform, client: Client, interrupted_after: Callable[[float], None]
) -> None:
    platform.script(in_progress("generate", 1.0))
    job = client.submit("generate_music")
    interrupted_after(0.2)
    with pytest.raises(KeyboardInterrupt):
        job.wait()
    assert not platform.jobs[job.id].is_cancelled
    job.cancel()
    with pytest.raises(errors.JobCancelledError):
        job.wait()


def test_the_async_client_does_the_same(platform: FakePlatform, tmp_path: Path) -> None:
    platform.script(in_queue(), in_progress("generate", 50.0), completed())
    seen: list[str] = []

    async def note(progress: Progress) -> None:
        await asyncio.sleep(0)
        seen.append(progress.state)

    async def run() -> None:
        async with open_async(platform) as client:
            results = await asyncio.gather(
                client.run("generate_music", {"prompt": "a"}, on_progress=note), client.run("analyze", {})
            )
            assert await results[0].save_async(tmp_path / "a.wav") == tmp_path / "a.wav"
            assert (await client.health()).jobs["inProgress"] == 1
            platform.plan_faults("run", Drop(after_work=True))
            with pytest.raises(errors.SubmissionUnknownError):
                await client.run("generate_music")
            platform.plan_faults("status", Drop(), Answer(500))
            assert (await client.job("job-1").status()).state is JobState.COMPLETED

    asyncio.run(run())
    assert seen[-1] == JobState.COMPLETED and JobState.IN_PROGRESS in seen


def test_a_cancelled_task_cancels_the_job_on_the_platform(platform: FakePlatform) -> None:
    platform.script(in_progress("generate", 1.0))

    async def run() -> None:
        async with open_async(platform) as client:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.run("generate_music"), 0.3)
            platform.plan_faults("run", Delay(0.6))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.run("generate_music"), 0.2)  # its id is not known yet

    asyncio.run(run())
    assert [job.is_cancelled for job in platform.jobs.values()] == [True, True]


def test_a_client_is_used_from_several_threads(platform: FakePlatform, client: Client) -> None:
    ids: list[str] = []
    threads = [threading.Thread(target=lambda: ids.append(client.run("analyze").job_id)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids)) == 8


def test_the_key_is_in_no_repr(platform: FakePlatform, client: Client) -> None:
    job = client.submit("generate_music")
    for value in (client, job, client._endpoint, client._runner, job.wait()):
        assert KEY not in repr(value)


def test_fields_that_this_version_does_not_know_stay_in_the_reply(platform: FakePlatform, client: Client) -> None:
    platform.script(completed(make_reply("analyze", tempo={"bpm": 90}, new_field=[1])))
    result = client.run("analyze")
    assert result["tempo"] == {"bpm": 90} and result.get("new_field") == [1] and result.outputs == ()
    with pytest.raises(errors.OutputError, match="returned no audio"):
        result.save()


def test_intervals_between_two_requests_grow_and_start_again_with_a_new_stage() -> None:
    patience = Patience(first_poll_s=1.0, poll_growth=2.0, max_poll_s=5.0)
    flow = wait_for_reply(Endpoint("http://localhost", patience=patience), {"id": "a", **in_progress("load", 1.0)})
    pauses: list[float] = []
    stage = "load"
    step = next(flow)
    while len(pauses) < 7:
        if isinstance(step, Pause):
            pauses.append(step.seconds)
            stage = "generate" if len(pauses) > 3 else "load"
            step = next(flow)
        assert isinstance(step, Call)
        step = flow.send(Response(200, {}, json.dumps({"id": "a", **in_progress(stage, 1.0)}).encode()))
    assert pauses == [1.0, 2.0, 4.0, 5.0, 1.0, 2.0, 4.0]
