"""Plans every step before the first one runs, and finds out how long each one's artefacts are needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from errors import InvalidRequestError, RequestError
from models import Models
from operations.operation import Operation, PlannedArtefacts
from operations.params import InputKind
from operations.params import Params as OperationParams
from operations.pipeline.params import PipelineParams, StepRequest, parse_step
from operations.pipeline.references import Reference
from worker.job import Job

CODES_FORMAT = {"codes_format": "npz"}  # of `encode_audio`, whose codes are in the reply's JSON otherwise


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A step that is ready to run.

    Args:
        name: of the operation.
        plan: the operation's own.
        references, inputs: as in `StepRequest`.
        needed_until: index of the last step that refers to this one; the number of steps if it is returned.
        open_until: as `needed_until`, of everything that was made from it: audio may be computed on reading.
    """

    id: str
    name: str
    operation: Operation[Any, Any]
    params: OperationParams
    plan: Any
    references: Mapping[str, tuple[InputKind, Reference]]
    inputs: Mapping[str, tuple[InputKind, str]]
    needed_until: int
    open_until: int


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps, what is returned of them, and whether a part of it may be."""

    steps: Sequence[PlannedStep]
    returns: Sequence[Reference]
    partial: bool


@contextmanager
def name_step(step: str) -> Iterator[None]:
    """Names the step in the errors that are raised within."""
    try:
        yield
    except RequestError as error:
        if "step" not in error.details:
            error.message = f"{error.message} (Step: '{step}'.)"
            error.args = (error.message,)
            error.details = {"step": step, **error.details}
        raise


def prepare(params: PipelineParams, job: Job, models: Models) -> None:
    """What the steps' operations fetch before they can be planned."""
    for step in map(parse_step, params.steps):
        with name_step(step.id):
            step.operation.prepare(step.params, job, models)


def plan(params: PipelineParams, models: Models) -> Plan:
    """Plans all steps.

    Raises:
        RequestError: what a step's own plan raises, or a reference to what its step does not give. If there are
            several, the message has all of them and `details.errors` lists them.
    """
    requests = [parse_step(step) for step in params.steps]
    returns = [reference for text in params.list_returns() if (reference := Reference.parse(text)) is not None]
    requests = [_write_codes(request, requests, returns) for request in requests]
    plans, errors = dict[str, Any](), list[RequestError]()
    artefacts = dict[str, PlannedArtefacts]()

    @contextmanager
    def collect(step: str) -> Iterator[None]:
        try:
            with name_step(step):
                yield
        except RequestError as error:
            if error.refresh_worker:
                raise
            errors.append(error)

    for request in requests:
        with collect(request.id):
            plans[request.id] = request.operation.plan(request.params, models)
            artefacts[request.id] = request.operation.list_artefacts(plans[request.id])
        for _, reference in request.references.values():
            if reference.step in artefacts:  # else that step has an error of its own
                with collect(request.id):
                    reference.check(artefacts[reference.step], as_input=True)
    for reference in returns:
        if reference.step in artefacts:
            with collect(reference.step):
                reference.check(artefacts[reference.step], as_input=False)
    if errors:
        raise _join_errors(errors)
    uses = find_last_uses(requests, returns)
    steps = [
        PlannedStep(
            id=request.id,
            name=request.name,
            operation=request.operation,
            params=request.params,
            plan=plans[request.id],
            references=request.references,
            inputs=request.inputs,
            needed_until=uses[index][0],
            open_until=uses[index][1],
        )
        for index, request in enumerate(requests)
    ]
    return Plan(steps, returns, params.partial)


def find_last_uses(requests: Sequence[StepRequest], returns: Sequence[Reference]) -> list[tuple[int, int]]:
    """`needed_until` and `open_until` of every step."""
    uses = [(0, 0)] * len(requests)
    returned = {reference.step for reference in returns}
    for index, request in reversed(list(enumerate(requests))):
        users = [
            later
            for later in range(index + 1, len(requests))
            if any(reference.step == request.id for _, reference in requests[later].references.values())
        ]
        needed_until = len(requests) if request.id in returned else max([index, *users])
        uses[index] = (needed_until, max([needed_until, *(uses[user][1] for user in users)]))
    return uses


def _write_codes(request: StepRequest, requests: Sequence[StepRequest], returns: Sequence[Reference]) -> StepRequest:
    """The request with its codes as a file, if that file is referred to."""
    references = [*returns, *(found for other in requests for _, found in other.references.values())]
    if request.name != "encode_audio" or Reference(request.id, "files", "codes") not in references:
        return request
    return replace(request, params=request.params.model_copy(update=CODES_FORMAT))


def _join_errors(errors: Sequence[RequestError]) -> RequestError:
    """The error, or one that has all of them."""
    if len(errors) == 1:
        return errors[0]
    codes = {error.error_code for error in errors}
    return InvalidRequestError(
        " ".join(error.message for error in errors),
        code=codes.pop() if len(codes) == 1 else None,
        details={
            "errors": [
                {"field": f"steps.{error.details['step']}", "problem": error.message, "error_code": error.error_code}
                for error in errors
            ]
        },
    )
