"""Lists every model that a request can name, with its licence and availability; rescans the folders at each call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from models import Models
from models.family import ModelInfo
from operations.operation import Operation, load_operations
from operations.params import Params as BaseParams
from worker.job import Job
from worker.reply import Reply


class Params(BaseParams):
    """What to list."""

    schemas: bool = Field(False, description="Add the JSON schema of every operation's parameters.")


def plan(params: Params, models: Models) -> Params:
    return params


def run(plan: Params, job: Job, models: Models) -> Reply:
    """The models of every family, and the folders in which files are looked for."""
    families = models.families
    lists: dict[str, Sequence[ModelInfo]] = {
        "voices": families.voices.list_models(),
        "music": [*families.music.list_models(), *families.songs.list_models()],
        "planners": families.planners.list_models(),
        "separation": families.separation.list_models(),
        "suno": families.suno.list_models(),
        "f0_methods": families.f0.list_models(),
        "content_encoders": families.content_encoders.list_models(),
        "codecs": families.codecs.list_models(),
        "beat_models": families.beats.list_models(),
    }
    voices = [voice.name for voice in lists["voices"] if voice.availability.is_usable]
    fields: dict[str, Any] = {
        "models": voices,
        "count": len(voices),
        **{field: [_describe(model) for model in listed] for field, listed in lists.items()},
        "search_paths": list(dict.fromkeys(path for family in families for path in family.search_paths())),
    }
    if plan.schemas:
        fields["schemas"] = {
            name: operation.params.model_json_schema() for name, operation in load_operations().items()
        }
    return Reply(fields=fields)


def _describe(model: ModelInfo) -> dict[str, Any]:
    return model.to_json() | ({"download_bytes": model.download_bytes} if model.download_bytes else {})


OPERATION = Operation(params=Params, plan=plan, run=run)
