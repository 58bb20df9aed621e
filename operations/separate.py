"""Takes a song apart into stems (drums, bass, vocals, ...), or into one stem and the rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from audio.disk import materialize
from audio.types import AudioSource
from errors import ErrorCode, InvalidRequestError, sanitize, suggest_name
from models import Models
from models.demucs.segments import InferenceOptions, too_long
from models.demucs.stems import Plan, plan_stems, plan_two_stems, separate
from models.family import ModelHandle
from operations.params import AudioOutParams, Int, LongAudioField
from worker.job import Job
from worker.reply import Output, Reply

if TYPE_CHECKING:
    from models.demucs.engine import Separator

MAX_STEMS = 16
MAX_SEED = 2**53 - 1
MEMORY_BYTES = 384 << 20  # of all stems together; beyond, they go to disk
COMPLEMENT_NAMES: Mapping[str, str] = {"no_vocals": "instrumental"}

StemName = Annotated[str, Field(min_length=1, max_length=64)]


class Params(AudioOutParams):
    """What to take apart, and how."""

    audio: LongAudioField = Field(description="the song")
    model: str | None = Field(None, max_length=100, description="as list_models names it; absent: htdemucs")
    stems: Annotated[list[StemName], Field(min_length=1, max_length=MAX_STEMS)] | None = Field(
        None, description="which stems of the model's; absent: all"
    )
    two_stems: StemName | None = Field(
        None, description="one stem and its complement `no_<stem>` (of `vocals`: also called `instrumental`)"
    )
    shifts: Int = Field(0, ge=0, le=10, description="passes with shifted time, averaged: better and slower by as much")
    overlap: float = Field(0.25, ge=0, le=0.95, description="of neighbouring segments, as a fraction")
    segment: float | None = Field(None, ge=1, le=60, description="s worked on at once; absent: the model's own")
    residual: bool = Field(
        True, description="the stems sum to the input: `other` (or the complement) takes what the model left over"
    )
    seed: Int = Field(0, ge=0, le=MAX_SEED, description="of `shifts`")

    def find_errors(self) -> Iterable[tuple[str, str]]:
        if self.stems is not None and self.two_stems is not None:
            yield "two_stems", "cannot be given together with 'stems'; give one of them"
        if self.stems is not None and len(set(self.stems)) != len(self.stems):
            yield "stems", "names a stem twice"


def status(models: Models) -> str:
    """`ready`, or why nothing can be separated."""
    return models.families.separation.readiness().to_json()


def admit(params: Params, models: Models) -> ModelHandle[Separator]:
    """Resolves the model and checks the request against it, before the song is fetched."""
    family = models.families.separation
    handle = family.resolve(params.model)
    info = family.describe(handle.name)
    _check_segment(params, info.max_segment)
    if info.stems is not None:
        _plan(params, info.stems, handle.name)
    return handle


def run(params: Params, job: Job, models: Models) -> Reply:
    """Separates, once the model is known to do what is asked for."""
    handle = admit(params, models)
    name = handle.name
    sound = job.long_audio["audio"]

    def separated(engine: Separator) -> tuple[Plan, dict[str, AudioSource]]:
        plan = _plan(params, engine.stems, name)
        return plan, _separated(engine, sound, plan, params, job)

    with job.stage("separate", (0.0, 0.95)):
        plan, stems = models.run(handle, separated, check=job.check)
    if params.residual and not plan.residual and "residual" in params.model_fields_set:
        job.warn("'residual' has no effect where not all stems of the model are asked for.")
    return Reply(
        fields={"model_used": name},
        stems={stem: Output(kept, stem) for stem, kept in stems.items()},
        aliases={alias: stem for stem, alias in COMPLEMENT_NAMES.items() if stem in stems},
        parameters={"model": name, "residual": plan.residual},
    )


def _check_segment(params: Params, longest: float | None) -> None:
    if params.segment is not None and longest is not None and params.segment > longest:
        raise too_long(params.segment, longest)


def _plan(params: Params, model_stems: Sequence[str], model: str) -> Plan:
    """Which stems to make; refuses those that the model has not."""
    field, asked = ("two_stems", [params.two_stems]) if params.two_stems else ("stems", params.stems or [])
    for stem in asked:
        if stem not in model_stems:
            raise InvalidRequestError(
                f"'{field}' names '{sanitize(stem)}', which '{model}' does not separate."
                f"{suggest_name(stem, model_stems)} Its stems: {', '.join(model_stems)}.",
                code=ErrorCode.UNKNOWN_STEM,
                details={"field": field, "stem": sanitize(stem), "valid": list(model_stems)},
            )
    if params.two_stems is not None:
        return plan_two_stems(model_stems, params.two_stems, residual=params.residual)
    return plan_stems(model_stems, stems=params.stems, residual=params.residual)


def _separated(engine: Separator, sound: AudioSource, plan: Plan, params: Params, job: Job) -> dict[str, AudioSource]:
    passes = InferenceOptions(shifts=params.shifts, overlap=params.overlap, segment=params.segment, seed=params.seed)
    parts = separate(engine, sound, plan, passes, job.progress)
    return materialize(parts, plan.outputs, like=sound, memory_bytes=MEMORY_BYTES, stack=job.exit_stack)
