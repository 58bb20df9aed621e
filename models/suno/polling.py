"""Waits for a task: a clock that tests replace, a deadline that can be cancelled, the task's status, the loop."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from errors import ErrorCode, UpstreamError
from models.runtime.progress import Check, Progress, skip_check
from models.suno.catalog import CLIPS_PER_REQUEST
from models.suno.responses import Clip, TaskRecord, to_task_error

logger = logging.getLogger(__name__)

# No task is done sooner than this after its submission.
FIRST_POLL_S = 12.0
POLL_INTERVAL_S, MAX_POLL_INTERVAL_S, POLL_INTERVAL_GROWTH = 5.0, 15.0, 1.25
MAX_RETRY_DELAY_S = 30.0
# A task that was submitted by an earlier job is given up for now if the provider does not answer for this long.
MAX_SILENCE_S = 60.0
# The completed fraction in each of the provider's states. "GENERATING" occurs in quick-start samples only.
PROGRESS: Mapping[str, float] = MappingProxyType(
    {"PENDING": 0.10, "GENERATING": 0.20, "TEXT_SUCCESS": 0.30, "FIRST_SUCCESS": 0.70, "SUCCESS": 0.90}
)
START_FRACTION = 0.05
CALLBACK_FAILED = "CALLBACK_EXCEPTION"
KNOWN_STATES = frozenset({*PROGRESS, CALLBACK_FAILED})
# After SUCCESS the URLs may follow a moment later. A failed callback says nothing about the song, which may still be
# in progress for minutes: nothing has to listen at the callback URL.
SUCCESS_GRACE_S = 60.0
CALLBACK_GRACE_S = 240.0
SILENCE = frozenset({ErrorCode.PROVIDER_UNREACHABLE, ErrorCode.PROVIDER_FAILED})
# A task that is not new is unknown to the provider after this many records in a row without it.
POLLS_UNTIL_UNKNOWN = 3


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


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """The status of a task that has not failed.

    `clips` are those to download once it is `done`; `warning` says if they are fewer than requested. `last_error` is
    the message of the last request for its status, if that failed.
    """

    record: TaskRecord
    done: bool
    clips: tuple[Clip, ...] = ()
    warning: str = ""
    last_error: str = ""


def has_failed(record: TaskRecord) -> bool:
    """Whether the provider has given up the task. An error code counts in every state (413 occurs with PENDING)."""
    if record.state == CALLBACK_FAILED:
        return False
    return record.error_code is not None or record.state.endswith(("FAILED", "_ERROR"))


def evaluate(record: TaskRecord, unchanged_s: float) -> TaskStatus:
    """The status that `record` means, `unchanged_s` seconds after the task last changed.

    Raises `UpstreamError` for a task that failed, or that ended without a URL to download.
    """
    clips = record.downloadable
    if has_failed(record):
        if not clips:
            raise to_task_error(record.state, record.error_code, record.error_message)
        return _finish(record, f"Suno ended the task with {record.state or 'an error'}")
    if record.state == "SUCCESS":
        return _await_urls(record, len(clips) == len(record.clips), unchanged_s, SUCCESS_GRACE_S)
    if record.state == CALLBACK_FAILED:
        grace_s = SUCCESS_GRACE_S if clips else CALLBACK_GRACE_S
        return _await_urls(record, len(clips) >= CLIPS_PER_REQUEST, unchanged_s, grace_s)
    return TaskStatus(record, done=False)


def _await_urls(record: TaskRecord, complete: bool, unchanged_s: float, grace_s: float) -> TaskStatus:
    if record.downloadable and (complete or unchanged_s >= grace_s):
        return _finish(record, "Suno finished the task")
    if unchanged_s < grace_s:
        return TaskStatus(record, done=False)
    raise UpstreamError(
        "Suno finished the task, but the provider gives no URL for its audio. Send 'task_id' again later; this costs "
        "nothing.",
        code=ErrorCode.RESULT_UNUSABLE,
    )


def _finish(record: TaskRecord, outcome: str) -> TaskStatus:
    clips = record.downloadable
    missing = len(clips) < CLIPS_PER_REQUEST
    warning = f"{outcome} with {len(clips)} of {CLIPS_PER_REQUEST} clips." if missing else ""
    return TaskStatus(record, done=True, clips=clips, warning=warning)


class StatusTracker:
    """What is known of one task over several records.

    Args:
        is_new: the task was submitted just now, so the provider may not list it yet.
        now: the current time in seconds, on the clock of every later `now`.
    """

    def __init__(self, task_id: str, *, is_new: bool, now: float) -> None:
        self.record = TaskRecord("PENDING")
        self.fraction = START_FRACTION
        self._task_id = task_id
        self._may_be_unlisted = is_new
        self._unlisted = 0
        self._changed_at = now
        self._logged_states: set[str] = set()

    def update(self, record: TaskRecord | None, *, now: float) -> TaskStatus:
        """The status after one more record (None: the provider does not know the task).

        Raises `UpstreamError` if the task failed or does not exist.
        """
        if record is None:
            self._unlisted += 1
            if self._unlisted >= POLLS_UNTIL_UNKNOWN and not self._may_be_unlisted:
                raise unknown_task_error(self._task_id)
            return TaskStatus(self.record, done=False)
        self._unlisted, self._may_be_unlisted = 0, True
        if (record.state, len(record.downloadable)) != (self.record.state, len(self.record.downloadable)):
            self._changed_at = now
        self.record = record
        if record.state not in KNOWN_STATES | self._logged_states and not has_failed(record):
            self._logged_states.add(record.state)
            logger.warning("Suno task %s has the unknown state '%s'; polling continues", self._task_id, record.state)
        self.fraction = max(self.fraction, PROGRESS.get(record.state, 0.0))
        return evaluate(record, now - self._changed_at)


def unknown_task_error(task_id: str) -> UpstreamError:
    """The error for a task that the provider does not know."""
    return UpstreamError(
        f"The Suno provider does not know the task '{task_id}'. Task ids are kept for about two weeks and belong to "
        "one provider and one account.",
        code=ErrorCode.UNKNOWN_TASK,
    )


def poll_task(
    task_id: str,
    get_record: Callable[[], TaskRecord | None],
    *,
    deadline: Deadline,
    is_new: bool,
    progress: Progress,
) -> TaskStatus:
    """Polls a task until it is done. At the deadline, returns its status with `done` False.

    A poll that fails does not end the job, because the task is paid: it is repeated with growing delays. A task that is
    not new can be fetched by another request at no cost, so it ends after `MAX_SILENCE_S` without any answer.

    Args:
        get_record: fetches the task's record; None if the provider does not know the task.
        is_new: the task was submitted just now, so it cannot be done yet and may be unknown for a while.
        progress: receives the completed fraction, 0..0.9; it never decreases.

    Raises:
        UpstreamError: the task failed, the key was rejected, the task does not exist, or nothing answers.
    """
    clock = deadline.clock
    silent_since, was_answered = clock.monotonic(), False
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
            is_silent = clock.monotonic() - silent_since >= MAX_SILENCE_S or (deadline.has_passed and not was_answered)
            if _is_final(error) or (is_silent and not is_new and error.error_code in SILENCE):
                raise
            logger.info("Suno task %s: a status request failed (%s)", task_id, error.error_code)
            errors += 1
            last_error = error.message
            delay = clock.jitter(min(POLL_INTERVAL_S * 2.0 ** (errors - 1), MAX_RETRY_DELAY_S))
            delay = max(delay, float(error.details.get("retry_after_s", 0.0)))
        else:
            errors = 0
            silent_since, was_answered = clock.monotonic(), True
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
