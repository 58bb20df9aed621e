"""Generates or edits songs with ACE-Step: the planner first, if it is asked for, then the songs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from audio.types import SAMPLE_BYTES, AudioSource
from errors import DeadlineError
from models import Models
from models.acestep.info import CHANNELS, SAMPLE_RATE, AceStepModelInfo
from models.acestep.metas import INSTRUMENTAL, MIN_DURATION_S
from models.acestep.request import DiffusionSampling, Repainting, Song, SongEngine, SongRequest, Task
from models.acestep.tokens import CODE_RATE, format_codes
from models.family import ModelHandle
from models.runtime.progress import sub_progress
from operations.clips import MEMORY_BYTES, ClipStore, Finishing, require_room
from operations.songs.params import is_instrumental
from operations.songs.planning import Draft, PlannedDraft, Planning, plan_drafts, without_planner
from operations.songs.recordings import require_sound
from operations.songs.values import write_time_signature
from worker.job import Job
from worker.reply import Output

if TYPE_CHECKING:
    from models.acestep.engine import AceStepEngine

DEFAULT_DURATION_S = 60.0
DEFAULT_LANGUAGE = "en"
GENERATED = 0.95  # of the progress
PLANNED = 0.3  # of the progress, if there is a planner


@dataclass(frozen=True, slots=True, kw_only=True)
class SongPlan:
    """What to generate with which model.

    Args:
        model: the diffusion model.
        info: what is known of it.
        drafts: one for each song; each has one or more clips.
        sampling: how latents are sampled.
        planning: what the planner does; None: nothing.
        task: what is done with the recording `audio` of the job; `text2music` has none.
        tracks: of `lego`, `extract` and `complete`.
        repainting: the window of `repaint` or `lego`.
        cover_strength: the share of the steps that follows the source, or the codes.
        finishing: of every clip.
        return_codes: the reply has the audio codes of every clip.
        partial: if the time runs out, the clips that are done are returned.
        warnings: sentences for the reply.
    """

    model: ModelHandle[AceStepEngine]
    info: AceStepModelInfo
    drafts: tuple[Draft, ...]
    sampling: DiffusionSampling
    planning: Planning | None
    task: Task = "text2music"
    tracks: tuple[str, ...] = ()
    repainting: Repainting | None = None
    cover_strength: float = 1.0
    finishing: Finishing = Finishing()
    return_codes: bool = False
    partial: bool = False
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GeneratedSongs:
    """The clips that were generated, in order.

    Args:
        outputs: with what is known of each clip.
        fields: for the top level of the reply.
        parameters: the values that were used.
    """

    outputs: Sequence[Output]
    fields: Mapping[str, Any]
    parameters: Mapping[str, Any]


def generate_songs(
    plan: SongPlan, job: Job, models: Models, *, name: str = "music", memory_bytes: int = MEMORY_BYTES
) -> GeneratedSongs:
    """Runs `plan` on the job's recordings `audio` and `style_audio`.

    Args:
        name: of the files, without number and extension.
        memory_bytes: the most that all clips together may take in memory; beyond, they are on disk until the job ends.
    """
    for warning in plan.warnings:
        job.warn(warning)
    reference = job.audio.get("style_audio")
    if reference is not None:
        require_sound(reference, "style_audio")
    songs = _plan_songs(plan, job, models)
    requests = [_build_request(plan, song, job) for song in songs]
    clips, steps, seconds = _generate(plan, requests, job, models, memory_bytes)
    described = [
        _describe(plan, request, song, index)
        for request, song in zip(requests, songs, strict=True)
        for index in range(len(song.seeds))
    ]
    outputs = [
        Output(clip, f"{name}_{index + 1}" if len(clips) > 1 else name, extra)
        for index, (clip, extra) in enumerate(zip(clips, described, strict=False))
    ]
    seeds = [seed for song in songs for seed in song.seeds]
    return GeneratedSongs(
        outputs,
        {
            "model_used": plan.model.name,
            "planner_used": None if plan.planning is None else plan.planning.model.name,
            **described[0],
            "seeds": seeds,
            "steps_per_s": round(steps / seconds, 2) if seconds else 0.0,
            "licence": plan.info.licence,
        },
        {
            "model": plan.model.name,
            "seed": seeds if len(seeds) > 1 else seeds[0],
            "duration": requests[0].duration,
            "cfg_coef": plan.sampling.cfg_coef,
            "inference_steps": plan.sampling.num_steps,
            "shift": plan.sampling.shift,
            "use_adg": plan.sampling.use_adg,
            "vocal_language": requests[0].songs[0].language,
            **_list_planner_parameters(plan.planning),
        },
    )


def _list_planner_parameters(planning: Planning | None) -> dict[str, Any]:
    if planning is None:
        return {"planner": None, "use_cot_caption": False, "use_cot_language": False}
    return {
        "planner": planning.model.name,
        "use_cot_caption": planning.write_caption,
        "use_cot_language": planning.write_language,
        "lm_temperature": planning.sampling.temperature,
    }


def _plan_songs(plan: SongPlan, job: Job, models: Models) -> list[PlannedDraft]:
    if plan.planning is None:
        return [without_planner(draft) for draft in plan.drafts]
    with job.stage("plan", (0.0, PLANNED)):
        return plan_drafts(plan.planning, plan.drafts, job=job, models=models)


def _build_request(plan: SongPlan, planned: PlannedDraft, job: Job) -> SongRequest:
    """All clips of one song: they have one text and one length."""
    source, text = None if plan.task == "text2music" else job.audio["audio"], planned.text
    longest = max((len(codes) for codes in planned.codes if codes is not None), default=0) / CODE_RATE
    duration = text.metas.duration or longest or DEFAULT_DURATION_S
    if duration < MIN_DURATION_S:
        job.warn(f"ACE-Step was trained on music of {MIN_DURATION_S} s or more; this is {duration:g} s long.")
    songs = [
        Song(
            caption=text.caption,
            lyrics=INSTRUMENTAL if is_instrumental(text.lyrics) else text.lyrics,
            language=text.language or DEFAULT_LANGUAGE,
            metas=replace(text.metas, duration=duration),
            seed=seed,
            codes=codes,
        )
        for seed, codes in zip(planned.seeds, planned.codes, strict=True)
    ]
    return SongRequest(
        songs=songs,
        duration=duration,
        sampling=plan.sampling,
        task=plan.task,
        source=source,
        reference=job.audio.get("style_audio"),
        tracks=plan.tracks,
        repainting=plan.repainting,
        cover_strength=plan.cover_strength,
    )


def _generate(
    plan: SongPlan, requests: Sequence[SongRequest], job: Job, models: Models, memory_bytes: int
) -> tuple[list[AudioSource], int, float]:
    """The finished clips, the number of steps, and the seconds that they took."""
    count = sum(len(request.songs) for request in requests)
    needed_bytes = sum(len(request.songs) * _count_samples(request) for request in requests) * CHANNELS * SAMPLE_BYTES
    require_room(needed_bytes, memory_bytes)
    started = time.monotonic()

    def generate(engine: SongEngine) -> tuple[list[AudioSource], int, float]:
        job.timings["load_s"] = time.monotonic() - started
        store = ClipStore(count, plan.finishing, memory_bytes=memory_bytes, stack=job.exit_stack)
        timings: dict[str, float] = {}
        steps = 0
        for index, request in enumerate(requests):
            progress = sub_progress(job.progress, index / len(requests), (index + 1) / len(requests))
            try:
                result = engine.generate(request, progress=progress, on_clip=store.add)
            except DeadlineError:
                if not plan.partial or not store.clips:
                    raise
                job.deadline = None  # it has passed; delivering the finished part takes little time
                job.warn(
                    f"Time ran out: {len(store.clips)} of {count} clips were generated. Ask for less, or raise the "
                    "execution timeout."
                )
                break
            steps += result.steps
            for warning in result.warnings:
                job.warn(warning)
            for stage, seconds in result.timings.items():
                timings[stage] = timings.get(stage, 0.0) + seconds
        job.timings.update(timings)
        return store.clips, steps, timings.get("decode_s", 0.0)

    with job.stage("generate", (0.0 if plan.planning is None else PLANNED, GENERATED)):
        return models.run(plan.model, generate, observer=job)


def _count_samples(request: SongRequest) -> int:
    rate = SAMPLE_RATE if request.source is None else max(SAMPLE_RATE, request.source.sample_rate)
    return round(request.duration * rate)


def _describe(plan: SongPlan, request: SongRequest, planned: PlannedDraft, index: int) -> dict[str, Any]:
    """What a clip of the reply tells besides its artefact."""
    song = request.songs[index]
    metas = song.metas
    fields: dict[str, Any] = {
        "seed": song.seed,
        "prompt": song.caption,
        "lyrics": song.lyrics,
        "metas": {
            "bpm": metas.bpm,
            "key": metas.key,
            "time_signature": None if metas.time_signature is None else write_time_signature(metas.time_signature),
            "duration": metas.duration,
            "vocal_language": song.language,
            "genres": planned.text.genres or None,
        },
    }
    if plan.return_codes:
        fields["audio_codes"] = None if song.codes is None else format_codes(song.codes)
    return fields
