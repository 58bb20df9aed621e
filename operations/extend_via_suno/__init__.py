"""Continues a song (an upload, or a track that Suno made) through a Suno provider; pays at most once."""

from __future__ import annotations

from models import Models
from models.family import Readiness
from operations.extend_via_suno.params import Params
from operations.extend_via_suno.plan import Plan, plan
from operations.extend_via_suno.run import run
from operations.operation import Operation, PlannedArtefacts

__all__ = ["OPERATION", "Params", "Plan", "plan", "run"]


def get_readiness(models: Models) -> Readiness:
    """Whether a provider is configured."""
    return models.families.suno.readiness()


def list_artefacts(plan: Plan) -> PlannedArtefacts:
    """A task that is only submitted has no song yet; else Suno makes as many clips as it makes."""
    return PlannedArtefacts(0 if plan.polling.mode == "submit" else None, stems=None if plan.separation else ())


OPERATION = Operation(
    params=Params, plan=plan, run=run, artefacts=list_artefacts, readiness=get_readiness, optional=True
)
