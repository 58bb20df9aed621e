"""Decides what a request makes Suno do, and refuses what cannot work, before any audio is downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from errors import ModelError
from models import Models
from models.separation import plan_stems
from models.suno.catalog import find_version
from models.suno.engine import SunoEngine
from models.suno.payloads import SongOptions, Submission, extend_track, extend_upload
from operations.extend_via_suno.params import Params
from operations.extend_via_suno.task import PollingOptions
from operations.separation import SeparationPlan

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
    """What to do with which engine; `separation` is done with every clip."""

    engine: SunoEngine
    action: ResumeTask | ContinueUpload | Submission
    polling: PollingOptions
    version: str | None = None
    separation: SeparationPlan | None = None
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
    separation = None
    if params.separate and params.mode == "submit":
        warnings.append(
            "'separate' was left out: mode 'submit' downloads nothing. Send it with the request that fetches the task."
        )
    elif params.separate:
        separation = _plan_separation(params.separate, models)
    if params.task_id is not None:
        ignored = [name for name in SONG_FIELDS if name in params.model_fields_set]
        if ignored:
            warnings.append(f"'task_id' fetches an existing song, so these were left out: {', '.join(ignored)}.")
        return Plan(engine, ResumeTask(params.task_id), polling, separation=separation, warnings=tuple(warnings))
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
    return Plan(engine, action, polling, version.name, separation, tuple(warnings))


def _plan_separation(stems: Sequence[str], models: Models) -> SeparationPlan:
    family = models.families.separation
    model = family.resolve(None)
    info = family.describe(model.name)
    missing = [stem for stem in stems if stem not in info.stems]
    if not info.availability.is_usable or missing:
        reason = info.availability.reason or f"it does not separate {', '.join(missing)}"
        raise ModelError(
            f"'separate' cannot be done on this worker: {model.name}: {reason}. Leave out 'separate', or put a Demucs "
            "model below MODELS_DIR."
        )
    return SeparationPlan(model, plan_stems(info.stems, stems=stems, residual=True))
