"""The melody of a recording: what is left of it without drums and bass, where a separator is at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from audio import Audio
from audio.disk import materialize
from models import Models
from models.demucs.catalog import DEFAULT_MODEL
from models.demucs.segments import InferenceOptions
from models.demucs.stems import plan_stems, separate
from worker.job import Job

if TYPE_CHECKING:
    from models.demucs.engine import Separator

STEMS = ("vocals", "other")


def melody_of(recording: Audio, job: Job, models: Models) -> Audio:
    """Vocals and other instruments of `recording`, as MusicGen's melody models were trained on.

    The recording as it is, with a warning, where Demucs is neither here nor to be had.
    """
    family = models.families.separation
    if not family.describe(DEFAULT_MODEL).availability.is_usable:
        job.warn(
            "The melody was taken from the whole mix, drums and bass included: the model "
            f"'{DEFAULT_MODEL}' is not here."
        )
        return recording

    def separated(engine: Separator) -> Audio:
        plan = plan_stems(STEMS, stems=STEMS, residual=False)
        parts = separate(engine, recording, plan, InferenceOptions(), job.progress)
        stems = materialize(
            parts, STEMS, like=recording, memory_bytes=2 * recording.waveform.nbytes, stack=job.exit_stack
        )
        vocals, other = (stems[name].read(0, recording.num_samples) for name in STEMS)
        return Audio(vocals + other, recording.sample_rate)

    with job.stage("melody", (0.0, 0.1)):
        return models.run(family.resolve(DEFAULT_MODEL), separated, check=job.check)
