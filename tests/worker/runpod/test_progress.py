"""Progress updates: in order, spaced, the latest wins, and silence after the end."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from worker.runpod.progress import Sender, reporting
from worker.settings import Platform


class Line:
    """Stands for the network: notes when what was sent, and can be slow."""

    def __init__(self, *, slow: bool = False) -> None:
        self.sent: list[tuple[float, Any]] = []
        self.first = threading.Event()
        self.free = threading.Event()
        if not slow:
            self.free.set()

    def __call__(self, update: Any) -> None:
        self.first.set()
        assert self.free.wait(10)
        self.sent.append((time.monotonic(), update["percent"]))

    def percents(self) -> list[int]:
        return [percent for _, percent in self.sent]


def test_the_first_update_goes_out_at_once_and_the_latest_of_the_next_ones_in_its_turn() -> None:
    line = Line(slow=True)
    sender = Sender(line, interval_s=0)
    sender.report({"percent": 0})
    assert line.first.wait(10)
    for percent in (1, 2, 3):
        sender.report({"percent": percent})
    line.free.set()
    while len(line.sent) < 2:
        time.sleep(0.001)
    sender.close()
    assert line.percents() == [0, 3]


def test_updates_are_at_least_the_interval_apart() -> None:
    line = Line()
    sender = Sender(line, interval_s=0.05)
    until = time.monotonic() + 0.4
    number = 0
    while time.monotonic() < until:
        sender.report({"percent": (number := number + 1)})
        time.sleep(0.001)
    sender.close()
    times = [at for at, _ in line.sent]
    assert len(times) >= 2 and line.percents() == sorted(line.percents())
    assert all(later - earlier >= 0.05 for earlier, later in zip(times, times[1:], strict=False))


def test_closing_waits_for_the_update_under_way_and_drops_the_one_behind_it() -> None:
    line = Line(slow=True)
    sender = Sender(line, interval_s=0)
    sender.report({"percent": 0})
    assert line.first.wait(10)
    sender.report({"percent": 1})
    closing = threading.Thread(target=sender.close)
    closing.start()
    closing.join(0.05)
    assert closing.is_alive()
    line.free.set()
    closing.join(10)
    assert not closing.is_alive() and line.percents() == [0]


def test_closing_does_not_wait_for_the_interval() -> None:
    sender = Sender(Line(), interval_s=3600)
    sender.report({"percent": 0})
    sender.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "progress"]


def test_nothing_is_sent_after_closing() -> None:
    line = Line()
    sender = Sender(line, interval_s=0)
    sender.close()
    sender.report({"percent": 1})
    assert not line.sent and not [thread for thread in threading.enumerate() if thread.name == "progress"]


def test_an_update_is_taken_as_it_was_when_reported() -> None:
    line = Line(slow=True)
    sender = Sender(line, interval_s=0)
    update = {"percent": 1}
    sender.report(update)
    update["percent"] = 2
    line.free.set()
    while not line.sent:
        time.sleep(0.001)
    sender.close()
    assert line.percents() == [1]


def test_off_the_platform_updates_are_log_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="worker.runpod.progress")
    with reporting(Platform(), "j") as report:
        report({"stage": "generate", "percent": 12.5})
        while not caplog.messages:
            time.sleep(0.001)
    assert caplog.messages == ["generate 12.5 %"]


def test_a_control_plane_that_cannot_be_reached_costs_a_log_line_and_not_the_job(
    caplog: pytest.LogCaptureFixture,
) -> None:
    platform = Platform(done_url="http://127.0.0.1:9/done/$RUNPOD_POD_ID/$ID?gpu=x", api_key="key-of-the-tests")
    with reporting(platform, "j") as report:
        report({"stage": "generate", "percent": 1})
        while not caplog.messages:
            time.sleep(0.001)
    assert caplog.messages == ["A progress update was not accepted: ConnectError"]
