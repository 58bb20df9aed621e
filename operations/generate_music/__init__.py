"""Makes music (or, with AudioGen, sound effects) from a description: with a local model, or with Suno (`suno/...`)."""

from __future__ import annotations

from models import Models
from models.family import Readiness
from operations.generate_music.params import Params
from operations.generate_music.plan import MusicPlan, plan_music
from operations.generate_music.run import run_music
from operations.generate_music.suno import SongPlan, plan_song, run_song
from operations.operation import Operation
from worker.job import Job
from worker.reply import Reply

__all__ = ["OPERATION", "Params", "plan", "run"]


def plan(params: Params, models: Models) -> MusicPlan | SongPlan:
    """The plan for a local model, or for Suno if `model` names a Suno version."""
    return plan_song(params, models) if params.is_suno else plan_music(params, models)


def run(plan: MusicPlan | SongPlan, job: Job, models: Models) -> Reply:
    return run_song(plan, job) if isinstance(plan, SongPlan) else run_music(plan, job, models)


def get_readiness(models: Models) -> Readiness:
    return models.families.music.readiness()


OPERATION = Operation(params=Params, plan=plan, run=run, readiness=get_readiness)
