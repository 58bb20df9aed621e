"""Makes music from a description, with lyrics or without: with MusicGen, AudioGen, ACE-Step, or Suno (`suno/...`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from models import Models
from models.family import Readiness, choose_readiness
from operations.engines import MusicEngine
from operations.generate_music.acestep import plan_acestep, run_acestep
from operations.generate_music.engine import choose_engine
from operations.generate_music.musicgen import MusicPlan, plan_musicgen, run_musicgen
from operations.generate_music.params import Params
from operations.generate_music.suno import SunoPlan, plan_suno, run_suno
from operations.operation import Operation, PlannedArtefacts
from operations.songs.run import SongPlan
from worker.job import Job
from worker.reply import Reply

__all__ = ["OPERATION", "Params", "plan", "run"]

Plan = MusicPlan | SongPlan | SunoPlan

_PLANNERS: Mapping[MusicEngine, Callable[[Params, Models], Plan]] = {
    MusicEngine.MUSICGEN: plan_musicgen,
    MusicEngine.ACESTEP: plan_acestep,
    MusicEngine.SUNO: plan_suno,
}


def plan(params: Params, models: Models) -> Plan:
    """The plan for the engine that `model` names, or for the best one here."""
    engine, warnings = choose_engine(params, models)
    plan = _PLANNERS[engine](params, models)
    return replace(plan, warnings=(*warnings, *plan.warnings)) if warnings else plan


def run(plan: Plan, job: Job, models: Models) -> Reply:
    if isinstance(plan, SunoPlan):
        return run_suno(plan, job)
    return run_acestep(plan, job, models) if isinstance(plan, SongPlan) else run_musicgen(plan, job, models)


def list_artefacts(plan: Plan) -> PlannedArtefacts:
    """One output for each clip of MusicGen; the other engines tell afterwards."""
    return PlannedArtefacts(len(plan.request.seeds) if isinstance(plan, MusicPlan) else None)


def get_readiness(models: Models) -> Readiness:
    """Ready if one of the local engines is; else MusicGen's reason."""
    return choose_readiness([models.families.music.readiness(), models.families.songs.readiness()])


OPERATION = Operation(params=Params, plan=plan, run=run, artefacts=list_artefacts, readiness=get_readiness)
