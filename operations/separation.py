"""Separation of any audio into stems: the one way in which operations use it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from audio.disk import materialize
from audio.types import AudioSource, Waveform
from errors import sanitize
from models import Models
from models.checkpoints.errors import damaged_weights
from models.family import ModelHandle
from models.runtime.progress import Progress
from models.separation import InferenceOptions, Separator, StemPlan, separate
from worker.job import Job

MEMORY_BYTES = 384 << 20
SLOW_FACTOR = 10  # times the length of the audio
SLOW_SECONDS = 60.0  # a shorter separation is not worth a warning


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

    for warning in plan.model.warnings:
        job.warn(warning)

    def run(separator: Separator) -> dict[str, AudioSource]:
        progress = warn_if_slow(job, source.num_samples / source.sample_rate)
        blocks = _require_finite(separate(separator, source, plan.stems, plan.options, progress), plan.model.name)
        return materialize(blocks, plan.stems.outputs, like=source, memory_bytes=memory_bytes, stack=job.exit_stack)

    return models.run(plan.model, run, observer=job)


def _require_finite(blocks: Iterator[dict[str, Waveform]], model: str) -> Iterator[dict[str, Waveform]]:
    """The blocks as they are; raises `ModelError` for samples that only damaged weights give."""
    for stems in blocks:
        if not all(np.isfinite(stem).all() for stem in stems.values()):
            raise damaged_weights(f"The separation model '{sanitize(model)}'", "its stems have", model)
        yield stems


def warn_if_slow(job: Job, duration: float, clock: Callable[[], float] = time.monotonic) -> Progress:
    """The job's progress, with a warning once the first batch shows that the separation takes long.

    Args:
        duration: of the audio, in seconds.
        clock: in seconds.
    """
    started, is_measured = clock(), False

    def report(fraction: float) -> None:
        nonlocal is_measured
        job.progress(fraction)
        if is_measured or fraction <= 0:
            return
        is_measured = True
        estimate = (clock() - started) / fraction
        if fraction < 1 and estimate > max(SLOW_FACTOR * duration, SLOW_SECONDS):
            job.warn(
                f"The separation takes about {max(round(estimate / 60), 1)} minutes on this device,"
                f" {estimate / duration:.0f} times the length of the audio. A GPU or the model 'htdemucs' is faster."
            )

    return report
