"""Waiting for a task: a clock that tests replace, a deadline that can be cancelled, and the polling loop."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from errors import ErrorCode, UpstreamError
from models.runtime.progress import Check, Progress, skip_check
from models.suno.responses import TaskRecord
from models.suno.status import START_FRACTION, StatusTracker, TaskStatus

logger = logging.getLogger(__name__)

# No task is done sooner than this after its submission.
FIRST_POLL_S = 12.0
POLL_INTERVAL_S, MAX_POLL_INTERVAL_S, POLL_INTERVAL_GROWTH = 5.0, 15.0, 1.25
MAX_RETRY_DELAY_S = 30.0


@dataclass(frozen=True, slots=True)
class Clock:
    """The time, in seconds. `tick_s` is the longest sleep between two checks for cancellation."""

    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    random: Callable[[], float] = random.random
    tick_s: float = 0.1

    def jitter(self, seconds: float) -> float:
        """`seconds` +-20 %, so that jobs that wait at the same time do not send their requests in step."""
        return seconds * (0.8 + 0.4 * self.random())


@dataclass(frozen=True, slots=True)
class Deadline:
    """When one job stops waiting.

    Args:
        clock: the clock that `ends_at` refers to.
        ends_at: when waiting ends, as a value of `clock.monotonic()`.
        check: raises if the job must end at once (cancelled, or out of time).
    """

    clock: Clock
    ends_at: float
    check: Check = skip_check

    @property
    def remaining(self) -> float:
        """Seconds until the deadline, never negative."""
        return max(0.0, self.ends_at - self.clock.monotonic())

    @property
    def has_passed(self) -> bool:
        """Whether the deadline has passed."""
        return self.clock.monotonic() >= self.ends_at

    def restart(self, seconds: float) -> Deadline:
        """A deadline of the same job that ends `seconds` from now."""
        return Deadline(self.clock, self.clock.monotonic() + seconds, self.check)

    def sleep(self, seconds: float) -> None:
        """Sleeps for `seconds`, at most until the deadline. Raises what `check` raises, within one tick."""
        end = min(self.clock.monotonic() + seconds, self.ends_at)
        self.check()
        while (remaining := end - self.clock.monotonic()) > 0:
            self.clock.sleep(min(remaining, self.clock.tick_s))
            self.check()


def poll_task(
    task_id: str,
    get_record: Callable[[], TaskRecord | None],
    *,
    deadline: Deadline,
    is_new: bool,
    progress: Progress,
) -> TaskStatus:
    """Polls a task until it is done. At the deadline, returns its status with `done` False.

    A poll that fails does not end the job, because the task is paid: it is repeated with growing delays.

    Args:
        get_record: fetches the task's record; None if the provider does not know the task.
        is_new: the task was submitted just now, so it cannot be done yet and may be unknown for a while.
        progress: receives the completed fraction, 0..0.9; it never decreases.

    Raises:
        UpstreamError: the task failed, the key was rejected, or the task does not exist.
    """
    clock = deadline.clock
    tracker = StatusTracker(task_id, is_new=is_new, now=clock.monotonic())
    if is_new:
        progress(START_FRACTION)
        deadline.sleep(clock.jitter(FIRST_POLL_S))
    interval = POLL_INTERVAL_S
    errors = 0
    while True:
        delay = clock.jitter(interval)
        last_error = ""
        try:
            status = tracker.update(get_record(), now=clock.monotonic())
            progress(tracker.fraction)
        except UpstreamError as error:
            if _is_final(error):
                raise
            logger.info("Suno task %s: a status request failed (%s)", task_id, error.error_code)
            errors += 1
            last_error = error.message
            delay = clock.jitter(min(POLL_INTERVAL_S * 2.0 ** (errors - 1), MAX_RETRY_DELAY_S))
            delay = max(delay, float(error.details.get("retry_after_s", 0.0)))
        else:
            errors = 0
            interval = min(interval * POLL_INTERVAL_GROWTH, MAX_POLL_INTERVAL_S)
            if status.done:
                return status
        if deadline.has_passed:
            return TaskStatus(tracker.record, done=False, last_error=last_error)
        deadline.sleep(delay)


def _is_final(error: UpstreamError) -> bool:
    """Whether polling ends with `error`: the task failed or does not exist, or the key was rejected."""
    failed = "status" in error.details  # only a task's own failure carries its state
    return failed or error.error_code in (ErrorCode.RESULT_UNUSABLE, ErrorCode.UNKNOWN_TASK, ErrorCode.BAD_KEY)
