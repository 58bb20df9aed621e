"""`Job`: how it is built from what the platform hands over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from worker.job import Job, build_job, read_job_id

INVALID: list[Any] = [None, [], "text", 3, {}, {"id": 3}, {"id": ""}, {"input": None, "s3Config": 3, "policy": []}]


def test_the_job_id_is_the_platforms_id() -> None:
    assert read_job_id({"id": "a"}) == "a"


def test_a_long_or_unprintable_job_id_is_shortened_and_cleaned() -> None:
    assert len(read_job_id({"id": "i" * 4_000_000})) < 100
    assert read_job_id({"id": "a\nb"}) == "a?b"


@pytest.mark.parametrize("raw_job", INVALID, ids=repr)
def test_a_job_without_a_valid_id_gets_a_random_one(raw_job: Any) -> None:
    assert read_job_id(raw_job) != read_job_id(raw_job)


@pytest.mark.parametrize("raw_job", INVALID, ids=repr)
def test_an_invalid_job_has_no_input_no_bucket_and_no_deadline(raw_job: Any) -> None:
    job = build_job(raw_job, job_id="j", timeout_s=0.0)
    assert (job.id, job.input, job.s3_config, job.deadline) == ("j", None, None, None)


def test_a_job_carries_its_input_its_bucket_and_its_deadline() -> None:
    raw_job = {
        "id": "a",
        "input": {"operation": "x"},
        "s3Config": {"bucketName": "b"},
        "policy": {"executionTimeout": 1000},
    }
    job = build_job(raw_job, job_id="a", timeout_s=0.0)
    assert job.input == {"operation": "x"} and job.s3_config == {"bucketName": "b"}
    assert job.deadline is not None and job.deadline - job.started == pytest.approx(0.9, abs=0.1)


def test_progress_does_not_go_back_when_work_is_started_again() -> None:
    updates: list[Mapping[str, Any]] = []
    job = Job(id="j", report=updates.append)
    with job.stage("generate", (0.0, 0.5)):
        for fraction in (0.2, 0.8, 0.1, 0.9):
            job.progress(fraction)
    assert [update["percent"] for update in updates] == [10.0, 40.0, 40.0, 45.0]


def test_a_download_is_reported_with_its_bytes_and_without_a_change_of_the_percentage() -> None:
    updates: list[Mapping[str, Any]] = []
    job = Job(id="j", report=updates.append)
    with job.stage("separate"):
        job.progress(0.1)
        job.report_download("musicgen/large", 812_400_000, 6_500_000_000)
    assert updates[-1] == {
        "stage": "Downloading musicgen/large: 812 of 6500 MB",
        "percent": 10.0,
        "download": {"model": "musicgen/large", "bytes": 812_400_000, "total_bytes": 6_500_000_000},
    }


@pytest.mark.parametrize("timeout_ms", [10**400, -(10**400), 1e308, float("nan"), float("inf"), True, "5", [5]])
def test_a_timeout_that_no_clock_can_count_is_no_error(timeout_ms: Any) -> None:
    job = build_job({"policy": {"executionTimeout": timeout_ms}}, job_id="a", timeout_s=0.0)
    job.check()
