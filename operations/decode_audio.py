"""Decodes the codes of a neural codec (EnCodec) to audio."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from errors import ErrorCode, InvalidRequestError, sanitize
from models import Models
from models.encodec.codes import EncodedAudio
from models.encodec.codes_file import CodesFile, read_codes
from models.encodec.spec import CodecSpec
from models.family import ModelHandle, Readiness
from operations.codec import MAX_SCALE, CodeLists, check_codes, decode_codes, find_list_problems
from operations.operation import Operation, PlannedArtefacts
from operations.params import AudioOutParams, FileField, Int
from worker.job import Job
from worker.reply import Output, Reply
from worker.settings import Settings

if TYPE_CHECKING:
    from models.encodec.codec import Codec

SAMPLE_BYTES = 4

Scale = Annotated[float, Field(gt=0, le=MAX_SCALE)]


class Params(AudioOutParams):
    """The codes, and what made them."""

    codes: FileField | CodeLists = Field(
        description="The codes: lists of whole numbers, one list for each codebook, as `codes` of `encode_audio`; or"
        " the `.npz` file of `encode_audio` as base64, data URI, URL or volume path."
    )
    model: str | None = Field(
        None,
        max_length=200,
        description="Codec that made the codes. Required with lists; a file names its codec, and another one can be"
        " given here if it has the same kind of codes.",
    )
    scales: Annotated[list[Scale], Field(min_length=1)] | None = Field(
        None, description="With lists: `scales` of `encode_audio`, the level of each segment of `encodec_48khz`."
    )
    num_samples: Int | None = Field(
        None,
        ge=1,
        description="With lists: `num_samples` of `encode_audio`, the length of the audio at the codec's sample rate."
        " Default: the longest that the codes can have.",
    )

    def find_errors(self) -> Iterable[tuple[str, str]]:
        if isinstance(self.codes, str):
            for name in ("scales", "num_samples"):
                if getattr(self, name) is not None:
                    yield name, "cannot be sent with a file, which has its own"
            return
        if self.model is None:
            yield "model", "is required when 'codes' are lists: send the 'model_used' of 'encode_audio'"
        yield from (("codes", problem) for problem in find_list_problems(self.codes))


@dataclass(frozen=True, slots=True)
class Plan:
    """The codec that the request names, and the codes of its lists; a file is read later.

    Args:
        model: None: the one that the file names.
        codes: None: they are in the file.
    """

    model: ModelHandle[Codec] | None
    codes: CodesFile | None


def plan(params: Params, models: Models) -> Plan:
    """Resolves the codec, and checks codes that are lists against it."""
    family = models.families.codecs
    model = None if params.model is None else family.resolve(params.model)
    if isinstance(params.codes, str):
        return Plan(model, None)
    assert model is not None, "a request with lists names its model"
    scales = None if params.scales is None else np.array(params.scales, np.float32)
    codes = CodesFile(np.array(params.codes, np.int16), num_samples=params.num_samples, scales=scales)
    check_codes(codes, model.name, family.get_spec(model.name))
    return Plan(model, codes)


def run(plan: Plan, job: Job, models: Models) -> Reply:
    """Reads the file, and decodes."""
    family, settings = models.families.codecs, job.settings
    codes = plan.codes or read_codes(job.files["codes"], max_bytes=settings.max_input_bytes)
    model = plan.model or _resolve_named(codes, models)
    if codes.model not in ("", model.name):
        job.warn(f"The codes were made by '{sanitize(codes.model)}', and '{model.name}' decoded them.")
    spec = family.get_spec(model.name)
    encoded = check_codes(codes, model.name, spec)
    _check_length(encoded, spec, settings)
    with job.stage("decode", (0.0, 0.95)):
        audio = decode_codes(encoded, model, spec, job=job, models=models)
    return Reply(
        fields={
            "model_used": model.name,
            "licence": family.describe(model.name).licence,
            "num_codebooks": encoded.codes.shape[0],
            "num_frames": encoded.codes.shape[1],
        },
        outputs=[Output(audio, "decoded")],
        parameters={"model": model.name, "num_samples": encoded.num_samples},
    )


def _resolve_named(codes: CodesFile, models: Models) -> ModelHandle[Codec]:
    """The codec that a file names."""
    if not codes.model:
        raise InvalidRequestError(
            "The file in 'codes' does not name its codec. Send its name as 'model'.", code=ErrorCode.INVALID_CODES
        )
    return models.families.codecs.resolve(codes.model)


def _check_length(encoded: EncodedAudio, spec: CodecSpec, settings: Settings) -> None:
    """Refuses codes of audio that is longer than the worker takes."""
    seconds, size = encoded.num_samples / spec.sample_rate, encoded.num_samples * spec.channels * SAMPLE_BYTES
    if seconds > settings.max_input_seconds or size > settings.max_decoded_bytes:
        raise InvalidRequestError(
            f"The codes are those of {seconds:.0f} s of audio, and at most {settings.max_input_seconds:g} s and "
            f"{settings.max_decoded_bytes} bytes are decoded. Send them in parts.",
            code=ErrorCode.AUDIO_TOO_LONG,
            details={"field": "codes", "seconds": round(seconds, 3), "max_seconds": settings.max_input_seconds},
        )


def list_artefacts(plan: Plan) -> PlannedArtefacts:
    return PlannedArtefacts(1)


def get_readiness(models: Models) -> Readiness:
    return models.families.codecs.readiness()


OPERATION = Operation(
    params=Params, plan=plan, run=run, artefacts=list_artefacts, readiness=get_readiness, optional=True
)
