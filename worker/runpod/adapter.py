"""Between RunPod's SDK and `handler.run_job`: the platform's job loop and the SDK's local API.

The SDK is used as it is. This module adds what it lacks: a job runs in a thread that can be cancelled and is awaited
before the next one starts, and only a reply that is sure to arrive is handed back.
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
from typing import Any, NoReturn

from errors import InternalError, RequestError
from worker import logs
from worker.job import Job, build_job, read_job_id
from worker.runpod.progress import report_progress
from worker.settings import Platform, Settings

logger = logging.getLogger(__name__)

RunJob = Callable[[Job, Settings], dict[str, Any]]
"""Runs one job and returns its reply; never raises, except for KeyboardInterrupt and its like (`handler.run_job`)."""

MAX_ERRORS_SHOWN = 20


class QuietReply(dict[str, Any]):
    """A reply whose `repr` shows its keys only: at its DEBUG level the SDK logs whole replies, base64 included."""

    def __repr__(self) -> str:
        return f"<reply with {', '.join(self)}>"

    __str__ = __repr__


class Adapter:
    """Runs jobs for the SDK in `settings.concurrency` threads.

    Args:
        terminate: ends the process. It is called if a cancelled job does not stop within `settings.cancel_grace_s`,
            because nothing else frees the device then.
    """

    def __init__(
        self,
        run_job: RunJob,
        *,
        settings: Settings,
        platform: Platform,
        terminate: Callable[[], None] | None = None,
    ) -> None:
        self._run_job = run_job
        self._settings = settings
        self._platform = platform
        self._terminate = terminate or _exit_now
        self._threads = ThreadPoolExecutor(settings.concurrency, thread_name_prefix="job")
        self.config: dict[str, Any] = {"handler": self.run, "concurrency_modifier": self._concurrency}

    async def run(self, raw_job: dict[str, Any]) -> dict[str, Any]:
        """The function that the SDK calls. Cancelled, it ends when the job has ended, so that jobs do not overlap."""
        job_id = read_job_id(raw_job)
        cancel = threading.Event()
        work = asyncio.get_running_loop().run_in_executor(self._threads, self._work, raw_job, job_id, cancel)
        try:
            reply = await asyncio.shield(work)
        except asyncio.CancelledError:
            cancel.set()
            await self._wait_for_end(work, job_id)
            raise
        if reply.get("refresh_worker"):
            self.config["refresh_worker"] = True  # the SDK ends its loop after this job, and tells the platform
        return reply

    def _work(self, raw_job: dict[str, Any], job_id: str, cancel: threading.Event) -> dict[str, Any]:
        settings = self._settings
        with logs.job_context(job_id):
            with report_progress(self._platform, job_id) as report:
                job = build_job(raw_job, job_id=job_id, timeout_s=settings.job_timeout_s, cancel=cancel, report=report)
                reply = self._run_job(job, settings)
            return _check_reply(reply, settings)

    async def _wait_for_end(self, work: asyncio.Future[dict[str, Any]], job_id: str) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.cancel_grace_s
        while not work.done() and loop.time() < deadline:
            with suppress(asyncio.CancelledError):
                await asyncio.wait([work], timeout=max(deadline - loop.time(), 0.01))
        with logs.job_context(job_id):
            if work.done():
                logger.info("The job was cancelled and has stopped")
                return
            logger.error(
                "The cancelled job did not stop within %g s; this worker restarts", self._settings.cancel_grace_s
            )
        self._terminate()

    def _concurrency(self, current: int) -> int:
        return self._settings.concurrency


def set_sdk_log_level(settings: Settings, platform: Platform, requested: str | None) -> None:
    """Sets the SDK's log level to the requested one, else to ours; its own default logs a line for every poll."""
    from runpod.serverless.modules.rp_logger import RunPodLogger

    default = logs.PLATFORM_LEVELS.get(settings.log_level, settings.log_level)
    RunPodLogger().level = requested or platform.sdk_log_level or default


def take_jobs(adapter: Adapter) -> None:
    """Takes jobs from the platform until the process is stopped."""
    import runpod

    runpod.serverless.start(adapter.config)


def serve_api(adapter: Adapter, host: str, port: int) -> None:
    """Serves the SDK's local API. Unlike the SDK's own, a refusal repeats nothing of the body: a NaN, a lone surrogate
    or a deeply nested list in it would make the refusal itself fail with HTTP 500."""
    from fastapi.exceptions import RequestValidationError
    from runpod.serverless.modules.rp_fastapi import WorkerAPI

    api = WorkerAPI(adapter.config)
    api.rp_app.add_exception_handler(RequestValidationError, _refuse_body)
    logger.info("Local API on http://%s:%d", host, port)
    api.start_uvicorn(api_host=host, api_port=port)


async def _refuse_body(request: object, error: Any) -> Any:
    from fastapi.responses import JSONResponse

    sentence = 'The body must be a JSON object with an "input" object, sent as Content-Type: application/json.'
    problems = [{"loc": [str(part) for part in problem["loc"]], "msg": problem["msg"]} for problem in error.errors()]
    return JSONResponse({"error": sentence, "detail": problems[:MAX_ERRORS_SHOWN]}, status_code=422)


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
