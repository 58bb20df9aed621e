"""Decodes the codes of a neural codec (EnCodec) to audio."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from errors import ErrorCode, InvalidRequestError, sanitize
from models import Models
from models.encodec.codes import EncodedAudio
from models.encodec.codes_file import CodesFile, read_codes
from models.encodec.spec import MAX_CODEBOOKS, CodecSpec
from models.family import ModelHandle, Readiness
from operations.codec import decode_codes
from operations.operation import Operation
from operations.params import AudioOutParams, FileField, Int
from worker.job import Job
from worker.reply import Output, Reply
from worker.settings import Settings

if TYPE_CHECKING:
    from models.encodec.codec import Codec

SAMPLE_BYTES = 4
MAX_SCALE = 1e4  # of a segment; full scale is 1

Scale = Annotated[float, Field(gt=0, le=MAX_SCALE)]
Codes = Annotated[list[list[int]], Field(min_length=1, max_length=MAX_CODEBOOKS)]


class Params(AudioOutParams):
    """The codes, and what made them."""

    codes: FileField | Codes = Field(
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
        lengths = {len(row) for row in self.codes}
        if len(lengths) > 1:
            yield "codes", f"must have lists of one length, not of {min(lengths)} to {max(lengths)} codes"
        elif lengths == {0}:
            yield "codes", "must have at least one frame"
        low, high = (
            min(map(min, filter(None, self.codes)), default=0),
            max(map(max, filter(None, self.codes)), default=0),
        )
        if low < 0 or high > np.iinfo(np.int16).max:
            yield "codes", f"must be whole numbers from 0, below the codec's number of codes; they are {low} to {high}"


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


def check_codes(codes: CodesFile, model: str, spec: CodecSpec) -> EncodedAudio:
    """The codes as the codec takes them.

    Raises:
        InvalidRequestError: `invalid_codes`: they are not codes of this codec.
    """
    rows, frames = codes.codes.shape
    highest = int(codes.codes.max())
    stated_rates = [
        f"they state {stated:g} {unit}, and it has {own:g}"
        for stated, own, unit in (
            (codes.sample_rate, spec.sample_rate, "Hz"),
            (codes.frame_rate, spec.frame_rate, "frames a second"),
        )
        if stated is not None and abs(stated - own) > 1e-6 * own
    ]
    if stated_rates:
        raise _other_codec_error("; ".join(stated_rates), model)
    if rows > spec.codebooks or rows % spec.group:
        has = f"{spec.codebooks}" if spec.group == 1 else f"an even number of at most {spec.codebooks}"
        raise _other_codec_error(f"they are of {rows} codebooks, and it has {has}", model)
    if highest >= spec.cardinality:
        raise _other_codec_error(f"their highest is {highest}, and its codebooks have {spec.cardinality} codes", model)
    num_samples = spec.longest_audio(frames) if codes.num_samples is None else codes.num_samples
    if (expected := spec.count_frames(num_samples)) != frames:
        raise _other_codec_error(
            f"they have {frames} frames, and audio of {num_samples} samples has {expected}; check 'num_samples'", model
        )
    return EncodedAudio(codes.codes, num_samples, _check_scales(codes, num_samples, model, spec))


def _check_scales(codes: CodesFile, num_samples: int, model: str, spec: CodecSpec) -> NDArray[np.float32] | None:
    needed = spec.count_segments(num_samples) if spec.segments is not None and spec.segments.normalize else 0
    given = 0 if codes.scales is None else len(codes.scales)
    if given != needed:
        raise _other_codec_error(f"they have {given} scales instead of {needed}", model)
    if codes.scales is None:
        return None
    if not ((codes.scales > 0) & (codes.scales <= MAX_SCALE)).all():
        raise _other_codec_error(f"a scale is not above 0 and at most {MAX_SCALE:g}", model)
    return codes.scales


def _other_codec_error(reason: str, model: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"The codes cannot be decoded by '{sanitize(model)}': {reason}. Send them as encode_audio returned them, with "
        "the model that made them.",
        code=ErrorCode.INVALID_CODES,
        details={"field": "codes", "model": sanitize(model)},
    )


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


def get_readiness(models: Models) -> Readiness:
    return models.families.codecs.readiness()


OPERATION = Operation(params=Params, plan=plan, run=run, readiness=get_readiness, optional=True)
