"""Turns one string of a request (base64, data URI, URL, volume path) into audio, or into an open file as it is.

The start of the string alone decides what it is: a scheme and a colon (base64 has no colon), then a path below a
mounted volume; everything else is base64, even if it starts with '/' as mp3 does.
"""

from __future__ import annotations

import binascii
import os
import re
from dataclasses import dataclass
from typing import BinaryIO, cast

from audio.files.sniff import SNIFF_BYTES, sniff
from audio.temporary import SpooledFile
from audio.types import AudioSource, DiskAudio
from errors import AudioError, ErrorCode, RequestError, SourceError
from worker import volume
from worker.input.base64 import data_uri_payload, decode_base64, min_decoded_bytes
from worker.job import Job
from worker.settings import Settings

SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]{0,31}):")
# No audio format that is accepted starts like this in base64: of those that start with '/', mpeg is '//' or '/+'.
PATH = re.compile(r"/[A-Za-z.~]|\.{1,2}/|~")
INVALID_AUDIO = "Invalid base64 audio data"  # fixed by the contract
CHOICES = "Give base64, a base64 data: URI, an http(s):// URL, or an absolute path below the mounted volume."
MAX_MEMORY_BYTES = 256 << 20  # some 12 minutes of stereo at 44.1 kHz, as float32
SPOOL_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class InputField:
    """One field of a request: its name, the job and settings that it belongs to, and whether it must contain audio."""

    name: str
    job: Job
    settings: Settings
    must_be_audio: bool = True

    def base64_error(self, reason: str, code: ErrorCode = ErrorCode.INVALID_BASE64) -> RequestError:
        kind = INVALID_AUDIO if self.must_be_audio else "Invalid base64 data"
        return self._error_type(f"{kind} in '{self.name}': {reason}. {CHOICES}", code=code)

    def size_error(self) -> RequestError:
        limit = self.settings.max_input_bytes
        return self._error_type(
            f"The data has more than the {limit} bytes that are allowed. Send a smaller file.",
            code=ErrorCode.INPUT_TOO_LARGE,
            details={"max_bytes": limit},
        )

    def empty_error(self) -> RequestError:
        code = ErrorCode.EMPTY_AUDIO if self.must_be_audio else ErrorCode.EMPTY_FILE
        return self._error_type(f"The string is empty. {CHOICES}", code=code)

    @property
    def _error_type(self) -> type[RequestError]:
        return AudioError if self.must_be_audio else SourceError


def load_audio(
    source: str, *, field: str, job: Job, settings: Settings, memory_bytes: int = MAX_MEMORY_BYTES
) -> AudioSource:
    """Opens `source` and decodes it.

    Args:
        source: base64 (standard or URL-safe, padded or not, blanks ignored), a `data:` URI, an `http(s)://` URL, or
            an absolute path below one of `settings.volume_dirs`.
        field: the field's name in the request; errors and warnings start with it.
        memory_bytes: the most that the decoded audio may take in memory; longer audio is on disk until the job ends.

    Returns:
        Mono or stereo audio within the settings' limits. What the decoder changed is in `job.warnings`.

    Raises:
        AudioError: the bytes are not audio in a supported format (the message starts with `Invalid base64 audio data`
            if the base64 itself is not valid).
        SourceError: the URL or path is not allowed or cannot be read. Neither error repeats the source.
        DiskFullError: a temporary file cannot be written.
        CancelledError, DeadlineError: the job must end.
    """
    from audio.files.decode import DecodeLimits, decode_source

    input_field = InputField(field, job, settings)
    limits = DecodeLimits(
        max_bytes=settings.max_input_bytes,
        max_seconds=settings.max_input_seconds,
        max_decoded_bytes=settings.max_decoded_bytes,
        max_sample_rate=settings.max_input_sample_rate,
        max_channels=settings.max_input_channels,
    )
    try:
        with _open(source.strip(), input_field) as file:
            decoded = decode_source(file, limits=limits, memory_bytes=memory_bytes, check=job.check)
    except (AudioError, SourceError) as error:
        raise _name_field(error, field) from error
    if isinstance(decoded.audio, DiskAudio):
        job.exit_stack.enter_context(decoded.audio)
    for sentence in decoded.warnings:
        job.warn(f"{field}: {sentence}")
    return decoded.audio


def load_file(source: str, *, field: str, job: Job, settings: Settings) -> BinaryIO:
    """Opens `source`, anything that `load_audio` accepts, without decoding it. The file is closed when the job ends.

    Raises:
        SourceError: it cannot be read, or has more than `settings.max_input_bytes`.
    """
    input_field = InputField(field, job, settings, must_be_audio=False)
    try:
        file = job.exit_stack.enter_context(_open(source.strip(), input_field))
    except SourceError as error:
        raise _name_field(error, field) from error
    if file.seek(0, os.SEEK_END) > settings.max_input_bytes:
        raise _name_field(input_field.size_error(), field)
    file.seek(0)
    return file


def _name_field(error: RequestError, field: str) -> RequestError:
    message = error.message if f" in '{field}': " in error.message else f"{field}: {error.message}"
    return type(error)(message, code=error.error_code, details={"field": field} | error.details)


def _open(source: str, field: InputField) -> BinaryIO:
    if not source:
        raise field.empty_error()
    if scheme := SCHEME.match(source):
        return _open_uri(source, scheme[1].lower(), field)
    if (file := volume.open_file(source, field.settings.volume_dirs)) is not None:
        return file
    if PATH.match(source) and len(source) <= volume.MAX_PATH_CHARS:
        raise SourceError(f"The path is not below a mounted volume. {CHOICES}", code=ErrorCode.PATH_NOT_ALLOWED)
    return _open_base64(source, 0, field)


def _open_uri(source: str, scheme: str, field: InputField) -> BinaryIO:
    if scheme == "data":
        payload = data_uri_payload(source)
        if payload is None:
            raise field.base64_error("the data: URI has no ';base64,' after its media type")
        return _open_base64(*payload, field)
    if scheme in ("http", "https"):
        from worker.input.fetch import FetchLimits, fetch

        settings = field.settings
        limits = FetchLimits(settings.max_input_bytes, settings.download_timeout_s, settings.allow_private_urls)
        return fetch(source, limits=limits, check=field.job.check)
    raise SourceError(f"'{scheme}:' links are not supported. {CHOICES}", code=ErrorCode.UNSUPPORTED_URL)


def _open_base64(text: str, start: int, field: InputField) -> BinaryIO:
    """Decodes `text[start:]` into a temporary file; in memory there are only slices of it beside the request itself."""
    if min_decoded_bytes(text, start) > field.settings.max_input_bytes:
        raise field.size_error()
    file = SpooledFile(SPOOL_BYTES)
    try:
        for block in decode_base64(text, start, field.job.check):
            file.write(block)
        file.seek(0)
        if field.must_be_audio and (head := file.read(SNIFF_BYTES)) and sniff(head) is None:
            raise field.base64_error(
                "it decodes to a file of an unsupported format", code=ErrorCode.UNSUPPORTED_AUDIO_FORMAT
            )
    except (binascii.Error, UnicodeEncodeError) as error:
        file.close()
        raise field.base64_error("it contains characters that are not base64, or is cut short") from error
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return cast(BinaryIO, file)
