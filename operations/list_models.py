"""Lists every model that a request can name, with its licence and availability; rescans the folders at each call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from models import Models
from models.demo import LICENCE
from models.family import ModelFamily, ModelInfo
from operations.operation import Operation, list_schemas
from operations.params import Params as BaseParams
from operations.version import read_version
from worker.job import Job
from worker.reply import Reply


class Params(BaseParams):
    """What to list."""

    schemas: bool = Field(
        False, description="Add the JSON schema of every operation's parameters, and the worker's version."
    )


def plan(params: Params, models: Models) -> Params:
    return params


def run(plan: Params, job: Job, models: Models) -> Reply:
    """The models of every family, and the folders in which files are looked for."""
    families = models.families
    lists: dict[str, Sequence[ModelFamily[Any]]] = {
        "voices": [families.voices],
        "music": [families.music, families.songs],
        "planners": [families.planners],
        "separation": families.separation.families,
        "suno": [families.suno],
        "f0_methods": [families.f0],
        "content_encoders": [families.content_encoders],
        "codecs": [families.codecs],
        "beat_models": [families.beats],
    }
    voices = [voice.name for voice in families.voices.list_models() if voice.availability.is_usable]
    fields: dict[str, Any] = {
        "models": voices,
        "count": len(voices),
        **{
            field: [_describe(model, family) for family in listed for model in family.list_models()]
            for field, listed in lists.items()
        },
        "search_paths": list(dict.fromkeys(path for family in families for path in family.search_paths())),
    }
    if plan.schemas:
        fields |= {"schemas": list_schemas(), "version": read_version()}
    return Reply(fields=fields)


def _describe(model: ModelInfo, family: ModelFamily[Any]) -> dict[str, Any]:
    row = model.to_json()
    if model.download_bytes:
        row["download_bytes"] = model.download_bytes
    if demo := family.find_demo(model.name):
        row |= {"demo": True, "licence": LICENCE, "about": demo.about}
    return row


OPERATION = Operation(params=Params, plan=plan, run=run)
