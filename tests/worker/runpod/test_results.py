"""Sending results: what is sent again, what is replaced by an error, and what is given up, over real HTTP."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import aiohttp
import pytest

from testing.control_plane import ControlPlane, Event, Fault, start_control_plane
from worker.runpod.results import MAX_REFUSALS, ResultSender, RetryPolicy
from worker.settings import Platform

RESULT = {"output": {"success": True, "text": "ümläut"}}
FAST = RetryPolicy(total_s=2.0, attempt_s=0.3, first_delay_s=0.01)


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    with start_control_plane() as plane:
        yield plane


def send(
    plane: ControlPlane, result: Any = RESULT, *, policy: RetryPolicy = FAST, job_id: str = "job-1"
) -> list[Event]:
    """Sends `result` and returns every post that the platform received."""
    sender = ResultSender(Platform.from_env(plane.environment()), policy=policy)

    async def run() -> None:
        async with aiohttp.ClientSession() as session:
            await sender.send(session, result, {"id": job_id, "input": {}})

    asyncio.run(run())
    return plane.find_events(job_id, "done", "lost done", "refused")


def play(faults: Sequence[Fault]) -> Any:
    """A `find_fault` that plays `faults` in order, and none after them."""
    remaining = iter(faults)
    return lambda kind, job_id, body: next(remaining, None)


FAULTS = {
    "status 400": Fault(status=400),
    "status 408": Fault(status=408),
    "status 429": Fault(status=429),
    "status 500": Fault(status=500),
    "status 503": Fault(status=503),
    "a connection that is cut before the result is read": Fault(cut=True),
    "a connection that is cut after the result is read": Fault(cut=True, handled=True),
    "no response in time": Fault(delay_s=0.5, handled=True),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_result_that_was_not_confirmed_is_sent_again_with_the_same_bytes(plane: ControlPlane, fault: Fault) -> None:
    plane.find_fault = play([fault])
    first, second = send(plane)
    assert first.body == second.body == RESULT and second.kind == "done"
    assert first.headers["X-Request-ID"] == second.headers["X-Request-ID"] == "job-1"


def test_a_confirmed_result_is_sent_once_whatever_the_response_contains(plane: ControlPlane) -> None:
    plane.find_fault = play([Fault(status=200, body=b"<html>", content_type="text/html", handled=True)])
    assert len(send(plane)) == 1


def test_many_failures_in_a_row_do_not_lose_the_result(plane: ControlPlane) -> None:
    plane.find_fault = play([Fault(status=429), Fault(cut=True), Fault(status=500), Fault(status=429)] * 2)
    *lost, done = send(plane, policy=RetryPolicy(first_delay_s=0.001))
    assert len(lost) == 8 and done.kind == "done" and done.body == RESULT


@pytest.mark.parametrize("status", [400, 413])
def test_a_result_that_is_refused_again_and_again_is_replaced_by_an_error(plane: ControlPlane, status: int) -> None:
    plane.find_fault = lambda kind, job_id, body: Fault(status=status) if "text" in body["output"] else None
    *refused, done = send(plane, RESULT | {"stopPod": True})
    assert len(refused) == MAX_REFUSALS
    assert done.body["output"]["error_code"] == "delivery_failed" and done.body["stopPod"] is True
    assert str(status) in done.body["error"] and done.body["output"]["details"]["http_status"] == status


def test_a_result_that_cannot_be_delivered_is_logged_with_its_job(
    plane: ControlPlane, caplog: pytest.LogCaptureFixture
) -> None:
    plane.find_fault = lambda kind, job_id, body: Fault(status=503)
    with caplog.at_level(logging.ERROR, "worker"):
        attempts = send(plane, policy=RetryPolicy(total_s=0.1, attempt_s=0.1, first_delay_s=0.01))
    assert len(attempts) >= 2
    assert [record.getMessage() for record in caplog.records] == [
        "The result of job job-1 could not be delivered: HTTP status 503"
    ]


def test_a_key_that_is_refused_ends_the_attempts_early(plane: ControlPlane) -> None:
    plane.find_fault = lambda kind, job_id, body: Fault(status=401)
    assert len(send(plane)) == MAX_REFUSALS


@pytest.mark.parametrize("job_id", ["jöb-☃", "a b/c?d", "line\nbreak", "\ud800"])
def test_an_id_that_no_header_can_carry_is_percent_encoded(plane: ControlPlane, job_id: str) -> None:
    received = job_id.encode(errors="replace").decode()
    send(plane, job_id=job_id)
    assert plane.find_events(received, "done")


def test_delays_grow_up_to_a_limit_and_follow_the_platforms_request() -> None:
    policy = RetryPolicy()
    assert 0.25 <= policy.delay_s(1, None) <= 0.75
    assert 2.0 <= policy.delay_s(4, None) <= 6.0
    assert policy.delay_s(40, None) == policy.max_delay_s
    assert policy.delay_s(1, "7") == 7.0
    assert policy.delay_s(1, "3600") == policy.max_delay_s
    assert policy.delay_s(1, "Wed, 21 Oct") <= 0.75
