"""From an operation's `Reply` to the success reply: its audio and files inline, in a bucket or on a volume."""

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

from audio.temporary import require_temporary_folder, try_writing
from errors import DeliveryError, ErrorCode
from worker import volume
from worker.job import Job
from worker.output.strict_json import dump_json
from worker.reply import AudioOut, Reply
from worker.settings import Settings

if TYPE_CHECKING:  # a reply without audio imports no encoder and no S3 client
    from audio.files.formats import Encoding
    from worker.output.artefacts import Artefact, OutputEncoder
    from worker.output.bucket import Bucket

VOLUME_FOLDER = "output"
# What timings, the last warnings and the keys around the base64 may add to a reply after it was measured.
MARGIN_BYTES = 1024
# What a reply takes besides its stems at most, to decide whether a stem may be in it twice.
OVERHEAD_BYTES = 1 << 16
COPY_BYTES = 1 << 20


def deliver(  # noqa: PLR0913  (all that a reply is made of, by name)
    reply: Reply,
    *,
    operation: str,
    used: Mapping[str, Any],
    audio_out: AudioOut,
    job: Job,
    settings: Settings,
) -> dict[str, Any]:
    """Encodes and delivers all audio and files of `reply`; returns the whole success reply, within the inline budget.

    Args:
        used: the request's parameters as they were used, without audio.

    Raises:
        DeliveryError: the result cannot be delivered as requested: `reply_too_large` (with the formats and deliveries
            that would fit), `bucket_not_configured`, `bucket_misconfigured`, `bucket_upload_failed`, `private_url`,
            `volume_unavailable`.
        InternalError: the reply contains what JSON has no form for, or audio that is not finite.
    """
    builder = _ReplyBuilder(reply, operation, used, job, settings.inline_budget_bytes)
    delivered = None
    if reply.all_outputs or reply.files:
        with job.stage("delivery"):
            delivered = _deliver_artefacts(builder, audio_out, job, settings)
    body = builder.build(delivered)
    dump_json(body, budget_bytes=settings.inline_budget_bytes)
    return body


def check_delivery(audio_out: AudioOut, *, job: Job, settings: Settings) -> None:
    """Refuses before any work what can never be delivered.

    Raises:
        InvalidRequestError: the encoding does not exist.
        DeliveryError: there is no bucket or no volume, or a local run cannot write its audio.
        DiskFullError: no temporary file can be written, which every long result needs.
    """
    audio_out.list_encodings()
    require_temporary_folder()
    if audio_out.delivery == "bucket":
        _require_bucket(job, settings)
    if audio_out.delivery == "volume":
        _require_volume(settings)
    is_inline = audio_out.delivery == "inline" or (
        audio_out.delivery == "auto" and "bucket" not in _list_other_deliveries(job, settings)
    )
    if is_inline and job.output_dir is not None:
        try:
            job.output_dir.mkdir(parents=True, exist_ok=True)
            try_writing(job.output_dir)
        except OSError as error:
            raise DeliveryError(
                f"The audio cannot be written to {job.output_dir}: {error.strerror}. Set OUTPUT_DIR to a folder that "
                "can be written."
            ) from error


def write_artefacts(folder: Path, artefacts: Sequence[Artefact]) -> list[dict[str, Any]]:
    """Writes every file into `folder`, a new one, and returns their fields; after an error the folder is gone.

    A file gets its name when it is complete.
    """
    try:
        for artefact in artefacts:
            partial = folder / f".{artefact.filename}.part"
            with partial.open("xb") as copy:
                shutil.copyfileobj(artefact.file, copy, COPY_BYTES)
                copy.flush()
                os.fsync(copy.fileno())
            partial.rename(folder / artefact.filename)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return [{"output_path": str(folder / artefact.filename), **artefact.fields} for artefact in artefacts]


@dataclass(frozen=True, slots=True)
class _Delivered:
    """What was delivered: the keys of each output and file in the reply; the encoding and delivery that were used."""

    artefacts: Sequence[Mapping[str, Any]]
    files: Sequence[Mapping[str, Any]]
    delivery: str
    encoding: Encoding | None


