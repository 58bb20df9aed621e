"""One request from JSON to reply: envelope, parameters, intake, the operation, delivery. The way in and the way out."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Mapping
from typing import Any

from errors import InvalidRequestError, sanitize
from models import Models
from operations import Operation, get
from operations.params import AudioOutParams, Params
from worker.input import load as intake
from worker.job import Job, Report, deadline_of
from worker.logs import job_context
from worker.output import deliver as delivery
from worker.reply import AudioOut
from worker.settings import Settings

logger = logging.getLogger(__name__)


def answer(  # noqa: PLR0913  (all by keyword)
    raw_job: object,
    *,
    settings: Settings,
    models: Models,
    cancel: threading.Event | None = None,
    report: Report | None = None,
    facts: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Runs one job and returns its success reply, ready to be serialised; raises `RequestError` for all that fails.

    Args:
        raw_job: what the platform hands over, `{"id", "input", ...}`; anything else is refused. Never mutated.
        cancel: set from another thread to end the job at its next step.
        report: takes progress updates `{"stage", "percent"}`.
        facts: filled with what the caller must learn even if the job fails; see `Job.facts`.
    """
    job = _job(raw_job, cancel, report, settings)
    job.facts = job.facts if facts is None else facts
    with job_context(job.id), job.closing:
        started = time.monotonic()
        name, operation, params = _request(raw_job)
        logger.info("%s started", name)
        audio_out = params.audio_out() if isinstance(params, AudioOutParams) else AudioOut()
        if isinstance(params, AudioOutParams):
            delivery.check(audio_out, job=job, settings=settings)
        getattr(operation, "admit", _admit)(params, models)
        with job.stage("intake"):
            _take_in(params, job, settings)
        reply = operation.run(params, job, models)
        result = delivery.deliver(
            reply,
            operation=name,
            used=params.used() | dict(reply.parameters),
            audio_out=audio_out,
            job=job,
            settings=settings,
            started=started,
        )
        logger.info("%s done in %.2f s", name, time.monotonic() - started)
        return result


def _take_in(params: Params, job: Job, settings: Settings) -> None:
    long_fields = params.long_audio_fields()
    for field in params.audio_fields():
        if (source := getattr(params, field)) is None:
            continue
        if field in long_fields:
            job.long_audio[field] = intake.load_long(source, field=field, job=job, settings=settings)
        else:
            job.audio[field] = intake.load(source, field=field, job=job, settings=settings)
    for field in params.file_fields():
        if (source := getattr(params, field)) is not None:
            job.files[field] = intake.load_file(source, field=field, job=job, settings=settings)


def _admit(params: Params, models: Models) -> None:
    """Of an operation that refuses nothing before it has the request's sounds."""


def _job(raw_job: object, cancel: threading.Event | None, report: Report | None, settings: Settings) -> Job:
    fields = raw_job if isinstance(raw_job, Mapping) else {}
    job_id = fields.get("id")
    s3_config = fields.get("s3Config")
    job = Job(
        id=sanitize(job_id) if isinstance(job_id, str) and job_id else uuid.uuid4().hex,
        s3_config=dict(s3_config) if isinstance(s3_config, Mapping) else None,
        deadline=deadline_of(fields.get("policy"), timeout_s=settings.job_timeout_s, now=time.monotonic()),
    )
    job.cancel = cancel or job.cancel
    job.report = report or job.report
    return job


def _request(raw_job: object) -> tuple[str, Operation, Params]:
    if not isinstance(raw_job, Mapping):
        raise InvalidRequestError("A job is a JSON object with an 'input' object.")
    envelope = raw_job.get("input")
    if not isinstance(envelope, Mapping):
        raise InvalidRequestError("'input' must be a JSON object with 'operation' and its parameters.")
    operation_name = envelope.get("operation")
    if not isinstance(operation_name, str):
        raise InvalidRequestError("'operation' is required and must be a string; try 'list_models' or 'health_check'.")
    name, operation = get(operation_name)
    return name, operation, operation.Params.parse(_values(envelope))


def _values(envelope: Mapping[Any, Any]) -> Mapping[str, Any]:
    """The parameters, from `params` or from beside `operation`; both at once is an error that names the stray keys."""
    beside = {str(key): value for key, value in envelope.items() if key not in ("operation", "params")}
    values = envelope.get("params")
    if values is None:
        return beside
    if not isinstance(values, Mapping):
        raise InvalidRequestError("'params' must be a JSON object.")
    if beside:
        stray = [sanitize(key) for key in list(beside)[:20]]
        raise InvalidRequestError(
            f"Parameters stand both in 'params' and beside it: {', '.join(stray)}. Put all of them into 'params'.",
            details={"stray": stray},
        )
    return {str(key): value for key, value in values.items()}
