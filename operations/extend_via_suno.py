"""Continues a song (an upload, or a track that Suno made) through a Suno provider; pays at most once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from models import Models
from models.suno import payloads as orders
from models.suno.catalog import (
    DEFAULT_VERSION,
    MOST_PROMPT_CHARS,
    MOST_STYLE_CHARS,
    MOST_TITLE_CHARS,
    Version,
    version_called,
)
from models.suno.config import TOKEN_ABSENT
from operations._suno import FAMILY, Course, Mode, Select, SunoJob
from operations.params import AudioField, AudioOutParams, Words
from worker.job import Job
from worker.reply import Reply

SOURCES = ("audio", "audio_id", "task_id")
# Those that say how a new song is to be, and mean nothing for a task that has been submitted.
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
OPTIONAL = True
"""A worker without a Suno provider is healthy."""

Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:-]{1,128}$")]
Stem = Literal["drums", "bass", "other", "vocals"]


class Params(AudioOutParams):
    """What to continue, and how."""

    audio: AudioField | None = Field(None, description="the song to continue; at most 8 minutes (V4_5ALL: 1)")
    audio_id: Id | None = Field(None, description="a track that Suno made, to continue; `model` must be the track's")
    task_id: Id | None = Field(None, description="a task submitted before: waits for it or fetches it, pays nothing")
    continue_at: float | None = Field(None, gt=0, le=3600, description="s into the source; absent: its end")
    prompt: Words | None = Field(
        None, max_length=MOST_PROMPT_CHARS, description="what follows; with `style` or `audio_id`: the words to sing"
    )
    style: Words | None = Field(None, max_length=MOST_STYLE_CHARS, description="genre, mood, instruments")
    title: Words | None = Field(None, max_length=MOST_TITLE_CHARS, description="goes with `style`")
    model: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,32}$")] = Field(
        DEFAULT_VERSION, description="Suno's version, as list_models names it; unknown ones are passed on"
    )
    instrumental: bool = Field(False, description="without a voice")
    negative_tags: Words | None = Field(None, max_length=MOST_STYLE_CHARS, description="what it must not sound like")
    vocal_gender: Literal["m", "f"] | None = Field(None, description="of the voice")
    style_weight: float | None = Field(None, ge=0, le=1, description="how closely it keeps to `style`")
    weirdness: float | None = Field(None, ge=0, le=1, description="how far it may stray")
    audio_weight: float | None = Field(None, ge=0, le=1, description="how closely it keeps to the source")
    mode: Mode = Field(
        "wait", description="`submit` returns the task's id at once; `poll` looks once, or for `max_wait_s`"
    )
    max_wait_s: float | None = Field(None, ge=0, le=900, description="s; absent: 600, with `poll` one look")
    select: Select = Field("all", description="which of Suno's two takes to fetch")
    separate: list[Stem] | None = Field(None, min_length=1, description="stems to take from what comes back")

    def faults(self) -> Iterable[tuple[str, str]]:
        """What is wrong with fields that are right by themselves."""
        given = [name for name in SOURCES if getattr(self, name) is not None]
        if len(given) != 1:
            yield "audio", f"or 'audio_id' or 'task_id' is needed, exactly one; got {' and '.join(given) or 'none'}"
        if self.mode == "poll" and self.task_id is None:
            yield "mode", "'poll' needs 'task_id'; 'wait' and 'submit' start a new task"
        if self.mode == "submit" and self.task_id is not None:
            yield "mode", "'submit' starts a new task and 'task_id' is one already; use 'wait' or 'poll'"
        if self.separate is not None and len(set(self.separate)) < len(self.separate):
            yield "separate", "names a stem twice"

    def course(self) -> Course:
        """How the task is followed."""
        waits = self.max_wait_s if self.max_wait_s is not None else 0.0 if self.mode == "poll" else 600.0
        return Course(self.mode, waits, self.select, tuple(self.separate or ()))

    def wish(self, version: Version) -> orders.Wish:
        """How the continuation is to be."""
        return orders.Wish(
            version=version,
            prompt=self.prompt,
            style=self.style,
            title=self.title,
            instrumental=self.instrumental,
            negative_tags=self.negative_tags,
            vocal_gender=self.vocal_gender,
            style_weight=self.style_weight,
            weirdness=self.weirdness,
            audio_weight=self.audio_weight,
        )


def status(models: Models) -> str:
    """`ready`, or why Suno cannot be used."""
    return models.families[FAMILY].status() if FAMILY in models.families else TOKEN_ABSENT


def run(params: Params, job: Job, models: Models) -> Reply:
    """See the contract. Raises `UpstreamError` for all that the provider refuses or fails at."""
    course = params.course()
    suno = SunoJob(models, job, course)
    used: dict[str, object] = {"max_wait_s": course.max_wait_s}
    if params.task_id is not None:
        ignored = [name for name in SONG_FIELDS if name in params.model_fields_set]
        if ignored:
            job.warn(f"With 'task_id' nothing new is made, so these were left out: {', '.join(ignored)}.")
        return suno.finish(params.task_id, new=False, used=used | dict.fromkeys(SONG_FIELDS))
    if params.separate and params.mode == "submit":
        job.warn("'separate' was left out: mode 'submit' fetches nothing. Give it again when you fetch the task.")
    plan, used_here = _plan(params, job)
    # Popped, and not held here: a source of minutes need not stay in memory while Suno works.
    task_id, new = suno.submit(plan, job.audio.pop("audio", None))
    reply = suno.finish(task_id, new=new, used=used | used_here)
    _warn_of_fragments(reply, plan, job)
    return reply


def _warn_of_fragments(reply: Reply, plan: orders.Plan, job: Job) -> None:
    """Most providers return the whole song; some only what follows, which its length gives away."""
    point = plan.cut_s or plan.order.body.get("continueAt")
    for output in reply.outputs:
        if point is not None and output.audio.duration < point:
            job.warn(
                f"{output.name}: it is {output.audio.duration:.1f} s long and continues from {point:.1f} s, so it "
                "seems to hold only what follows; put the source's first part before it."
            )


def _plan(params: Params, job: Job) -> tuple[orders.Plan, dict[str, object]]:
    version, warning = version_called(params.model)
    if warning:
        job.warn(warning)
    wish = params.wish(version)
    if params.audio_id is not None:
        plan = orders.extend_track(wish, audio_id=params.audio_id, continue_at=params.continue_at)
    else:
        plan = orders.extend_upload(wish, duration=job.audio["audio"].duration, continue_at=params.continue_at)
    sent = {"style_weight": "styleWeight", "weirdness": "weirdnessConstraint", "audio_weight": "audioWeight"}
    body = plan.order.body
    weights = {name: body[field] for name, field in sent.items() if field in body}
    return plan, {"model": version.name, **weights, **dict(plan.used)}