@dataclass(frozen=True, slots=True)
class _ReplyBuilder:
    """Builds the success reply from an operation's `Reply` and its delivered audio."""

    reply: Reply
    operation: str
    used: Mapping[str, Any]
    job: Job
    budget_bytes: int

    def build(self, delivered: _Delivered | None) -> dict[str, Any]:
        timings = {name: round(seconds, 4) for name, seconds in self.job.timings.items()}
        used_in_delivery: dict[str, Any] = {}
        if delivered is not None:
            encoding = delivered.encoding if self.reply.all_outputs else None
            used_in_delivery = {**(encoding.request_fields if encoding else {}), "delivery": delivered.delivery}
        return {
            "success": True,
            "operation": self.operation,
            **self.reply.fields,
            **(self._build_artefact_keys(delivered) if delivered is not None else {}),
            "parameters": {name: used_in_delivery.get(name, value) for name, value in self.used.items()},
            "timings": timings | {"total_s": round(time.monotonic() - self.job.started, 4)},
            "warnings": list(self.job.warnings),
        }

    def _build_artefact_keys(self, delivered: _Delivered) -> dict[str, Any]:
        items = [
            {**artefact, **output.extra}
            for artefact, output in zip(delivered.artefacts, self.reply.all_outputs, strict=True)
        ]
        count = len(self.reply.outputs)
        keys: dict[str, Any] = dict(items[0]) if count else {}
        if self.reply.has_list:
            keys["outputs"] = items[:count]
        if self.reply.stems:
            stems = dict(zip(self.reply.stems, items[count:], strict=True))
            keys["stems"] = dict(stems)
            for alias, name in self.reply.aliases.items():
                keys["stems"][alias] = self._copy_stem(keys["stems"], name)
        if self.reply.files:
            files = zip(self.reply.files.items(), delivered.files, strict=True)
            keys["files"] = {name: {**artefact, **file.extra} for (name, file), artefact in files}
        return keys

    def _copy_stem(self, stems: Mapping[str, dict[str, Any]], name: str) -> dict[str, Any]:
        """The stem for its alias; without its base64 if that does not fit into the reply twice."""
        base64_bytes = sum(len(stem.get("output_audio", "")) for stem in [*stems.values(), stems[name]])
        fits_twice = base64_bytes < self.budget_bytes - OVERHEAD_BYTES
        return {key: value for key, value in stems[name].items() if fits_twice or key != "output_audio"} | {
            "same_as": name
        }


def _deliver_artefacts(builder: _ReplyBuilder, audio_out: AudioOut, job: Job, settings: Settings) -> _Delivered:
    from worker.output.artefacts import OutputEncoder

    encoder = OutputEncoder(builder.reply, audio_out, job)
    best = audio_out.list_encodings()[0]
    if audio_out.delivery == "inline":
        return _deliver_inline(encoder, builder, audio_out, settings)
    if audio_out.delivery == "bucket":
        return _upload(encoder, best, job, settings)
    if audio_out.delivery == "volume":
        return _write_to_volume(encoder, best, job, settings)
    try:
        return _upload(encoder, best, job, settings)
    except DeliveryError as error:
        upload_error = error
    if upload_error.error_code == ErrorCode.BUCKET_NOT_CONFIGURED:
        return _deliver_inline(encoder, builder, audio_out, settings)
    try:
        delivered = _deliver_inline(encoder, builder, audio_out, settings)
    except DeliveryError as error:
        raise DeliveryError(
            f"{upload_error.message} {error.message}",
            code=upload_error.error_code,
            details=error.details | upload_error.details,
        ) from error
    job.warn(f"{upload_error.message} The result is in this reply instead.")
    return delivered


