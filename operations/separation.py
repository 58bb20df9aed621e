"""Separation of any audio into stems: the one way in which operations use it."""

from __future__ import annotations

from dataclasses import dataclass

from audio.disk import materialize
from audio.types import AudioSource
from models import Models
from models.family import ModelHandle
from models.separation import InferenceOptions, Separator, StemPlan, separate
from worker.job import Job

MEMORY_BYTES = 384 << 20


@dataclass(frozen=True, slots=True)
class SeparationPlan:
    """What to separate with which model.

    Args:
        model: from `models.families.separation.resolve`.
        stems: from `plan_stems` or `plan_two_stems`.
        options: shifts, overlap, segment.
    """

    model: ModelHandle[Separator]
    stems: StemPlan
    options: InferenceOptions = InferenceOptions()


def separate_stems(
    plan: SeparationPlan, source: AudioSource, *, job: Job, models: Models, memory_bytes: int = MEMORY_BYTES
) -> dict[str, AudioSource]:
    """Separates `source`, and reports progress to the job's current stage.

    Args:
        source: mono or stereo, of any sample rate and length.
        memory_bytes: the most that all stems together may take in memory; beyond, they are on disk until the job ends.

    Returns:
        The plan's stems by name, each with the source's length, sample rate and channels.
    """

    def run(separator: Separator) -> dict[str, AudioSource]:
        blocks = separate(separator, source, plan.stems, plan.options, job.progress)
        return materialize(blocks, plan.stems.outputs, like=source, memory_bytes=memory_bytes, stack=job.exit_stack)

    return models.run(plan.model, run, observer=job)
