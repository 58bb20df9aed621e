"""The SDK's job loop, with what it lacks on a platform that is slow, faulty or gone.

- Results are posted until they arrive (`results.py`).
- The loop waits longer and longer while jobs cannot be taken; the SDK's repeats at once and takes a whole CPU core.
- A job without an id is ignored instead of ending the loop, and so is a second delivery of a job that is in progress.
- SIGTERM ends an idle worker at once, because no long poll is waited for, and a busy one in bounded time.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any

import runpod
from aiohttp import ClientSession
from runpod.serverless.modules import rp_job, rp_scale

from worker.runpod.adapter import STOPPING, Adapter
from worker.runpod.results import ResultSender
from worker.settings import Platform, Settings

logger = logging.getLogger(__name__)

FIRST_DELAY_S, MAX_DELAY_S = 0.2, 10.0
# An empty answer that comes sooner than this is no long poll; the next request then waits a little.
LONG_POLL_S, EMPTY_DELAY_S = 1.0, 0.25


def take_jobs(adapter: Adapter, settings: Settings, platform: Platform) -> None:
    """Takes jobs from the platform until the process is stopped, or a job asks for a fresh worker.

    The SDK has no parameters for this on the platform, so its loop's class and its sender are replaced at start.
    """
    rp_job.send_result = ResultSender(platform).send
    rp_scale.JobScaler = partial(JobLoop, adapter=adapter, shutdown_grace_s=settings.shutdown_grace_s)
    runpod.serverless.start(adapter.config)


class JobLoop(rp_scale.JobScaler):  # type: ignore[misc]  # the SDK has no types
    """See the module.

    Args:
        config: the SDK's, made by the adapter.
        adapter: runs the jobs.
        shutdown_grace_s: seconds that running jobs may take to finish after SIGTERM or SIGINT.
    """

    def __init__(self, config: dict[str, Any], *, adapter: Adapter, shutdown_grace_s: float) -> None:
        super().__init__(config)
        self.jobs_fetcher = self._take
        self._adapter = adapter
        self._shutdown_grace_s = shutdown_grace_s
        self._ending = asyncio.Event()  # no more jobs are taken
        self._signalled = asyncio.Event()  # by SIGTERM or SIGINT
        self._taking_ended = asyncio.Event()
        self._jobs_ended = asyncio.Event()
        self._failures = 0

    def kill_worker(self) -> None:
        super().kill_worker()
        self._ending.set()

    def handle_shutdown(self, signum: int, frame: object) -> None:
        super().handle_shutdown(signum, frame)
        self._signalled.set()

    async def run(self) -> None:
        shutdown = asyncio.create_task(self._shut_down())
        try:
            await super().run()
        finally:
            shutdown.cancel()

    async def get_jobs(self, session: ClientSession) -> None:
        await _run_until(self._ending.wait(), super().get_jobs(session))
        self._taking_ended.set()

    async def run_jobs(self, session: ClientSession) -> None:
        await super().run_jobs(session)
        await self._taking_ended.wait()
        await super().run_jobs(session)  # a job that was taken at the moment of the shutdown
        self._jobs_ended.set()

    async def monitor_stop_signals(self, session: ClientSession) -> None:
        await _run_until(self._jobs_ended.wait(), super().monitor_stop_signals(session))

    async def stop_job(self, job_id: str) -> bool:
        # A task that is cancelled before its first step never runs the SDK's clean-up, and counts as in progress for
        # ever. After this, every task that exists has made its first step.
        await asyncio.sleep(0)
        return bool(await super().stop_job(job_id))

    async def _take(self, session: ClientSession, count: int) -> list[dict[str, Any]]:
        """The SDK's `get_job`, after a delay if the last ones failed. What it raises is logged by the SDK's loop."""
        if self._failures:
            delay = FIRST_DELAY_S * 2.0 ** min(self._failures - 1, 16) * (0.5 + random.random())
            await asyncio.sleep(min(delay, MAX_DELAY_S))
        self._failures += 1
        started = time.monotonic()
        jobs = await rp_job.get_job(session, count)
        self._failures = 0
        if not jobs and time.monotonic() - started < LONG_POLL_S:
            await asyncio.sleep(EMPTY_DELAY_S)
        return self._select_new(jobs or [])

    def _select_new(self, jobs: list[Any]) -> list[dict[str, Any]]:
        """The jobs that have an id and are not in progress here."""
        new: dict[str, dict[str, Any]] = {}
        for job in jobs:
            job_id = job.get("id") if isinstance(job, dict) else None
            if not isinstance(job_id, str) or not job_id:
                logger.error("RunPod handed over a job without an id, which cannot be run")
            elif job_id in new or self.job_progress.get(job_id) is not None:
                logger.warning("RunPod handed over job %s again while it is in progress; it runs once", job_id)
            else:
                new[job_id] = job
        return list(new.values())

    async def _shut_down(self) -> None:
        """After a signal, ends the jobs that do not finish in time."""
        await self._signalled.wait()
        await asyncio.sleep(self._shutdown_grace_s)
        self._adapter.end_jobs(STOPPING)


async def _run_until(end: Awaitable[Any], work: Coroutine[Any, Any, None]) -> None:
    """Runs `work` until it ends, or until `end`, which cancels it."""
    working, ending = asyncio.ensure_future(work), asyncio.ensure_future(end)
    try:
        await asyncio.wait([working, ending], return_when=asyncio.FIRST_COMPLETED)
    finally:
        ending.cancel()
        working.cancel()
    with suppress(asyncio.CancelledError):
        await working
