"""One Suno task of a job: submit it, wait for it, download its clips, build the reply. generate_music uses it too.

The device is free while a task runs at the provider.
"""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from audio.dsp.edit import CutView
from audio.types import AudioSource, iter_blocks
from errors import CancelledError, DeadlineError, ErrorCode, RequestError, UpstreamError
from models.runtime.progress import Check
from models.suno.catalog import CLIPS_PER_REQUEST
from models.suno.config import SunoConfig
from models.suno.download import DOWNLOAD_S, DecodedFile, DownloadedClip, FetchClip, download_clips
from models.suno.engine import SunoEngine, compute_idempotency_key
from models.suno.payloads import Submission
from models.suno.polling import CALLBACK_FAILED, Deadline, TaskStatus
from models.suno.responses import NO_CREDITS, Clip, TaskRecord
from operations.extend_via_suno.params import Mode, Select
from worker.job import Job
from worker.reply import Output, Reply

logger = logging.getLogger(__name__)

# The upload and the submission may take this long, even if the caller waits less for the song. They are repeated only
# within the time that the caller waits.
MIN_SUBMIT_S = 120.0
DOWNLOAD_START = 0.9  # the completed fraction when the download starts
MAX_CLIP_S = 1800.0
MAX_CLIP_BYTES = 200_000_000
MAX_DECODED_CLIP_BYTES = 1 << 30  # 46 minutes of stereo at 48 kHz

ProgressRange = tuple[float, float]


@dataclass(frozen=True, slots=True)
class PollingOptions:
    """How a task is followed: for at most `max_wait_s` seconds (0: one status request), and which clips of it."""

    mode: Mode
    max_wait_s: float
    select: Select = "all"


@dataclass(frozen=True, slots=True)
class Task:
    """A submitted task; `is_new` if this job has just submitted it."""

    id: str
    is_new: bool


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What a task has produced so far: its record, the downloaded clips, and the account's balance."""

    record: TaskRecord
    clips: Sequence[DownloadedClip]
    credits_left: float | None


def submit_task(  # noqa: PLR0913  (options by keyword)
    engine: SunoEngine,
    submission: Submission,
    job: Job,
    polling: PollingOptions,
    *,
    source: AudioSource | None = None,
    progress_range: ProgressRange = (0.0, 1.0),
) -> Task:
    """Submits once, with `source` as the upload. A job that is delivered a second time gets the task that it has."""
    for warning in submission.warnings:
        job.warn(warning)
    digest = hashlib.sha256()
    for block in iter_blocks(source) if source is not None else ():
        digest.update(block.tobytes())
    content = {"path": submission.path, "body": dict(submission.body), "source": digest.hexdigest()}
    with (
        job.stage("submit", progress_range),
        engine.reserve(compute_idempotency_key(job.id, content)) as reservation,
    ):
        if reservation.task_id is not None:
            job.warn("This job was delivered a second time; its Suno task was resumed and not paid again.")
            return Task(reservation.task_id, is_new=False)
        deadline = engine.start_deadline(max(polling.max_wait_s, MIN_SUBMIT_S), job.check)
        retry_deadline = engine.start_deadline(polling.max_wait_s, job.check)
        job.progress(0.0)
        balance = engine.get_credits(deadline)
        if balance is not None and balance <= 0:
            raise UpstreamError(NO_CREDITS, code=ErrorCode.INSUFFICIENT_CREDITS, details={"credits_left": balance})
        if source is not None:
            mp3 = _encode_mp3(source, submission.cut_s)
            job.progress(0.01)
            submission = submission.with_upload_url(engine.upload(mp3, deadline, retry_deadline))
        task_id = engine.submit(submission, reservation=reservation, deadline=deadline, retry_deadline=retry_deadline)
        return Task(task_id, is_new=True)


def fetch_task(  # noqa: PLR0913  (options by keyword)
    engine: SunoEngine,
    task: Task,
    job: Job,
    polling: PollingOptions,
    *,
    deadline: Deadline,
    progress_range: ProgressRange = (0.0, 1.0),
) -> TaskResult:
    """Waits for the task as `polling` says, and downloads its clips; costs nothing.

    From here on every progress update and every error of the job carries the task's id.
    """
    job.details["task_id"] = task.id
    with name_task_in_errors(task), job.stage("suno", progress_range):
        job.progress(0.05)  # sends the task's id out at once
        if polling.mode == "submit":
            record = TaskRecord("PENDING")
            clips: Sequence[DownloadedClip] = ()
        else:
            status = _await_status(engine, task, job, polling, deadline)
            record = status.record
            selected = _select(status.clips if status.done else _clips_at_deadline(status, job, polling), polling)
            clips = _download(engine, selected, job)
            if status.warning:
                job.warn(status.warning)
        try:
            balance = engine.get_credits(engine.start_deadline(MIN_SUBMIT_S, job.check))
        except UpstreamError:
            balance = None
    return TaskResult(record, clips, balance)


