"""A rate limiter that all threads of the process share."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from models.suno.polling import Deadline


class SlidingWindow:
    """At most `limit` calls in any window of `seconds`, as the server sees them.

    The server sees a call some time between its start and its end, so a call counts from its start until `seconds`
    after its end. The lock is never held while waiting.
    """

    def __init__(self, limit: int, seconds: float) -> None:
        assert limit > 0 and seconds > 0, "a window needs a positive limit and length"
        self.limit = limit
        self.seconds = seconds
        self._lock = threading.Lock()
        self._running = 0
        self._ended: deque[float] = deque()

    @contextmanager
    def acquire(self, deadline: Deadline) -> Iterator[None]:
        """Waits until a call is allowed, and counts the body as that call.

        Raises `TimeoutError` at the deadline, and whatever the deadline's check raises.
        """
        while (delay := self._try_acquire(deadline.clock.monotonic())) > 0:
            if deadline.has_passed:
                raise TimeoutError
            deadline.sleep(delay)
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1
                self._ended.append(deadline.clock.monotonic())

    def _try_acquire(self, now: float) -> float:
        """0.0 if the call was admitted, else the seconds after which to try again."""
        with self._lock:
            while self._ended and now - self._ended[0] > self.seconds:
                self._ended.popleft()
            if self._running + len(self._ended) < self.limit:
                self._running += 1
                return 0.0
            # If every admitted call is still running, it is unknown when the first of them ends.
            oldest = self._ended[0] if self._ended else now - self.seconds
            return max(self.seconds - (now - oldest), 0.0) + 0.05
