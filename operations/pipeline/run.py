"""Runs the steps of a pipeline, passes their audio on, frees what is no longer needed, and collects the reply."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from errors import CancelledError, RequestError
from models import Models
from operations.inputs import load_inputs
from operations.params import AudioOutParams
from operations.pipeline.plan import Plan, PlannedStep, name_step
from operations.pipeline.references import Reference
from worker.job import Job
from worker.reply import FileOutput, Output, Reply

LOADED, DONE = 0.02, 0.95  # of the progress


def run(plan: Plan, job: Job, models: Models) -> Reply:
    """Runs `plan`: everything that the steps read from outside is fetched before the first one starts."""
    share = (DONE - LOADED) / len(plan.steps)
    jobs = [
        job.start_step(step.id, (LOADED + share * index, LOADED + share * (index + 1)))
        for index, step in enumerate(plan.steps)
    ]
    for step_job in jobs:
        job.exit_stack.callback(step_job.exit_stack.close)
    with job.stage("intake", (0.0, LOADED)):
        count = sum(len(step.inputs) for step in plan.steps)
        for step, step_job in zip(plan.steps, jobs, strict=True):
            with name_step(step.id):
                load_inputs(step.inputs, step_job, count=count)
            _move_warnings(step, step_job, job)
    results: dict[str, Reply] = {}
    described: list[dict[str, Any]] = []
    for index, (step, step_job) in enumerate(zip(plan.steps, jobs, strict=True)):
        try:
            with _track_step(step, job):
                results[step.id] = _run_step(step, step_job, results, models)
        except RequestError as error:
            is_final = isinstance(error, CancelledError) or error.refresh_worker
            if not plan.partial or is_final or not described:
                raise
            return _build_partial_reply(step, error, results, described, job)
        finally:
            _move_warnings(step, step_job, job)
        described.append(_describe(step, results[step.id], step_job))
        for done, done_job in zip(plan.steps[: index + 1], jobs, strict=False):
            if done.needed_until <= index:
                results.pop(done.id, None)
            if done.open_until <= index:
                done_job.exit_stack.close()
    job.deadline = jobs[-1].deadline  # None if the last step ended because the time was up: what it made is delivered
    return _collect(plan.returns, results, {"steps": described})


def _run_step(step: PlannedStep, step_job: Job, results: Mapping[str, Reply], models: Models) -> Reply:
    for path, (kind, reference) in step.references.items():
        if kind == "file":
            step_job.files[path] = reference.open_file(results)
        else:
            step_job.audio[path] = reference.find_audio(results)
    step_job.started = time.monotonic()
    reply: Reply = step.operation.run(step.plan, step_job, models)
    step_job.timings["total_s"] = time.monotonic() - step_job.started
    step_job.audio.clear()
    step_job.files.clear()
    return reply


@contextmanager
def _track_step(step: PlannedStep, job: Job) -> Iterator[None]:
    """Names the step in every progress update and error, and keeps the ids of all tasks that were paid."""
    job.details["step"] = step.id
    try:
        with name_step(step.id):
            yield
    except RequestError:
        del job.details["step"]  # the error has it
        raise
    else:
        del job.details["step"]
    finally:
        task_id, known = job.details.get("task_id"), job.details.get("task_ids", {})
        if task_id is not None and task_id not in known.values():
            job.details["task_ids"] = {**known, step.id: task_id}


def _move_warnings(step: PlannedStep, step_job: Job, job: Job) -> None:
    for sentence in step_job.warnings:
        job.warn(f"{step.id}: {sentence}")
    step_job.warnings.clear()


def _describe(step: PlannedStep, reply: Reply, step_job: Job) -> dict[str, Any]:
    """What the reply says about a step."""
    parameters = step.params.list_values() | dict(reply.parameters)
    extras = [dict(output.extra) for output in reply.outputs]
    return {
        "id": step.id,
        "operation": step.name,
        **{name: value for name, value in reply.fields.items() if name not in ("id", "operation")},
        **({"outputs": extras} if any(extras) else {}),
        "parameters": {name: value for name, value in parameters.items() if name not in AudioOutParams.model_fields},
        "timings": {name: round(seconds, 4) for name, seconds in step_job.timings.items()},
    }


def _build_partial_reply(
    step: PlannedStep, error: RequestError, results: Mapping[str, Reply], described: list[dict[str, Any]], job: Job
) -> Reply:
    """The artefacts of every finished step that a later step or `return` would have used."""
    job.warn(f"The step '{step.id}' failed, so this is a part of the result: {error.message}")
    job.deadline = None  # it may have passed; delivering what was finished takes little time
    failed = {"id": step.id, "operation": step.name, **error.to_reply()}
    return _collect([Reference(name) for name in results], results, {"steps": described, "failed_step": failed})


def _collect(returns: Sequence[Reference], results: Mapping[str, Reply], fields: Mapping[str, Any]) -> Reply:
    """The reply with what is returned. If it is of several steps, stems and files have the id before their name."""
    outputs: list[Output] = []
    stems: dict[str, Output] = {}
    files: dict[str, FileOutput] = {}
    aliases: dict[str, str] = {}
    always_list = False
    prefixes = [f"{reference.step}_" if len({other.step for other in returns}) > 1 else "" for reference in returns]
    for reference, prefix in zip(returns, prefixes, strict=True):
        reply, extra = results[reference.step], {"step": reference.step}
        if reference.kind is None:
            outputs += [_extend(output, extra) for output in reply.outputs]
            stems |= {f"{prefix}{name}": _extend(output, extra) for name, output in reply.stems.items()}
            files |= {f"{prefix}{name}": file for name, file in reply.files.items()}
            aliases |= {f"{prefix}{alias}": f"{prefix}{name}" for alias, name in reply.aliases.items()}
            always_list |= reply.always_list
        elif reference.kind == "outputs":
            outputs.append(_extend(reference.find_output(reply), extra))
        elif reference.kind == "stems":
            stems[f"{prefix}{reference.name}"] = _extend(reference.find_output(reply), extra)
        else:
            files[f"{prefix}{reference.name}"] = reference.find_file(reply)
    aliases = {alias: name for alias, name in aliases.items() if alias not in stems}
    return Reply(fields=fields, outputs=outputs, stems=stems, files=files, aliases=aliases, always_list=always_list)


def _extend(output: Output, extra: Mapping[str, Any]) -> Output:
    return replace(output, extra={**output.extra, **extra})
