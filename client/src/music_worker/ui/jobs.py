"""The jobs of one run of the page: each is sent and waited for in a thread of its own."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol

from music_worker.errors import DownloadError, JobCancelledError, MusicWorkerError, OutputError, WorkerError
from music_worker.files import find_input_fields
from music_worker.jobs import JobState, OnProgress, Progress
from music_worker.results import AudioOutput, FileOutput, Result
from music_worker.schema import load_remedies
from music_worker.ui.files import FileStore, PageError, StoredFile

logger = logging.getLogger(__name__)

MAX_FINISHED_JOBS = 200
MAX_DEPTH = 32


class PageJob(Protocol):
    """What the page needs of `music_worker.Job`."""

    @property
    def id(self) -> str: ...
    def wait(self, *, on_progress: OnProgress | None = None) -> Result: ...
    def cancel(self) -> None: ...


class PageClient(Protocol):
    """What the page needs of `music_worker.Client`."""

    @property
    def url(self) -> str: ...
    def submit(self, operation: str, params: Mapping[str, Any] | None = None) -> PageJob: ...
    def job(self, job_id: str) -> PageJob: ...


class State(StrEnum):
    """Where a job of the page is."""

    SENDING = "sending"
    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return self in (State.DONE, State.FAILED, State.CANCELLED)


@dataclass(slots=True)
class _Entry:
    """One job. Only its own thread and `JobTable.cancel` change it, under the table's lock."""

    id: str
    operation: str
    state: State = State.SENDING
    created: float = field(default_factory=time.monotonic)
    ended: float | None = None
    job: PageJob | None = None
    progress: Progress | None = None
    error: dict[str, Any] | None = None
    result: dict[str, Any] | None = None
    files: tuple[StoredFile, ...] = ()


