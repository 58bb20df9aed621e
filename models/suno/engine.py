"""One account at a provider, shared by all jobs of the process: rate limits, retries, and one payment per request."""

from __future__ import annotations

import itertools
import logging
from contextlib import AbstractContextManager

from errors import ErrorCode, RequestError, UpstreamError
from models.runtime.progress import Check, Progress
from models.suno.client import STATUS_TIMEOUT_S, UPLOAD_TIMEOUT_S, HttpClient, SunoClient
from models.suno.config import SunoConfig
from models.suno.idempotency import IdempotencyStore, Reservation
from models.suno.limiter import SlidingWindow
from models.suno.payloads import Submission
from models.suno.polling import Clock, Deadline, poll_task
from models.suno.responses import TaskRecord
from models.suno.status import SUCCESS_GRACE_S, TaskStatus, evaluate, unknown_task_error

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

    def upload(self, mp3: bytes, deadline: Deadline) -> str:
        """Uploads a source in up to three attempts and returns its URL. Raises `UpstreamError`."""
        for attempt in itertools.count(1):
            try:
                timeout_s = min(UPLOAD_TIMEOUT_S, max(deadline.remaining, 1.0))
                return self._client.upload(mp3, deadline.check, timeout_s)
            except UpstreamError as error:
                if error.error_code not in TRANSIENT or attempt == UPLOAD_ATTEMPTS or deadline.has_passed:
                    error.details["stage"] = "upload"
                    raise
                deadline.sleep(self.clock.jitter(2.0 * attempt))
        raise AssertionError("the last attempt returns or raises")

    def submit(self, submission: Submission, *, reservation: Reservation, deadline: Deadline) -> str:
        """Creates the task and returns its id.

        The submission is repeated only after a response that proves that no task was created. Raises `UpstreamError`;
        after `submit_unknown` the same job cannot submit the same request again.
        """
        for attempt in itertools.count():
            try:
                reservation.task_id = self._submit_once(submission, reservation, deadline)
            except UpstreamError as error:
                delay = self._delay_before_retry(error, attempt)
                if reservation.outcome_unknown or delay is None or delay > deadline.remaining:
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