def build_reply(
    task: Task, result: TaskResult, *, used: Mapping[str, Any], stems: Mapping[str, Output] | None = None
) -> Reply:
    """The reply; `used` are the parameters as they were used."""
    state = result.record.state or "PENDING"
    if state == CALLBACK_FAILED:  # the callback URL is this worker's affair, not the caller's
        state = "SUCCESS" if result.clips else "PENDING"
    fields = {
        "task_id": task.id,
        "status": state,
        "takes": [_describe(clip) for clip in result.record.clips],
        "credits_left": result.credits_left,
    }
    return Reply(
        fields=fields if result.clips else fields | {"outputs": []},
        outputs=[
            Output(download.audio, f"suno_{download.clip.index + 1}", _describe(download.clip))
            for download in result.clips
        ],
        stems=stems or {},
        parameters=used,
        always_list=True,
    )


@contextmanager
def name_task_in_errors(task: Task) -> Iterator[None]:
    """Adds the task's id to every error, and to one that ends the job the sentence that the task is paid."""
    try:
        yield
    except (CancelledError, DeadlineError) as error:
        raise type(error)(
            f"{error.message} The Suno task '{task.id}' had already been submitted: Suno continues with it, and its "
            "credits are spent. Send 'task_id' to fetch it at no further cost.",
            code=error.error_code,
            details={**error.details, "task_id": task.id},
        ) from error
    except RequestError as error:
        error.details["task_id"] = task.id
        raise


def _await_status(engine: SunoEngine, task: Task, job: Job, polling: PollingOptions, deadline: Deadline) -> TaskStatus:
    if polling.mode == "poll" and not polling.max_wait_s:
        return engine.get_status(task.id, deadline)
    return engine.poll(task.id, deadline=deadline, is_new=task.is_new, progress=job.progress)


def _clips_at_deadline(status: TaskStatus, job: Job, polling: PollingOptions) -> Sequence[Clip]:
    """The clips of a task that is not done: `poll` returns none, `wait` those that are ready, or it fails."""
    if polling.mode == "poll":
        return ()
    if clips := status.record.downloadable:
        job.warn(
            f"'max_wait_s' passed with {len(clips)} of {CLIPS_PER_REQUEST} clips ready. Send 'task_id' later to fetch "
            "all of them at no cost."
        )
        return clips
    raise UpstreamError(
        f"Suno is still working on the song after {polling.max_wait_s:g} s. Send 'task_id' to continue waiting; this "
        "costs nothing.",
        code=ErrorCode.STILL_RUNNING,
        details={"status": status.record.state, "waited_s": polling.max_wait_s}
        | ({"last_problem": status.last_error} if status.last_error else {}),
    )


def _select(clips: Sequence[Clip], polling: PollingOptions) -> Sequence[Clip]:
    if polling.select == "all" or not clips:
        return clips
    return clips[:1] if polling.select == "first" else [max(clips, key=lambda clip: clip.duration or 0.0)]


def _download(engine: SunoEngine, clips: Sequence[Clip], job: Job) -> Sequence[DownloadedClip]:
    if not clips:
        return ()
    downloads, warnings = download_clips(
        clips,
        fetch=_make_fetcher(engine.config),
        deadline=engine.start_deadline(DOWNLOAD_S, job.check),
        progress=lambda fraction: job.progress(DOWNLOAD_START + (1 - DOWNLOAD_START) * fraction),
    )
    for warning in warnings:
        job.warn(warning)
    return downloads


def _make_fetcher(config: SunoConfig) -> FetchClip:
    """Downloads and decodes a clip, with the same protection against private addresses as a caller's own URLs."""

    def fetch_clip(url: str, check: Check, timeout_s: float) -> DecodedFile:
        from audio.files.decode import DecodeLimits, decode
        from worker.input.fetch import FetchLimits, fetch

        max_bytes = min(config.max_clip_bytes, MAX_CLIP_BYTES)
        limits = FetchLimits(max_bytes, min(timeout_s, config.download_timeout_s), config.allow_private_urls)
        with fetch(url, limits=limits, check=check) as file:
            digest = hashlib.file_digest(cast(Any, file), "sha256").hexdigest()
            decoded = decode(
                file,
                limits=DecodeLimits(
                    max_bytes=max_bytes,
                    max_seconds=MAX_CLIP_S,
                    max_decoded_bytes=MAX_DECODED_CLIP_BYTES,
                    max_sample_rate=192_000,
                    max_channels=8,
                ),
                check=check,
            )
        return DecodedFile(decoded.audio, digest)

    return fetch_clip


def _encode_mp3(source: AudioSource, cut_s: float | None) -> bytes:
    """The first `cut_s` seconds of the source (None: all of it) as mp3."""
    from audio.files.encode import encode
    from audio.files.formats import Encoding

    file = io.BytesIO()
    used = source if cut_s is None else CutView(source, 0, round(cut_s * source.sample_rate))
    encode(used, Encoding("mp3"), file)
    return file.getvalue()


def _describe(clip: Clip) -> dict[str, Any]:
    return {
        "index": clip.index,
        "audio_id": clip.audio_id,
        "title": clip.title,
        "tags": clip.tags,
        "lyrics": clip.lyrics,
        "source_url": clip.urls[0] if clip.urls else None,
    }
