"""Client of the music AI worker: `Client`, `AsyncClient`, their results and errors.

Names are imported when they are first used: the command line starts without httpx.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from music_worker.bucket import Bucket as Bucket
    from music_worker.client import AsyncClient as AsyncClient
    from music_worker.client import Client as Client
    from music_worker.client import Health as Health
    from music_worker.errors import MusicWorkerError as MusicWorkerError
    from music_worker.errors import WorkerError as WorkerError
    from music_worker.files import AudioInput as AudioInput
    from music_worker.files import UploadLink as UploadLink
    from music_worker.jobs import AsyncJob as AsyncJob
    from music_worker.jobs import Job as Job
    from music_worker.jobs import JobState as JobState
    from music_worker.jobs import Progress as Progress
    from music_worker.results import AudioOutput as AudioOutput
    from music_worker.results import FileOutput as FileOutput
    from music_worker.results import Result as Result
    from music_worker.transport import Patience as Patience
    from music_worker.waveform import Samples as Samples

_MODULES = {
    "bucket": ("Bucket",),
    "client": ("AsyncClient", "Client", "Health"),
    "errors": ("MusicWorkerError", "WorkerError"),
    "files": ("AudioInput", "UploadLink"),
    "jobs": ("AsyncJob", "Job", "JobState", "Progress"),
    "results": ("AudioOutput", "FileOutput", "Result"),
    "transport": ("Patience",),
    "waveform": ("Samples",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "AsyncClient",
    "AsyncJob",
    "AudioInput",
    "AudioOutput",
    "Bucket",
    "Client",
    "FileOutput",
    "Health",
    "Job",
    "JobState",
    "MusicWorkerError",
    "Patience",
    "Progress",
    "Result",
    "Samples",
    "UploadLink",
    "WorkerError",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"music_worker.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
