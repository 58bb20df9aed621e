"""The adapter alone, step by step: what happens to a job's thread when the control plane stops the job."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from errors import CancelledError
from worker.runpod.adapter import Adapter, QuietReply
from worker.settings import Platform, Settings

JOB = {"id": "j", "input": {}}


class Generation:
    """A job in steps; each waits until the test lets it go, then looks whether it is to stop."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.go_on = threading.Semaphore(0)
        self.steps = 0
        self.running = False

    def __call__(self, job: object, *, cancel: threading.Event | None = None, **_: Any) -> dict[str, Any]:
        assert cancel is not None and not self.running
        self.running = True
        try:
            while True:
                self.started.set()
                self.go_on.acquire()
                if cancel.is_set():
                    return CancelledError("The job was cancelled.").reply()
                self.steps += 1
        finally:
            self.running = False


def adapter(serve: Any, *, abandon: Callable[[], None] | None = None, **settings: Any) -> Adapter:
    return Adapter(serve, settings=Settings(**settings), platform=Platform(), abandon=abandon)


async def started(generation: Generation) -> None:
    assert await asyncio.to_thread(generation.started.wait, 10)


def test_a_stopped_job_does_not_do_one_step_more_and_is_awaited() -> None:
    generation = Generation()

    async def scenario() -> None:
        task = asyncio.create_task(adapter(generation).run(JOB))
        await started(generation)
        task.cancel()
        await asyncio.sleep(0.05)
        assert generation.running and not task.done()  # still in its step: the next job must wait
        generation.go_on.release()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not generation.running and generation.steps == 0

    asyncio.run(scenario())


def test_a_job_stopped_twice_is_still_awaited() -> None:
    generation = Generation()

    async def scenario() -> None:
        task = asyncio.create_task(adapter(generation).run(JOB))
        await started(generation)
        for _ in range(2):
            task.cancel()
            await asyncio.sleep(0.02)
        assert not task.done()
        generation.go_on.release()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())


def test_a_job_that_does_not_stop_in_time_makes_the_process_give_up() -> None:
    generation = Generation()
    given_up = threading.Event()

    def abandon() -> None:
        given_up.set()
        generation.go_on.release()

    async def scenario() -> None:
        task = asyncio.create_task(adapter(generation, abandon=abandon, cancel_grace_s=0.05).run(JOB))
        await started(generation)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    assert given_up.is_set()


def test_a_finished_job_is_never_given_up() -> None:
    given_up = threading.Event()
    reply = asyncio.run(adapter(lambda job, **_: {"success": True}, abandon=given_up.set).run(JOB))
    assert reply == {"success": True} and not given_up.is_set()


@pytest.mark.parametrize("reply", [None, [], "text", {}, {"error": ""} | {"error": None}, {"error": {"a": 1}}])
def test_what_is_no_reply_becomes_an_error_with_a_sentence(reply: Any) -> None:
    sent = asyncio.run(adapter(lambda job, **_: reply).run(JOB))
    assert isinstance(sent["error"], str) and sent["error"] and sent["error_code"] == "internal_error"


def test_a_worn_out_worker_is_told_to_the_sdk_for_this_and_all_later_jobs() -> None:
    worn = adapter(lambda job, **_: {"error": "Out of memory.", "refresh_worker": True})
    assert "refresh_worker" not in worn.config
    assert asyncio.run(worn.run(JOB))["refresh_worker"] is True
    assert worn.config["refresh_worker"] is True


def test_the_handlers_own_reply_is_not_changed_by_the_sdk() -> None:
    kept = {"error": "No.", "error_code": "x", "details": {}}
    sent = asyncio.run(adapter(lambda job, **_: kept).run(JOB))
    sent.pop("error")
    assert "error" in kept


def test_a_reply_written_to_a_log_tells_its_keys_only() -> None:
    reply = QuietReply({"output_audio": "UklGR", "success": True})
    assert f"{reply}" == repr(reply) == repr({"output": reply})[11:-1] == "<reply with output_audio, success>"


def test_the_sdk_is_told_how_many_jobs_to_take() -> None:
    assert adapter(lambda job, **_: {}, concurrency=3).config["concurrency_modifier"](1) == 3
