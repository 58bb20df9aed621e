"""One request from JSON to reply: envelope, parameters, plan, audio inputs, the operation itself, delivery."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from errors import InvalidRequestError, sanitize
from models import Models
from operations.inputs import load_inputs
from operations.operation import Operation, find_operation
from operations.params import DeliveryParams, Params
from worker.job import Job
from worker.output.deliver import check_delivery, deliver
from worker.reply import AudioOut, Reply
from worker.settings import Settings

logger = logging.getLogger(__name__)

MAX_STRAY_KEYS_SHOWN = 20


def dispatch(job: Job, *, settings: Settings, models: Models) -> dict[str, Any]:
    """Runs `job` and returns its success reply, ready to be serialised. Raises `RequestError` for all that fails."""
    job.settings = settings
    with job.stats.measure() as measured, job.exit_stack:
        name, operation, values = _read_envelope(job.input)
        measured.operation = name
        params: Params = operation.params.parse(values)
        logger.info("%s started", name)
        audio_out = params.audio_out() if isinstance(params, DeliveryParams) else AudioOut()
        if isinstance(params, DeliveryParams):
            check_delivery(audio_out, job=job, settings=settings)
        operation.prepare(params, job, models)
        plan = operation.plan(params, models)
        with job.stage("intake"):
            load_inputs(params.list_inputs(), job)
        reply = operation.run(plan, job, models)
        result = deliver(
            reply,
            operation=name,
            used=_list_used(params, reply),
            audio_out=audio_out,
            job=job,
            settings=settings,
        )
        logger.info("%s finished in %.2f s", name, time.monotonic() - job.started)
        return result | {"refresh_worker": True} if models.needs_restart else result


def _read_envelope(envelope: object) -> tuple[str, Operation[Any, Any], dict[str, Any]]:
    """The operation's own name, the operation, and the parameters as they were sent."""
    if not isinstance(envelope, Mapping):
        raise InvalidRequestError(
            "The job must be a JSON object whose 'input' is an object with 'operation' and its parameters."
        )
    operation_name = envelope.get("operation")
    if not isinstance(operation_name, str):
        raise InvalidRequestError("'operation' is required and must be a string; try 'list_models' or 'health_check'.")
    name, operation = find_operation(operation_name)
    return name, operation, _read_params(envelope)


def _read_params(envelope: Mapping[Any, Any]) -> dict[str, Any]:
    """The parameters, from `params` or from beside `operation`; both at once is an error that names the stray keys."""
    beside = {str(key): value for key, value in envelope.items() if key not in ("operation", "params")}
    params = envelope.get("params")
    if params is None:
        return beside
    if not isinstance(params, Mapping):
        raise InvalidRequestError("'params' must be a JSON object.")
    if beside:
        stray = [sanitize(key) for key in list(beside)[:MAX_STRAY_KEYS_SHOWN]]
        raise InvalidRequestError(
            f"Parameters are both in 'params' and beside it: {', '.join(stray)}. Put all of them into 'params'.",
            details={"stray": stray},
        )
    return {str(key): value for key, value in params.items()}


def _list_used(params: Params, reply: Reply) -> dict[str, Any]:
    """The reply's `parameters`: those of the request, with the values that were really used."""
    given = {name: value for name, value in params.list_values().items() if name not in reply.unused}
    return given | dict(reply.parameters)
