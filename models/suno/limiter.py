"""A sliding window over calls, shared by all threads of the process. Knows nothing of what the calls do."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from models.suno.deadline import Wait


class SlidingWindow:
    """At most `limit` calls in any span of `seconds`, as the called side sees it.

    The called side sees a call some time between its start and its end, so a place in the window is taken from the
    call's start until `seconds` after its end. The lock is held for bookkeeping only, never while waiting.
    """

    def __init__(self, limit: int, seconds: float) -> None:
        assert limit > 0 and seconds > 0
        self.limit = limit
        self.seconds = seconds
        self._lock = threading.Lock()
        self._running = 0
        self._ended: deque[float] = deque()

    @contextmanager
    def place(self, wait: Wait) -> Iterator[None]:
        """Waits for a place and holds it. Raises `TimeoutError` at the deadline, and whatever the wait's check does."""
        while (delay := self._take(wait.clock.monotonic())) > 0:
            if wait.over:
                raise TimeoutError
            wait.sleep(delay)
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1
                self._ended.append(wait.clock.monotonic())

    def _take(self, now: float) -> float:
        """0.0 with a place taken, else the seconds after which asking again may help."""
        with self._lock:
            while self._ended and now - self._ended[0] > self.seconds:
                self._ended.popleft()
            if self._running + len(self._ended) < self.limit:
                self._running += 1
                return 0.0
            # Where all places are held by running calls, nobody knows when the first of them ends.
            oldest = self._ended[0] if self._ended else now - self.seconds
            return max(self.seconds - (now - oldest), 0.0) + 0.05
