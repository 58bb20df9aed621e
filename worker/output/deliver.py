"""From an operation's `Reply` to the success reply of the contract: its sounds inline, in a bucket or on a volume."""

from __future__ import annotations

import os
import re
import shutil
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from errors import DeliveryError, ErrorCode
from worker import volume
from worker.job import Job
from worker.output.strict_json import dump_json
from worker.reply import AudioOut, Output, Reply
from worker.settings import Settings

if TYPE_CHECKING:
    from audio.files.encode import Encoding
    from worker.output.artefacts import Artefact, Sounds
    from worker.output.bucket import Bucket

VOLUME_FOLDER = "output"
# What timings, the last warnings and the keys around the base64 may add to a reply after it was measured.
MARGIN_BYTES = 1024
FLOAT_BITS = 32
# What a reply around its stems takes at most, for the decision whether a stem may stand in it twice.
OUTLINE_BYTES = 1 << 16


def deliver(  # noqa: PLR0913  (all that a reply is made of, by name)
    reply: Reply,
    *,
    operation: str,
    used: Mapping[str, Any],
    audio_out: AudioOut,
    job: Job,
    settings: Settings,
    started: float,
) -> dict[str, Any]:
    """Encodes and places every sound of `reply` and returns the whole success reply, within the inline budget.

    Args:
        used: the request's parameters as they were used, audio left out.
        started: `time.monotonic()` at the start of the job, for `total_s`.

    Raises:
        DeliveryError: the result cannot leave as asked: `reply_too_large` (says which formats and deliveries would
            fit), `bucket_not_configured`, `bucket_misconfigured`, `bucket_upload_failed`, `private_url`,
            `volume_unavailable`.
        InternalError: the reply holds what JSON has not, or a sound that is not finite.
    """
    parcel = _Parcel(reply, operation, used, audio_out, job, settings, started)
    placed = None
    if parcel.outputs:
        with job.stage("delivery"):
            placed = parcel.place()
    body = parcel.body(placed)
    dump_json(body, budget_bytes=settings.inline_budget_bytes)
    return body


def check(audio_out: AudioOut, *, job: Job, settings: Settings) -> None:
    """Refuses what can never be delivered, before any work: a format that does not exist, no bucket, no volume."""
    from worker.output.encodings import encodings

    encodings(audio_out)
    if audio_out.delivery == "bucket":
        _bucket_for(job, settings)
    if audio_out.delivery == "volume":
        _volume_for(settings)


def _bucket_for(job: Job, settings: Settings) -> Bucket:
    from worker.output import bucket

    target = bucket.configured(job.s3_config, settings)
    if target is None:
        raise DeliveryError(
            "There is no bucket to deliver to. Set BUCKET_ENDPOINT_URL, BUCKET_ACCESS_KEY_ID, BUCKET_SECRET_ACCESS_KEY"
            " and BUCKET_NAME, or send s3Config beside the input.",
            code=ErrorCode.BUCKET_NOT_CONFIGURED,
        )
    return target


def _volume_for(settings: Settings) -> Path:
    root = volume.find_writable(settings.volume_dirs)
    if root is None:
        raise DeliveryError(
            "There is no mounted volume that can be written to. Attach one, or choose another 'delivery'.",
            code=ErrorCode.VOLUME_UNAVAILABLE,
        )
    return root


@dataclass(frozen=True)
class _Placed:
    """What became of the sounds: their keys in the reply, in the order of `_Parcel.outputs`."""

    artefacts: Sequence[Mapping[str, Any]]
    encoding: Encoding | None
    delivery: str


