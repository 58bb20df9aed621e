"""Waiting that can be ended: an injectable clock, and a deadline with the caller's check looked at all the while."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

Check = Callable[[], None]


@dataclass(frozen=True)
class Clock:
    """Time as this family sees it, in seconds; `tick_s` is the longest that a cancel may go unseen."""

    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    random: Callable[[], float] = random.random
    tick_s: float = 0.1

    def jittered(self, seconds: float) -> float:
        """`seconds` +-20 %, so that many waiting jobs do not ask in step."""
        return seconds * (0.8 + 0.4 * self.random())


@dataclass(frozen=True)
class Wait:
    """One job's patience.

    Args:
        clock: whose `monotonic()` the deadline is measured by.
        deadline: when waiting ends, on that clock.
        check: raises where the job is to end at once (cancelled, out of time).
    """

    clock: Clock
    deadline: float
    check: Check = field(default=lambda: None)

    @property
    def remaining(self) -> float:
        """Seconds to the deadline, never negative."""
        return max(0.0, self.deadline - self.clock.monotonic())

    @property
    def over(self) -> bool:
        """Whether the deadline has passed."""
        return self.clock.monotonic() >= self.deadline

    def until(self, seconds: float) -> Wait:
        """The same job's patience, with `seconds` from now."""
        return Wait(self.clock, self.clock.monotonic() + seconds, self.check)

    def sleep(self, seconds: float) -> None:
        """Sleeps `seconds`, at most to the deadline; whatever `check` raises ends it within a tick."""
        end = min(self.clock.monotonic() + seconds, self.deadline)
        self.check()
        while (left := end - self.clock.monotonic()) > 0:
            self.clock.sleep(min(left, self.clock.tick_s))
            self.check()
