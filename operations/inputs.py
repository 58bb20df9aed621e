"""Opens the audio and files of a request's parameters."""

from __future__ import annotations

from collections.abc import Mapping

from operations.params import InputKind
from worker.input.load import MAX_MEMORY_BYTES, load_audio, load_file
from worker.job import Job

MAX_TOTAL_MEMORY_BYTES = 4 * MAX_MEMORY_BYTES  # of all audio of a request; more inputs have a smaller share each


def load_inputs(inputs: Mapping[str, tuple[InputKind, str]], job: Job, *, count: int | None = None) -> None:
    """Opens audio and files, into `job.audio` and `job.files` by their path.

    Args:
        inputs: kind and source by path, as from `Params.list_inputs`.
        count: of the inputs that share the memory. Default: these.
    """
    share = min(MAX_MEMORY_BYTES, MAX_TOTAL_MEMORY_BYTES // max(count or len(inputs), 1))
    for field, (kind, source) in inputs.items():
        if kind == "file":
            job.files[field] = load_file(source, field=field, job=job, settings=job.settings)
        else:
            job.audio[field] = load_audio(source, field=field, job=job, settings=job.settings, memory_bytes=share)
