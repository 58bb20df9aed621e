"""Runs a plan: draws an example, or asks the planner, which may need the audio codes of a recording first."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from models import Models
from models.acestep.planner.request import CodesRequest, PlannedSong, PlanRequest
from models.acestep.tokens import format_codes
from models.runtime.progress import Progress, sub_progress
from operations.plan_music.examples import draw_example
from operations.plan_music.params import Params
from operations.plan_music.plan import Plan
from operations.songs.params import DEFAULT_TEMPERATURE, UNDERSTANDING_TEMPERATURE, is_instrumental
from operations.songs.planning import SongText, build_format_request, build_inspire_request, merge
from operations.songs.recordings import require_length, require_sound
from operations.songs.run import DEFAULT_DURATION_S
from operations.songs.values import write_time_signature
from worker.job import Job
from worker.reply import Reply

if TYPE_CHECKING:
    from models.acestep.planner.engine import PlannerEngine

READ = 0.3  # of the progress, if there is a recording


@dataclass(frozen=True, slots=True)
class PlannedText:
    """What the planner wrote, and the song's audio codes if there are any."""

    text: SongText
    codes: tuple[int, ...] | None


def run_planner(plan: Plan, job: Job, models: Models) -> Reply:
    for warning in plan.warnings:
        job.warn(warning)
    params = plan.params
    if plan.planner is None:
        given = "instrumental" in params.model_fields_set
        example = draw_example(
            plan.seed,
            language=params.vocal_language,
            instrumental=params.instrumental if given else None,
        )
        fields = asdict(example)
        return Reply(
            fields={**fields, "genres": None, "seed": plan.seed, "request": _write_request(fields)},
            parameters={"seed": plan.seed},
        )
    codes = _read_codes(plan, job, models)
    with job.stage("plan", (0.0 if plan.reader is None else READ, 0.95)):
        planned = models.run(plan.planner, lambda engine: _ask(plan, codes, engine, job.progress), observer=job)
    fields = _describe(planned.text)
    if params.return_codes:
        fields["audio_codes"] = None if planned.codes is None else format_codes(planned.codes)
    return Reply(
        fields={
            **fields,
            "seed": plan.seed,
            "request": _write_request(fields),
            "planner_used": plan.planner.name,
            "model_used": None if plan.reader is None else plan.reader.name,
            "licence": models.families.planners.describe(plan.planner.name).licence,
        },
        parameters={
            "seed": plan.seed,
            "planner": plan.planner.name,
            "model": None if plan.reader is None else plan.reader.name,
            "lm_temperature": _choose_temperature(params),
        },
    )


def _choose_temperature(params: Params) -> float:
    default = UNDERSTANDING_TEMPERATURE if params.mode == "understand" else DEFAULT_TEMPERATURE
    return params.lm_sampling(default).temperature


def _read_codes(plan: Plan, job: Job, models: Models) -> tuple[int, ...]:
    """The audio codes to understand; none for the other modes."""
    if plan.reader is None:
        return tuple(plan.params.audio_codes or ())
    recording = job.audio["audio"]
    require_length(recording, "audio")
    require_sound(recording, "audio")
    with job.stage("read", (0.0, READ)):
        return models.run(
            plan.reader, lambda engine: engine.encode_codes(recording, progress=job.progress), observer=job
        )


def _ask(plan: Plan, codes: tuple[int, ...], engine: PlannerEngine, progress: Progress) -> PlannedText:
    params = plan.params
    sampling = replace(params.lm_sampling(), temperature=_choose_temperature(params))
    text = SongText(
        caption=params.prompt.strip(),
        lyrics=(params.lyrics or "").strip(),
        language=params.vocal_language,
        metas=params.metas(params.duration),
    )
    if params.mode == "understand":
        asked = PlanRequest(mode="understand", seed=plan.seed, codes=codes, sampling=sampling)
        return PlannedText(merge(text, engine.plan(asked, progress=progress)), codes)
    if params.mode == "sample":
        asked = build_inspire_request(
            text, text.caption, instrumental=params.instrumental, seed=plan.seed, sampling=sampling
        )
    else:
        asked = build_format_request(text, seed=plan.seed, sampling=sampling)
    share = 0.2 if params.return_codes else 1.0
    text = merge(text, engine.plan(asked, progress=sub_progress(progress, 0.0, share)))
    if not params.return_codes:
        return PlannedText(text, None)
    duration = text.metas.duration or DEFAULT_DURATION_S
    request = CodesRequest(
        caption=text.caption,
        lyrics=text.lyrics,
        song=PlannedSong(
            caption=text.caption,
            lyrics=text.lyrics,
            metas=replace(text.metas, duration=duration),
            language=text.language,
        ),
        duration=duration,
        seeds=(plan.seed,),
        sampling=sampling,
    )
    return PlannedText(text, engine.generate_codes(request, progress=sub_progress(progress, share, 1.0))[0])


def _describe(text: SongText) -> dict[str, Any]:
    metas = text.metas
    return {
        "caption": text.caption,
        "lyrics": text.lyrics,
        "instrumental": is_instrumental(text.lyrics),
        "bpm": metas.bpm,
        "key": metas.key,
        "time_signature": None if metas.time_signature is None else write_time_signature(metas.time_signature),
        "duration": metas.duration,
        "vocal_language": text.language,
        "genres": text.genres or None,
    }


def _write_request(fields: dict[str, Any]) -> dict[str, Any]:
    """The parameters with which generate_music makes the song."""
    names = {"caption": "prompt"} | {
        name: name for name in ("lyrics", "bpm", "key", "time_signature", "duration", "vocal_language", "audio_codes")
    }
    given = {names[name]: value for name, value in fields.items() if name in names and value is not None}
    return {key: value for key, value in given.items() if key != "lyrics" or not fields["instrumental"]}
