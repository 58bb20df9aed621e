"""Jobs are counted by operation, from any number of threads."""

from __future__ import annotations

import threading

import pytest

from operations import health_check
from testing.dispatch import answer
from testing.models import make_models
from worker.job import Job
from worker.stats import JobStats


def test_a_process_without_jobs_has_counted_none() -> None:
    assert JobStats().to_json() == {"jobs_done": 0, "jobs_failed": 0, "operations": {}}


def test_jobs_are_counted_as_done_or_failed_by_operation() -> None:
    stats = JobStats()
    for _ in range(2):
        with stats.measure() as job:
            job.operation = "separate"
    with pytest.raises(ValueError, match="broken"), stats.measure() as job:
        job.operation = "analyze"
        raise ValueError("broken")
    with pytest.raises(KeyError), stats.measure():
        raise KeyError
    counted = stats.to_json()
    assert (counted["jobs_done"], counted["jobs_failed"]) == (2, 2)
    assert counted["operations"]["analyze"] == {"done": 0, "failed": 1, "average_s": None}
    assert counted["operations"]["separate"]["done"] == 2 and counted["operations"]["separate"]["average_s"] >= 0


def test_threads_do_not_lose_counts() -> None:
    stats = JobStats()

    def work() -> None:
        for _ in range(200):
            with stats.measure() as job:
                job.operation = "separate"

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stats.to_json()["jobs_done"] == 1600


def test_health_check_tells_what_the_handler_has_counted() -> None:
    import handler

    before = handler.handler({"input": {"operation": "health_check"}})["stats"]
    handler.handler({"input": {"operation": "separate"}})
    handler.handler({"input": {"operation": "no such operation"}})
    after = handler.handler({"input": {"operation": "health_check"}})["stats"]
    assert after["jobs_failed"] - before["jobs_failed"] == 2
    assert after["jobs_done"] - before["jobs_done"] == 1
    assert after["operations"]["separate"]["failed"] >= 1 and after["operations"]["health_check"]["average_s"] >= 0
    assert "no such operation" not in after["operations"]


def test_a_job_outside_the_handler_counts_for_itself() -> None:
    models = make_models()
    fields = health_check.run(None, Job(id="test"), models).fields
    assert fields["stats"]["jobs_done"] == 0
    reply = answer({"input": {"operation": "health_check"}}, settings=Job(id="x").settings, models=models)
    assert reply["stats"]["jobs_done"] == 0
