"""Adds a voice to this worker's folder of voices, from a zip or from its files; off unless `ALLOW_VOICE_UPLOAD=1`."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field

from errors import ErrorCode, ModelError
from models import Models
from models.rvc import RvcFamily
from operations.params import FileField
from operations.params import Params as BaseParams
from worker.job import Job
from worker.reply import Reply

FAMILY = "rvc"
NOT_BUILT_IN = "it knows no voices"
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
    family = models.families.get(FAMILY)
    return family.upload_status() if isinstance(family, RvcFamily) else NOT_BUILT_IN


def admit(params: Params, models: Models) -> None:
    """Refuses before anything is downloaded: where uploads are off, by the name, where the voice is there already."""
    _family(models).demand_uploads()
    _family(models).check_new_name(params.name, replace=params.replace)


def run(params: Params, job: Job, models: Models) -> Reply:
    """Checks the files, then puts them where voices are looked for, all at once."""
    family, files = _family(models), job.files
    with job.stage("install"):
        if "archive" in files:
            row = family.install_archive(params.name, files["archive"], replace=params.replace, check=job.check)
        else:
            row = family.install(
                params.name,
                checkpoint=files["checkpoint"],
                index=files.get("index"),
                replace=params.replace,
                check=job.check,
            )
    return Reply(fields={"name": row["name"], "voice": row})


def _family(models: Models) -> RvcFamily:
    family = models.families.get(FAMILY)
    if not isinstance(family, RvcFamily):
        raise ModelError(f"Voices cannot be added to this worker: {NOT_BUILT_IN}.", code=ErrorCode.VOICE_UPLOAD_OFF)
    return family
