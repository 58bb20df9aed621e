"""Turns one string of a request (base64, data URI, URL, volume path) into `Audio`, or into an open file as it is.

Knows no operation and no model.

What a string is, is decided by its start alone: a scheme and a colon (base64 has no colon), then a path below a mounted
volume; all else is base64, also where it starts with '/' as mp3 does.
"""

from __future__ import annotations

import binascii
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, cast

from audio import Audio
from audio.files.sniff import SNIFF_BYTES, sniff
from audio.types import AudioSource, DiskAudio
from errors import AudioError, ErrorCode, RequestError, SourceError
from worker import volume
from worker.job import Job
from worker.settings import Settings

SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]{0,31}):")
# No audio that we take begins like this in base64: of all that begins with '/', mpeg is '//' or '/+'.
PATH = re.compile(r"/[A-Za-z.~]|\.{1,2}/|~")
INVALID = "Invalid base64 audio data"  # fixed by the contract
CHOICES = "Give base64, a base64 data: URI, an http(s):// URL, or an absolute path below the mounted volume."
DATA_HEADER_CHARS = 512
SLICE_CHARS = 1 << 20
LONG_BYTES = 256 << 20  # some 12 minutes of stereo at 44.1 kHz, as float32
SPOOL_BYTES = 16 << 20
BLANKS = " \t\r\n\v\f"
STANDARD = bytes.maketrans(b"-_", b"+/")
# Percent signs in a data URI stand for what a URL cannot carry as it is.
ESCAPES = {"%2B": "+", "%2F": "/", "%3D": "=", "%0A": "", "%0D": "", "%20": ""}


@dataclass(frozen=True)
class _Wanted:
    """What a field is, for whom, and whether it has to be sound."""

    field: str
    job: Job
    settings: Settings
    audio: bool = True

    def invalid(self, reason: str, code: ErrorCode = ErrorCode.INVALID_BASE64) -> RequestError:
        if self.audio:
            return AudioError(f"{INVALID} in '{self.field}': {reason}. {CHOICES}", code=code)
        return SourceError(f"Invalid base64 data in '{self.field}': {reason}. {CHOICES}", code=code)

    def too_large(self) -> RequestError:
        limit = self.settings.max_input_bytes
        kind, code = (AudioError, ErrorCode.INPUT_TOO_LARGE) if self.audio else (SourceError, ErrorCode.INPUT_TOO_LARGE)
        return kind(
            f"The base64 holds more than the {limit} bytes that are taken in.", code=code, details={"max_bytes": limit}
        )

    def empty(self) -> RequestError:
        kind, code = (AudioError, ErrorCode.EMPTY_AUDIO) if self.audio else (SourceError, ErrorCode.EMPTY_FILE)
        return kind(f"The string is empty. {CHOICES}", code=code)


def load(source: str, *, field: str, job: Job, settings: Settings) -> Audio:
    """Opens `source` and decodes it.

    Args:
        source: base64 (standard or URL-safe, padded or not, blanks ignored), a `data:` URI, an `http(s)://` URL, or
            an absolute path below one of `settings.volume_dirs`.
        field: the request's name for it; errors and warnings carry it.

    Returns:
        The sound, mono or stereo, within the settings' limits. What the decoder changed is in `job.warnings`.

    Raises:
        AudioError: the bytes are not audio that we take (`Invalid base64 audio data` at the start where it applies).
        SourceError: the URL or path may not or cannot be read. Neither repeats the source.
    """
    sound = _loaded(source, field=field, job=job, settings=settings, memory_bytes=None)
    assert isinstance(sound, Audio)
    return sound


def load_long(source: str, *, field: str, job: Job, settings: Settings) -> AudioSource:
    """As `load`, for operations that read sound by blocks: what is long lies on disk until the job ends."""
    sound = _loaded(source, field=field, job=job, settings=settings, memory_bytes=LONG_BYTES)
    if isinstance(sound, DiskAudio):
        job.exit_stack.enter_context(sound)
    return sound


def load_file(source: str, *, field: str, job: Job, settings: Settings) -> BinaryIO:
    """Opens `source`, anything that `load` takes, as the bytes that it is; they are gone when the job ends.

    Raises:
        SourceError: it cannot be read, or has more than `settings.max_input_bytes`.
    """
    wanted = _Wanted(field, job, settings, audio=False)
    try:
        file = job.exit_stack.enter_context(_opened(source.strip(), wanted))
    except SourceError as error:
        raise _named(error, field) from error
    if file.seek(0, os.SEEK_END) > settings.max_input_bytes:
        raise _named(wanted.too_large(), field)
    file.seek(0)
    return file


