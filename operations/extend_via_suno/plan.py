"""Decides what a request makes Suno do, and refuses what cannot work, before any audio is downloaded."""

from __future__ import annotations

from dataclasses import dataclass

from errors import ModelError
from models import Models
from models.demucs.catalog import DEFAULT_MODEL
from models.suno.catalog import find_version
from models.suno.engine import SunoEngine
from models.suno.payloads import SongOptions, Submission, extend_track, extend_upload
from operations.extend_via_suno.params import Params
from operations.extend_via_suno.task import PollingOptions

# Parameters of a new song, which have no effect on a task that was submitted before.
SONG_FIELDS = (
    "continue_at",
    "prompt",
    "style",
    "title",
    "model",
    "instrumental",
    "negative_tags",
    "vocal_gender",
    "style_weight",
    "weirdness",
    "audio_weight",
)


@dataclass(frozen=True, slots=True)
class ResumeTask:
    """Fetch a task that was submitted before."""

    task_id: str


@dataclass(frozen=True, slots=True)
class ContinueUpload:
    """Continue an uploaded song. Its submission depends on the song's length, which is known once it is downloaded."""

    options: SongOptions
    continue_at: float | None

    def build(self, duration: float) -> Submission:
        """The submission for a song of `duration` seconds."""
        return extend_upload(self.options, duration=duration, continue_at=self.continue_at)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do with which engine; `stems` are separated from every clip."""

    engine: SunoEngine
    action: ResumeTask | ContinueUpload | Submission
    polling: PollingOptions
    version: str | None = None
    stems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def plan(params: Params, models: Models) -> Plan:
    """The plan of a request.

    Raises:
        UpstreamError: `not_configured` if the worker has no Suno provider.
        ModelError: the stems cannot be separated on this worker.
        InvalidRequestError: Suno would refuse the parameters.
    """
    engine = models.families.suno.engine()
    polling = PollingOptions(params.mode, params.wait_s(), params.select)
    warnings: list[str] = []
    stems = tuple(params.separate or ())
    if stems and params.mode == "submit":
        warnings.append(
            "'separate' was left out: mode 'submit' downloads nothing. Send it with the request that fetches the task."
        )
        stems = ()
    if stems:
        _check_separation(models)
    if params.task_id is not None:
        ignored = [name for name in SONG_FIELDS if name in params.model_fields_set]
        if ignored:
            warnings.append(f"'task_id' fetches an existing song, so these were left out: {', '.join(ignored)}.")
        return Plan(engine, ResumeTask(params.task_id), polling, stems=stems, warnings=tuple(warnings))
    version, warning = find_version(params.model)
    if warning:
        warnings.append(warning)
    options = SongOptions(
        version=version,
        prompt=params.prompt,
        style=params.style,
        title=params.title,
        instrumental=params.instrumental,
        negative_tags=params.negative_tags,
        vocal_gender=params.vocal_gender,
        style_weight=params.style_weight,
        weirdness=params.weirdness,
        audio_weight=params.audio_weight,
    )
    action: ContinueUpload | Submission = ContinueUpload(options, params.continue_at)
    if params.audio_id is not None:
        action = extend_track(options, audio_id=params.audio_id, continue_at=params.continue_at)
    return Plan(engine, action, polling, version.name, stems, tuple(warnings))


def _check_separation(models: Models) -> None:
    availability = models.families.separation.describe(DEFAULT_MODEL).availability
    if not availability.is_usable:
        raise ModelError(
            f"'separate' cannot be done on this worker: {DEFAULT_MODEL}: {availability.reason}. Leave out 'separate', "
            "or put the model below MODELS_DIR."
        )
