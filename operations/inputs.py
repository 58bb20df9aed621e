"""Opens the audio and files of a request's parameters."""

from __future__ import annotations

from operations.params import Params
from worker.input.load import MAX_MEMORY_BYTES, load_audio, load_file
from worker.job import Job

MAX_TOTAL_MEMORY_BYTES = 4 * MAX_MEMORY_BYTES  # of all audio of a request; more inputs have a smaller share each


def load_inputs(params: Params, job: Job) -> None:
    """Opens every audio and file field that the request gives, into `job.audio` and `job.files` by its path."""
    inputs = params.list_inputs()
    share = min(MAX_MEMORY_BYTES, MAX_TOTAL_MEMORY_BYTES // max(len(inputs), 1))
    for field, (kind, source) in inputs.items():
        if kind == "file":
            job.files[field] = load_file(source, field=field, job=job, settings=job.settings)
        else:
            job.audio[field] = load_audio(source, field=field, job=job, settings=job.settings, memory_bytes=share)