def _loaded(source: str, *, field: str, job: Job, settings: Settings, memory_bytes: int | None) -> Audio | DiskAudio:
    from audio.files.decode import DecodeLimits, decode_sound

    limits = DecodeLimits(
        max_bytes=settings.max_input_bytes,
        max_seconds=settings.max_input_seconds,
        max_sample_rate=settings.max_input_sample_rate,
        max_channels=settings.max_input_channels,
    )
    try:
        with _opened(source.strip(), _Wanted(field, job, settings)) as file:
            decoded = decode_sound(file, limits=limits, memory_bytes=memory_bytes)
    except (AudioError, SourceError) as error:
        raise _named(error, field) from error
    job.check()
    for sentence in decoded.warnings:
        job.warn(f"{field}: {sentence}")
    return decoded.sound


def _named(error: RequestError, field: str) -> RequestError:
    message = error.message if f" in '{field}': " in error.message else f"{field}: {error.message}"
    return type(error)(message, code=error.error_code, details={"field": field} | error.details)


def _opened(source: str, wanted: _Wanted) -> BinaryIO:
    if not source:
        raise wanted.empty()
    if scheme := SCHEME.match(source):
        return _open_uri(source, scheme[1].lower(), wanted)
    if (file := volume.open_file(source, wanted.settings.volume_dirs)) is not None:
        return file
    if PATH.match(source) and len(source) <= volume.MAX_PATH_CHARS:
        raise SourceError(f"Only paths below a mounted volume are read. {CHOICES}", code=ErrorCode.PATH_NOT_ALLOWED)
    return _open_base64(source, 0, wanted)


def _open_uri(source: str, scheme: str, wanted: _Wanted) -> BinaryIO:
    if scheme == "data":
        return _open_data_uri(source, wanted)
    if scheme in ("http", "https"):
        from worker.input.fetch import FetchLimits, fetch

        settings = wanted.settings
        limits = FetchLimits(settings.max_input_bytes, settings.download_timeout_s, settings.allow_private_urls)
        return fetch(source, limits=limits, check=wanted.job.check)
    raise SourceError(f"'{scheme}:' links are not read. {CHOICES}", code=ErrorCode.UNSUPPORTED_URL)


def _open_data_uri(source: str, wanted: _Wanted) -> BinaryIO:
    comma = source.find(",", 0, DATA_HEADER_CHARS)
    if comma < 0 or not source[:comma].lower().rstrip().endswith(";base64"):
        raise wanted.invalid("the data: URI has no ';base64,' after its media type")
    if source.find("%", comma) >= 0:
        for escape, plain in ESCAPES.items():
            source = source.replace(escape, plain).replace(escape.lower(), plain)
    return _open_base64(source, comma + 1, wanted)


def _open_base64(source: str, start: int, wanted: _Wanted) -> BinaryIO:
    """Decodes `source[start:]` slice by slice into a temporary file: beside the request's own string, no copy of it."""
    significant = len(source) - start - sum(source.count(blank, start) for blank in BLANKS)
    if (significant - 2) * 3 // 4 > wanted.settings.max_input_bytes:
        raise wanted.too_large()
    file = tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES)  # noqa: SIM115  (closed by the caller)
    try:
        for piece in decoded_base64(source, start, wanted.job.check):
            file.write(piece)
    except (binascii.Error, UnicodeEncodeError) as error:
        file.close()
        raise wanted.invalid("it holds characters that base64 has not, or is cut short") from error
    except BaseException:
        file.close()
        raise
    file.seek(0)
    if wanted.audio and (head := file.read(SNIFF_BYTES)) and sniff(head) is None:
        file.close()
        raise wanted.invalid(
            "it decodes, but to no audio file of a known kind", code=ErrorCode.UNSUPPORTED_AUDIO_FORMAT
        )
    file.seek(0)
    return cast(BinaryIO, file)


def decoded_base64(
    source: str, start: int, check: Callable[[], None], slice_chars: int = SLICE_CHARS
) -> Iterator[bytes]:
    """Base64 to bytes. The last characters are held back, since only there padding may stand."""
    rest = b""
    for at in range(start, len(source), slice_chars):
        check()
        rest += source[at : at + slice_chars].encode("ascii").translate(STANDARD, BLANKS.encode())
        whole = max(0, len(rest) - 4) // 4 * 4
        if rest.find(b"=", 0, whole) >= 0:
            raise binascii.Error("padding inside")
        yield binascii.a2b_base64(rest[:whole], strict_mode=True)
        rest = rest[whole:]
    unpadded = rest.rstrip(b"=")
    if len(rest) - len(unpadded) > 2:
        raise binascii.Error("too much padding")
    yield binascii.a2b_base64(unpadded + b"=" * (-len(unpadded) % 4), strict_mode=True)
