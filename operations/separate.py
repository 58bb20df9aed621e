"""Separates a song into stems (drums, bass, vocals, ...), or into one stem and the rest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from errors import ErrorCode, InvalidRequestError, sanitize, suggest_name
from models import Models
from models.demucs.catalog import DEFAULT_MODEL
from models.family import Readiness
from models.separation import (
    InferenceOptions,
    SeparationModelInfo,
    StemPlan,
    plan_stems,
    plan_two_stems,
    segment_too_long_error,
)
from operations.operation import Operation, PlannedArtefacts
from operations.params import MAX_SEED, AudioField, AudioOutParams, Int
from operations.separation import SeparationPlan, separate_stems
from worker.job import Job
from worker.reply import Output, Reply

MAX_STEMS = 16
INSTRUMENTAL = {"no_vocals": "instrumental"}  # the complement's name, and its alias in the reply

StemName = Annotated[str, Field(min_length=1, max_length=64)]


class Params(AudioOutParams):
    """What to separate, and how."""

    audio: AudioField = Field(description="The song to separate. Hours of audio are processed in bounded memory.")
    model: str | None = Field(
        None,
        max_length=100,
        description=f"Separation model, as in `list_models`. Default: `{DEFAULT_MODEL}` if it is on this worker or can"
        " be downloaded, else another model that is here, the demo model last.",
    )
    stems: Annotated[list[StemName], Field(min_length=1, max_length=MAX_STEMS)] | None = Field(
        None, description="Stems to return. Only the sub-models that they need are run. Default: all of the model's."
    )
    two_stems: StemName | None = Field(
        None,
        description="Return this stem and its complement, named `no_<stem>`. The complement of `vocals` is also"
        " returned as `instrumental`.",
    )
    shifts: Int = Field(
        0,
        ge=0,
        le=10,
        description="Number of passes over randomly time-shifted audio, which are averaged. More is slightly better"
        " and proportionally slower. 0 = one pass without a shift.",
    )
    overlap: float | None = Field(
        None,
        ge=0,
        le=0.95,
        description="Overlap of neighbouring segments as a fraction of their length. Higher values give smoother"
        " transitions and take longer. Default: 0.25 for Demucs, the value in its yaml file for a RoFormer.",
    )
    segment: float | None = Field(
        None,
        ge=1,
        le=60,
        description="Length of the segments that are processed at once, in seconds. Shorter segments need less"
        " memory. Default: the model's training length.",
    )
    residual: bool = Field(
        True,
        description="Make the stems sum to the input exactly: what the model leaves over is added to `other`, or to"
        " the complement.",
    )
    seed: Int = Field(0, ge=0, le=MAX_SEED, description="Seed of the random shifts of `shifts`.")

    def find_errors(self) -> Iterable[tuple[str, str]]:
        if self.stems is not None and self.two_stems is not None:
            yield "two_stems", "cannot be used together with 'stems'; send one of them"
        if self.stems is not None and len(set(self.stems)) != len(self.stems):
            yield "stems", "lists a stem twice"


@dataclass(frozen=True, slots=True)
class Plan:
    """What to separate, the parameters that were asked for, and the overlap that is used."""

    params: Params
    separation: SeparationPlan
    overlap: float


def plan(params: Params, models: Models) -> Plan:
    """Resolves the model and checks the request against it."""
    family = models.families.separation
    model = family.resolve(params.model)
    info = family.describe(model.name)
    if params.segment is not None and info.max_segment is not None and params.segment > info.max_segment:
        raise segment_too_long_error(params.segment, info.max_segment)
    options = InferenceOptions(shifts=params.shifts, overlap=params.overlap, segment=params.segment, seed=params.seed)
    overlap = info.overlap if params.overlap is None else params.overlap
    return Plan(params, SeparationPlan(model, _plan_stems(params, info, model.name), options), overlap)


def run(plan: Plan, job: Job, models: Models) -> Reply:
    params, model, chosen = plan.params, plan.separation.model, plan.separation.stems
    with job.stage("separate", (0.0, 0.95)):
        stems = separate_stems(plan.separation, job.audio["audio"], job=job, models=models)
    if params.residual and not chosen.residual and "residual" in params.model_fields_set:
        job.warn("'residual' has no effect unless all stems of the model are returned.")
    return Reply(
        fields={"model_used": model.name},
        stems={name: Output(audio, name) for name, audio in stems.items()},
        aliases={alias: name for name, alias in INSTRUMENTAL.items() if name in stems},
        parameters={"model": model.name, "residual": chosen.residual, "overlap": plan.overlap},
    )


def _plan_stems(params: Params, info: SeparationModelInfo, model: str) -> StemPlan:
    """Which stems to compute; refuses stems that the model does not separate."""
    available = info.stems
    field, requested = ("two_stems", [params.two_stems]) if params.two_stems else ("stems", params.stems or [])
    for stem in requested:
        if stem not in available:
            raise InvalidRequestError(
                f"'{field}' names '{sanitize(stem)}', which the model '{model}' does not separate."
                f"{suggest_name(stem, available)} Its stems: {', '.join(available)}.",
                code=ErrorCode.UNKNOWN_STEM,
                details={"field": field, "stem": sanitize(stem), "valid": list(available)},
            )
    if params.two_stems is not None:
        return plan_two_stems(available, params.two_stems, residual=params.residual)
    return plan_stems(available, stems=params.stems, residual=params.residual and info.is_partition)


def list_artefacts(plan: Plan) -> PlannedArtefacts:
    stems = plan.separation.stems.outputs
    return PlannedArtefacts(stems=(*stems, *(alias for name, alias in INSTRUMENTAL.items() if name in stems)))


def get_readiness(models: Models) -> Readiness:
    return models.families.separation.readiness()


OPERATION = Operation(
    params=Params,
    plan=plan,
    run=run,
    artefacts=list_artefacts,
    readiness=get_readiness,
    optional=True,  # a worker without Demucs is healthy: it may make music, or covers from separate audio
)
