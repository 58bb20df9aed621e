"""Fifty jobs at once in one process: the rate limits hold, every job ends, and memory does not grow."""

from __future__ import annotations

import gc
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

from models import Models
from models.suno.polling import Clock
from testing.models import make_models
from testing.suno_provider import Provider, serve_provider
from testing.suno_scenarios import SCENARIOS
from testing.suno_worker import build_family, run_extend
from tests.models.suno.test_limiter import count_most_in_any_window
from worker.job import Job

JOBS = 50
FEWER_JOBS = 20  # because tracing memory is slow
SPEEDUP = 30.0  # a minute on the worker's clock takes two seconds
LIMIT = 10


def make_fast_clock() -> Clock:
    """Real time, but faster: threads really wait for each other, and a window of a minute lasts two seconds."""
    return Clock(
        monotonic=lambda: time.monotonic() * SPEEDUP, sleep=lambda seconds: time.sleep(seconds / SPEEDUP), tick_s=4.0
    )


def run_all(models: Models, name: str, jobs: int = JOBS) -> list[str]:
    """The task ids of `jobs` jobs that wait at the same time."""

    def one(number: int) -> str:
        reply = run_extend(models, Job(id=f"{name}-{number}"), max_wait_s=900)
        assert len(reply.outputs) == 2
        return str(reply.fields["task_id"])

    with ThreadPoolExecutor(jobs) as threads:
        return list(threads.map(one, range(jobs)))


def test_fifty_waiting_jobs_obey_the_rate_limits_and_all_end() -> None:
    clock = make_fast_clock()
    provider = Provider(SCENARIOS["happy"], clock=clock.monotonic, balance=10_000)
    with serve_provider(provider):
        tasks = run_all(make_models(suno=build_family(provider, clock, submissions_per_minute=LIMIT)), "job")
    assert len(set(tasks)) == len(provider.posts) == JOBS
    assert count_most_in_any_window(provider.submitted_at, 60.0) <= LIMIT
    assert count_most_in_any_window(provider.requested_at, 10.0) <= 20
    assert provider.violations == []


def test_memory_and_threads_do_not_grow_with_the_number_of_jobs() -> None:
    clock = make_fast_clock()
    provider = Provider(SCENARIOS["quick_start"], clock=clock.monotonic, balance=10_000)
    with serve_provider(provider):
        models = make_models(suno=build_family(provider, clock, submissions_per_minute=1000))
        run_all(models, "warm", FEWER_JOBS)
        traced = []
        tracemalloc.start()
        try:
            for name in ("second", "third"):
                provider.clear()
                run_all(models, name, FEWER_JOBS)
                gc.collect()
                traced.append(tracemalloc.get_traced_memory()[0])
        finally:
            tracemalloc.stop()
    assert traced[1] - traced[0] < 200_000, "bytes that twenty more jobs left behind"
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("http-")]
