"""Continues a song (an upload, or a track that Suno made) through a Suno provider; pays at most once."""

from __future__ import annotations

from models import Models
from models.family import Readiness
from operations.extend_via_suno.params import Params
from operations.extend_via_suno.plan import Plan, plan
from operations.extend_via_suno.run import run
from operations.operation import Operation

__all__ = ["OPERATION", "Params", "Plan", "plan", "run"]


def get_readiness(models: Models) -> Readiness:
    """Whether a provider is configured."""
    return models.families.suno.readiness()


OPERATION = Operation(params=Params, plan=plan, run=run, readiness=get_readiness, optional=True)
