"""The rate limiter: never more calls than its limit in any window, as the server sees them."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from errors import CancelledError
from models.suno.engine import SlidingWindow
from models.suno.polling import Clock, Deadline
from testing.suno_worker import FakeClock


def count_most_in_any_window(arrivals: list[float], seconds: float) -> int:
    """The largest number of arrivals in any window of `seconds`."""
    return max(sum(start <= other <= start + seconds for other in arrivals) for start in arrivals)


def test_a_call_beyond_the_limit_waits_until_the_first_has_left_the_window() -> None:
    clock = FakeClock()
    deadline = Deadline(clock.clock(), ends_at=clock.now + 1000)
    window = SlidingWindow(2, 60.0)
    starts = []
    for _ in range(5):
        with window.acquire(deadline):
            starts.append(clock.now - 1000.0)
    assert starts[:2] == [0, 0]
    assert 60 < starts[2] < 61.1 and 60 < starts[3] < 61.1 and 120 < starts[4] < 122.2


def test_the_deadline_ends_the_wait_for_a_call() -> None:
    clock = FakeClock()
    window = SlidingWindow(1, 60.0)
    with window.acquire(Deadline(clock.clock(), clock.now + 5)):
        pass
    with pytest.raises(TimeoutError), window.acquire(Deadline(clock.clock(), clock.now + 5)):
        raise AssertionError("the call was admitted")
    assert clock.slept <= 6


def test_cancelling_ends_the_wait_and_does_not_count_as_a_call() -> None:
    clock = FakeClock()
    window = SlidingWindow(1, 60.0)
    with window.acquire(Deadline(clock.clock(), clock.now + 500)):
        pass

    def raise_cancelled() -> None:
        raise CancelledError("The job was cancelled.")

    with pytest.raises(CancelledError), window.acquire(Deadline(clock.clock(), clock.now + 500, raise_cancelled)):
        raise AssertionError("the call was admitted")
    with window.acquire(Deadline(clock.clock(), clock.now + 500)):
        assert clock.slept < 62


def test_a_call_that_fails_counts_as_a_call() -> None:
    clock = FakeClock()
    window = SlidingWindow(1, 60.0)
    with pytest.raises(ValueError, match="failed"), window.acquire(Deadline(clock.clock(), clock.now + 500)):
        raise ValueError("failed")
    with window.acquire(Deadline(clock.clock(), clock.now + 500)):
        assert clock.slept > 60


@settings(deadline=None)
@given(
    limit=st.integers(1, 5),
    calls=st.lists(st.tuples(st.floats(0, 30), st.floats(0, 20), st.floats(0, 1)), min_size=1, max_size=40),
)
def test_no_window_ever_contains_more_calls_than_the_limit(limit: int, calls: list[tuple[float, float, float]]) -> None:
    clock = FakeClock()
    deadline = Deadline(clock.clock(), ends_at=clock.now + 1e6)
    window = SlidingWindow(limit, 60.0)
    arrivals = []
    for pause, length, arrives_after in calls:
        clock.sleep(pause)
        with window.acquire(deadline):
            arrivals.append(clock.now + length * arrives_after)
            clock.sleep(length)
    assert count_most_in_any_window(arrivals, 60.0) <= limit


def test_threads_share_one_window() -> None:
    window = SlidingWindow(4, 0.2)
    deadline = Deadline(Clock(tick_s=0.01), time.monotonic() + 60)
    arrivals = []

    def call() -> None:
        with window.acquire(deadline):
            arrivals.append(time.monotonic())

    threads = [threading.Thread(target=call) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(arrivals) == 20
    assert count_most_in_any_window(arrivals, 0.2) <= 4
