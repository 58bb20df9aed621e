"""Resolves the model and the planner of an edit, and refuses what they do not do, before any audio is fetched."""

from __future__ import annotations

from models import Models
from models.acestep.request import Repainting
from operations.clips import choose_seeds
from operations.edit_music.params import Params
from operations.songs.models import resolve_planner, resolve_song_model
from operations.songs.planning import Draft, Planning, SongText
from operations.songs.run import SongPlan
from operations.songs.sampling import resolve_sampling

PLANNED_TASKS = ("lego", "complete")  # for the others a planner's metas lead the model to copy its input


def plan_edit(params: Params, models: Models) -> SongPlan:
    """The plan of a request.

    Raises:
        UnknownNameError: the model or the planner does not exist.
        ModelError: one of them cannot be used here.
        InvalidRequestError: the model was not trained for the task, or takes fewer steps.
    """
    model, info = resolve_song_model(models, params.model, params.task)
    sampling, warnings = resolve_sampling(params, params.cfg_coef, info)
    planning, planner_warnings = _plan_planning(params, models)
    if params.task == "repaint" and params.repainting_start is None and params.repainting_end is None:
        warnings.append(
            "The whole recording was generated anew, because 'repainting_start' and 'repainting_end' are not given."
        )
    text = SongText(
        caption=params.prompt.strip(),
        lyrics="" if params.instrumental else (params.lyrics or "").strip(),
        language=params.vocal_language,
        metas=params.metas(None),
    )
    return SongPlan(
        model=model,
        info=info,
        drafts=(Draft(text=text, seeds=tuple(choose_seeds(params.seed, params.n_samples))),),
        sampling=sampling,
        planning=planning,
        task=params.task,
        tracks=params.wanted_tracks,
        repainting=_find_window(params),
        cover_strength=params.audio_cover_strength,
        finishing=params.finishing(),
        partial=params.partial,
        warnings=(*model.warnings, *warnings, *planner_warnings),
    )


def _find_window(params: Params) -> Repainting | None:
    is_given = params.repainting_start is not None or params.repainting_end is not None
    if params.task != "repaint" and not is_given:
        return None
    return Repainting(start=params.repainting_start or 0.0, end=params.repainting_end, strength=params.repaint_strength)


def _plan_planning(params: Params, models: Models) -> tuple[Planning | None, list[str]]:
    """What the planner does, and sentences for the reply."""
    wants_metas = params.wants_planner and params.task in PLANNED_TASKS
    if not params.use_format and not wants_metas:
        return None, []
    planner, warnings = resolve_planner(models, params.planner, is_needed=params.use_format)
    if planner is None:
        return None, warnings
    return Planning(
        model=planner,
        use_format=params.use_format,
        write_caption=wants_metas and params.use_cot_caption,
        write_language=wants_metas and params.use_cot_language and params.vocal_language is None,
        complete=wants_metas,
        sampling=params.lm_sampling(),
    ), warnings
