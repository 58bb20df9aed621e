"""What operations share that make a song through Suno: one submission, following it, the takes as a reply.

The device is not held while waiting: the engine is the family's own, and only `separate` takes a turn on the device.
"""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from audio import Audio
from errors import CancelledError, DeadlineError, ErrorCode, ModelError, RequestError, UpstreamError
from models import Models
from models.suno.client import Source
from models.suno.config import SunoConfig
from models.suno.deadline import Check, Wait
from models.suno.download import COLLECT_S, DownloadedClip, Load, Loaded, collect
from models.suno.engine import Suno
from models.suno.failures import NO_CREDITS
from models.suno.family import SunoFamily
from models.suno.idempotency import fingerprint
from models.suno.payloads import Plan
from models.suno.responses import Clip, Record
from models.suno.status import CALLBACK_FAILED, TaskStatus, ready
from operations.operation import find_operation
from worker.job import Job
from worker.reply import Output, Reply

logger = logging.getLogger(__name__)

Mode = Literal["wait", "submit", "poll"]
Select = Literal["all", "first", "longest"]
FAMILY = "suno"
SEPARATION_FAMILY, SEPARATION_MODEL = "demucs", "htdemucs"
SONG_SHARE = 0.8  # of the progress, where stems are taken afterwards
# What comes before the submission may take this long even where the caller wants to wait for less afterwards.
PREPARATION_S = 120.0
DONE_SHARE = 0.9
MAX_TAKE_S = 1800.0
MAX_TAKE_BYTES = 200_000_000


@dataclass(frozen=True)
class Course:
    """How a task is followed: seconds of waiting in all (0: one look), which takes, which stems of them."""

    mode: Mode
    max_wait_s: float
    select: Select = "all"
    stems: tuple[str, ...] = ()