class JobTable:
    """Sends, watches and cancels jobs; keeps what they made until they are removed."""

    def __init__(self, client: PageClient, files: FileStore) -> None:
        self._client = client
        self._files = files
        self._entries: dict[str, _Entry] = {}
        self._lock = threading.Lock()

    def submit(self, operation: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Sends a request and returns its description at once.

        Args:
            params: as the worker takes them, with `{"$file": <id>}` for a file of this run. A text stays a text: it
                never names a file of this machine.
        """
        prepared = self._fill_in(params, find_input_fields(operation))

        def send() -> PageJob:
            return self._client.submit(operation, prepared)

        return self._start(operation, send)

    def resume(self, operation: str, platform_id: str) -> dict[str, Any]:
        """Waits for a job that an earlier run sent."""
        return self._start(operation, lambda: self._client.job(platform_id))

    def describe_all(self) -> list[dict[str, Any]]:
        """Every job of this run, the oldest first."""
        with self._lock:
            return [_describe(entry) for entry in self._entries.values()]

    def describe(self, job_id: str) -> dict[str, Any]:
        """State, progress, result or error of a job."""
        with self._lock:
            return _describe(self._find(job_id))

    def cancel(self, job_id: str) -> dict[str, Any]:
        """Asks the platform to stop a job; one that is not yet sent is cancelled as soon as it is."""
        with self._lock:
            entry = self._find(job_id)
            job = entry.job
            if not entry.state.is_final:
                entry.state = State.CANCELLING
        if job is not None:
            job.cancel()
        return self.describe(job_id)

    def remove(self, job_id: str) -> None:
        """Forgets a job that has ended, and deletes its files."""
        with self._lock:
            if not self._find(job_id).state.is_final:
                raise PageError(HTTPStatus.CONFLICT, "The job is not done yet. Cancel it first.")
            entry = self._entries.pop(job_id)
        for stored in entry.files:
            self._files.remove(stored.id)

    def _find(self, job_id: str) -> _Entry:
        if (entry := self._entries.get(job_id)) is None:
            raise PageError(HTTPStatus.NOT_FOUND, "The server of this page does not know this job.")
        return entry

    def _start(self, operation: str, send: Callable[[], PageJob]) -> dict[str, Any]:
        entry = _Entry(secrets.token_hex(12), operation)
        with self._lock:
            self._entries[entry.id] = entry
            finished = [known.id for known in self._entries.values() if known.state.is_final]
        for job_id in finished[:-MAX_FINISHED_JOBS]:
            self.remove(job_id)
        threading.Thread(target=self._run, args=(entry, send), name=f"job {entry.id}", daemon=True).start()
        return self.describe(entry.id)

    def _run(self, entry: _Entry, send: Callable[[], PageJob]) -> None:
        """The thread of one job: sends it, waits, fetches what it made."""
        try:
            job = send()
            with self._lock:
                entry.job = job
                is_cancelled = entry.state is State.CANCELLING
                if not is_cancelled:
                    entry.state = State.QUEUED
            if is_cancelled:
                job.cancel()
            result = job.wait(on_progress=lambda progress: self._note(entry, progress))
            listed, stored = self._fetch_files(result)
        except JobCancelledError:
            self._end(entry, State.CANCELLED)
        except MusicWorkerError as error:
            self._end(entry, State.FAILED, error=describe_error(error))
        except Exception:  # a job of the page must end, whatever happens to its thread
            logger.exception("Job %s ended with an error of the page's server", entry.id)
            message = "The server of this page met an error. Its terminal shows it."
            self._end(entry, State.FAILED, error={"code": "page_error", "message": message, "details": {}})
        else:
            reply = {"reply": dict(result.reply), "warnings": list(result.warnings), "files": listed}
            self._end(entry, State.DONE, result=reply, files=stored)

    def _note(self, entry: _Entry, progress: Progress) -> None:
        with self._lock:
            entry.progress = progress
            if entry.state in (State.QUEUED, State.RUNNING) and not progress.state.is_final:
                entry.state = State.QUEUED if progress.state is JobState.IN_QUEUE else State.RUNNING

    def _end(
        self,
        entry: _Entry,
        state: State,
        *,
        error: dict[str, Any] | None = None,
        result: dict[str, Any] | None = None,
        files: tuple[StoredFile, ...] = (),
    ) -> None:
        with self._lock:
            entry.state, entry.error, entry.result, entry.files = state, error, result, files
            entry.ended = time.monotonic()

    def _fetch_files(self, result: Result) -> tuple[list[dict[str, Any]], tuple[StoredFile, ...]]:
        """The result's files for the browser, and as they are stored. One that cannot be fetched has a `problem`."""
        listed, kept = [], []
        for name, output in result.all_files().items():
            entry = _describe_output(name, output)
            file_id, path = self._files.make_path()
            try:
                saved = output.save(path)
            except (DownloadError, OutputError) as error:
                listed.append({**entry, "file": None, "problem": error.message})
                continue
            stored = self._files.add_result(file_id, Path(saved), name=output.filename, form=output.format)
            kept.append(stored)
            listed.append(
                {
                    **entry,
                    "file": stored.id,
                    "filename": stored.name,
                    "size": stored.size,
                    "media_type": stored.media_type,
                }
            )
        return listed, tuple(kept)

    def _fill_in(self, value: Any, inputs: Collection[str], name: str = "", depth: int = 0) -> Any:
        """`value` with the files of this run in place of their ids. `inputs` names the fields that take files."""
        if depth > MAX_DEPTH:
            raise PageError(HTTPStatus.BAD_REQUEST, "The parameters are nested too deeply.")
        if isinstance(value, Mapping):
            if "$file" in value:
                return self._files.get(str(value["$file"])).path
            return {str(key): self._fill_in(item, inputs, str(key), depth + 1) for key, item in value.items()}
        if isinstance(value, list):
            return [self._fill_in(item, inputs, name, depth + 1) for item in value]
        if isinstance(value, str) and name in inputs:
            # The client takes a text in such a field for a path on this machine; an address is passed on as it is.
            return FileOutput(filename="input", url=value)
        return value


def describe_error(error: MusicWorkerError) -> dict[str, Any]:
    """An error for the browser; `advice` is what can be done about an error of the worker, beside its own message."""
    advice = load_remedies().get(error.code, "") if isinstance(error, WorkerError) else ""
    return {"code": error.code, "message": error.message, "details": dict(error.details), "advice": advice}


def _describe_output(name: str, output: FileOutput) -> dict[str, Any]:
    audio = output if isinstance(output, AudioOutput) else None
    return {
        "name": name,
        "filename": output.filename,
        "format": output.format,
        "size": output.size,
        "sample_rate": audio.sample_rate if audio else None,
        "channels": audio.channels if audio else None,
        "duration": audio.duration if audio else None,
    }


def _describe(entry: _Entry) -> dict[str, Any]:
    progress = entry.progress
    return {
        "id": entry.id,
        "operation": entry.operation,
        "state": entry.state.value,
        "platform_id": entry.job.id if entry.job is not None else None,
        "elapsed_s": round((entry.ended or time.monotonic()) - entry.created, 1),
        "progress": None
        if progress is None
        else {"stage": progress.stage, "percent": progress.percent, "remaining_s": progress.remaining_s},
        "result": entry.result,
        "error": entry.error,
    }
