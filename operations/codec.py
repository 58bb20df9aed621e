"""Codes in requests, checked against their codec, and their audio: what all operations with codes share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from audio.disk import materialize_one
from audio.dsp.mix import Silence
from audio.types import AudioSource, Waveform
from errors import ErrorCode, InvalidRequestError, sanitize
from models import Models
from models.checkpoints.errors import broken_checkpoint
from models.encodec.codes import EncodedAudio
from models.encodec.codes_file import CodesFile
from models.encodec.spec import MAX_CODEBOOKS, CodecSpec
from models.family import ModelHandle
from worker.job import Job

if TYPE_CHECKING:
    from models.encodec.codec import Codec

MAX_SCALE = 1e4  # of a segment; full scale is 1
MEMORY_BYTES = 256 << 20  # of decoded audio; beyond, it is on disk until the job ends


CodeLists = Annotated[list[list[int]], Field(min_length=1, max_length=MAX_CODEBOOKS)]
"""A list of codes for each codebook, as a request has them."""


def find_list_problems(lists: CodeLists) -> Iterator[str]:
    """What is wrong with codes in lists, whatever the codec."""
    lengths = {len(row) for row in lists}
    if len(lengths) > 1:
        yield f"must have lists of one length, not of {min(lengths)} to {max(lengths)} codes"
    elif lengths == {0}:
        yield "must have at least one frame"
    extremes = [extreme for row in lists if row for extreme in (min(row), max(row))]
    if extremes and (min(extremes) < 0 or max(extremes) > np.iinfo(np.int16).max):
        yield (
            "must be whole numbers from 0, below the codec's number of codes; they are "
            f"{min(extremes)} to {max(extremes)}"
        )


def check_codes(codes: CodesFile, model: str, spec: CodecSpec, *, field: str = "codes") -> EncodedAudio:
    """The codes as the codec takes them.

    Args:
        model: the codec's name.
        field: of the request that has the codes, for errors.

    Raises:
        InvalidRequestError: `invalid_codes`: they are not codes of this codec.
    """
    refuse = partial(_other_codec_error, model=model, field=field)
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
        raise refuse("; ".join(stated_rates))
    if rows > spec.codebooks or rows % spec.group:
        has = f"{spec.codebooks}" if spec.group == 1 else f"an even number of at most {spec.codebooks}"
        raise refuse(f"they are of {rows} codebooks, and it has {has}")
    if highest >= spec.cardinality:
        raise refuse(f"their highest is {highest}, and its codebooks have {spec.cardinality} codes")
    num_samples = spec.longest_audio(frames) if codes.num_samples is None else codes.num_samples
    if (expected := spec.count_frames(num_samples)) != frames:
        raise refuse(
            f"they have {frames} frames, and audio of {num_samples} samples has {expected}; check 'num_samples'"
        )
    needed = spec.count_segments(num_samples) if spec.segments is not None and spec.segments.normalize else 0
    given = 0 if codes.scales is None else len(codes.scales)
    if given != needed:
        raise refuse(f"they have {given} scales instead of {needed}")
    if codes.scales is not None and not ((codes.scales > 0) & (codes.scales <= MAX_SCALE)).all():
        raise refuse(f"a scale is not above 0 and at most {MAX_SCALE:g}")
    return EncodedAudio(codes.codes, num_samples, codes.scales)


def _other_codec_error(reason: str, *, model: str, field: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"The codes in '{field}' cannot be decoded by '{sanitize(model)}': {reason}. Send them as encode_audio "
        "returned them, with the model that made them.",
        code=ErrorCode.INVALID_CODES,
        details={"field": field, "model": sanitize(model)},
    )


def decode_codes(  # noqa: PLR0913  (options by keyword)
    encoded: EncodedAudio,
    model: ModelHandle[Codec],
    spec: CodecSpec,
    *,
    job: Job,
    models: Models,
    memory_bytes: int = MEMORY_BYTES,
) -> AudioSource:
    """The audio of codes, which are the model's, and reports progress to the job's current stage.

    Args:
        memory_bytes: the most that the audio may take in memory; longer audio is on disk until the job ends.
    """

    def run(codec: Codec) -> AudioSource:
        blocks = _require_finite(codec.decode_audio(encoded, progress=job.progress), model.name)
        shape = Silence(spec.sample_rate, spec.channels, encoded.num_samples)
        return materialize_one(blocks, like=shape, memory_bytes=memory_bytes, stack=job.exit_stack)

    return models.run(model, run, observer=job)


def _require_finite(blocks: Iterable[Waveform], model: str) -> Iterator[Waveform]:
    """The blocks as they are; raises `ModelError` for samples that only damaged weights give."""
    for block in blocks:
        if not np.isfinite(block).all():
            raise broken_checkpoint(
                f"The codec '{sanitize(model)}'",
                "its audio has samples that are not finite, so its weights are damaged",
                "Download its files again.",
                details={"model": sanitize(model)},
            )
        yield block
