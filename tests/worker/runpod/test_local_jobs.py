"""Which results the local API keeps."""

from __future__ import annotations

import asyncio
from typing import Any

from handler import catch_errors
from worker.job import Job
from worker.runpod.adapter import Adapter
from worker.runpod.local_jobs import LocalJob, LocalJobs
from worker.settings import Platform, Settings


def run_job(job: Job, settings: Settings) -> dict[str, Any]:
    return {"success": True, "text": "x" * job.input["size"]}  # type: ignore[index]


def run_jobs(sizes: list[int], **limits: Any) -> list[bool]:
    """Runs a job for each size and says which results are kept."""

    async def run() -> list[bool]:
        adapter = Adapter(run_job, catch_errors, settings=Settings(), platform=Platform())
        jobs = LocalJobs(adapter, 1, **limits)
        started: list[LocalJob] = []
        for size in sizes:
            started.append(jobs.start({"size": size}))
            await started[-1].wait()
        return [jobs.find(job.id) is not None for job in started]

    return asyncio.run(run())


def test_the_oldest_results_make_room_for_new_ones_and_the_latest_is_kept_in_any_case() -> None:
    assert run_jobs([1000, 1000, 1000], keep_bytes=2500) == [False, True, True]
    assert run_jobs([10, 5000], keep_bytes=2500) == [False, True]


def test_a_result_is_forgotten_after_its_time() -> None:
    assert run_jobs([10], keep_s=0.0) == [False]
    assert run_jobs([10]) == [True]
