"""Runs an edit: checks the recording against what the model takes, then generates."""

from __future__ import annotations

from dataclasses import replace

from audio.types import AudioSource
from errors import InvalidRequestError
from models import Models
from models.acestep.edit import find_window_error, plan_window
from operations.edit_music.params import Params
from operations.songs.recordings import require_length
from operations.songs.run import SongPlan, generate_songs
from worker.job import Job
from worker.reply import Reply


def run_edit(plan: SongPlan, job: Job, models: Models) -> Reply:
    """Runs `plan` on the job's recording.

    Raises:
        AudioError: the recording is longer than the model takes.
        InvalidRequestError: the window does not lie in or at the recording. Neither costs any work.
    """
    duration = _measure_result(plan, job.audio["audio"])
    drafts = [
        replace(draft, text=replace(draft.text, metas=replace(draft.text.metas, duration=duration)))
        for draft in plan.drafts
    ]
    songs = generate_songs(replace(plan, drafts=tuple(drafts)), job, models, name=plan.task)
    parameters = {name: value for name, value in songs.parameters.items() if name in Params.model_fields}
    if plan.task != "extract":
        return Reply(fields=songs.fields, outputs=songs.outputs, parameters=parameters)
    stem = replace(songs.outputs[0], name=plan.tracks[0])
    return Reply(fields=songs.fields, stems={plan.tracks[0]: stem}, parameters=parameters)


def _measure_result(plan: SongPlan, source: AudioSource) -> float:
    """The length of the result in seconds."""
    require_length(source, "audio")
    if plan.repainting is None:
        return source.duration
    if problem := find_window_error(source.duration, plan.repainting):
        raise InvalidRequestError(problem, details={"field": "repainting_start"})
    return plan_window(source.duration, plan.repainting).duration
