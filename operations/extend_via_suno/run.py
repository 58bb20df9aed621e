"""Submits the song or resumes its task, waits for it, downloads its clips and separates their stems."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from models import Models
from models.suno.download import DownloadedClip
from models.suno.payloads import Submission
from operations.extend_via_suno.plan import SONG_FIELDS, Plan, ResumeTask
from operations.extend_via_suno.task import Task, build_reply, fetch_task, name_task_in_errors, submit_task
from operations.separation import SeparationPlan, separate_stems
from worker.job import Job
from worker.reply import Output, Reply

SONG_FRACTION = 0.8  # of the progress, if stems are separated afterwards
WEIGHTS = {"style_weight": "styleWeight", "weirdness": "weirdnessConstraint", "audio_weight": "audioWeight"}


def run(plan: Plan, job: Job, models: Models) -> Reply:
    """Runs `plan`. Raises `UpstreamError` for everything that the provider refuses or fails at."""
    for warning in plan.warnings:
        job.warn(warning)
    progress_range = (0.0, SONG_FRACTION if plan.separation else 1.0)
    deadline = plan.engine.start_deadline(plan.polling.max_wait_s, job.check)
    used: dict[str, Any] = {"max_wait_s": plan.polling.max_wait_s}
    submission: Submission | None = None
    if isinstance(plan.action, ResumeTask):
        task = Task(plan.action.task_id, is_new=False)
        used |= dict.fromkeys(SONG_FIELDS)
    else:
        submission = (
            plan.action if isinstance(plan.action, Submission) else plan.action.build(job.audio["audio"].duration)
        )
        # The source is popped, so that minutes of audio do not stay in memory while Suno works.
        source = job.audio.pop("audio", None)
        task = submit_task(plan.engine, submission, job, plan.polling, source=source, progress_range=progress_range)
        del source
        weights = {name: submission.body[key] for name, key in WEIGHTS.items() if key in submission.body}
        used |= {"model": plan.version, **weights, **submission.used}
    result = fetch_task(plan.engine, task, job, plan.polling, deadline=deadline, progress_range=progress_range)
    with name_task_in_errors(task):
        stems = _separate(result.clips, plan.separation, job, models) if plan.separation else {}
    if submission is not None:
        _warn_of_fragments(result.clips, submission, job)
    return build_reply(task, result, used=used, stems=stems)


def _separate(clips: Sequence[DownloadedClip], plan: SeparationPlan, job: Job, models: Models) -> dict[str, Output]:
    """The stems of every clip, as `take<number>_<stem>`."""
    outputs: dict[str, Output] = {}
    for position, download in enumerate(clips):
        start, end = (SONG_FRACTION + (1 - SONG_FRACTION) * n / len(clips) for n in (position, position + 1))
        with job.stage("separate", (start, end)):
            separated = separate_stems(plan, download.audio, job=job, models=models)
        for name, audio in separated.items():
            label = f"take{download.clip.index + 1}_{name}"
            outputs[label] = Output(audio, f"suno_{label}", {"index": download.clip.index, "stem": name})
    return outputs


def _warn_of_fragments(clips: Sequence[DownloadedClip], submission: Submission, job: Job) -> None:
    """Most providers return the whole song; some return only the continuation, which its length reveals."""
    position = submission.continues_at
    for download in clips:
        duration = download.audio.duration
        if position is not None and duration < position:
            job.warn(
                f"suno_{download.clip.index + 1}: it is {duration:.1f} s long, but continues the source from "
                f"{position:.1f} s. It seems to contain only the continuation; put the source's first part before it."
            )