def _deliver_inline(
    encoder: OutputEncoder, builder: _ReplyBuilder, audio_out: AudioOut, settings: Settings
) -> _Delivered:
    from worker.output.inline import InlineBudget, base64_size, encode_files, encode_inline

    placeholders = [{"output_audio": "", **fields} for fields in encoder.build_placeholders()]
    file_placeholders = [{"output_file": "", **artefact.fields} for artefact in encoder.files]
    outline = builder.build(_Delivered(placeholders, file_placeholders, "inline", None))
    file_bytes = sum(base64_size(artefact.size) for artefact in encoder.files)
    budget = InlineBudget(
        limit=settings.inline_budget_bytes,
        overhead_bytes=len(dump_json(outline).encode()) + file_bytes + MARGIN_BYTES,
        first_is_duplicated=builder.reply.has_list,
    )
    artefacts, encoding = encode_inline(
        encoder,
        audio_out.list_encodings(),
        budget=budget,
        deliveries=_list_other_deliveries(builder.job, settings),
    )
    if audio_out.prefers_float and not encoding.keeps_overs:
        builder.job.warn(f"32-bit float wav did not fit into the reply, so the audio is {encoding.format}.")
    return _Delivered(artefacts, encode_files(encoder.files), "inline", encoding)


def _upload(encoder: OutputEncoder, encoding: Encoding, job: Job, settings: Settings) -> _Delivered:
    from worker.output import bucket

    uploader = bucket.Uploader(
        _require_bucket(job, settings),
        deadline=time.monotonic() + bucket.UPLOAD_TIMEOUT_S,
        check=job.check,
        allow_private=settings.allow_private_urls,
    )
    # The random part separates jobs whose cleaned ids are equal, and a job's first run from its second.
    folder = f"{_make_folder_name(job.id)}/{uuid.uuid4().hex[:12]}"
    with encoder.encode(encoding) as artefacts:
        uploaded = []
        for artefact in [*artefacts, *encoder.files]:
            key = f"{folder}/{artefact.filename}"
            url = uploader.upload(artefact.file, key=key, content_type=artefact.content_type)
            uploaded.append({"output_url": url, **artefact.fields})
        encoder.record_warnings(artefacts)
    count = len(artefacts)
    return _Delivered(uploaded[:count], uploaded[count:], "bucket", encoding)


def _write_to_volume(encoder: OutputEncoder, encoding: Encoding, job: Job, settings: Settings) -> _Delivered:
    root = _require_volume(settings)
    with encoder.encode(encoding) as artefacts:
        try:
            folder = volume.make_unique_dir(root, VOLUME_FOLDER, _make_folder_name(job.id))
            written = write_artefacts(folder, [*artefacts, *encoder.files])
        except OSError as error:
            raise DeliveryError(
                f"The result could not be written to the volume ({error.strerror or 'not writable'})."
                " Free space there, or choose another 'delivery'.",
                code=ErrorCode.VOLUME_UNAVAILABLE,
            ) from error
        encoder.record_warnings(artefacts)
    count = len(artefacts)
    return _Delivered(written[:count], written[count:], "volume", encoding)


def _list_other_deliveries(job: Job, settings: Settings) -> list[str]:
    """The deliveries besides inline that this worker offers for this job."""
    deliveries = []
    try:
        _require_bucket(job, settings)
        deliveries.append("bucket")
    except DeliveryError:
        pass
    if volume.find_writable(settings.volume_dirs) is not None:
        deliveries.append("volume")
    return deliveries


def _require_bucket(job: Job, settings: Settings) -> Bucket:
    from worker.output import bucket

    target = bucket.find_bucket(job.s3_config, settings)
    if target is None:
        raise DeliveryError(
            "No bucket is configured. Set BUCKET_ENDPOINT_URL, BUCKET_ACCESS_KEY_ID, BUCKET_SECRET_ACCESS_KEY and"
            " BUCKET_NAME, or send s3Config beside the input.",
            code=ErrorCode.BUCKET_NOT_CONFIGURED,
        )
    return target


def _require_volume(settings: Settings) -> Path:
    root = volume.find_writable(settings.volume_dirs)
    if root is None:
        raise DeliveryError(
            f"There is no volume for the result: {volume.describe_problem(settings.volume_dirs)}. Or choose another"
            " 'delivery'.",
            code=ErrorCode.VOLUME_UNAVAILABLE,
        )
    return root


def _make_folder_name(job_id: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", job_id)[:64].strip("_") or "job"
