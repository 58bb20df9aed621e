"""Fifty jobs at once in one process: the rates hold in every window, every job ends, and memory stays where it was."""

from __future__ import annotations

import gc
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

from models import Models
from models.suno.deadline import Clock
from testing.suno_provider import Provider, serving
from testing.suno_scenarios import SCENARIOS
from testing.suno_worker import extend, family
from tests.models.suno.test_limiter import most_in_any_window
from worker.job import Job

JOBS = 50
FEWER = 20  # memory is traced, which is slow
SPEED = 30.0  # a minute of the worker's time in two seconds
LIMIT = 10


def quick_clock() -> Clock:
    """Real time, faster: threads really wait for each other, and a minute's window lasts two seconds."""
    return Clock(
        monotonic=lambda: time.monotonic() * SPEED, sleep=lambda seconds: time.sleep(seconds / SPEED), tick_s=4.0
    )


def run_all(models: Models, name: str, jobs: int = JOBS) -> list[str]:
    """The task ids of jobs that wait side by side."""

    def one(number: int) -> str:
        reply = extend(models, Job(id=f"{name}-{number}"), max_wait_s=900)
        assert len(reply.outputs) == 2
        return str(reply.fields["task_id"])

    with ThreadPoolExecutor(jobs) as threads:
        return list(threads.map(one, range(jobs)))


def test_fifty_waiting_jobs_keep_to_the_rates_and_all_end() -> None:
    clock = quick_clock()
    provider = Provider(SCENARIOS["happy"], clock=clock.monotonic, balance=10_000)
    with serving(provider):
        tasks = run_all(Models({"suno": family(provider, clock, submissions_per_minute=LIMIT)}), "job")
    assert len(set(tasks)) == len(provider.posts) == JOBS
    assert most_in_any_window(provider.submitted_at, 60.0) <= LIMIT
    assert most_in_any_window(provider.requested_at, 10.0) <= 20
    assert provider.complaints == []


def test_memory_and_threads_stay_where_they_were() -> None:
    clock = quick_clock()
    provider = Provider(SCENARIOS["quick_start"], clock=clock.monotonic, balance=10_000)
    with serving(provider):
        models = Models({"suno": family(provider, clock, submissions_per_minute=1000)})
        run_all(models, "warm", FEWER)
        grown = []
        tracemalloc.start()
        try:
            for name in ("second", "third"):
                provider.forget()
                run_all(models, name, FEWER)
                gc.collect()
                grown.append(tracemalloc.get_traced_memory()[0])
        finally:
            tracemalloc.stop()
    assert grown[1] - grown[0] < 200_000, "bytes kept after twenty more jobs"
    assert not [thread.name for thread in threading.enumerate() if thread.name == "suno-http"]
