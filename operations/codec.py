"""Audio and codes for a codec: what `encode_audio` and `decode_audio` share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from audio.disk import materialize_one
from audio.dsp.mix import Silence
from audio.types import AudioSource, Waveform
from errors import sanitize
from models import Models
from models.checkpoints.errors import broken_checkpoint
from models.encodec.codes import EncodedAudio
from models.encodec.spec import CodecSpec
from models.family import ModelHandle
from worker.job import Job

if TYPE_CHECKING:
    from models.encodec.codec import Codec

MEMORY_BYTES = 256 << 20  # of decoded audio; beyond, it is on disk until the job ends


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
