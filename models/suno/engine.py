"""One account at work: submits once, follows a task to its end, within the rates that the provider allows.

Shared by all jobs of the process; holds no device and no song. Each method takes the job's `Wait` and ends by it.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager

from errors import ErrorCode, RequestError, UpstreamError
from models.suno.client import LOOK_S, UPLOAD_S, Order, Source, SunoClient
from models.suno.config import SunoConfig
from models.suno.deadline import Check, Clock, Wait
from models.suno.idempotency import Claim, Ledger
from models.suno.limiter import SlidingWindow
from models.suno.responses import Record
from models.suno.status import KNOWN, PROGRESS, SUCCESS_GRACE_S, TaskStatus, has_failed, judge, ready
from models.suno.transport import HttpTransport, Transport

logger = logging.getLogger(__name__)

WINDOW_S = 60.0
# Providers allow 20 requests in 10 s for each key, submissions included.
REQUESTS, REQUESTS_WINDOW_S = 20, 10.0
FIRST_LOOK_S = 12.0
LOOK_EVERY_S, LOOK_EVERY_AT_MOST_S, LOOK_GROWTH = 5.0, 15.0, 1.25
TROUBLE_AT_MOST_S = 30.0
LAST_LOOK_S = 10.0
LOOKS_FOR_UNKNOWN = 3
UPLOAD_TRIES = 3
TEMPORARY = frozenset({"provider_unreachable", "provider_failed", "maintenance", "rate_limited"})
# Seconds before a submission that certainly made nothing is sent again, by try.
SUBMIT_AGAIN_S = {
    "provider_unreachable": (2.0, 5.0, 10.0, 20.0),
    "rate_limited": (10.0, 20.0, 40.0, 60.0),
    "maintenance": (30.0, 60.0, 120.0),
}
CALLING_TOO_OFTEN = 430
CALLING_TOO_OFTEN_S = (2.0, 4.0, 8.0, 16.0, 32.0)


class Suno:
    """See the module. `transport` and `clock` are replaced in tests."""

    def __init__(self, config: SunoConfig, *, transport: Transport | None = None, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self._client = SunoClient(config, transport or HttpTransport(config))
        self._submissions = SlidingWindow(config.submissions_per_minute, WINDOW_S)
        self._requests = SlidingWindow(REQUESTS, REQUESTS_WINDOW_S)
        self._ledger = Ledger()

    def patience(self, seconds: float, check: Check) -> Wait:
        """A wait of `seconds` from now."""
        return Wait(self.clock, self.clock.monotonic() + seconds, check)

    def credits(self, wait: Wait) -> float | None:
        """The balance, None where it cannot be had in a moment. Raises `UpstreamError` for a bad key."""
        try:
            with self._requests.place(wait.until(min(wait.remaining, LAST_LOOK_S))):
                return self._client.credits(wait.check)
        except TimeoutError:
            return None

    def claim(self, key: str) -> AbstractContextManager[Claim]:
        """What the job's request has submitted already, if anything. See `Ledger.claim`."""
        return self._ledger.claim(key)

    def upload(self, source: Source, wait: Wait) -> str:
        """Gives the provider a song, in a few tries, and returns its URL there. Raises `UpstreamError`."""
        for attempt in itertools.count(1):
            try:
                return self._client.upload(source, wait.check, min(UPLOAD_S, max(wait.remaining, 1.0)))
            except UpstreamError as error:
                if error.error_code not in TEMPORARY or attempt == UPLOAD_TRIES or wait.over:
                    error.details["stage"] = "upload"
                    raise
                wait.sleep(self.clock.jittered(2.0 * attempt))
        raise AssertionError("the last try returns or raises")

    def submit(self, order: Order, *, claim: Claim, wait: Wait) -> str:
        """Makes the task and returns its id. Sent again only after an answer that rules out that anything was made.

        Raises `UpstreamError`; after `submit_unknown` the same job cannot submit the same request again.
        """
        for attempt in itertools.count():
            try:
                claim.task_id = self._submitted_once(order, claim, wait)
            except UpstreamError as error:
                delay = self._again_after(error, attempt)
                if claim.in_doubt or delay is None or delay > wait.remaining:
                    raise
                logger.info("Suno submission to be repeated in %.0f s: %s", delay, error.error_code)
                wait.sleep(delay)
            else:
                break
        assert claim.task_id is not None
        logger.info("Suno task %s submitted", claim.task_id)
        return claim.task_id

    def _submitted_once(self, order: Order, claim: Claim, wait: Wait) -> str:
        try:
            with self._submissions.place(wait), self._requests.place(wait):
                wait.check()
                if wait.over:
                    raise TimeoutError
                claim.in_doubt = True
                try:
                    return self._client.submit(order, wait.check)
                except RequestError as error:
                    claim.in_doubt = error.details.get("submitted") == "unknown"
                    raise
        except TimeoutError as error:
            raise UpstreamError(
                f"'max_wait_s' was over before the song could be submitted (at most {self._submissions.limit} "
                "submissions a minute leave this worker). Nothing was submitted. Send the request again, or raise "
                "SUNO_RATE_LIMIT if the account allows more.",
                code=ErrorCode.RATE_LIMITED,
            ) from error

    def _again_after(self, error: UpstreamError, attempt: int) -> float | None:
        delays = SUBMIT_AGAIN_S.get(error.error_code, ())
        if error.details.get("provider_code") == CALLING_TOO_OFTEN:
            delays = CALLING_TOO_OFTEN_S
        if attempt >= len(delays):
            return None
        return max(self.clock.jittered(delays[attempt]), float(error.details.get("retry_after_s", 0.0)))

    def glance(self, task_id: str, wait: Wait) -> tuple[Record, TaskStatus]:
        """One look. Raises `UpstreamError`, also where the provider does not answer or knows no such task."""
        record = self._looked(task_id, wait)
        if record is None:
            raise _no_such_task(task_id)
        # A single look cannot tell how long the task has stood like this; what can be had counts.
        return record, judge(record, SUCCESS_GRACE_S)

    def follow(
        self, task_id: str, *, wait: Wait, fresh: bool, progress: Callable[[float], None]
    ) -> tuple[Record, TaskStatus]:
        """Looks until the task is done; at the deadline returns how it stands, with `done` False.

        Args:
            fresh: the task was submitted just now (so it cannot be done yet, and an unknown id is only a delay).
            progress: takes the share of the work done, 0..0.9, never going back.

        Raises:
            UpstreamError: the task failed, the key is refused, or no such task exists.
        """
        watch = _Watch(self.clock, task_id, fresh, progress)
        if fresh:
            progress(0.05)
            wait.sleep(self.clock.jittered(FIRST_LOOK_S))
        every = LOOK_EVERY_S
        while True:
            delay = self.clock.jittered(every)
            try:
                standing = watch.see(self._looked(task_id, wait))
            except UpstreamError as error:
                if watch.is_final(error):
                    raise
                delay = watch.pause_after(error)
            else:
                every = min(every * LOOK_GROWTH, LOOK_EVERY_AT_MOST_S)
                if standing.done:
                    return watch.record, standing
            if wait.over:
                return watch.record, TaskStatus(done=False, warning=watch.trouble)
            wait.sleep(delay)

    def _looked(self, task_id: str, wait: Wait) -> Record | None:
        """One look; at the deadline a last, shorter one is still made."""
        brief = wait.until(min(LOOK_S, max(wait.remaining, LAST_LOOK_S)))
        try:
            with self._requests.place(brief):
                return self._client.look(task_id, wait.check, max(brief.remaining, 1.0))
        except TimeoutError as error:
            raise UpstreamError("Too many looks at once.", code=ErrorCode.RATE_LIMITED) from error


