"""The melody of a recording: what is left of it without drums and bass, where a separator is at hand."""

from __future__ import annotations

from audio import Audio
from audio.disk import materialize
from models import Models
from models.demucs.segments import InferenceOptions
from models.demucs.stems import plan_stems, separate
from worker.job import Job

FAMILY = "demucs"
MODEL = "htdemucs"
STEMS = ("vocals", "other")


def melody_of(recording: Audio, job: Job, models: Models) -> Audio:
    """Vocals and other instruments of `recording`, as MusicGen's melody models were trained on.

    The recording as it is, with a warning, where Demucs is neither here nor to be had.
    """
    rows = models.families[FAMILY].rows() if FAMILY in models.families else []
    if not any(row["name"] == MODEL and row["available"] in ("local", "download") for row in rows):
        job.warn(f"The melody was taken from the whole mix, drums and bass included: the model '{MODEL}' is not here.")
        return recording

    def separated(engine: object) -> Audio:
        plan = plan_stems(STEMS, stems=STEMS, residual=False)
        parts = separate(engine, recording, plan, InferenceOptions(), job.progress)  # type: ignore[arg-type]
        stems = materialize(
            parts, STEMS, like=recording, memory_bytes=2 * recording.waveform.nbytes, stack=job.exit_stack
        )
        vocals, other = (stems[name].read(0, recording.num_samples) for name in STEMS)
        return Audio(vocals + other, recording.sample_rate)

    with job.stage("melody", (0.0, 0.1)):
        return models.run(FAMILY, MODEL, separated, check=job.check)
