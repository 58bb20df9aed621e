"""Between RunPod's SDK and `handler.run_job`: the platform's job loop and the SDK's local API.

This module adds what the SDK lacks: a job runs in a thread that can be cancelled and is awaited before the next one
starts, only a reply that can be sent is handed back, and the worker never ends without a reply for every job.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

from errors import InternalError, RequestError, WorkerRestartError
from worker import logs
from worker.job import Job, build_job, read_job_id
from worker.output.error_reply import build_error_reply
from worker.runpod.progress import ProgressReporter, Update, report_progress
from worker.settings import Platform, Settings

logger = logging.getLogger(__name__)

RunJob = Callable[[Job, Settings], dict[str, Any]]
"""Runs one job and returns its reply; never raises, except for KeyboardInterrupt and its like (`handler.run_job`)."""

CatchErrors = Callable[[Callable[[], dict[str, Any]]], dict[str, Any]]
"""Returns what its argument returns, or the error reply for what that raises (`handler.catch_errors`)."""

STOPPING = "This worker is being stopped."
REPORT_POLL_S = 0.1


class QuietReply(dict[str, Any]):
    """A reply whose `repr` shows its keys only: at its DEBUG level the SDK logs whole replies, base64 included."""

    def __repr__(self) -> str:
        return f"<reply with {', '.join(self)}>"

    __str__ = __repr__


@dataclass(eq=False)
class _Running:
    """A job in progress. `replaced` is the reply that ends the job at once in place of its own."""

    cancel: threading.Event
    replaced: asyncio.Future[dict[str, Any]]
    progress: ProgressReporter | None = None


class Adapter:
    """Runs jobs for the SDK in `settings.concurrency` threads.

    Args:
        run_job: see `RunJob`.
        catch_errors: see `CatchErrors`.
        terminate: ends the process. It is called if a cancelled job does not stop within `settings.cancel_grace_s`,
            because nothing else frees the device then.
    """

    def __init__(
        self,
        run_job: RunJob,
        catch_errors: CatchErrors,
        *,
        settings: Settings,
        platform: Platform,
        terminate: Callable[[], None] | None = None,
    ) -> None:
        self._run_job = run_job
        self._catch_errors = catch_errors
        self._settings = settings
        self._platform = platform
        self._terminate = terminate or _exit_now
        self._threads = ThreadPoolExecutor(settings.concurrency, thread_name_prefix="job")
        self._running: set[_Running] = set()
        self._restart_reason = ""
        self._stuck: set[str] = set()
        self.config: dict[str, Any] = {"handler": self.run, "concurrency_modifier": self._concurrency}

    async def run(self, raw_job: dict[str, Any], *, report: Callable[[Update], None] | None = None) -> dict[str, Any]:
        """The function that the SDK calls. Cancelled, it ends when the job has ended, so that jobs do not overlap.

        Args:
            report: takes the job's progress outside RunPod, in a thread of its own.
        """
        if self._restart_reason:
            return self._restart_reply()
        loop = asyncio.get_running_loop()
        running = _Running(threading.Event(), loop.create_future())
        try:
            work = loop.run_in_executor(self._threads, self._work, raw_job, running, report)
        except RuntimeError as error:  # the system has no thread to give
            return QuietReply(build_error_reply(error))
        self._running.add(running)
        try:
            await asyncio.wait([work, running.replaced], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            running.cancel.set()
            await self._wait_for_end(work, raw_job)
            raise
        finally:
            self._running.discard(running)
        reply = work.result() if work.done() else running.replaced.result()
        if running.replaced.done():
            if running.progress is not None:  # the thread may go on, but no update may follow the reply
                await asyncio.to_thread(running.progress.close)
            if "error" in reply:  # it may say that the job was cancelled
                reply = running.replaced.result()
        if reply.get("refresh_worker"):
            self.config["refresh_worker"] = True  # the SDK ends its loop after this job, and tells the platform
        return reply

    def end_jobs(self, reason: str) -> None:
        """Ends every job, those that are taken later included, with `worker_restart`. Called in the event loop.

        The process ends after `settings.cancel_grace_s` at the latest, even if a thread does not stop or a reply cannot
        be delivered.

        Args:
            reason: a sentence.
        """
        self._restart_reason = reason
        self.config["refresh_worker"] = True
        for running in self._running:
            running.cancel.set()
            if not running.replaced.done():
                running.replaced.set_result(self._restart_reply())
        timer = threading.Timer(self._settings.cancel_grace_s, self._end_process)
        timer.daemon = True
        timer.start()

    def _restart_reply(self) -> QuietReply:
        sentence = f"{self._restart_reason} The job was ended before it was done. Send the request again."
        return QuietReply(WorkerRestartError(sentence).to_reply())

    def _work(
        self, raw_job: dict[str, Any], running: _Running, report: Callable[[Update], None] | None
    ) -> dict[str, Any]:
        """The reply to send; what runs in a job's thread."""
        job_id = read_job_id(raw_job)
        with logs.job_context(job_id):
            try:
                reply = self._catch_errors(lambda: self._run_and_check(raw_job, job_id, running, report))
            except (SystemExit, KeyboardInterrupt) as error:  # a library's; raised again it would end the worker
                reply = build_error_reply(error)
            return QuietReply(reply)

    def _run_and_check(
        self,
        raw_job: dict[str, Any],
        job_id: str,
        running: _Running,
        report: Callable[[Update], None] | None,
    ) -> dict[str, Any]:
        settings = self._settings
        with report_progress(self._platform, raw_job.get("id") or job_id, report) as running.progress:
            job = build_job(
                raw_job,
                job_id=job_id,
                timeout_s=settings.job_timeout_s,
                cancel=running.cancel,
                report=running.progress.report,
            )
            reply = self._run_job(job, settings)
        return _check_reply(reply, settings)

    async def _wait_for_end(self, work: asyncio.Future[dict[str, Any]], raw_job: dict[str, Any]) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.cancel_grace_s
        while not work.done() and loop.time() < deadline:
            with suppress(asyncio.CancelledError):
                await asyncio.wait([work], timeout=max(deadline - loop.time(), 0.01))
        with logs.job_context(read_job_id(raw_job)):
            if work.done():
                logger.info("The job was cancelled and has stopped")
                return
            logger.error(
                "The cancelled job did not stop within %g s; this worker restarts", self._settings.cancel_grace_s
            )
        self._stuck.add(str(raw_job.get("id")))
        if not self._restart_reason:
            self.end_jobs("This worker restarts, because another job on it did not stop.")
        is_reported = False
        while not is_reported:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(REPORT_POLL_S)  # at least once, for the responses of the local API
            is_reported = not self._list_unreported()
        self._end_process()

    def _end_process(self) -> None:
        if unreported := self._list_unreported():
            logger.error("The worker ends before RunPod has a reply for these jobs: %s", ", ".join(unreported))
        self._terminate()

    def _list_unreported(self) -> list[str]:
        """The ids of jobs besides the stuck ones that the platform has no reply for, from the SDK's own list."""
        if not self._platform.job_url:
            return []
        from runpod.serverless.modules.worker_state import JobsProgress

        return [str(job) for job in list(JobsProgress()) if str(job) not in self._stuck]

    def _concurrency(self, current: int) -> int:
        return self._settings.concurrency


def set_sdk_log_level(settings: Settings, platform: Platform, requested: str | None) -> None:
    """Sets the SDK's log level to the requested one, else to ours; its own default logs a line for every poll."""
    from runpod.serverless.modules.rp_logger import RunPodLogger

    default = logs.PLATFORM_LEVELS.get(settings.log_level, settings.log_level)
    RunPodLogger().level = requested or platform.sdk_log_level or default


def _check_reply(reply: object, settings: Settings) -> dict[str, Any]:
    """The reply if it is strict JSON within the budget and its `error` is a string; else the error that says so."""
    from worker.output.strict_json import dump_json

    try:
        if not isinstance(reply, dict) or not reply or not isinstance(reply.get("error", "-"), str):
            raise InternalError("The worker made a reply that cannot be sent. Nothing is wrong with the request.")
        dump_json(reply, budget_bytes=settings.inline_budget_bytes)
        return QuietReply(reply)
    except RequestError as error:
        logger.error("The reply cannot be sent: %s", error.error_code)
        return QuietReply(error.to_reply())


def _exit_now() -> NoReturn:
    logging.shutdown()
    for child in multiprocessing.active_children():  # the SDK's heartbeat would outlive this process
        child.kill()
    sys.stdout.flush()
    os._exit(1)
