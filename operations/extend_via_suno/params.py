"""The parameters of extend_via_suno."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from models.suno.catalog import DEFAULT_VERSION, MAX_PROMPT_CHARS, MAX_STYLE_CHARS, MAX_TITLE_CHARS
from operations.params import AudioField, AudioOutParams, NonEmptyText

SOURCES = ("audio", "audio_id", "task_id")
DEFAULT_WAIT_S = 600.0

Mode = Literal["wait", "submit", "poll"]
Select = Literal["all", "first", "longest"]
Stem = Literal["drums", "bass", "other", "vocals"]
Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:-]{1,128}$")]
VersionName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,32}$")]


class Params(AudioOutParams):
    """What to continue, and how. Exactly one of `audio`, `audio_id` and `task_id` is required."""

    audio: AudioField | None = Field(
        None, description="The song to continue. At most 8 minutes; 2 minutes with V3_5, 1 minute with V4_5ALL."
    )
    audio_id: Id | None = Field(
        None, description="Id of a track that Suno made, to continue it. `model` must be the track's version."
    )
    task_id: Id | None = Field(
        None, description="Id of a task that was submitted before: waits for it or downloads it, without paying again."
    )
    continue_at: float | None = Field(
        None, gt=0, le=3600, description="Position in the source to continue from, in seconds. Default: its end."
    )
    prompt: NonEmptyText | None = Field(
        None,
        max_length=MAX_PROMPT_CHARS,
        description="Describes the continuation. With `style` or `audio_id` it is the lyrics.",
    )
    style: NonEmptyText | None = Field(
        None, max_length=MAX_STYLE_CHARS, description="Genre, mood and instruments of the continuation."
    )
    title: NonEmptyText | None = Field(
        None, max_length=MAX_TITLE_CHARS, description="Title of the song. Only used together with `style`."
    )
    model: VersionName = Field(
        DEFAULT_VERSION, description="Suno version, as in `list_models`. An unknown version is passed on to Suno."
    )
    instrumental: bool = Field(False, description="Make the continuation without vocals.")
    negative_tags: NonEmptyText | None = Field(
        None, max_length=MAX_STYLE_CHARS, description="Styles and instruments to avoid."
    )
    vocal_gender: Literal["m", "f"] | None = Field(None, description="Gender of the singing voice.")
    style_weight: float | None = Field(
        None, ge=0, le=1, description="How closely the result follows `style`. 0 = loosely, 1 = strictly."
    )
    weirdness: float | None = Field(
        None, ge=0, le=1, description="How unconventional the result may be. 0 = conventional, 1 = experimental."
    )
    audio_weight: float | None = Field(
        None, ge=0, le=1, description="How closely the result follows the source. 0 = loosely, 1 = strictly."
    )
    mode: Mode = Field(
        "wait",
        description="`wait` returns the finished song. `submit` returns the task's id at once. `poll` returns the "
        "status of `task_id`, and the song if it is finished.",
    )
    max_wait_s: float | None = Field(
        None,
        ge=0,
        le=900,
        description="Longest time to wait for Suno, in seconds. Default: 600; with `poll` 0, which is one request.",
    )
    select: Select = Field("all", description="Which of Suno's two clips to download.")
    separate: list[Stem] | None = Field(
        None, min_length=1, description="Stems to separate from every clip with Demucs. Default: none."
    )

    def find_errors(self) -> Iterable[tuple[str, str]]:
        """Validation errors between fields."""
        given = [name for name in SOURCES if getattr(self, name) is not None]
        if len(given) != 1:
            yield "audio", f"or 'audio_id' or 'task_id' is required, exactly one; got {' and '.join(given) or 'none'}"
        if self.mode == "poll" and self.task_id is None:
            yield "mode", "'poll' requires 'task_id'; use 'wait' or 'submit' to start a new task"
        if self.mode == "submit" and self.task_id is not None:
            yield "mode", "'submit' starts a new task, but 'task_id' names an existing one; use 'wait' or 'poll'"
        if self.separate is not None and len(set(self.separate)) < len(self.separate):
            yield "separate", "lists a stem twice"

    def wait_s(self) -> float:
        """`max_wait_s`, or its default for the mode."""
        if self.max_wait_s is not None:
            return self.max_wait_s
        return 0.0 if self.mode == "poll" else DEFAULT_WAIT_S
