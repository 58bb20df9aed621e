"""Encodes audio to the codes of a neural codec (EnCodec), and measures what the codes keep of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, cast

from pydantic import Field

from audio.dsp.downmix import MonoView
from audio.dsp.mix import PaddedView
from audio.dsp.resample import resample_source
from audio.temporary import SpooledFile
from audio.types import AudioSource, iter_blocks
from errors import AudioError, ErrorCode, InvalidRequestError
from models import Models
from models.encodec.catalog import DEFAULT_CODEC
from models.encodec.codes import EncodedAudio
from models.encodec.codes_file import write_codes
from models.encodec.distance import Distance
from models.encodec.family import CodecModelInfo
from models.encodec.spec import CodecSpec
from models.family import ModelHandle, Readiness
from operations.codec import decode_codes
from operations.operation import Operation, PlannedArtefacts
from operations.params import AudioField, AudioOutParams, Int
from worker.job import Job
from worker.reply import FileOutput, Output, Reply

if TYPE_CHECKING:
    from models.encodec.codec import Codec

MAX_LISTED_CODES = 16_384  # 82 s of MusicGen's codec; some 90 kB of JSON
SPOOL_BYTES = 16 << 20


class Params(AudioOutParams):
    """What to encode, and with how many codebooks."""

    audio: AudioField = Field(
        description="The audio to encode. It is resampled to the codec's sample rate. Stereo is mixed down for a mono"
        " codec, with a warning; mono is sent to both channels of a stereo codec."
    )
    model: str | None = Field(
        None,
        max_length=200,
        description="Codec, as `codecs` in `list_models`: `encodec_24khz`, `encodec_32khz`, `encodec_48khz`, a local"
        f" codec, or a local MusicGen model, whose codec is used. Default: the first of `{DEFAULT_CODEC}`,"
        " `encodec_24khz` and `encodec_48khz` that is on this worker, else `demo`.",
    )
    bandwidth: float | None = Field(
        None,
        gt=0,
        le=1000,
        description="Bandwidth of the codes in kbit/s, one of the codec's `bandwidths` in `list_models`. Default: the"
        " codec's highest. Cannot be sent together with `num_codebooks`.",
    )
    num_codebooks: Int | None = Field(
        None,
        ge=1,
        le=256,
        description="Number of codebooks, in place of `bandwidth`. Fewer keep less of the sound.",
    )
    codes_format: Literal["auto", "npz"] = Field(
        "auto",
        description=f"`auto` returns up to {MAX_LISTED_CODES} codes as lists in `codes`, and more as a NumPy `.npz`"
        " file in `files.codes`. `npz` always returns the file.",
    )
    return_audio: bool = Field(
        False,
        description="Also decode the codes, return that audio, and measure how far it is from the input: `si_sdr_db`"
        " and `log_mel_distance_db`.",
    )

    def find_errors(self) -> Iterable[tuple[str, str]]:
        if self.bandwidth is not None and self.num_codebooks is not None:
            yield "bandwidth", "cannot be sent together with 'num_codebooks'; send one of them"


@dataclass(frozen=True, slots=True)
class Plan:
    """What to encode with which codec, and how many of its codebooks, of all channels together."""

    params: Params
    model: ModelHandle[Codec]
    info: CodecModelInfo
    spec: CodecSpec
    codebooks: int


def plan(params: Params, models: Models) -> Plan:
    """Resolves the codec and the number of codebooks."""
    family = models.families.codecs
    model = family.resolve(params.model)
    info = family.describe(model.name)
    assert info.spec is not None, "a codec that was resolved"
    return Plan(params, model, info, info.spec, _choose_codebooks(params, model.name, info.spec))


def _choose_codebooks(params: Params, model: str, spec: CodecSpec) -> int:
    if params.num_codebooks is not None:
        if params.num_codebooks > spec.codebooks or params.num_codebooks % spec.group:
            allowed = f"1 to {spec.codebooks}" if spec.group == 1 else f"an even number from 2 to {spec.codebooks}"
            raise InvalidRequestError(
                f"'num_codebooks' is {params.num_codebooks}, and the codec '{model}' encodes with {allowed}.",
                details={"field": "num_codebooks", "max": spec.codebooks},
            )
        return params.num_codebooks
    if params.bandwidth is None:
        return spec.codebooks
    if params.bandwidth not in spec.bandwidths:
        raise InvalidRequestError(
            f"'bandwidth' is {params.bandwidth:g} kbit/s, and the codec '{model}' has "
            f"{', '.join(f'{one:g}' for one in spec.bandwidths)}. Use one of them, or 'num_codebooks'.",
            details={"field": "bandwidth", "valid": list(spec.bandwidths)},
        )
    return spec.codebooks_at(params.bandwidth)


def run(plan: Plan, job: Job, models: Models) -> Reply:
    """Encodes, and decodes again if the request asks for it."""
    params, spec = plan.params, plan.spec
    for warning in plan.model.warnings:
        job.warn(warning)
    with job.stage("prepare", (0.0, 0.05)):
        source = fit_codec(job.audio["audio"], spec, job)
    share = 0.5 if params.return_audio else 0.95
    with job.stage("encode", (0.05, share)):
        encoded = models.run(
            plan.model,
            lambda codec: codec.encode_audio(source, codebooks=plan.codebooks, progress=job.progress),
            observer=job,
        )
    fields: dict[str, Any] = {
        "model_used": plan.model.name,
        "licence": plan.info.licence,
        "num_codebooks": plan.codebooks,
        "num_frames": encoded.codes.shape[1],
        "frame_rate": spec.frame_rate,
        "bitrate_kbps": spec.bandwidth(plan.codebooks),
        "num_samples": encoded.num_samples,
        "codec_sample_rate": spec.sample_rate,
    }
    outputs = []
    if params.return_audio:
        with job.stage("decode", (share, 0.95)):
            decoded = decode_codes(encoded, plan.model, spec, job=job, models=models)
            fields |= _measure(source, decoded, job)
        outputs = [Output(decoded, "decoded")]
    files = {}
    if params.codes_format == "auto" and encoded.codes.size <= MAX_LISTED_CODES:
        fields["codes"] = encoded.codes.tolist()
        if encoded.scales is not None:
            fields["scales"] = encoded.scales.astype(float).tolist()
    else:
        files["codes"] = _make_file(encoded, plan, job)
    return Reply(
        fields=fields,
        outputs=outputs,
        files=files,
        parameters={
            "model": plan.model.name,
            "num_codebooks": plan.codebooks,
            "bandwidth": spec.bandwidth(plan.codebooks) if params.bandwidth is None else params.bandwidth,
        },
    )


def fit_codec(source: AudioSource, spec: CodecSpec, job: Job) -> AudioSource:
    """The audio with the codec's sample rate and channels.

    Raises:
        AudioError: it has no sample at that rate.
    """
    if source.channels > spec.channels:
        job.warn("The codec is mono, so the two channels were mixed down to one.")
        source = MonoView(source)
    source = resample_source(source, spec.sample_rate, job.exit_stack)
    if source.num_samples == 0:
        raise AudioError(
            f"'audio' is shorter than a sample at the codec's {spec.sample_rate} Hz. Send longer audio.",
            code=ErrorCode.AUDIO_TOO_SHORT,
        )
    return source if source.channels == spec.channels else PaddedView(source, spec.channels, source.num_samples)


def _measure(original: AudioSource, decoded: AudioSource, job: Job) -> dict[str, float | None]:
    """How far the decoded audio is from what was encoded."""
    distance = Distance(original.sample_rate, original.channels)
    position = 0
    for block in iter_blocks(decoded):
        job.check()
        distance.add(original.read(position, block.shape[1]), block)
        position += block.shape[1]
    si_sdr_db = distance.si_sdr_db
    return {
        "si_sdr_db": None if si_sdr_db is None else round(si_sdr_db, 3),
        "log_mel_distance_db": round(distance.finish(), 3),
    }


def _make_file(encoded: EncodedAudio, plan: Plan, job: Job) -> FileOutput:
    file = job.exit_stack.enter_context(SpooledFile(SPOOL_BYTES))
    write_codes(cast(BinaryIO, file), encoded, spec=plan.spec, model=plan.model.name)
    return FileOutput(cast(BinaryIO, file), "codes", "npz")


def list_artefacts(plan: Plan) -> PlannedArtefacts:
    return PlannedArtefacts(int(plan.params.return_audio), files=("codes",))


def get_readiness(models: Models) -> Readiness:
    return models.families.codecs.readiness()


OPERATION = Operation(
    params=Params, plan=plan, run=run, artefacts=list_artefacts, readiness=get_readiness, optional=True
)
