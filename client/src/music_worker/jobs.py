"""A submitted job: its status, its progress, and the wait for its reply."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, TypeAlias

from music_worker.errors import (
    AuthenticationError,
    EndpointError,
    JobCancelledError,
    JobFailedError,
    JobTimedOutError,
    MusicWorkerError,
    ReplyMissingError,
    RequestRejectedError,
    WaitTimeoutError,
    WorkerError,
)
from music_worker.exchange import AsyncRunner, Flow, Notify, Pause, RunnerT, SyncRunner
from music_worker.results import Result, Storage, read_result
from music_worker.transport import CANCEL_TIMEOUT_S, Endpoint

MAX_MESSAGE = 2000


class JobState(StrEnum):
    """Where a job is."""

    IN_QUEUE = "IN_QUEUE"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMED_OUT = "TIMED_OUT"

    @property
    def is_final(self) -> bool:
        return self not in (JobState.IN_QUEUE, JobState.IN_PROGRESS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What is known of a job at one moment.

    Args:
        stage: what the worker is doing, for people; empty until it has said so.
        percent: the share of the job that is done, 0 to 100; None until the worker has said so.
        elapsed_s: seconds since the wait began.
        remaining_s: seconds that are probably left, from the rate so far; None until there is one.
        details: what the worker adds, such as `download` or `task_id`.
    """

    job_id: str
    state: JobState
    stage: str = ""
    percent: float | None = None
    elapsed_s: float = 0.0
    remaining_s: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


OnProgress: TypeAlias = Callable[[Progress], object]
OnProgressAsync: TypeAlias = Callable[[Progress], Awaitable[object] | object]


@dataclass(slots=True)
class _Watch:
    """Turns the platform's objects for a job into `Progress`, with an estimate of the time left."""

    job_id: str
    started: float = field(default_factory=time.monotonic)
    _first: tuple[float, float] | None = None  # time and percentage of the first update

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started

    def read(self, status: Mapping[str, Any]) -> Progress:
        state, elapsed_s = read_state(status), self.elapsed_s
        output = status.get("output")
        if state.is_final or not isinstance(output, Mapping):
            return Progress(job_id=self.job_id, state=state, elapsed_s=elapsed_s)
        percent = output.get("percent")
        percent = float(percent) if isinstance(percent, int | float) and not isinstance(percent, bool) else None
        return Progress(
            job_id=self.job_id,
            state=state,
            stage=str(output.get("stage") or ""),
            percent=percent,
            elapsed_s=elapsed_s,
            remaining_s=self._estimate_remaining(elapsed_s, percent),
            details={key: value for key, value in output.items() if key not in ("stage", "percent")},
        )

    def _estimate_remaining(self, elapsed_s: float, percent: float | None) -> float | None:
        if percent is None:
            return None
        if self._first is None:
            self._first = (elapsed_s, percent)
        begun_s, begun_percent = self._first
        if percent - begun_percent < 1.0:
            return None
        return (elapsed_s - begun_s) * (100.0 - percent) / (percent - begun_percent)


def wait_for_reply(
    endpoint: Endpoint,
    accepted: Mapping[str, Any],
    *,
    on_progress: OnProgressAsync | None = None,
    timeout_s: float | None = None,
) -> Flow[dict[str, Any]]:
    """The worker's reply to a job, asked for at growing intervals.

    Args:
        accepted: the platform's object for the job; only `id` is needed.
        timeout_s: the longest wait; None: until the job ends.
    """
    job_id = str(accepted["id"])
    watch, patience = _Watch(job_id), endpoint.patience
    limit_s = math.inf if timeout_s is None else timeout_s
    status: Mapping[str, Any] = accepted
    interval_s = patience.first_poll_s
    last: tuple[JobState, str] | None = None
    while True:
        if "status" in status:
            progress = watch.read(status)
            if on_progress is not None:
                yield Notify(on_progress, progress)
            if progress.state.is_final:
                return read_reply(status, job_id)
            if last is not None and (progress.state, progress.stage) != last:
                interval_s = patience.first_poll_s  # a new stage: something happens
            last = (progress.state, progress.stage)
            if watch.elapsed_s >= limit_s:
                raise _make_wait_timeout(job_id, limit_s)
            yield Pause(min(interval_s, limit_s - watch.elapsed_s))
            interval_s = min(interval_s * patience.poll_growth, patience.max_poll_s)
        try:
            status = yield from endpoint.fetch_status(job_id, limit_s=max(limit_s - watch.elapsed_s, 0.0))
        except EndpointError as error:
            if watch.elapsed_s < limit_s or isinstance(error, AuthenticationError | RequestRejectedError):
                raise
            raise _make_wait_timeout(job_id, limit_s) from None


def _make_wait_timeout(job_id: str, limit_s: float) -> WaitTimeoutError:
    return WaitTimeoutError(
        f"The job was not done within {limit_s:g} s. It goes on: wait for it again with job id {job_id}.", job_id=job_id
    )


def cancel_when_interrupted(endpoint: Endpoint, flow: Flow[dict[str, Any]], job_id: str) -> Flow[dict[str, Any]]:
    """Runs `flow`, and cancels the job on the platform if the wait is given up.

    That is an interrupt, a cancelled task, or an exception of the caller's own `on_progress`. An error of the endpoint
    or of the job, and the end of the time to wait, leave the job as it is.
    """
    try:
        return (yield from flow)
    except (MusicWorkerError, GeneratorExit):
        raise
    except BaseException:
        with suppress(MusicWorkerError):  # the interrupt is what the caller waits for
            yield from endpoint.cancel(job_id, limit_s=CANCEL_TIMEOUT_S)
        raise


