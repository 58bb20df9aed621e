"""generate_music with `model: "suno/<version>"`: a new song by Suno instead of music by a model of our own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from audio import Audio
from models import Models
from models.suno.catalog import (
    CLIPS_PER_REQUEST,
    DEFAULT_VERSION,
    MAX_PROMPT_CHARS,
    MAX_STYLE_CHARS,
    MAX_TITLE_CHARS,
    find_version,
)
from models.suno.payloads import SongOptions, generate
from operations.extend_via_suno.task import PollingOptions, build_reply, fetch_task, submit_task
from worker.job import Job
from worker.reply import Output, Reply

if TYPE_CHECKING:
    from operations.generate_music import Params

PREFIX = "suno/"
DEFAULT_WAIT_S = 600.0
LIMITS = {"lyrics": MAX_PROMPT_CHARS, "style": MAX_STYLE_CHARS, "title": MAX_TITLE_CHARS}
OWN_FIELDS = (*LIMITS, "instrumental", "max_wait_s")
"""Fields of generate_music that mean something to Suno only."""

AUDIO_FIELDS = ("melody_audio", "style_audio", "continuation_audio")
# Settings of a model's sampling, which Suno has not.
IGNORED = (
    "duration",
    "seed",
    "temperature",
    "top_k",
    "top_p",
    "cfg_coef",
    "extend_stride",
    "continuation_start",
    "continuation_end",
    "include_prompt",
    "mbd",
)


def is_meant(model: str | None) -> bool:
    """Whether `model` names a Suno version."""
    return model is not None and model.lower().startswith(PREFIX)


def faults(params: Params) -> Iterable[tuple[str, str]]:
    """What of a generate_music request does not go together with Suno, or without it."""
    given = params.model_fields_set
    if not is_meant(params.model):
        for name in OWN_FIELDS:
            if name in given:
                yield name, f"goes with 'model': '{PREFIX}<version>' only"
        return
    for name in AUDIO_FIELDS:
        if name in given:
            yield name, "does not go with Suno; 'extend_via_suno' continues a recording"
    if len(params.prompts) > 1:
        yield "prompt", "must be one text with Suno; send one request for each song"
    if params.n_samples > CLIPS_PER_REQUEST:
        yield "n_samples", f"must be at most {CLIPS_PER_REQUEST} with Suno, which makes {CLIPS_PER_REQUEST} clips"
    if not (params.prompts[0].strip() or params.lyrics or params.style):
        yield "prompt", "is required, or 'lyrics', or 'style' with 'instrumental'"


def run(params: Params, job: Job, models: Models, *, description: str, finish: Callable[[Audio], Audio]) -> Reply:
    """The song's clips; the reply is extend_via_suno's, with `model_used`.

    Args:
        description: the prompt with what was added to it.
        finish: applied to each clip (trimming, fades).
    """
    version, warning = find_version((params.model or "")[len(PREFIX) :] or DEFAULT_VERSION)
    if warning:
        job.warn(warning)
    ignored = [name for name in IGNORED if name in params.model_fields_set]
    if ignored:
        job.warn(f"Suno has no such settings, so these were left out: {', '.join(ignored)}.")
    options = SongOptions(
        version=version,
        style=params.style,
        title=params.title,
        instrumental=params.instrumental,
        negative_tags=params.negative_prompt.strip() or None,
    )
    submission = generate(options, description=description, lyrics=params.lyrics)
    only_one = "n_samples" in params.model_fields_set and params.n_samples == 1
    wait_s = params.max_wait_s if params.max_wait_s is not None else DEFAULT_WAIT_S
    polling = PollingOptions("wait", wait_s, "first" if only_one else "all")
    engine = models.families.suno.engine()
    deadline = engine.start_deadline(wait_s, job.check)
    task = submit_task(engine, submission, job, polling)
    result = fetch_task(engine, task, job, polling, deadline=deadline)
    used = {"model": PREFIX + version.name, "max_wait_s": wait_s, **submission.used}
    reply = build_reply(task, result, used=used)
    outputs = [_finished(output, finish) for output in reply.outputs]
    return replace(reply, fields={**reply.fields, "model_used": used["model"]}, outputs=outputs)


def _finished(output: Output, finish: Callable[[Audio], Audio]) -> Output:
    assert isinstance(output.audio, Audio), "clips are short enough to lie in memory"
    return replace(output, audio=finish(output.audio))
