"""Makes a cover: the vocals of a song in another voice (RVC), mixed with the instrumental in time to the sample."""

from __future__ import annotations

from errors import ModelError
from models import Models
from models.demo import F0_METHOD
from models.family import READY, READY_AS_DEMO, Readiness
from models.rvc.hub_voices import is_hub_name
from operations.generate_cover.params import Params
from operations.generate_cover.plan import Plan, plan
from operations.generate_cover.run import run
from operations.operation import Operation, PlannedArtefacts
from worker.job import Job

__all__ = ["OPERATION", "Params", "Plan", "plan", "run"]


def get_readiness(models: Models) -> Readiness:
    """Ready if every voice can be converted, or the demo voices can; else the first reason why none can."""
    families = models.families
    found = [family.readiness() for family in (families.voices, families.content_encoders, families.f0)]
    if all(one == READY for one in found):
        return READY
    try:
        _require_demo_voices(models)
    except ModelError as error:
        return next((one for one in found if not one.is_ready), Readiness(error.message))
    return READY_AS_DEMO


def _require_demo_voices(models: Models) -> None:
    """Raises `ModelError` if the demo voices are not here, or lack what they need."""
    families = models.families
    names = [info.name for info in families.voices.list_models() if families.voices.find_demo(info.name)]
    if not names:
        raise ModelError("There is no demo voice.")
    families.f0.resolve(F0_METHOD)
    for name in names:
        families.content_encoders.resolve(families.voices.find(name).embedder)


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