def read_state(status: Mapping[str, Any]) -> JobState:
    """The job's state; a state that is not known counts as in progress (RunPod also says RUNNING)."""
    name = status.get("status")
    return JobState[name] if isinstance(name, str) and name in JobState.__members__ else JobState.IN_PROGRESS


def read_reply(status: Mapping[str, Any], job_id: str) -> dict[str, Any]:
    """The reply of a job that has ended; raises what the job ended with instead."""
    state, output, error = read_state(status), status.get("output"), status.get("error")
    reply = output if isinstance(output, Mapping) else {}
    failure = error if isinstance(error, str) and error else reply.get("error")
    if (code := reply.get("error_code") or status.get("error_code")) and isinstance(code, str):
        details = reply.get("details", status.get("details"))
        message = failure if isinstance(failure, str) else "The worker gave no reason."
        raise WorkerError(code, message, details if isinstance(details, Mapping) else {}, job_id=job_id)
    if state is JobState.CANCELLED:
        raise JobCancelledError(f"Job {job_id} was cancelled.", job_id=job_id)
    if state is JobState.TIMED_OUT:
        raise JobTimedOutError(
            f"Job {job_id} reached its time limit and was ended. Ask for less, or raise the endpoint's execution "
            "timeout.",
            job_id=job_id,
        )
    if state is JobState.FAILED or failure:
        raise JobFailedError(
            f"Job {job_id} failed: {_shorten_failure(failure)}", details={"state": state.value}, job_id=job_id
        )
    if not reply:
        raise ReplyMissingError(
            f"Job {job_id} is completed, but its reply is lost. RunPod drops replies that are too large: ask for a "
            "smaller format, or for delivery to a bucket or the volume.",
            job_id=job_id,
        )
    return dict(reply)


def _shorten_failure(failure: object) -> str:
    """What the platform says of a failed job. The SDK reports a crash as JSON with a traceback, which is left out."""
    if not isinstance(failure, str) or not failure:
        return "the worker stopped before it was done. Send the request again."
    try:
        report = json.loads(failure)
    except ValueError:
        report = None
    if isinstance(report, Mapping) and "error_message" in report:
        failure = f"{report.get('error_type') or 'error'}: {report['error_message']}"
    return failure[:MAX_MESSAGE]


class _Handle(Generic[RunnerT]):
    """What both kinds of job are made of."""

    def __init__(
        self, endpoint: Endpoint, runner: RunnerT, accepted: Mapping[str, Any], *, storage: Storage | None = None
    ) -> None:
        self._endpoint = endpoint
        self._runner: RunnerT = runner
        self._accepted = accepted
        self._storage = storage or Storage()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r})"

    @property
    def id(self) -> str:
        return str(self._accepted["id"])

    def _wait(
        self, on_progress: OnProgressAsync | None, timeout_s: float | None, cancel_on_interrupt: bool
    ) -> Flow[dict[str, Any]]:
        flow = wait_for_reply(self._endpoint, self._accepted, on_progress=on_progress, timeout_s=timeout_s)
        return cancel_when_interrupted(self._endpoint, flow, self.id) if cancel_on_interrupt else flow


class Job(_Handle[SyncRunner]):
    """A job on an endpoint. Its id is all that is needed to come back to it later (`Client.job`)."""

    def status(self) -> Progress:
        """Where the job is now."""
        return _Watch(self.id).read(self._runner.run(self._endpoint.fetch_status(self.id)))

    def wait(
        self,
        *,
        on_progress: OnProgress | None = None,
        timeout_s: float | None = None,
        cancel_on_interrupt: bool = False,
    ) -> Result:
        """The result, when the job is done.

        Args:
            on_progress: called with each `Progress`.
            timeout_s: the longest wait; the job itself goes on. None: no limit.
            cancel_on_interrupt: Ctrl-C, or an exception of `on_progress`, cancels the job on the platform first.

        Raises:
            WorkerError: the worker refused the request or could not do it.
            JobError: the job ended without a reply, or the time to wait is up.
            EndpointError: the endpoint does not answer.
        """
        reply = self._runner.run(self._wait(on_progress, timeout_s, cancel_on_interrupt))
        return read_result(reply, job_id=self.id, storage=self._storage)

    def cancel(self) -> None:
        """Asks the platform to stop the job."""
        self._runner.run(self._endpoint.cancel(self.id))


class AsyncJob(_Handle[AsyncRunner]):
    """`Job` for asyncio."""

    async def status(self) -> Progress:
        """Where the job is now."""
        return _Watch(self.id).read(await self._runner.run(self._endpoint.fetch_status(self.id)))

    async def wait(
        self,
        *,
        on_progress: OnProgressAsync | None = None,
        timeout_s: float | None = None,
        cancel_on_interrupt: bool = False,
    ) -> Result:
        """As `Job.wait`; `on_progress` may be a coroutine function, and a cancelled task counts as an interrupt."""
        reply = await self._runner.run(self._wait(on_progress, timeout_s, cancel_on_interrupt))
        return read_result(reply, job_id=self.id, storage=self._storage)

    async def cancel(self) -> None:
        """Asks the platform to stop the job."""
        await self._runner.run(self._endpoint.cancel(self.id))
