"""Plans a song with ACE-Step's planner: invents one, rewrites its text, or tells what a recording is."""

from __future__ import annotations

from models import Models
from models.family import Readiness
from operations.operation import Operation
from operations.plan_music.params import Params
from operations.plan_music.plan import plan_song
from operations.plan_music.run import run_planner

__all__ = ["OPERATION", "Params"]


def get_readiness(models: Models) -> Readiness:
    return models.families.planners.readiness()


OPERATION = Operation(
    params=Params,
    plan=plan_song,
    run=run_planner,
    readiness=get_readiness,
    optional=True,  # a worker without a planner is healthy
)
