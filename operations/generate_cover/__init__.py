"""Makes a cover: the vocals of a song in another voice (RVC), mixed with the instrumental in time to the sample."""

from __future__ import annotations

from models import Models
from models.family import READY, Readiness
from models.rvc.hub_voices import is_hub_name
from operations.generate_cover.params import Params
from operations.generate_cover.plan import Plan, plan
from operations.generate_cover.run import run
from operations.operation import Operation, PlannedArtefacts
from worker.job import Job

__all__ = ["OPERATION", "Params", "Plan", "plan", "run"]


def get_readiness(models: Models) -> Readiness:
    """The first reason why no voice can be converted, if there is one."""
    families = models.families
    readiness = [family.readiness() for family in (families.voices, families.content_encoders, families.f0)]
    return next((one for one in readiness if not one.is_ready), READY)


def prepare(params: Params, job: Job, models: Models) -> None:
    """Fetches the voices that the request names by their address on the hub; the plan depends on what they are."""
    names = [params.voice_model, *([params.backup_voice_model] if params.backup_voice_model else [])]
    if remote := [name for name in dict.fromkeys(names) if is_hub_name(name)]:
        with job.stage("voice", (0.0, 0.0)):
            for name in remote:
                models.families.voices.fetch(name, job)


def list_artefacts(plan: Plan) -> PlannedArtefacts:
    """The cover; its parts depend on the song."""
    return PlannedArtefacts(1, stems=None if plan.return_stems else ())


OPERATION = Operation(
    params=Params,
    prepare=prepare,
    plan=plan,
    run=run,
    artefacts=list_artefacts,
    readiness=get_readiness,
    aliases=("generate_cover_from_separate_audio",),
    optional=True,  # a worker without voices is healthy: it may serve music only
)
