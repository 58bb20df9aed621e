"""Resolves the planner, and the model that reads a recording, before any audio is fetched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from models import Models
from models.family import ModelHandle
from operations.clips import choose_seeds
from operations.plan_music.params import Params
from operations.songs.models import resolve_planner, resolve_song_model

if TYPE_CHECKING:
    from models.acestep.engine import AceStepEngine
    from models.acestep.planner.engine import PlannerEngine


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to plan.

    Args:
        params: of the request.
        seed: of what is drawn.
        planner: None for the mode `random`.
        reader: turns a recording into audio codes; None: there is no recording.
        warnings: sentences for the reply.
    """

    params: Params
    seed: int
    planner: ModelHandle[PlannerEngine] | None = None
    reader: ModelHandle[AceStepEngine] | None = None
    warnings: tuple[str, ...] = ()


def plan_song(params: Params, models: Models) -> Plan:
    """The plan of a request.

    Raises:
        UnknownNameError: the planner or the model does not exist.
        ModelError: one of them cannot be used here.
    """
    seed = choose_seeds(params.seed, 1)[0]
    if params.mode == "random":
        return Plan(params=params, seed=seed)
    planner, warnings = resolve_planner(models, params.planner, is_needed=True)
    reader = None
    if params.audio is not None:
        reader, _ = resolve_song_model(models, params.model, "text2music", needs_codes=True)
        warnings.extend(reader.warnings)
    return Plan(params=params, seed=seed, planner=planner, reader=reader, warnings=tuple(warnings))