class SunoJob:
    """One job's dealings with Suno. Making it raises `UpstreamError` (`not_configured`) where there is no provider."""

    def __init__(self, models: Models, job: Job, course: Course) -> None:
        family = models.families[FAMILY]
        assert isinstance(family, SunoFamily)
        self._suno: Suno = family.engine()
        self._load = _loader(family.config)
        self._models = models
        self._job = job
        self._course = course
        self._wait = self._suno.patience(course.max_wait_s, job.check)
        self._span = (0.0, SONG_SHARE if course.stems else 1.0)
        if course.stems:
            _refuse_without_separation(models)

    def submit(self, plan: Plan, source: Audio | None = None) -> tuple[str, bool]:
        """Submits `plan` once, with `source` as its upload; returns the task's id and whether the task is new.

        A job that the platform delivers a second time gets the task that it has.
        """
        for sentence in plan.warnings:
            self._job.warn(sentence)
        with self._job.stage("submit", self._span), self._suno.claim(self._key(plan, source)) as claim:
            known = claim.task_id
            if known is not None:
                self._job.warn("This job was delivered a second time; its Suno task was resumed and not paid again.")
                return known, False
            wait = self._suno.patience(max(self._course.max_wait_s, PREPARATION_S), self._job.check)
            self._job.progress(0.0)
            _refuse_empty_account(self._suno.credits(wait))
            url = self._uploaded(source, plan.cut_s, wait) if source is not None else ""
            return self._suno.submit(plan.with_upload(url), claim=claim, wait=wait), True

    def finish(self, task_id: str, *, new: bool, used: Mapping[str, Any]) -> Reply:
        """Follows the task as the course says and fetches what it made; pays nothing.

        Args:
            new: it was submitted just now.
            used: parameters as they were used.
        """
        self._job.details["task_id"] = task_id
        with _spent(task_id):
            with self._job.stage("suno", self._span):
                self._job.progress(0.05)  # the id goes out at once
                record, sounds = self._song(task_id, new)
                balance = self._balance()
            stems = self._stems(sounds)
        fields = {
            "task_id": task_id,
            "status": _status(record, bool(sounds)),
            "takes": [_described(take) for take in record.takes],
            "credits_left": balance,
        }
        return Reply(
            fields=fields if sounds else fields | {"outputs": []},
            outputs=[_output(sound) for sound in sounds],
            stems=stems,
            parameters=used,
            always_list=True,
        )

    def _song(self, task_id: str, new: bool) -> tuple[Record, Sequence[DownloadedClip]]:
        if self._course.mode == "submit":
            return Record("PENDING"), ()
        record, standing = self._standing(task_id, new)
        takes = standing.takes if standing.done else self._at_the_deadline(record, standing)
        sounds = self._collected(self._chosen(takes))
        if standing.done and standing.warning:
            self._job.warn(standing.warning)
        return record, sounds

    def _key(self, plan: Plan, source: Audio | None) -> str:
        digest = hashlib.sha256(source.waveform.tobytes()).hexdigest() if source is not None else ""
        return fingerprint(self._job.id, {"path": plan.order.path, "body": dict(plan.order.body), "source": digest})

    def _uploaded(self, source: Audio, cut_s: float | None, wait: Wait) -> str:
        data = _mp3(source, cut_s)
        self._job.progress(0.01)
        return self._suno.upload(Source(data, "mp3", "audio/mpeg"), wait)

    def _standing(self, task_id: str, new: bool) -> tuple[Record, TaskStatus]:
        if self._course.mode == "poll" and not self._course.max_wait_s:
            return self._suno.glance(task_id, self._wait)
        return self._suno.follow(task_id, wait=self._wait, fresh=new, progress=self._job.progress)

    def _at_the_deadline(self, record: Record, standing: TaskStatus) -> Sequence[Clip]:
        """What there is of a task that is not done: `poll` says so, `wait` takes what is ready or fails."""
        if self._course.mode == "poll":
            return ()
        takes = ready(record)
        if takes:
            self._job.warn(
                f"'max_wait_s' is over and {len(takes)} take of 2 is ready; send 'task_id' later for all, at no cost."
            )
            return takes
        trouble = {"last_problem": standing.warning} if standing.warning else {}
        raise UpstreamError(
            f"Suno is still at it after {self._course.max_wait_s:g} s. Send 'task_id' to go on waiting; "
            "that costs nothing.",
            code=ErrorCode.STILL_RUNNING,
            details={"status": record.status, "waited_s": self._course.max_wait_s, **trouble},
        )

    def _chosen(self, takes: Sequence[Clip]) -> Sequence[Clip]:
        if self._course.select == "all" or not takes:
            return takes
        return takes[:1] if self._course.select == "first" else [max(takes, key=lambda take: take.duration or 0.0)]

    def _collected(self, takes: Sequence[Clip]) -> Sequence[DownloadedClip]:
        if not takes:
            return ()
        sounds, warnings = collect(
            takes,
            load=self._load,
            wait=self._suno.patience(COLLECT_S, self._job.check),
            progress=lambda share: self._job.progress(DONE_SHARE + (1 - DONE_SHARE) * share),
        )
        for sentence in warnings:
            self._job.warn(sentence)
        return sounds

    def _balance(self) -> float | None:
        try:
            return self._suno.credits(self._suno.patience(PREPARATION_S, self._job.check))
        except UpstreamError:
            return None

    def _stems(self, sounds: Sequence[DownloadedClip]) -> dict[str, Output]:
        """The asked stems of each take, by the operation `separate`, named `take<number>_<stem>`."""
        stems: dict[str, Output] = {}
        for done, sound in enumerate(sounds) if self._course.stems else ():
            _, separation = find_operation("separate")
            asked = separation.params.parse(
                {"audio": "a take", "model": SEPARATION_MODEL, "stems": [*self._course.stems]}
            )
            plan = separation.plan(asked, self._models)
            part = separation.run(plan, self._for_take(sound, done / len(sounds), 1 / len(sounds)), self._models)
            for name, output in part.stems.items():
                label = f"take{sound.take.index + 1}_{name}"
                stems[label] = Output(output.audio, f"suno_{label}", {"index": sound.take.index, "stem": name})
        return stems

    def _for_take(self, sound: DownloadedClip, before: float, share: float) -> Job:
        """This job as `separate` sees it, with the take for its audio and its progress in what is left of ours."""

        def report(update: Mapping[str, Any]) -> None:
            done = before + share * float(update["percent"]) / 100
            self._job.report({**update, "percent": round(100 * (SONG_SHARE + (1 - SONG_SHARE) * done), 1)})

        return replace(self._job, report=report, audio={}, long_audio={"audio": sound.audio})


