"""The jobs of the local API: each runs as soon as a thread is free, and its result is kept for a while."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Mapping
from typing import Any

from runpod.serverless.modules.rp_job import run_job

from worker.runpod.adapter import Adapter
from worker.runpod.progress import Update

KEEP_S = 1800.0
KEEP_BYTES = 256 << 20

IN_QUEUE, IN_PROGRESS, COMPLETED, FAILED, CANCELLED = "IN_QUEUE", "IN_PROGRESS", "COMPLETED", "FAILED", "CANCELLED"


class LocalJob:
    """One job. `status` is one of RunPod's states, `update` the latest progress."""

    def __init__(self, job_id: str) -> None:
        self.id = job_id
        self.status = IN_QUEUE
        self.update: Update = {}
        self.body = b""
        self.ended = 0.0
        self.task: asyncio.Task[None] | None = None

    @property
    def has_ended(self) -> bool:
        return self.status not in (IN_QUEUE, IN_PROGRESS)

    def dump(self) -> bytes:
        """The platform's object for the job as JSON: `id`, `status`, and `output` or `error`.

        The `output` of a job in progress is its latest update, that of a failed one has `error_code` and `details`.
        """
        return self.body or _dump(
            {"id": self.id, "status": self.status} | ({"output": self.update} if self.update else {})
        )

    def cancel(self) -> None:
        """Cancels the job, which stops within one decoding step, segment or chunk."""
        if not self.has_ended:
            self.status, self.update, self.ended = CANCELLED, {}, time.monotonic()
            assert self.task is not None
            self.task.cancel()

    async def wait(self) -> bytes:
        """`dump` when the job has ended. A caller that is cancelled cancels the job: nobody else waits for it."""
        assert self.task is not None
        try:
            await asyncio.wait([self.task])
        except asyncio.CancelledError:
            self.cancel()
            await asyncio.wait([self.task])
            raise
        return self.dump()

    def end(self, result: Mapping[str, Any]) -> None:
        """Takes the result as the SDK has it: `output`, and `error` if the job failed."""
        if self.status == CANCELLED:
            return
        failed = bool(result.get("error"))
        self.status = FAILED if failed else COMPLETED
        status = {"id": self.id, "status": self.status, "output": result.get("output")}
        self.body = _dump(status | ({"error": result["error"]} if failed else {}))


class LocalJobs:
    """Runs jobs through `adapter`, at most `concurrency` at a time, in the order in which they came.

    A result is kept for `keep_s` seconds, and as long as all results together have at most `keep_bytes`; the latest one
    is kept in any case.
    """

    def __init__(
        self, adapter: Adapter, concurrency: int, *, keep_s: float = KEEP_S, keep_bytes: int = KEEP_BYTES
    ) -> None:
        self._adapter = adapter
        self._threads = asyncio.Semaphore(concurrency)
        self._keep_s = keep_s
        self._keep_bytes = keep_bytes
        self._jobs: dict[str, LocalJob] = {}

    def start(self, job_input: Mapping[str, Any]) -> LocalJob:
        """Puts a job into the queue. Called in the event loop."""
        self._forget_results()
        job = LocalJob(f"test-{uuid.uuid4()}")
        self._jobs[job.id] = job
        job.task = asyncio.get_running_loop().create_task(self._run(job, job_input))
        return job

    def find(self, job_id: str) -> LocalJob | None:
        """The job of that id; None if there is none, or its result is no longer kept."""
        self._forget_results()
        return self._jobs.get(job_id)

    def count(self, status: str) -> int:
        """How many of the jobs that are known have that status."""
        return sum(job.status == status for job in self._jobs.values())

    async def _run(self, job: LocalJob, job_input: Mapping[str, Any]) -> None:
        def report(update: Update) -> None:
            if not job.has_ended:
                job.update = update

        def work(raw_job: dict[str, Any]) -> Any:
            return self._adapter.run(raw_job, report=report)

        try:
            async with self._threads:
                job.status = IN_PROGRESS
                job.end(await run_job(work, {"id": job.id, "input": job_input}))
        finally:
            if not job.has_ended:  # the server stops
                job.status = CANCELLED
            job.ended = time.monotonic()

    def _forget_results(self) -> None:
        ended = sorted((job for job in self._jobs.values() if job.ended), key=lambda job: job.ended, reverse=True)
        kept_bytes = 0
        for number, job in enumerate(ended):
            kept_bytes += len(job.body)
            if time.monotonic() - job.ended > self._keep_s or (number and kept_bytes > self._keep_bytes):
                del self._jobs[job.id]


def _dump(status: Mapping[str, Any]) -> bytes:
    return json.dumps(status, ensure_ascii=False, allow_nan=False).encode()
