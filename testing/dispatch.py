"""Sends a request through the dispatcher, as the handler does, but lets its errors through."""

from __future__ import annotations

import threading
from typing import Any

from models import Models
from operations.dispatch import dispatch
from worker.job import Report, build_job, read_job_id
from worker.settings import Settings


def answer(
    raw_job: object,
    *,
    settings: Settings,
    models: Models,
    cancel: threading.Event | None = None,
    report: Report | None = None,
) -> dict[str, Any]:
    """The success reply to `raw_job`, `{"input": {...}}`; raises the `RequestError` of any other."""
    job = build_job(
        raw_job, job_id=read_job_id(raw_job), timeout_s=settings.job_timeout_s, cancel=cancel, report=report
    )
    return dispatch(job, settings=settings, models=models)