@dataclass(frozen=True)
class _Parcel:
    """One reply on its way out."""

    reply: Reply
    operation: str
    used: Mapping[str, Any]
    audio_out: AudioOut
    job: Job
    settings: Settings
    started: float

    @property
    def outputs(self) -> list[Output]:
        return [*self.reply.outputs, *self.reply.stems.values()]

    @property
    def listed(self) -> bool:
        """Whether `outputs` stands in the reply; its first item then stands at the top level as well."""
        return len(self.reply.outputs) > 1 or (self.reply.always_list and len(self.reply.outputs) > 0)

    @property
    def choices(self) -> list[Encoding]:
        """What may be written, best first."""
        from worker.output.encodings import encodings

        return encodings(self.audio_out)

    def place(self) -> _Placed:
        from worker.output.artefacts import Sounds

        sounds = Sounds(self.reply, self.audio_out, self.job)
        ways = {"auto": self._auto, "inline": self._inline, "bucket": self._bucket, "volume": self._volume}
        return ways[self.audio_out.delivery](sounds)

    def _auto(self, sounds: Sounds) -> _Placed:
        """The bucket where there is one; where that fails, the reply itself, and the warning says so."""
        try:
            return self._bucket(sounds)
        except DeliveryError as error:
            if error.error_code == ErrorCode.BUCKET_NOT_CONFIGURED:
                return self._inline(sounds)
            try:
                placed = self._inline(sounds)
            except DeliveryError as second:
                raise DeliveryError(
                    f"{error.message} {second.message}", code=error.error_code, details=second.details | error.details
                ) from error
            self.job.warn(f"{error.message} The result is in this reply instead.")
            return placed

    def _inline(self, sounds: Sounds) -> _Placed:
        from worker.output.inline import Budget, place_inline

        outlined = self.body(_Placed([{"output_audio": "", **facts} for facts in sounds.outlines()], None, "inline"))
        budget = Budget(
            limit=self.settings.inline_budget_bytes,
            around=len(dump_json(outlined).encode()) + MARGIN_BYTES,
            twice=self.listed,
        )
        artefacts, encoding = place_inline(sounds, self.choices, budget=budget, deliveries=self._other_deliveries())
        if encoding.format != "wav" and self.audio_out.bit_depth == FLOAT_BITS and "wav" in self.audio_out.auto_order:
            self.job.warn(f"32-bit float wav did not fit the reply, so the sound is {encoding.format}.")
        return _Placed(artefacts, encoding, "inline")

    def _other_deliveries(self) -> list[str]:
        try:
            has_bucket = bool(_bucket_for(self.job, self.settings))
        except DeliveryError:
            has_bucket = False
        has_volume = volume.find_writable(self.settings.volume_dirs) is not None
        return ["bucket"] * has_bucket + ["volume"] * has_volume

    def _bucket(self, sounds: Sounds) -> _Placed:
        from worker.output import bucket

        target = _bucket_for(self.job, self.settings)
        uploader = bucket.Uploader(
            target,
            deadline=time.monotonic() + bucket.UPLOAD_TIMEOUT_S,
            check=self.job.check,
            allow_private=self.settings.allow_private_urls,
        )
        encoding = self.choices[0]
        # The random part keeps jobs apart whose ids look alike once cleaned, and a job's first run from its second.
        folder = f"{_safe_id(self.job.id)}/{uuid.uuid4().hex[:12]}"

        def send(artefact: Artefact) -> dict[str, Any]:
            url = uploader.upload(
                artefact.file,
                key=f"{folder}/{artefact.filename}",
                content_type=artefact.content_type,
            )
            return {"output_url": url, **artefact.facts}

        with sounds.encoded(encoding) as artefacts:
            sent = [send(artefact) for artefact in artefacts]
            sounds.accept(artefacts)
        return _Placed(sent, encoding, "bucket")

    def _volume(self, sounds: Sounds) -> _Placed:
        root = _volume_for(self.settings)
        with sounds.encoded(self.choices[0]) as artefacts:
            try:
                written = written_below(volume.make_unique_dir(root, VOLUME_FOLDER, _safe_id(self.job.id)), artefacts)
            except OSError as error:
                raise DeliveryError(
                    f"The result could not be written to the volume ({error.strerror or 'not writable'})."
                    " Free space there, or choose another 'delivery'.",
                    code=ErrorCode.VOLUME_UNAVAILABLE,
                ) from error
            sounds.accept(artefacts)
        return _Placed(written, self.choices[0], "volume")

    def body(self, placed: _Placed | None) -> dict[str, Any]:
        """The success reply."""
        timings = {name: round(seconds, 4) for name, seconds in self.job.timings.items()}
        return {
            "success": True,
            "operation": self.operation,
            **self.reply.fields,
            **(self._sound_keys(placed) if placed else {}),
            "parameters": self._parameters(placed),
            "timings": timings | {"total_s": round(time.monotonic() - self.started, 4)},
            "warnings": list(self.job.warnings),
        }

    def _sound_keys(self, placed: _Placed) -> dict[str, Any]:
        items = [{**artefact, **output.extra} for artefact, output in zip(placed.artefacts, self.outputs, strict=True)]
        count = len(self.reply.outputs)
        keys: dict[str, Any] = dict(items[0]) if count else {}
        if self.listed:
            keys["outputs"] = items[:count]
        if self.reply.stems:
            keys["stems"] = dict(zip(self.reply.stems, items[count:], strict=True))
            keys["stems"] |= {alias: self._alias(keys["stems"], name) for alias, name in self.reply.aliases.items()}
        return keys

    def _alias(self, stems: Mapping[str, dict[str, Any]], name: str) -> dict[str, Any]:
        """The stem under its other name: whole, or (inline, where there is no room for it twice) without its sound."""
        sounds = [len(stem.get("output_audio", "")) for stem in [*stems.values(), stems[name]]]
        room = sum(sounds) < self.settings.inline_budget_bytes - OUTLINE_BYTES
        return {key: value for key, value in stems[name].items() if room or key != "output_audio"} | {"same_as": name}

    def _parameters(self, placed: _Placed | None) -> dict[str, Any]:
        """The parameters as they were used: what was `auto` is named."""
        if placed is None or placed.encoding is None:
            return dict(self.used)
        from worker.output.encodings import fields

        real = {**fields(placed.encoding), "delivery": placed.delivery}
        return {name: real.get(name, value) for name, value in self.used.items()}


def _safe_id(job_id: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", job_id)[:64].strip("_") or "job"


def written_below(folder: Path, artefacts: Sequence[Artefact]) -> list[dict[str, Any]]:
    """Writes every file into `folder`, a new one, or none and no folder; a name stands there once its file is whole."""
    try:
        for artefact in artefacts:
            partial = folder / f".{artefact.filename}.part"
            with partial.open("xb") as copy:
                shutil.copyfileobj(artefact.file, copy, 1 << 20)
                copy.flush()
                os.fsync(copy.fileno())
            partial.rename(folder / artefact.filename)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return [{"output_path": str(folder / artefact.filename), **artefact.facts} for artefact in artefacts]