@contextmanager
def _spent(task_id: str) -> Iterator[None]:
    """Every failure after the submission names the task, and one that ends the wait says that it is paid."""
    try:
        yield
    except (CancelledError, DeadlineError) as error:
        raise type(error)(
            f"{error.message} Suno task '{task_id}' was submitted before that: Suno goes on with it and its credits "
            "are spent. Send 'task_id' to fetch it at no further cost.",
            code=error.error_code,
            details={**error.details, "task_id": task_id},
        ) from error
    except RequestError as error:
        error.details["task_id"] = task_id
        raise


def _status(record: Record, done: bool) -> str:
    """The provider's word for the task; that nobody listened at the callback's address is not the caller's affair."""
    if record.status == CALLBACK_FAILED:
        return "SUCCESS" if done else "PENDING"
    return record.status or "PENDING"


def _refuse_without_separation(models: Models) -> None:
    """Before anything is paid: whether stems can be taken here at all."""
    rows = models.families[SEPARATION_FAMILY].rows() if SEPARATION_FAMILY in models.families else []
    available = {row["name"]: row["available"] for row in rows}.get(SEPARATION_MODEL, "this worker has no such engine")
    if available not in ("local", "download"):
        raise ModelError(
            f"'separate' cannot be done on this worker: {SEPARATION_MODEL}: {available}. Leave 'separate' out, or put "
            "the model below MODELS_DIR."
        )


def _refuse_empty_account(balance: float | None) -> None:
    if balance is not None and balance <= 0:
        raise UpstreamError(NO_CREDITS, code=ErrorCode.INSUFFICIENT_CREDITS, details={"credits_left": balance})


def _described(take: Clip) -> dict[str, Any]:
    return {
        "index": take.index,
        "audio_id": take.audio_id,
        "title": take.title,
        "tags": take.tags,
        "lyrics": take.lyrics,
        "source_url": take.urls[0] if take.urls else None,
    }


def _output(sound: DownloadedClip) -> Output:
    return Output(sound.audio, f"suno_{sound.take.index + 1}", _described(sound.take))


def _loader(config: SunoConfig) -> Load:
    """Downloads and decodes a take, with the same guard against private addresses as a caller's own URLs."""

    def load(url: str, check: Check, timeout_s: float) -> Loaded:
        from audio.files.decode import DecodeLimits, decode
        from worker.input.fetch import FetchLimits, fetch

        most = min(config.max_take_bytes, MAX_TAKE_BYTES)
        limits = FetchLimits(most, min(timeout_s, config.download_timeout_s), config.allow_private_urls)
        with fetch(url, limits=limits, check=check) as file:
            digest = hashlib.file_digest(cast(Any, file), "sha256").hexdigest()
            decoded = decode(
                file,
                limits=DecodeLimits(max_bytes=most, max_seconds=MAX_TAKE_S, max_sample_rate=192_000, max_channels=8),
            )
        return Loaded(decoded.audio, digest)

    return load


def _mp3(source: Audio, cut_s: float | None) -> bytes:
    """The source up to `cut_s` as mp3."""
    from audio.files.encode import Encoding, encode

    waveform = source.waveform if cut_s is None else source.waveform[:, : round(cut_s * source.sample_rate)]
    file = io.BytesIO()
    encode(Audio(waveform, source.sample_rate), Encoding("mp3"), file)
    return file.getvalue()
