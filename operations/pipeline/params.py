"""The parameters of `pipeline`, and what of them can be checked without looking at a model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, create_model

from errors import InvalidRequestError, RequestError, sanitize, suggest_name
from operations.operation import Operation, find_operation
from operations.params import UNKNOWN, AudioOutParams, InputKind, Item
from operations.params import Params as OperationParams
from operations.pipeline.references import EXAMPLES, ID, Reference

MAX_STEPS = 16
MAX_RETURNS = 64
NAME = "pipeline"

ReferenceText = Annotated[str, Field(max_length=128)]


class Step(Item):
    """One step of a pipeline."""

    id: str = Field(
        json_schema_extra={"pattern": f"^{ID}$"},  # checked with the rest of the step, so that all is reported together
        description="Name of the step: a letter, then up to 31 letters, digits, `_` or `-`.",
    )
    operation: Annotated[str, Field(max_length=100)] = Field(description="The operation, any but `pipeline` itself.")
    params: dict[str, Any] = Field(
        default_factory=dict,
        description="Its parameters, without audio-out fields. An audio field may be a reference to an earlier step.",
    )


@dataclass(frozen=True, slots=True)
class StepRequest:
    """A step whose parameters are valid.

    Args:
        name: of the operation.
        references: the fields that refer to earlier steps, by path.
        inputs: kind and source of the other audio and file fields, by path.
    """

    id: str
    name: str
    operation: Operation[Any, Any]
    params: OperationParams
    references: Mapping[str, tuple[InputKind, Reference]]
    inputs: Mapping[str, tuple[InputKind, str]]


class _PipelineParams(AudioOutParams):
    """Steps that are run one after another, and what of them comes back."""

    steps: list[Step] = Field(
        min_length=1, max_length=MAX_STEPS, description="The steps, in their order; each an object as below."
    )
    partial: bool = Field(
        False,
        description="If a step fails, return what was finished and is still needed, with `failed_step` and a warning,"
        " instead of an error.",
    )

    def find_errors(self) -> Iterator[tuple[str, str]]:
        ids = [step.id for step in self.steps]
        if len(set(ids)) < len(ids):
            yield "steps", "has two steps of one id"
        for index, step in enumerate(self.steps):
            field = f"steps.{step.id}"
            if not re.fullmatch(ID, step.id):
                field = f"steps.{index}"
                yield f"{field}.id", "must be a letter, then up to 31 letters, digits, '_' or '-'"
            for name in AudioOutParams.model_fields:
                if step.params.get(name) is not None:
                    problem = "has no effect in a step, whose sound is passed on as it is. Send it beside 'steps'"
                    yield f"{field}.params.{name}", problem
            try:
                request = parse_step(step)
            except RequestError as error:
                yield from ((f"{field}.{path}", problem) for path, problem in _list_step_errors(step, error))
                continue
            for path, (_, source) in request.params.list_inputs().items():
                if is_reference(source) and path not in request.references:
                    yield f"{field}.params.{path}", f"starts with '$' and is no reference; write {EXAMPLES}"
            for path, (kind, reference) in request.references.items():
                for problem in _find_reference_problem(reference, ids, ids[:index], step.id):
                    yield f"{field}.params.{path}", problem
                if (kind == "file") != (reference.kind == "files"):
                    takes = "a file, such as '$<id>.files.codes'" if kind == "file" else "audio, not a file"
                    yield f"{field}.params.{path}", f"takes {takes}"
        for index, text in enumerate(getattr(self, "return") or ()):
            field = f"return.{index}"
            if (parsed := Reference.parse(text)) is None:
                yield field, f"must be a reference: {EXAMPLES}"
            else:
                yield from ((field, problem) for problem in _find_reference_problem(parsed, ids, ids, None))

    def list_returns(self) -> list[str]:
        """The references of `return`; the last step if there are none."""
        given: list[str] | None = getattr(self, "return")
        return [f"${self.steps[-1].id}"] if given is None else given

    def list_values(self) -> dict[str, Any]:
        """Without `steps`, each of which has its own parameters in the reply."""
        return {name: value for name, value in super().list_values().items() if name != "steps"}


Params = create_model(  # `return` cannot be written as a field of a class
    "Params",
    __base__=_PipelineParams,
    __module__=__name__,
    **{
        "return": (
            Annotated[list[ReferenceText], Field(min_length=1, max_length=MAX_RETURNS)] | None,
            Field(
                None,
                description="What comes back: references to whole steps (`$<id>`) or single artefacts. Default: all"
                " outputs, stems and files of the last step.",
            ),
        )
    },  # type: ignore[call-overload]
)
PipelineParams = _PipelineParams


def parse_step(step: Step) -> StepRequest:
    """The step with its operation's own parameters.

    Raises:
        InvalidRequestError: the operation does not exist, or its parameters are not valid.
    """
    name, operation = find_operation(step.operation)
    if name == NAME:
        raise InvalidRequestError("A pipeline cannot be a step of a pipeline. Put its steps into this one.")
    params = operation.params.parse(step.params)
    given = params.list_inputs()
    references = {
        path: (kind, reference)
        for path, (kind, source) in given.items()
        if is_reference(source) and (reference := Reference.parse(source)) is not None
    }
    inputs = {path: found for path, found in given.items() if not is_reference(found[1])}
    return StepRequest(step.id, name, operation, params, references, inputs)


def is_reference(source: str) -> bool:
    """Whether a field refers to a step. No base64, URL or path starts with `$`."""
    return source.startswith("$")


def _list_step_errors(step: Step, error: RequestError) -> Iterator[tuple[str, str]]:
    """(field, problem) of every error of a step's operation and parameters."""
    if "errors" not in error.details:
        yield "operation", f"is refused: {error.message}"
        return
    for entry in error.details["errors"]:
        # The reply would list the pipeline's own fields as the valid ones.
        problem = entry["problem"].replace(UNKNOWN, f"is no parameter of '{sanitize(step.operation)}'", 1)
        yield f"params.{entry['field']}", problem


def _find_reference_problem(reference: Reference, ids: list[str], earlier: list[str], own: str | None) -> Iterator[str]:
    """What is wrong with the step that a reference names."""
    if reference.step in earlier:
        return
    if reference.step == own:
        yield f"refers to its own step '{own}'; refer to an earlier one"
    elif reference.step in ids:
        yield f"refers to the later step '{reference.step}'; a step can use earlier ones only"
    else:
        yield f"refers to the step '{reference.step}', which does not exist.{suggest_name(reference.step, ids)}"
