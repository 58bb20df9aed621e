"""The sliding window: never more than its limit in any span of time, as the called side sees it."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from errors import CancelledError
from models.suno.deadline import Clock, Wait
from models.suno.limiter import SlidingWindow
from testing.suno_worker import FakeTime


def most_in_any_window(arrivals: list[float], seconds: float) -> int:
    """The largest number of arrivals within any span of `seconds`."""
    return max(sum(start <= other <= start + seconds for other in arrivals) for start in arrivals)


def test_a_call_beyond_the_limit_waits_until_the_first_is_out_of_the_window() -> None:
    fake = FakeTime()
    wait = Wait(fake.clock(), deadline=fake.now + 1000)
    window = SlidingWindow(2, 60.0)
    starts = []
    for _ in range(5):
        with window.place(wait):
            starts.append(fake.now - 1000.0)
    assert starts[:2] == [0, 0]
    assert 60 < starts[2] < 61.1 and 60 < starts[3] < 61.1 and 120 < starts[4] < 122.2


def test_the_deadline_ends_the_wait_for_a_place() -> None:
    fake = FakeTime()
    window = SlidingWindow(1, 60.0)
    with window.place(Wait(fake.clock(), fake.now + 5)):
        pass
    with pytest.raises(TimeoutError), window.place(Wait(fake.clock(), fake.now + 5)):
        raise AssertionError("a place was given")
    assert fake.slept <= 6


def test_a_cancel_ends_the_wait_and_takes_no_place() -> None:
    fake = FakeTime()
    window = SlidingWindow(1, 60.0)
    with window.place(Wait(fake.clock(), fake.now + 500)):
        pass

    def cancelled() -> None:
        raise CancelledError("The job was cancelled.")

    with pytest.raises(CancelledError), window.place(Wait(fake.clock(), fake.now + 500, cancelled)):
        raise AssertionError("a place was given")
    with window.place(Wait(fake.clock(), fake.now + 500)):
        assert fake.slept < 62


def test_a_call_that_fails_takes_a_place_all_the_same() -> None:
    fake = FakeTime()
    window = SlidingWindow(1, 60.0)
    with pytest.raises(ValueError, match="failed"), window.place(Wait(fake.clock(), fake.now + 500)):
        raise ValueError("failed")
    with window.place(Wait(fake.clock(), fake.now + 500)):
        assert fake.slept > 60


@settings(deadline=None)
@given(
    limit=st.integers(1, 5),
    calls=st.lists(st.tuples(st.floats(0, 30), st.floats(0, 20), st.floats(0, 1)), min_size=1, max_size=40),
)
def test_no_window_ever_holds_more_than_the_limit(limit: int, calls: list[tuple[float, float, float]]) -> None:
    fake = FakeTime()
    wait = Wait(fake.clock(), deadline=fake.now + 1e6)
    window = SlidingWindow(limit, 60.0)
    arrivals = []
    for pause, length, arrives_after in calls:
        fake.sleep(pause)
        with window.place(wait):
            arrivals.append(fake.now + length * arrives_after)
            fake.sleep(length)
    assert most_in_any_window(arrivals, 60.0) <= limit


def test_threads_share_one_window() -> None:
    window = SlidingWindow(4, 0.2)
    wait = Wait(Clock(tick_s=0.01), time.monotonic() + 60)
    arrivals = []

    def call() -> None:
        with window.place(wait):
            arrivals.append(time.monotonic())

    threads = [threading.Thread(target=call) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(arrivals) == 20
    assert most_in_any_window(arrivals, 0.2) <= 4