class _Watch:
    """What following a task remembers between looks."""

    def __init__(self, clock: Clock, task_id: str, fresh: bool, progress: Callable[[float], None]) -> None:
        self.record = Record("PENDING")
        self.trouble = ""
        self._clock = clock
        self._task_id = task_id
        self._progress = progress
        self._may_be_unknown = fresh
        self._share = 0.05
        self._unknown = 0
        self._troubles = 0
        self._moved = clock.monotonic()
        self._told: set[str] = set()

    def see(self, record: Record | None) -> TaskStatus:
        """Takes in a look's result. Raises `UpstreamError` where the task failed or does not exist."""
        self._troubles, self.trouble = 0, ""
        if record is None:
            self._unknown += 1
            if self._unknown >= LOOKS_FOR_UNKNOWN and not self._may_be_unknown:
                raise _no_such_task(self._task_id)
            return TaskStatus(done=False)
        self._unknown, self._may_be_unknown = 0, True
        if (record.status, len(ready(record))) != (self.record.status, len(ready(self.record))):
            self._moved = self._clock.monotonic()
        self.record = record
        if record.status not in KNOWN and not has_failed(record) and record.status not in self._told:
            self._told.add(record.status)
            logger.warning("Suno task %s has the unknown status '%s'; still waiting", self._task_id, record.status)
        self._share = max(self._share, PROGRESS.get(record.status, 0.0))
        self._progress(self._share)
        return judge(record, self._clock.monotonic() - self._moved)

    def is_final(self, error: UpstreamError) -> bool:
        """Whether following ends here; a look that fails never ends a job, a refused key or a failed task does."""
        looked = "status" in error.details or error.error_code in ("result_unusable", "unknown_task")
        return looked or error.error_code == ErrorCode.BAD_KEY

    def pause_after(self, error: UpstreamError) -> float:
        """Seconds to wait after a look that failed."""
        self._troubles += 1
        self.trouble = error.message
        logger.info("Suno task %s: a look failed (%s)", self._task_id, error.error_code)
        pause = min(LOOK_EVERY_S * 2.0 ** (self._troubles - 1), TROUBLE_AT_MOST_S)
        return max(self._clock.jittered(pause), float(error.details.get("retry_after_s", 0.0)))


def _no_such_task(task_id: str) -> UpstreamError:
    return UpstreamError(
        f"The Suno provider knows no task '{task_id}'. Task ids are kept for about two weeks, and belong to one "
        "provider and one account.",
        code=ErrorCode.UNKNOWN_TASK,
    )
