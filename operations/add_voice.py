"""Adds a voice to this worker's folder of voices, from a zip or from its files; off unless `ALLOW_VOICE_UPLOAD=1`."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field

from models import Models
from operations.params import FileField
from operations.params import Params as BaseParams
from worker.job import Job
from worker.reply import Reply

OPTIONAL = True


class Params(BaseParams):
    """The voice: its name, and either `archive` or `checkpoint` (and `index`)."""

    name: str = Field(max_length=64, description="letters, digits, blanks, `_`, `.`, `-`, `(`, `)`; not a leading dot")
    archive: FileField | None = Field(
        None, description="zip with one `.pth` and at most one `.index`: base64, data URI, URL or volume path"
    )
    checkpoint: FileField | None = Field(None, description="the `.pth`, in the same ways")
    index: FileField | None = Field(None, description="the `.index` that belongs to `checkpoint`")
    replace: bool = Field(False, description="take the place of a voice of this name")

    def find_errors(self) -> Iterable[tuple[str, str]]:
        if (self.archive is None) == (self.checkpoint is None):
            yield "archive", "or 'checkpoint' must be given, and not both"
        if self.index is not None and self.checkpoint is None:
            yield "index", "goes with 'checkpoint' only; in 'archive' it stands beside it"


def status(models: Models) -> str:
    """`ready`, or how to allow it."""
    return models.families.voices.upload_readiness().to_json()


def admit(params: Params, models: Models) -> None:
    """Refuses before anything is downloaded: where uploads are off, by the name, where the voice is there already."""
    models.families.voices.require_uploads()
    models.families.voices.check_new_name(params.name, replace=params.replace)


def run(params: Params, job: Job, models: Models) -> Reply:
    """Checks the files, then puts them where voices are looked for, all at once."""
    family, files = models.families.voices, job.files
    with job.stage("install"):
        if "archive" in files:
            voice = family.install_archive(params.name, files["archive"], replace=params.replace, check=job.check)
        else:
            voice = family.install(
                params.name,
                checkpoint=files["checkpoint"],
                index=files.get("index"),
                replace=params.replace,
                check=job.check,
            )
    return Reply(fields={"name": voice.name, "voice": voice.to_json()})
