"""The adapter alone: what happens to a job's thread when the platform cancels the job, and which replies leave."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from errors import CancelledError
from handler import catch_errors
from worker.job import Job
from worker.runpod.adapter import Adapter, QuietReply
from worker.settings import Platform, Settings

JOB = {"id": "j", "input": {}}


class Generation:
    """A job in steps; each step waits until the test releases it, then checks whether the job is cancelled."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.next_step = threading.Semaphore(0)
        self.steps = 0
        self.running = False

    def __call__(self, job: Job, settings: Settings) -> dict[str, Any]:
        assert not self.running
        self.running = True
        try:
            while True:
                self.started.set()
                self.next_step.acquire()
                if job.cancel.is_set():
                    return CancelledError("The job was cancelled.").to_reply()
                self.steps += 1
        finally:
            self.running = False


def build_adapter(run_job: Any, *, terminate: Callable[[], None] | None = None, **settings: Any) -> Adapter:
    return Adapter(run_job, catch_errors, settings=Settings(**settings), platform=Platform(), terminate=terminate)


async def wait_for_start(generation: Generation) -> None:
    assert await asyncio.to_thread(generation.started.wait, 10)


def test_a_cancelled_job_does_no_further_step_and_is_awaited() -> None:
    generation = Generation()

    async def scenario() -> None:
        task = asyncio.create_task(build_adapter(generation).run(JOB))
        await wait_for_start(generation)
        task.cancel()
        await asyncio.sleep(0.05)
        assert generation.running and not task.done()  # still in its step, so the next job must wait
        generation.next_step.release()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not generation.running and generation.steps == 0

    asyncio.run(scenario())


def test_a_job_cancelled_twice_is_still_awaited() -> None:
    generation = Generation()

    async def scenario() -> None:
        task = asyncio.create_task(build_adapter(generation).run(JOB))
        await wait_for_start(generation)
        for _ in range(2):
            task.cancel()
            await asyncio.sleep(0.02)
        assert not task.done()
        generation.next_step.release()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())


def test_a_cancelled_job_that_does_not_stop_in_time_terminates_the_process() -> None:
    generation = Generation()
    terminated = threading.Event()

    def terminate() -> None:
        terminated.set()
        generation.next_step.release()

    async def scenario() -> None:
        task = asyncio.create_task(build_adapter(generation, terminate=terminate, cancel_grace_s=0.05).run(JOB))
        await wait_for_start(generation)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    assert terminated.is_set()


def test_ending_the_jobs_replaces_their_replies_and_lets_no_other_begin() -> None:
    generation = Generation()
    adapter = build_adapter(generation, terminate=lambda: None, concurrency=2)

    async def scenario() -> list[dict[str, Any]]:
        task = asyncio.create_task(adapter.run(JOB))
        await wait_for_start(generation)
        adapter.end_jobs("This worker is being stopped.")
        replies = [await task, await adapter.run(JOB)]
        generation.next_step.release()
        return replies

    for reply in asyncio.run(scenario()):
        assert (reply["error_code"], reply["refresh_worker"]) == ("worker_restart", True)
        assert reply["error"].startswith("This worker is being stopped.")
    assert adapter.config["refresh_worker"] is True and generation.steps == 0


def test_a_job_for_which_there_is_no_thread_gets_an_error_without_internals() -> None:
    adapter = build_adapter(lambda job, settings: {"success": True})
    adapter._threads.shutdown()
    assert asyncio.run(adapter.run(JOB))["error_code"] == "internal_error"


def test_a_finished_job_never_terminates_the_process() -> None:
    terminated = threading.Event()
    reply = asyncio.run(build_adapter(lambda job, settings: {"success": True}, terminate=terminated.set).run(JOB))
    assert reply == {"success": True} and not terminated.is_set()


@pytest.mark.parametrize("reply", [None, [], "text", {}, {"error": ""} | {"error": None}, {"error": {"a": 1}}])
def test_an_invalid_reply_becomes_an_error_with_a_sentence(reply: Any) -> None:
    sent = asyncio.run(build_adapter(lambda job, settings: reply).run(JOB))
    assert isinstance(sent["error"], str) and sent["error"] and sent["error_code"] == "internal_error"


def test_a_reply_that_asks_for_a_fresh_worker_sets_the_sdks_refresh_flag() -> None:
    adapter = build_adapter(lambda job, settings: {"error": "Out of memory.", "refresh_worker": True})
    assert "refresh_worker" not in adapter.config
    assert asyncio.run(adapter.run(JOB))["refresh_worker"] is True
    assert adapter.config["refresh_worker"] is True


def test_the_sdk_gets_a_copy_of_the_reply() -> None:
    reply = {"error": "No.", "error_code": "x", "details": {}}
    sent = asyncio.run(build_adapter(lambda job, settings: reply).run(JOB))
    sent.pop("error")
    assert "error" in reply


def test_a_reply_written_to_a_log_shows_its_keys_only() -> None:
    reply = QuietReply({"output_audio": "UklGR", "success": True})
    assert f"{reply}" == repr(reply) == repr({"output": reply})[11:-1] == "<reply with output_audio, success>"


def test_the_concurrency_setting_is_passed_to_the_sdk() -> None:
    assert build_adapter(lambda job, settings: {}, concurrency=3).config["concurrency_modifier"](1) == 3
