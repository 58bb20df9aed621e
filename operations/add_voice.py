"""Adds a voice to this worker's folder of voices, from a zip or from its files; off unless `ALLOW_VOICE_UPLOAD=1`."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field

from models import Models
from models.family import Readiness
from operations.operation import Operation
from operations.params import FileField
from operations.params import Params as BaseParams
from worker.job import Job
from worker.reply import Reply


class Params(BaseParams):
    """The voice: its name, and either `archive` or `checkpoint` (and `index`)."""

    name: str = Field(
        max_length=64,
        description="Name of the voice: letters, digits, spaces, `_`, `.`, `-`, `(` and `)`, without a leading dot.",
    )
    archive: FileField | None = Field(
        None,
        description="Zip file with one `.pth` and at most one `.index`, as base64, data URI, URL or volume path.",
    )
    checkpoint: FileField | None = Field(
        None, description="The voice's `.pth`, as base64, data URI, URL or volume path. Use it in place of `archive`."
    )
    index: FileField | None = Field(None, description="The `.index` that belongs to `checkpoint`.")
    replace: bool = Field(False, description="Replace the voice if one of this name exists.")

    def find_errors(self) -> Iterable[tuple[str, str]]:
        if (self.archive is None) == (self.checkpoint is None):
            yield "archive", "or 'checkpoint' is required; send exactly one of them"
        if self.index is not None and self.checkpoint is None:
            yield "index", "can only be sent with 'checkpoint'; put it into the zip of 'archive'"


def plan(params: Params, models: Models) -> Params:
    """Refuses before anything is downloaded: if uploads are off, the name is invalid, or the voice exists."""
    voices = models.families.voices
    voices.require_uploads()
    voices.check_new_name(params.name, replace=params.replace)
    return params


def run(plan: Params, job: Job, models: Models) -> Reply:
    """Checks the files, then installs the voice in one step."""
    voices, files = models.families.voices, job.files
    with job.stage("install"):
        if "archive" in files:
            voice = voices.install_archive(plan.name, files["archive"], replace=plan.replace, check=job.check)
        else:
            voice = voices.install(
                plan.name,
                checkpoint=files["checkpoint"],
                index=files.get("index"),
                replace=plan.replace,
                check=job.check,
            )
    for warning in voice.voice.warnings if voice.voice else ():
        job.warn(warning)
    return Reply(fields={"name": voice.name, "voice": voice.to_json()})


def get_readiness(models: Models) -> Readiness:
    return models.families.voices.upload_readiness()


OPERATION = Operation(params=Params, plan=plan, run=run, readiness=get_readiness, optional=True)
