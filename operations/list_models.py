"""Lists every model that can be asked for, its licence and whether it is here; looks at the folders anew each time."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from models import Models
from operations.operation import load_operations
from operations.params import Params as BaseParams
from worker.job import Job
from worker.reply import Reply

LISTS = {
    "voices": "rvc",
    "music": "musicgen",
    "separation": "demucs",
    "suno": "suno",
    "f0_methods": "f0",
    "content_encoders": "hubert",
}
"""The reply's lists, each with the family whose rows it shows."""


class Params(BaseParams):
    """What to list."""

    schemas: bool = Field(False, description="add the JSON schema of every operation's parameters")


def run(params: Params, job: Job, models: Models) -> Reply:
    """The rows of every family, and the places that are looked at."""
    rows = {field: _rows(models, family) for field, family in LISTS.items()}
    voices = usable(rows["voices"])
    paths = [path for family in models.families.values() for path in family.search_paths()]
    fields: dict[str, Any] = {
        "models": voices,
        "count": len(voices),
        **rows,
        "search_paths": list(dict.fromkeys(paths)),
    }
    if params.schemas:
        fields["schemas"] = {
            name: operation.params.model_json_schema() for name, operation in load_operations().items()
        }
    return Reply(fields=fields)


def usable(voices: list[dict[str, Any]]) -> list[str]:
    """The names of those voices whose files are what they should be."""
    return [row["name"] for row in voices if row.get("available", "local") == "local"]


def _rows(models: Models, family: str) -> list[dict[str, Any]]:
    return models.families[family].rows() if family in models.families else []
