"""Turns a request of the ACE-Step API into one for generate_music or edit_music."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from operations.acestep_api.params import list_left_out, list_own_names, parse_as
from operations.edit_music.params import TASKS_OF
from operations.edit_music.params import Params as EditParams
from operations.generate_music.params import Params as MusicParams
from operations.params import build_error
from operations.release_task.params import TRAINED_NEGATIVE_PROMPT, Params, TaskParams

SAMPLED = ("prompt", "lyrics", "use_format")  # the planner writes them in place of the caller


def translate(params: Params) -> tuple[MusicParams | EditParams, list[str]]:
    """The parameters of the operation that does the work, and a sentence for each one that is left out.

    Raises:
        InvalidRequestError: a value is not in its range; the message has the names of the ACE-Step API.
    """
    warnings: list[str] = []
    values = _read_values(params, warnings)
    if params.task_type == "text2music":
        kept = _keep(values, MusicParams.model_fields, "a new song", warnings)
        return parse_as(MusicParams, kept, source=Params), warnings
    fields = set(EditParams.model_fields)
    fields -= {name for name, tasks in TASKS_OF.items() if params.task_type not in tasks}
    fields |= {"planner"} if params.use_format else set()
    kept = _keep(values, fields, f"the task '{params.task_type}'", warnings)
    return parse_as(EditParams, kept, source=Params), warnings


def _read_values(params: Params, warnings: list[str]) -> dict[str, Any]:
    """What the request sets, by the names of generate_music and edit_music."""
    given = {name: getattr(params, name) for name in TaskParams.model_fields if name in params.model_fields_set}
    for name, why in list_left_out(TaskParams).items():
        if given.pop(name, None) not in (None, TaskParams.model_fields[name].default):
            warnings.append(f"'{name}' was left out: {why}.")
    for name in _find_unset(params):
        given.pop(name, None)
    if params.sample_mode or params.sample_query:
        replaced = [name for name in SAMPLED if given.pop(name, None)]
        if replaced:
            warnings.append(f"These were left out, because the planner writes the song: {', '.join(replaced)}.")
        given["sample_query"] = params.sample_query
    if isinstance(params.audio_code_string, list):
        given["audio_code_string"] = _join_codes(params.audio_code_string)
    if params.lm_model_path is not None:
        given["lm_model_path"] = params.lm_model_path.rstrip("/").rpartition("/")[2]
    names = list_own_names(TaskParams)
    return {names[name]: value for name, value in given.items()}


def _find_unset(params: Params) -> Iterable[str]:
    """The parameters whose value says that they have none, and those that are read into others."""
    yield from ("use_random_seed", "sample_mode", "sample_query")
    if params.seed == -1 or params.use_random_seed:
        yield "seed"
    if params.audio_duration is not None and params.audio_duration <= 0:
        yield "audio_duration"
    if params.repainting_end == -1:
        yield "repainting_end"
    if params.lm_negative_prompt == TRAINED_NEGATIVE_PROMPT:
        yield "lm_negative_prompt"
    if (params.sample_mode or params.sample_query) and params.vocal_language in ("en", "unknown"):
        yield "vocal_language"  # the query may name another
    if params.task_type == "text2music":
        yield "task_type"


def _join_codes(codes: list[str] | list[int]) -> str | list[int]:
    """The codes of all clips; a list has those of each clip."""
    texts = [code for code in codes if isinstance(code, str)]
    if not texts:
        return [code for code in codes if isinstance(code, int)]
    if len(set(texts)) > 1:
        problem = "has different codes for the clips; send one request for each"
        raise build_error([{"field": "audio_code_string", "problem": problem}], Params)
    return texts[0]


def _keep(values: dict[str, Any], fields: Iterable[str], what: str, warnings: list[str]) -> dict[str, Any]:
    """The values of `fields`. Others are left out; those that are not just the default are named in a warning."""
    names = set(fields)
    own_names = list_own_names(TaskParams)
    defaults = {own: TaskParams.model_fields[name].default for name, own in own_names.items()}
    foreign = [name for name, value in values.items() if name not in names and value != defaults[name]]
    if foreign:
        back = {own: name for name, own in own_names.items()}
        warnings.append(
            f"These do not belong to {what} and were left out: {', '.join(back[name] for name in foreign)}."
        )
    return {name: value for name, value in values.items() if name in names}
