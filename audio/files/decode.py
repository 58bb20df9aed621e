"""Decodes an audio file of any supported container, in bounded memory."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any, BinaryIO, Generic, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from audio.dsp.downmix import downmix_weights
from audio.files.buffer import DecoderStream, SpillBuffer
from audio.files.containers import PatchedStream, inspect, raise_corrupt
from audio.files.ffmpeg import open_ffmpeg
from audio.files.mpg123 import log_mpg123_messages
from audio.files.sniff import SNIFF_BYTES, sniff
from audio.types import SAMPLE_BYTES, Audio, AudioSource, Check, DiskAudio, ignore_check
from errors import AudioError, ErrorCode

FORMATS = ("wav", "flac", "mp3", "ogg", "opus", "aiff", "m4a", "aac", "webm", "w64")
"""Every container that can be decoded; `m4a`, `aac` and `webm` need the ffmpeg program."""

_NEEDS_FFMPEG = frozenset({"m4a", "aac", "webm"})
_FFMPEG_FALLBACK = frozenset({"wav", "w64", "aiff", "ogg", "opus"})  # may hold codecs that libsndfile cannot read
_MAY_BE_MPEG = frozenset({"mp3", "wav"})  # wav may hold mp3 frames
_BLOCK_SAMPLES = 1 << 17
_MIN_SAMPLE_RATE = 1000
_UNKNOWN_LENGTH = 1 << 48  # libsndfile reports 2**63 - 1 if it does not know the length

_RunFfmpeg = Callable[[], AbstractContextManager[DecoderStream]]
AudioT_co = TypeVar("AudioT_co", bound=AudioSource, covariant=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodeLimits:
    """The largest input that is accepted.

    Args:
        max_bytes: of the file.
        max_seconds: of the decoded audio.
        max_decoded_bytes: of the decoded audio in memory or on disk, 4 bytes for each sample of at most two channels.
        max_sample_rate: in Hz.
        max_channels: in the file; more than two are downmixed.
    """

    max_bytes: int
    max_seconds: float
    max_decoded_bytes: int
    max_sample_rate: int
    max_channels: int


@dataclass(frozen=True, slots=True)
class Decoded(Generic[AudioT_co]):
    """Result of decoding a file.

    Args:
        audio: one or two channels, at the file's own sample rate; values above full scale are kept.
        format: one of `FORMATS`.
        warnings: sentences about what was changed while decoding.
    """

    audio: AudioT_co
    format: str
    warnings: tuple[str, ...] = ()


def decode(
    data: BinaryIO | bytes, *, limits: DecodeLimits, check: Check = ignore_check, ffmpeg: str = "ffmpeg"
) -> Decoded[Audio]:
    """Decodes a whole file, given as bytes or as a seekable binary stream, into memory.

    Beside `data` it takes the memory of the waveform (4 bytes a sample) and a few megabytes, even if the file's header
    is wrong; decoding stops when a limit is exceeded.

    Args:
        check: called before each block, and at least ten times a second while ffmpeg works; what it raises ends the
            decoding.
        ffmpeg: name or path of the ffmpeg program.

    Raises:
        AudioError: with code `empty_audio`, `input_too_large`, `unsupported_audio_format`, `corrupt_audio`,
            `nan_audio`, `audio_too_long`, `sample_rate_too_high`, `sample_rate_too_low`, `too_many_channels` or
            `decoder_missing` (m4a, aac and webm without the `ffmpeg` program).
        DiskFullError: a temporary file cannot be written.
    """
    decoded = decode_source(data, limits=limits, check=check, ffmpeg=ffmpeg, memory_bytes=None)
    assert isinstance(decoded.audio, Audio), "without a memory limit, audio is decoded into memory"
    return Decoded(decoded.audio, decoded.format, decoded.warnings)


def decode_source(
    data: BinaryIO | bytes,
    *,
    limits: DecodeLimits,
    memory_bytes: int | None,
    check: Check = ignore_check,
    ffmpeg: str = "ffmpeg",
) -> Decoded[Audio | DiskAudio]:
    """`decode` for audio of any length: a waveform larger than `memory_bytes` is stored on disk (None: never).

    The caller closes a `DiskAudio`.
    """
    stream = io.BytesIO(data) if isinstance(data, (bytes, bytearray)) else data
    size = stream.seek(0, io.SEEK_END)
    _check_size(size, limits)
    container = _find_container(stream)
    inspection = inspect(stream, container, size, check)
    patched = PatchedStream(stream, inspection) if inspection.head else stream
    with ExitStack() as stack:
        run_ffmpeg = functools.partial(open_ffmpeg, cast(BinaryIO, patched), container, ffmpeg, check=check)
        decoder = _open(stack, cast(BinaryIO, patched), container, run_ffmpeg, length_known=inspection.length_known)
        _check_header(decoder, limits)
        buffer = stack.enter_context(
            SpillBuffer(min(decoder.channels, 2), decoder.sample_rate, decoder.expected, memory_bytes)
        )
        weights = downmix_weights(decoder.channels, container) if decoder.channels > 2 else None
        for block in decoder.blocks:
            check()
            buffer.add(block if weights is None else block @ weights)
            _check_length_limits(buffer.num_samples, decoder, limits)
        warnings = inspection.warnings + _check_length(buffer.num_samples, decoder, container)
        audio = buffer.finish()
    if weights is not None:
        warnings += (f"The audio's {decoder.channels} channels were downmixed to stereo (ITU-R BS.775 weights).",)
    return Decoded(audio, container, warnings)


def _check_size(size: int, limits: DecodeLimits) -> None:
    if size == 0:
        raise AudioError("The audio is empty: it has no bytes. Send an audio file.", code=ErrorCode.EMPTY_AUDIO)
    if size > limits.max_bytes:
        raise AudioError(
            f"The file has {size} bytes; at most {limits.max_bytes} are accepted. Send a shorter or smaller one.",
            code=ErrorCode.INPUT_TOO_LARGE,
            details={"size": size, "max_bytes": limits.max_bytes},
        )


def _find_container(stream: BinaryIO) -> str:
    stream.seek(0)
    container = sniff(stream.read(SNIFF_BYTES))
    if container is None:
        raise AudioError(
            f"The data is not an audio file of a supported format. Send one of: {', '.join(FORMATS)}.",
            code=ErrorCode.UNSUPPORTED_AUDIO_FORMAT,
            details={"formats": list(FORMATS)},
        )
    return container


def _open(
    stack: ExitStack, stream: BinaryIO, container: str, run_ffmpeg: _RunFfmpeg, *, length_known: bool
) -> DecoderStream:
    import soundfile

    if container in _NEEDS_FFMPEG:
        return stack.enter_context(run_ffmpeg())
    stream.seek(0)
    try:
        with log_mpg123_messages() if container in _MAY_BE_MPEG else nullcontext():
            file = stack.enter_context(_make_forward_only(soundfile)(stream))
    except soundfile.LibsndfileError as error:
        return _open_with_fallback(stack, container, run_ffmpeg, cause=error)
    estimated = container != "mp3" and file.subtype.startswith("MPEG")  # mp3 frames within a wav file
    known = length_known and not estimated and 0 <= file.frames < _UNKNOWN_LENGTH
    return DecoderStream(file.samplerate, file.channels, _read_blocks(file, soundfile), file.frames if known else None)


def _open_with_fallback(stack: ExitStack, container: str, run_ffmpeg: _RunFfmpeg, *, cause: Exception) -> DecoderStream:
    """Opens with ffmpeg what libsndfile refused, if the container may hold a codec that only ffmpeg reads."""
    refused = AudioError(
        f"The audio file is damaged, or it is a kind of {container} that is not supported. Send it as wav or flac.",
        code=ErrorCode.CORRUPT_AUDIO,
    )
    if container not in _FFMPEG_FALLBACK:
        raise refused from cause
    try:
        return stack.enter_context(run_ffmpeg())
    except AudioError as error:
        raise refused from error


def _make_forward_only(soundfile: Any) -> type[Any]:
    """A `SoundFile` class that never seeks.

    soundfile seeks to the current position after every read of a seekable file; in an mp3 that drops the decoder's
    state and changes the samples.
    """

    class ForwardOnly(soundfile.SoundFile):  # type: ignore[misc]
        def seekable(self) -> bool:
            return False

    return ForwardOnly


def _read_blocks(file: Any, soundfile: Any) -> Iterator[NDArray[np.float32]]:
    buffer = np.empty((max(_BLOCK_SAMPLES // file.channels, 1), file.channels), np.float32)
    is_mpeg = file.subtype.startswith("MPEG")
    try:
        while True:
            with log_mpg123_messages() if is_mpeg else nullcontext():
                block = file.read(len(buffer), dtype="float32", always_2d=True, out=buffer)
            if not len(block):
                return
            yield block
    except soundfile.LibsndfileError:
        raise_corrupt("its audio data ends early or cannot be decoded")


def _check_header(decoder: DecoderStream, limits: DecodeLimits) -> None:
    rate, channels = decoder.sample_rate, decoder.channels
    if rate > limits.max_sample_rate:
        raise AudioError(
            f"The audio's sample rate is {rate} Hz; at most {limits.max_sample_rate} Hz is accepted. Resample it.",
            code=ErrorCode.SAMPLE_RATE_TOO_HIGH,
            details={"sample_rate": rate, "max_sample_rate": limits.max_sample_rate},
        )
    if rate < _MIN_SAMPLE_RATE:
        raise AudioError(
            f"The audio's sample rate is {rate} Hz; at least {_MIN_SAMPLE_RATE} Hz is needed. Resample it first.",
            code=ErrorCode.SAMPLE_RATE_TOO_LOW,
            details={"sample_rate": rate, "min_sample_rate": _MIN_SAMPLE_RATE},
        )
    if channels > limits.max_channels:
        raise AudioError(
            f"The audio has {channels} channels; at most {limits.max_channels} are accepted. Send it in stereo.",
            code=ErrorCode.TOO_MANY_CHANNELS,
            details={"channels": channels, "max_channels": limits.max_channels},
        )
    _check_length_limits(decoder.expected or 0, decoder, limits)


def _check_length_limits(num_samples: int, decoder: DecoderStream, limits: DecodeLimits) -> None:
    if num_samples > limits.max_seconds * decoder.sample_rate:
        raise AudioError(
            f"The audio is longer than the accepted {limits.max_seconds:g} s. Send a shorter part of it.",
            code=ErrorCode.AUDIO_TOO_LONG,
            details={"max_seconds": limits.max_seconds},
        )
    if num_samples * min(decoder.channels, 2) * SAMPLE_BYTES > limits.max_decoded_bytes:
        raise AudioError(
            f"The audio decodes to more than the accepted {limits.max_decoded_bytes} bytes, 4 for each sample. Send a "
            "shorter part of it, or a lower sample rate.",
            code=ErrorCode.AUDIO_TOO_LONG,
            details={"max_decoded_bytes": limits.max_decoded_bytes},
        )


def _check_length(num_samples: int, decoder: DecoderStream, container: str) -> tuple[str, ...]:
    missing = (decoder.expected or 0) - num_samples
    if missing > 0 and container == "mp3":
        seconds = missing / decoder.sample_rate
        return (f"The mp3 file is damaged in places: it decodes to {seconds:.2f} s less than its header states.",)
    if missing > 0:
        raise_corrupt(f"only {num_samples} of the {decoder.expected} samples that its header states can be decoded")
    if num_samples == 0:
        raise AudioError("The audio is empty: it contains no samples. Send longer audio.", code=ErrorCode.EMPTY_AUDIO)
    return ()
