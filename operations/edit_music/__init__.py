"""Edits a recording with ACE-Step: a cover of it, a part generated anew, a track added, extracted or completed."""

from __future__ import annotations

from models import Models
from models.family import Readiness
from operations.edit_music.params import Params
from operations.edit_music.plan import plan_edit
from operations.edit_music.run import run_edit
from operations.operation import Operation, PlannedArtefacts

__all__ = ["OPERATION", "Params"]


def get_readiness(models: Models) -> Readiness:
    return models.families.songs.readiness()


def list_artefacts(plan: object) -> PlannedArtefacts:
    """The clips, whose number is known afterwards."""
    return PlannedArtefacts(None)


OPERATION = Operation(
    params=Params,
    plan=plan_edit,
    run=run_edit,
    artefacts=list_artefacts,
    readiness=get_readiness,
    optional=True,  # a worker without ACE-Step is healthy
)
