"""A client whose jobs do what a test says, in place of one that talks to an endpoint."""

from __future__ import annotations

import base64
import io
import itertools
import threading
import wave
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from music_worker.jobs import JobState, OnProgress, Progress
from music_worker.results import Result, read_result
from music_worker.schema import load_schemas

Script = Callable[["FakeJob"], Mapping[str, Any]]
"""What a job does; returns the worker's reply or raises what the job ends with."""


def make_wav(seconds: float = 0.5, *, rate: int = 8000, step: int = 40) -> bytes:
    """A mono wav file with a triangle wave of 16 bits."""
    count = int(seconds * rate)
    samples = ((abs(index % (2 * step) - step) - step // 2) * (20000 // step) for index in range(count))
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, rate, count, "NONE", ""))
        writer.writeframes(b"".join(sample.to_bytes(2, "little", signed=True) for sample in samples))
    return file.getvalue()


def make_audio(content: bytes, filename: str = "music.wav", **fields: Any) -> dict[str, Any]:
    """An artefact as it stands in a reply."""
    about = {"sample_rate": 8000, "channels": 1, "duration": (len(content) - 44) / 16000}
    inline = base64.b64encode(content).decode()
    return {"output_audio": inline, "filename": filename, "format": "wav", "size": len(content), **about, **fields}


@dataclass
class FakeJob:
    """A job of `FakeClient`; its script reports progress and waits for events through it."""

    id: str
    operation: str
    params: Mapping[str, Any]
    script: Script
    cancelled: threading.Event = field(default_factory=threading.Event)
    _on_progress: OnProgress | None = None

    def report(self, stage: str = "", percent: float | None = None, *, state: JobState = JobState.IN_PROGRESS) -> None:
        if self._on_progress is not None:
            left = None if percent is None else 100.0 - percent
            progress = Progress(job_id=self.id, state=state, stage=stage, percent=percent, remaining_s=left)
            self._on_progress(progress)

    def wait(self, *, on_progress: OnProgress | None = None) -> Result:
        self._on_progress = on_progress
        reply = {"operation": self.operation, "success": True, **self.script(self)}
        return read_result(reply, job_id=self.id)

    def cancel(self) -> None:
        self.cancelled.set()


def list_models(job: FakeJob) -> dict[str, Any]:
    music = [
        {"name": "demo", "family": "musicgen", "available": "local"},
        {"name": "turbo", "family": "acestep", "available": "download", "download_bytes": 7_600_000_000},
    ]
    return {"music": music}


def check_health(job: FakeJob) -> dict[str, Any]:
    operations = {
        **dict.fromkeys(load_schemas().operations, "ready"),
        "add_voice": "off: set ALLOW_VOICE_UPLOAD=1",
        "separate": "ready (demo)",
    }
    return {"status": "healthy", "device": "cpu", "operations": operations}


def make_music(job: FakeJob) -> dict[str, Any]:
    return {**make_audio(make_wav()), "seed": 7, "parameters": {"seed": 7}, "timings": {"total_s": 1.5}}


class FakeClient:
    """Jobs end as `scripts` says, by operation; those it has no script for make half a second of sound."""

    url = "https://api.runpod.ai/v2/abc123"

    def __init__(self, **scripts: Script) -> None:
        self.scripts: dict[str, Script] = {"list_models": list_models, "health_check": check_health, **scripts}
        self.jobs: list[FakeJob] = []
        self._numbers = itertools.count(1)

    def submit(self, operation: str, params: Mapping[str, Any] | None = None) -> FakeJob:
        script = self.scripts.get(operation, make_music)
        job = FakeJob(f"job-{next(self._numbers)}", operation, params or {}, script)
        self.jobs.append(job)
        return job

    def job(self, job_id: str) -> FakeJob:
        operation = next((job.operation for job in self.jobs if job.id == job_id), "generate_music")
        job = FakeJob(job_id, operation, {}, self.scripts.get(operation, make_music))
        self.jobs.append(job)
        return job

    def last(self, operation: str) -> FakeJob:
        return [job for job in self.jobs if job.operation == operation][-1]
