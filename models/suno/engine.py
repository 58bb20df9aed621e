"""One account at a provider, shared by all jobs of the process: rate limits, retries, and one payment per request."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from errors import ErrorCode, RequestError, UpstreamError
from models.runtime.progress import Check, Progress
from models.suno.client import STATUS_TIMEOUT_S, UNKNOWN_OUTCOME, UPLOAD_TIMEOUT_S, HttpClient, SunoClient
from models.suno.config import SunoConfig
from models.suno.payloads import Submission
from models.suno.polling import (
    SUCCESS_GRACE_S,
    Clock,
    Deadline,
    TaskStatus,
    evaluate,
    poll_task,
    unknown_task_error,
)
from models.suno.responses import TaskRecord

logger = logging.getLogger(__name__)

SUBMISSION_WINDOW_S = 60.0
# Providers allow 20 requests in 10 s for each key, submissions included.
MAX_REQUESTS, REQUEST_WINDOW_S = 20, 10.0
FINAL_REQUEST_S = 10.0  # for the last status request at the deadline, and for the balance
UPLOAD_ATTEMPTS = 3
TRANSIENT = frozenset(
    {ErrorCode.PROVIDER_UNREACHABLE, ErrorCode.PROVIDER_FAILED, ErrorCode.MAINTENANCE, ErrorCode.RATE_LIMITED}
)
# Seconds before a submission that certainly created nothing is repeated, by attempt.
RESUBMIT_DELAYS_S = {
    ErrorCode.PROVIDER_UNREACHABLE: (2.0, 5.0, 10.0, 20.0),
    ErrorCode.RATE_LIMITED: (10.0, 20.0, 40.0, 60.0),
    ErrorCode.MAINTENANCE: (30.0, 60.0, 120.0),
}
REQUEST_RATE_CODE = 430
REQUEST_RATE_DELAYS_S = (2.0, 4.0, 8.0, 16.0, 32.0)
MAX_RESERVATIONS = 2000


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


def compute_idempotency_key(job_id: str, content: Mapping[str, Any]) -> str:
    """The key of one job's one request: the same job id with another request has another key."""
    text = json.dumps([job_id, content], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(slots=True)
class Reservation:
    """The submission of one request: its task id, or whether a task may exist whose id is not known."""

    task_id: str | None = None
    outcome_unknown: bool = False


class IdempotencyStore:
    """The latest submissions of this process, by idempotency key."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reservations: OrderedDict[str, Reservation] = OrderedDict()

    @contextmanager
    def reserve(self, key: str) -> Iterator[Reservation]:
        """The reservation of `key`, with the task id if the request was submitted before.

        It is kept after the body unless nothing was submitted. Raises `UpstreamError` (`submit_unknown`) if the request
        was submitted before and its outcome is unknown, or is submitted by another thread at this moment.
        """
        with self._lock:
            is_new = key not in self._reservations
            reservation = self._reservations.setdefault(key, Reservation())
            while len(self._reservations) > MAX_RESERVATIONS:
                self._reservations.popitem(last=False)
        if not is_new and reservation.task_id is None:
            raise UpstreamError(
                f"This job was delivered a second time. {UNKNOWN_OUTCOME}",
                code=ErrorCode.SUBMIT_UNKNOWN,
                details={"submitted": "unknown"},
            )
        try:
            yield reservation
        finally:
            if reservation.task_id is None and not reservation.outcome_unknown:
                with self._lock:
                    self._reservations.pop(key, None)


class SunoEngine:
    """Submits songs and follows their tasks. Every method takes the job's `Deadline` and ends by it.

    Args:
        config: the provider; `config.find_problem()` is None.
        http: sends the requests.
        clock: replaced in tests.
    """

    def __init__(self, config: SunoConfig, *, http: HttpClient, clock: Clock | None = None) -> None:
        self.config = config
        self.clock = clock or Clock()
        self._client = SunoClient(config, http)
        self._submissions = SlidingWindow(config.submissions_per_minute, SUBMISSION_WINDOW_S)
        self._requests = SlidingWindow(MAX_REQUESTS, REQUEST_WINDOW_S)
        self._idempotency = IdempotencyStore()

    def start_deadline(self, seconds: float, check: Check) -> Deadline:
        """A deadline `seconds` from now."""
        return Deadline(self.clock, self.clock.monotonic() + seconds, check)

    def get_credits(self, deadline: Deadline) -> float | None:
        """The account's balance, or None if it cannot be had quickly. Raises `UpstreamError` for a bad key."""
        try:
            with self._requests.acquire(deadline.restart(min(deadline.remaining, FINAL_REQUEST_S))):
                return self._client.get_credits(deadline.check)
        except TimeoutError:
            return None

    def reserve(self, key: str) -> AbstractContextManager[Reservation]:
        """See `IdempotencyStore.reserve`."""
        return self._idempotency.reserve(key)

    def upload(self, mp3: bytes, deadline: Deadline, retry_deadline: Deadline) -> str:
        """Uploads a source and returns its URL; up to `retry_deadline`, in up to three attempts.

        Raises `UpstreamError`.
        """
        for attempt in itertools.count(1):
            try:
                timeout_s = min(UPLOAD_TIMEOUT_S, max(deadline.remaining, 1.0))
                return self._client.upload(mp3, deadline.check, timeout_s)
            except UpstreamError as error:
                if error.error_code not in TRANSIENT or attempt == UPLOAD_ATTEMPTS or retry_deadline.has_passed:
                    error.details["stage"] = "upload"
                    raise
                deadline.sleep(self.clock.jitter(2.0 * attempt))
        raise AssertionError("the last attempt returns or raises")

    def submit(
        self, submission: Submission, *, reservation: Reservation, deadline: Deadline, retry_deadline: Deadline
    ) -> str:
        """Creates the task and returns its id.

        The submission is repeated, up to `retry_deadline`, only after a response that proves that no task was created.
        Raises `UpstreamError`; after `submit_unknown` the same job cannot submit the same request again.
        """
        for attempt in itertools.count():
            try:
                reservation.task_id = self._submit_once(submission, reservation, deadline)
            except UpstreamError as error:
                delay = self._delay_before_retry(error, attempt)
                if reservation.outcome_unknown or delay is None or delay > retry_deadline.remaining:
                    raise
                logger.info("Suno submission to be repeated in %.0f s: %s", delay, error.error_code)
                deadline.sleep(delay)
            else:
                break
        assert reservation.task_id is not None, "the loop ends with a task id or an exception"
        logger.info("Suno task %s submitted", reservation.task_id)
        return reservation.task_id

    def _submit_once(self, submission: Submission, reservation: Reservation, deadline: Deadline) -> str:
        try:
            with self._submissions.acquire(deadline), self._requests.acquire(deadline):
                deadline.check()
                if deadline.has_passed:
                    raise TimeoutError
                reservation.outcome_unknown = True
                try:
                    return self._client.submit(submission, deadline.check)
                except RequestError as error:
                    reservation.outcome_unknown = error.details.get("submitted") == "unknown"
                    raise
        except TimeoutError as error:
            raise UpstreamError(
                f"'max_wait_s' passed before the song could be submitted: this worker submits at most "
                f"{self._submissions.limit} songs a minute. Nothing was submitted. Send the request again, or raise "
                "SUNO_RATE_LIMIT if your account allows more.",
                code=ErrorCode.RATE_LIMITED,
            ) from error

    def _delay_before_retry(self, error: UpstreamError, attempt: int) -> float | None:
        """Seconds before the next attempt, or None if there is none."""
        delays = RESUBMIT_DELAYS_S.get(error.error_code, ())
        if error.details.get("provider_code") == REQUEST_RATE_CODE:
            delays = REQUEST_RATE_DELAYS_S
        if attempt >= len(delays):
            return None
        return max(self.clock.jitter(delays[attempt]), float(error.details.get("retry_after_s", 0.0)))

    def get_status(self, task_id: str, deadline: Deadline) -> TaskStatus:
        """The task's status, from one request.

        Raises `UpstreamError` if the task failed, the provider does not answer, or it does not know the task.
        """
        record = self._get_record(task_id, deadline)
        if record is None:
            raise unknown_task_error(task_id)
        # One request cannot tell how long the task has been in this state, so what can be downloaded now counts.
        return evaluate(record, SUCCESS_GRACE_S)

    def poll(self, task_id: str, *, deadline: Deadline, is_new: bool, progress: Progress) -> TaskStatus:
        """See `polling.poll_task`."""
        return poll_task(
            task_id,
            lambda: self._get_record(task_id, deadline),
            deadline=deadline,
            is_new=is_new,
            progress=progress,
        )

    def _get_record(self, task_id: str, deadline: Deadline) -> TaskRecord | None:
        """One request; at the deadline a last one with a short time limit is still made."""
        limit = deadline.restart(min(STATUS_TIMEOUT_S, max(deadline.remaining, FINAL_REQUEST_S)))
        try:
            with self._requests.acquire(limit):
                return self._client.get_record(task_id, deadline.check, max(limit.remaining, 1.0))
        except TimeoutError as error:
            raise UpstreamError(
                "Too many requests are waiting for the Suno provider. Try again in a minute.",
                code=ErrorCode.RATE_LIMITED,
            ) from error
