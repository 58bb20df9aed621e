"""A song by ACE-Step: text with lyrics, or audio codes, to music, with or without a planner."""

from __future__ import annotations

from collections.abc import Iterator

from models import Models
from operations.clips import choose_seeds
from operations.engines import MusicEngine, list_unused
from operations.generate_music.params import Params
from operations.songs.models import resolve_planner, resolve_song_model
from operations.songs.params import is_instrumental
from operations.songs.planning import Draft, Planning, SongText
from operations.songs.run import DEFAULT_DURATION_S, SongPlan, generate_songs
from operations.songs.sampling import resolve_sampling
from worker.job import Job
from worker.reply import Reply


def plan_acestep(params: Params, models: Models) -> SongPlan:
    """The plan of a request for ACE-Step.

    Raises:
        UnknownNameError: the model or the planner does not exist.
        ModelError: one of them cannot be used here, or the request needs a planner and there is none.
        InvalidRequestError: the model does not do what the request asks for.
    """
    needs_codes = params.thinking or params.audio_codes is not None
    model, info = resolve_song_model(models, params.model, "text2music", needs_codes=needs_codes)
    sampling, warnings = resolve_sampling(params, params.cfg_coef, info)
    planning, planner_warnings = _plan_planning(params, models)
    return SongPlan(
        model=model,
        info=info,
        drafts=tuple(_write_drafts(params)),
        sampling=sampling,
        planning=planning,
        cover_strength=params.audio_cover_strength,
        finishing=params.finishing(),
        return_codes=params.return_codes,
        partial=params.partial,
        warnings=(*model.warnings, *warnings, *planner_warnings, *_list_warnings(params)),
    )


def run_acestep(plan: SongPlan, job: Job, models: Models) -> Reply:
    songs = generate_songs(plan, job, models)
    return Reply(
        fields=songs.fields,
        outputs=songs.outputs,
        parameters=songs.parameters,
        unused=list_unused(Params, MusicEngine.ACESTEP),
    )


def _plan_planning(params: Params, models: Models) -> tuple[Planning | None, list[str]]:
    """What the planner does, and sentences for the reply."""
    is_needed = params.thinking or params.use_format or params.sample_query is not None
    if not is_needed and not params.wants_planner:
        return None, []
    resolved, warnings = resolve_planner(models, params.planner, is_needed=is_needed)
    if resolved is None:
        return None, warnings
    explicit = {"use_cot_caption", "use_cot_language"} & params.model_fields_set
    return Planning(
        model=resolved,
        query=params.sample_query,
        instrumental=params.instrumental,
        use_format=params.use_format,
        write_caption=params.use_cot_caption,
        write_language=params.use_cot_language and params.vocal_language is None,
        complete=any(getattr(params, name) for name in explicit),
        write_codes=params.thinking,
        default_duration=DEFAULT_DURATION_S,
        sampling=params.lm_sampling(),
    ), warnings


def _write_drafts(params: Params) -> Iterator[Draft]:
    """One song for each prompt."""
    seeds = choose_seeds(params.seed, len(params.prompts) * params.n_samples)
    for index, prompt in enumerate(params.prompts):
        yield Draft(
            text=SongText(
                caption=prompt.strip(),
                lyrics="" if params.instrumental else (params.lyrics or "").strip(),
                language=params.vocal_language,
                metas=params.acestep_metas(),
            ),
            seeds=tuple(seeds[index * params.n_samples : (index + 1) * params.n_samples]),
            codes=None if params.audio_codes is None else tuple(params.audio_codes),
        )


def _list_warnings(params: Params) -> Iterator[str]:
    has_text = params.sample_query is not None or not is_instrumental(params.lyrics)
    if not has_text and "" in (prompt.strip() for prompt in params.prompts):
        yield "A song without a prompt and without lyrics is left to chance; describe the music in 'prompt'."
    if params.known_bpm is not None and not params.known_bpm.is_integer():
        bpm = params.known_bpm
        yield f"ACE-Step takes a whole number of beats per minute: {bpm:g} was rounded to {round(bpm)}."
    if params.thinking and params.audio_codes is not None:
        yield "'audio_codes' are given, so the planner wrote none."
    if params.return_codes and not params.thinking and params.audio_codes is None:
        yield "There are no audio codes to return: they come from 'thinking' or 'audio_codes'."
    if params.audio_cover_strength != 1.0 and not params.thinking and params.audio_codes is None:
        yield "'audio_cover_strength' has no effect without 'thinking' or 'audio_codes'."
