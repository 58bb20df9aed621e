"""A song by Suno: `model: "suno/<version>"` of generate_music. The reply is that of extend_via_suno."""

from __future__ import annotations

from dataclasses import dataclass, replace

from audio import Audio
from models import Models
from models.suno.catalog import DEFAULT_VERSION, find_version
from models.suno.engine import SunoEngine
from models.suno.payloads import SongOptions, Submission, generate
from operations.clips import Finishing
from operations.engines import MusicEngine, list_unused
from operations.extend_via_suno.params import DEFAULT_WAIT_S
from operations.extend_via_suno.task import PollingOptions, build_reply, fetch_task, submit_task
from operations.generate_music.params import IGNORED_BY_SUNO, SUNO_PREFIX, Params
from worker.job import Job
from worker.reply import Output, Reply


@dataclass(frozen=True, slots=True)
class SunoPlan:
    """What to submit to which provider; `model` is the name that the reply shows."""

    engine: SunoEngine
    submission: Submission
    polling: PollingOptions
    model: str
    finishing: Finishing
    warnings: tuple[str, ...]


def plan_suno(params: Params, models: Models) -> SunoPlan:
    """The plan of a request for Suno.

    Raises:
        UpstreamError: `not_configured` if the worker has no Suno provider.
        InvalidRequestError: Suno would refuse the parameters.
    """
    engine = models.families.suno.engine()
    version, warning = find_version((params.model or "")[len(SUNO_PREFIX) :] or DEFAULT_VERSION)
    warnings = [warning] if warning else []
    if ignored := [name for name in IGNORED_BY_SUNO if name in params.model_fields_set]:
        warnings.append(f"Suno has no such settings, so these were left out: {', '.join(ignored)}.")
    options = SongOptions(
        version=version,
        style=params.style,
        title=params.title,
        instrumental=params.instrumental,
        negative_tags=params.negative_prompt.strip() or None,
    )
    is_single = "n_samples" in params.model_fields_set and params.n_samples == 1
    return SunoPlan(
        engine,
        generate(options, description=params.describe(params.prompts[0]), lyrics=params.lyrics),
        PollingOptions(
            "wait",
            params.max_wait_s if params.max_wait_s is not None else DEFAULT_WAIT_S,
            "first" if is_single else "all",
        ),
        SUNO_PREFIX + version.name,
        params.finishing(),
        tuple(warnings),
    )


def run_suno(plan: SunoPlan, job: Job) -> Reply:
    for warning in plan.warnings:
        job.warn(warning)
    deadline = plan.engine.start_deadline(plan.polling.max_wait_s, job.check)
    task = submit_task(plan.engine, plan.submission, job, plan.polling)
    result = fetch_task(plan.engine, task, job, plan.polling, deadline=deadline)
    used = {"model": plan.model, "max_wait_s": plan.polling.max_wait_s, **plan.submission.used}
    reply = build_reply(task, result, used=used)
    return replace(
        reply,
        fields={**reply.fields, "model_used": plan.model},
        unused=list_unused(Params, MusicEngine.SUNO),
        outputs=[_finish(output, plan.finishing) for output in reply.outputs],
    )


def _finish(output: Output, finishing: Finishing) -> Output:
    assert isinstance(output.audio, Audio), "clips are short enough to be in memory"
    return replace(output, audio=finishing.apply(output.audio))
