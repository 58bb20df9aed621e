"""Progress updates: in order, spaced, only the latest, and none after the end."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from testing.loopback import Request, Write, respond_with, serve
from worker.runpod.progress import ProgressReporter, report_progress
from worker.settings import Platform


class FakeNetwork:
    """Records what was sent and when. A slow one blocks until `released` is set."""

    def __init__(self, *, slow: bool = False) -> None:
        self.sent: list[tuple[float, Any]] = []
        self.started = threading.Event()
        self.released = threading.Event()
        if not slow:
            self.released.set()

    def __call__(self, update: Any) -> None:
        self.started.set()
        assert self.released.wait(10)
        self.sent.append((time.monotonic(), update["percent"]))

    def percents(self) -> list[int]:
        return [percent for _, percent in self.sent]


def test_the_first_update_is_sent_at_once_and_then_the_latest_of_the_others() -> None:
    network = FakeNetwork(slow=True)
    reporter = ProgressReporter(network, interval_s=0)
    reporter.report({"percent": 0})
    assert network.started.wait(10)
    for percent in (1, 2, 3):
        reporter.report({"percent": percent})
    network.released.set()
    while len(network.sent) < 2:
        time.sleep(0.001)
    reporter.close()
    assert network.percents() == [0, 3]


def test_updates_are_at_least_the_interval_apart() -> None:
    network = FakeNetwork()
    reporter = ProgressReporter(network, interval_s=0.05)
    until = time.monotonic() + 0.4
    number = 0
    while time.monotonic() < until:
        reporter.report({"percent": (number := number + 1)})
        time.sleep(0.001)
    reporter.close()
    times = [at for at, _ in network.sent]
    assert len(times) >= 2 and network.percents() == sorted(network.percents())
    assert all(later - earlier >= 0.05 for earlier, later in zip(times, times[1:], strict=False))


def test_closing_waits_for_the_update_being_sent_and_drops_the_one_after_it() -> None:
    network = FakeNetwork(slow=True)
    reporter = ProgressReporter(network, interval_s=0)
    reporter.report({"percent": 0})
    assert network.started.wait(10)
    reporter.report({"percent": 1})
    closing = threading.Thread(target=reporter.close)
    closing.start()
    closing.join(0.05)
    assert closing.is_alive()
    network.released.set()
    closing.join(10)
    assert not closing.is_alive() and network.percents() == [0]


def test_closing_does_not_wait_for_the_interval() -> None:
    reporter = ProgressReporter(FakeNetwork(), interval_s=3600)
    reporter.report({"percent": 0})
    reporter.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "progress"]


def test_nothing_is_sent_after_closing() -> None:
    network = FakeNetwork()
    reporter = ProgressReporter(network, interval_s=0)
    reporter.close()
    reporter.report({"percent": 1})
    assert not network.sent and not [thread for thread in threading.enumerate() if thread.name == "progress"]


def test_an_update_is_sent_as_it_was_when_reported() -> None:
    network = FakeNetwork(slow=True)
    reporter = ProgressReporter(network, interval_s=0)
    update = {"percent": 1}
    reporter.report(update)
    update["percent"] = 2
    network.released.set()
    while not network.sent:
        time.sleep(0.001)
    reporter.close()
    assert network.percents() == [1]


def test_outside_runpod_updates_are_log_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="worker.runpod.progress")
    with report_progress(Platform(), "j") as progress:
        progress.report({"stage": "generate", "percent": 12.5})
        while not caplog.messages:
            time.sleep(0.001)
    assert caplog.messages == ["generate 12.5 %"]


def test_a_control_plane_that_cannot_be_reached_is_logged_and_does_not_fail_the_job(
    caplog: pytest.LogCaptureFixture,
) -> None:
    platform = Platform(done_url="http://127.0.0.1:9/done/$RUNPOD_POD_ID/$ID?gpu=x", api_key="key-of-the-tests")
    with report_progress(platform, "j") as progress:
        progress.report({"stage": "generate", "percent": 1})
        while not caplog.messages:
            time.sleep(0.001)
    assert caplog.messages == ["A progress update was not accepted: ConnectError"]


def test_an_update_is_posted_with_the_headers_and_body_of_the_sdk() -> None:
    bodies: list[bytes] = []

    def respond(request: Request, write: Write) -> None:
        bodies.append(request.body(int(request.headers["content-length"])))
        respond_with(b"")(request, write)

    with serve(respond) as server:
        platform = Platform(done_url=server.url("/done/$RUNPOD_POD_ID/$ID?gpu=x"), api_key="key", pod_id="pod")
        with report_progress(platform, "j") as progress:
            progress.report({"stage": "generate", "percent": 1})
            while not bodies:
                time.sleep(0.001)
    request = server.requests[0]
    assert request.line == "POST /done/pod/j?gpu=x&isStream=false HTTP/1.1"
    assert request.headers["authorization"] == "key" and request.headers["x-request-id"] == "j"
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    assert bodies == [b'{"status": "IN_PROGRESS", "output": {"stage": "generate", "percent": 1}}']


def test_an_update_that_the_control_plane_rejects_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with serve(respond_with(b"", status="500 Oops")) as server:
        platform = Platform(done_url=server.url("/done/$ID?gpu=x"), api_key="key-of-the-tests")
        with report_progress(platform, "j") as progress:
            progress.report({"stage": "generate", "percent": 1})
            while not caplog.messages:
                time.sleep(0.001)
    assert caplog.messages == ["A progress update was not accepted: HTTP status 500"]
