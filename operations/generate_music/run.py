"""The pipeline of a local music model: prepare the audio inputs, generate, finish the clips."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from audio import Audio
from audio.disk import materialize_one
from audio.dsp.edit import CutView
from audio.dsp.resample import resample_source
from audio.temporary import require_disk_space
from audio.types import SAMPLE_BYTES, AudioSource, in_memory
from errors import AudioError, ErrorCode
from models import Models
from models.musicgen.request import MAX_DRIFT_DB, GenerationRequest, GenerationResult
from operations.generate_music.params import MIN_CONTINUATION_S
from operations.generate_music.plan import MELODY_STEMS, MusicPlan
from operations.separation import SeparationPlan, separate_stems
from worker.job import Job
from worker.reply import Output, Reply

if TYPE_CHECKING:
    from models.musicgen.engine import Engine
    from models.musicgen.multiband_diffusion import MultiBandDiffusion

MELODY_MARGIN_S = 31.0  # of melody after the clip's end: the last window is conditioned as a whole
MAX_MELODY_HZ = 48_000  # a higher sample rate would only take memory: the models work at 32 and 44.1 kHz
SEPARATED = 0.1  # of the progress, if there is a melody
GENERATED = 0.95
MEMORY_BYTES = 384 << 20  # of all clips; beyond, they are stored on disk


def run_music(plan: MusicPlan, job: Job, models: Models, *, memory_bytes: int = MEMORY_BYTES) -> Reply:
    """Runs `plan`.

    Args:
        memory_bytes: the most that all clips together may take in memory; beyond, they are on disk until the job ends.
    """
    for warning in plan.warnings:
        job.warn(warning)
    request = replace(plan.request, melody=prepare_melody(plan, job, models), prompt=_cut_continuation(plan, job))
    clips, result = _generate(plan, request, job, models, memory_bytes)
    if not result.complete:
        job.deadline = None  # it has passed; delivering the finished part takes little time
    for warning in _list_warnings(request, clips, result):
        job.warn(warning)
    seeds = list(request.seeds)
    outputs = [
        Output(
            clip,
            f"music_{index + 1}" if len(clips) > 1 else "music",
            {"seed": seed, "prompt": description},
        )
        for index, (clip, seed, description) in enumerate(zip(clips, seeds, request.descriptions, strict=False))
    ]
    return Reply(
        fields={
            "model_used": plan.model.name,
            "seed": seeds[0],
            "seeds": seeds,
            "steps_per_s": round(result.steps_per_s, 2),
            "licence": plan.info.licence,
        },
        outputs=outputs,
        parameters={
            "model": plan.model.name,
            "seed": seeds if len(seeds) > 1 else seeds[0],
            "extend_stride": request.stride,
        },
    )


def prepare_melody(plan: MusicPlan, job: Job, models: Models) -> Audio | None:
    """The part of the melody that the clip can follow, without drums and bass."""
    recording = job.audio.get("melody_audio")
    if recording is None:
        return None
    seconds = min(recording.duration, plan.request.duration + MELODY_MARGIN_S)
    part = CutView(recording, 0, int(seconds * recording.sample_rate))
    melody = in_memory(resample_source(part, min(part.sample_rate, MAX_MELODY_HZ), job.exit_stack))
    if plan.melody_separation is None:
        return melody
    return _remove_drums_and_bass(melody, plan.melody_separation, job, models)


def _remove_drums_and_bass(melody: Audio, plan: SeparationPlan, job: Job, models: Models) -> Audio:
    with job.stage("melody", (0.0, SEPARATED)):
        stems = separate_stems(plan, melody, job=job, models=models, memory_bytes=2 * melody.waveform.nbytes)
    vocals, other = (stems[name].read(0, melody.num_samples) for name in MELODY_STEMS)
    return Audio(vocals + other, melody.sample_rate)


def _cut_continuation(plan: MusicPlan, job: Job) -> Audio | None:
    """The part of the recording that is continued."""
    recording = job.audio.get("continuation_audio")
    if recording is None:
        return None
    start, end = plan.continuation[0], plan.continuation[1] or recording.duration
    if end > recording.duration + 1e-3 or recording.duration - start < MIN_CONTINUATION_S:
        raise AudioError(
            f"'continuation_audio' is {recording.duration:.2f} s long: 'continuation_start' and 'continuation_end' "
            f"must lie within it, at least {MIN_CONTINUATION_S} s apart.",
            code=ErrorCode.CONTINUATION_OUT_OF_RANGE,
            details={"duration": round(recording.duration, 3)},
        )
    window = plan.info.window
    if end - start >= window:
        raise AudioError(
            f"The part to continue is {end - start:.1f} s long, but it must be shorter than the window of "
            f"'{plan.model.name}', {window:g} s. Set 'continuation_start' to {end - 0.6 * window:.1f} to continue from "
            "its end.",
            code=ErrorCode.CONTINUATION_TOO_LONG,
            details={"length": round(end - start, 3), "window_s": window},
        )
    first, last = round(start * recording.sample_rate), round(end * recording.sample_rate)
    return in_memory(CutView(recording, first, last))


def _generate(
    plan: MusicPlan, request: GenerationRequest, job: Job, models: Models, memory_bytes: int
) -> tuple[list[AudioSource], GenerationResult]:
    """The finished clips, and what else is known of them."""
    started = time.monotonic()
    seconds = request.duration + (request.prompt.duration if request.prompt and request.include_prompt else 0.0)
    needed_bytes = len(request.seeds) * round(seconds * plan.info.sample_rate) * plan.info.channels * SAMPLE_BYTES
    if needed_bytes > memory_bytes:
        require_disk_space(needed_bytes)

    def generate(
        engine: Engine, decoder: MultiBandDiffusion | None = None
    ) -> tuple[list[AudioSource], GenerationResult]:
        job.timings["load_s"] = time.monotonic() - started
        clips: list[AudioSource] = []

        def finish(clip: Audio) -> None:
            done = plan.finishing.apply(clip)
            share = memory_bytes // len(request.seeds)
            clips.append(materialize_one([done.waveform], like=done, memory_bytes=share, stack=job.exit_stack))

        return clips, engine.generate(request, progress=job.progress, decoder=decoder, on_clip=finish)

    with job.stage("generate", (0.0 if request.melody is None else SEPARATED, GENERATED)):
        if plan.decoder is None:
            clips, result = models.run(plan.model, generate, observer=job)
        else:
            clips, result = models.run_pair(plan.model, plan.decoder, generate, observer=job)
    job.timings.update(result.timings)
    return clips, result


def _list_warnings(request: GenerationRequest, clips: Sequence[AudioSource], result: GenerationResult) -> list[str]:
    """What of the result differs from the request."""
    warnings = []
    if not result.complete:
        seconds = sum(clip.duration for clip in clips)
        warnings.append(
            f"Time ran out: {len(clips)} of {len(request.descriptions)} clips, {seconds:.1f} s in total, were "
            "generated. Ask for less, or raise the execution timeout."
        )
    drift = max((abs(level - levels[0]) for levels in result.window_levels_db for level in levels), default=0.0)
    if drift > MAX_DRIFT_DB:
        warnings.append(
            f"The loudness drifted by {drift:.1f} dB over the windows of a clip, and was brought back to within "
            f"{MAX_DRIFT_DB:g} dB of its beginning."
        )
    return warnings
