"""Answers to `release_task` of the ACE-Step API: makes or edits music with that server's parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from models import Models
from models.family import Readiness
from operations.acestep_api.params import list_own_names
from operations.acestep_api.results import rename_metas
from operations.edit_music.params import Params as EditParams
from operations.edit_music.plan import plan_edit
from operations.edit_music.run import run_edit
from operations.engines import MusicEngine
from operations.generate_music.acestep import plan_acestep, run_acestep
from operations.generate_music.engine import require_engine
from operations.operation import Operation
from operations.release_task.params import Params, TaskParams
from operations.release_task.translate import translate
from operations.songs.run import SongPlan
from worker.job import Job
from worker.reply import Output, Reply

__all__ = ["OPERATION", "Params"]


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of generate_music or edit_music, and sentences for the reply."""

    song: SongPlan
    warnings: tuple[str, ...]


def plan(params: Params, models: Models) -> Plan:
    """The plan of the operation that does the work."""
    translated, warnings = translate(params)
    if isinstance(translated, EditParams):
        return Plan(plan_edit(translated, models), tuple(warnings))
    require_engine(translated, MusicEngine.ACESTEP)
    return Plan(plan_acestep(translated, models), tuple(warnings))


def run(plan: Plan, job: Job, models: Models) -> Reply:
    """Runs the plan; the reply has the keys of that server's results beside the usual ones."""
    for warning in plan.warnings:
        job.warn(warning)
    names = list_own_names(TaskParams)
    job.audio = {names[name]: audio for name, audio in job.audio.items()}
    reply = (run_acestep if plan.song.task == "text2music" else run_edit)(plan.song, job, models)
    sampling = plan.song.sampling
    shared = {
        "dit_model": reply.fields["model_used"],
        "lm_model": reply.fields["planner_used"],
        "generation_info": f"{sampling.num_steps} steps in {job.timings.get('decode_s', 0.0):.2f} s, shift "
        f"{sampling.shift:g}, guidance {sampling.cfg_coef:g}",
    }
    seeds = ",".join(str(seed) for seed in reply.fields["seeds"])
    back = {own: name for name, own in names.items()}
    return replace(
        reply,
        fields=_add_keys(reply.fields, shared | {"seed_value": seeds}),
        outputs=[_add_to_output(output, shared) for output in reply.outputs],
        stems={name: _add_to_output(output, shared) for name, output in reply.stems.items()},
        parameters={back[name]: value for name, value in reply.parameters.items() if name in back},
        unused=(),
        always_list=True,
    )


def _add_to_output(output: Output, shared: Mapping[str, Any]) -> Output:
    seed = {"seed_value": str(output.extra["seed"])}
    return replace(output, extra=_add_keys(output.extra, {**shared, **seed}))


def _add_keys(fields: Mapping[str, Any], added: Mapping[str, Any]) -> dict[str, Any]:
    return {**fields, "metas": rename_metas(fields["metas"]), **added}


def get_readiness(models: Models) -> Readiness:
    return models.families.songs.readiness()


OPERATION = Operation(
    params=Params,
    plan=plan,
    run=run,
    readiness=get_readiness,
    optional=True,  # a worker without ACE-Step is healthy
)
