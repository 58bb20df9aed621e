"""A sound file's bytes into an Audio, whatever the container, in bounded memory. Knows no names, URLs or requests."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, cast

import numpy as np
from numpy.typing import NDArray

from audio.dsp.downmix import downmix_weights
from audio.files.containers import Spliced, corrupt, inspect
from audio.files.ffmpeg import open_ffmpeg
from audio.files.sample_buffer import Stream
from audio.files.sniff import SNIFF_BYTES, sniff
from audio.files.spill_buffer import SpillBuffer
from audio.types import Audio, DiskAudio
from errors import AudioError, ErrorCode

FORMATS: Final = ("wav", "flac", "mp3", "ogg", "opus", "aiff", "m4a", "aac", "webm", "w64")
"""Everything that `decode` reads; `m4a`, `aac` and `webm` need the ffmpeg program."""

_NEEDS_FFMPEG: Final = frozenset({"m4a", "aac", "webm"})
_ALSO_TRY_FFMPEG: Final = frozenset({"wav", "w64", "aiff", "ogg", "opus"})  # odd codecs in familiar containers
_BLOCK_SAMPLES: Final = 1 << 17
_LOWEST_SAMPLE_RATE: Final = 1000
_NO_LENGTH: Final = 1 << 48  # libsndfile says 2**63 - 1 where it does not know


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodeLimits:
    """What is taken in.

    Args:
        max_bytes: of the file.
        max_seconds: of the sound, decoded.
        max_sample_rate: in Hz.
        max_channels: in the file; above two they are downmixed.
    """

    max_bytes: int
    max_seconds: float
    max_sample_rate: int
    max_channels: int


@dataclass(frozen=True, slots=True)
class Decoded:
    """What came out.

    Args:
        audio: `[C, T]`, C = 1 or 2, at the file's own sample rate; values above full scale are kept.
        format: one of `FORMATS`.
        warnings: sentences on what was done to the sound on its way.
    """

    audio: Audio
    format: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DecodedSound:
    """As `Decoded`, of any length: `sound` is an `Audio`, or a `DiskAudio` that is the caller's to close."""

    sound: Audio | DiskAudio
    format: str
    warnings: tuple[str, ...] = ()


def decode(data: BinaryIO | bytes, *, limits: DecodeLimits, ffmpeg: str = "ffmpeg") -> Decoded:
    """Decodes a whole file, given as bytes or as a seekable binary stream.

    Memory beside `data`: the waveform (4 bytes a sample) and a few megabytes, also for a file that lies about itself;
    decoding stops where a limit is passed.

    Raises:
        AudioError: with code `empty_audio`, `input_too_large`, `unsupported_audio_format`, `corrupt_audio`,
            `nan_audio`, `audio_too_long`, `sample_rate_too_high`, `sample_rate_too_low`, `too_many_channels` or
            `decoder_missing` (m4a, aac and webm without the `ffmpeg` program).
    """
    decoded = decode_sound(data, limits=limits, ffmpeg=ffmpeg, memory_bytes=None)
    assert isinstance(decoded.sound, Audio)
    return Decoded(decoded.sound, decoded.format, decoded.warnings)


def decode_sound(
    data: BinaryIO | bytes, *, limits: DecodeLimits, memory_bytes: int | None, ffmpeg: str = "ffmpeg"
) -> DecodedSound:
    """As `decode`, but a waveform of more than `memory_bytes` goes to a nameless file on disk (None: never)."""
    stream = io.BytesIO(data) if isinstance(data, (bytes, bytearray)) else data
    size = stream.seek(0, io.SEEK_END)
    _check_size(size, limits)
    container = _container(stream)
    inspection = inspect(stream, container, size)
    whole = Spliced(stream, inspection) if inspection.head else stream
    with ExitStack() as stack:
        sound = _open(stack, cast(BinaryIO, whole), container, length_known=inspection.length_known, ffmpeg=ffmpeg)
        _check_header(sound, limits)
        store = stack.enter_context(
            SpillBuffer(min(sound.channels, 2), sound.sample_rate, sound.expected, memory_bytes)
        )
        _read(sound, container, limits, store)
        warnings = inspection.warnings + _check_length(store.num_samples, sound, container)
        kept = store.finish()
    if sound.channels > 2:
        warnings += (f"The audio's {sound.channels} channels were downmixed to stereo (ITU-R BS.775 weights).",)
    return DecodedSound(kept, container, warnings)


def _check_size(size: int, limits: DecodeLimits) -> None:
    if size == 0:
        raise AudioError("The audio is empty: it has no bytes. Send a sound file.", code=ErrorCode.EMPTY_AUDIO)
    if size > limits.max_bytes:
        raise AudioError(
            f"The audio file has {size} bytes; at most {limits.max_bytes} are taken. Send a shorter or compressed one.",
            code=ErrorCode.INPUT_TOO_LARGE,
            details={"size": size, "max_bytes": limits.max_bytes},
        )


def _container(stream: BinaryIO) -> str:
    stream.seek(0)
    container = sniff(stream.read(SNIFF_BYTES))
    if container is None:
        raise AudioError(
            f"The data is no audio file of a known kind. Send one of: {', '.join(FORMATS)}.",
            code=ErrorCode.UNSUPPORTED_AUDIO_FORMAT,
            details={"formats": list(FORMATS)},
        )
    return container


def _open(stack: ExitStack, stream: BinaryIO, container: str, *, length_known: bool, ffmpeg: str) -> Stream:
    import soundfile

    if container in _NEEDS_FFMPEG:
        return stack.enter_context(open_ffmpeg(stream, container, ffmpeg))
    stream.seek(0)
    try:
        file = stack.enter_context(_forward_only(soundfile)(stream))
    except soundfile.LibsndfileError as refusal:
        return _second_opinion(stack, stream, container, ffmpeg=ffmpeg, refusal=refusal)
    guessed = container != "mp3" and file.subtype.startswith("MPEG")  # mp3 frames within a wav file
    known = length_known and not guessed and 0 <= file.frames < _NO_LENGTH
    return Stream(file.samplerate, file.channels, _blocks(file, soundfile), file.frames if known else None)


def _second_opinion(stack: ExitStack, stream: BinaryIO, container: str, *, ffmpeg: str, refusal: Exception) -> Stream:
    """ffmpeg's reading of what libsndfile refused, where a codec that only ffmpeg knows may be inside."""
    refused = AudioError(
        f"The audio file is damaged, or of a kind of {container} that is not read here. Send it as wav or flac.",
        code=ErrorCode.CORRUPT_AUDIO,
    )
    if container not in _ALSO_TRY_FFMPEG:
        raise refused from refusal
    try:
        return stack.enter_context(open_ffmpeg(stream, container, ffmpeg))
    except AudioError as error:
        raise refused from error


def _forward_only(soundfile: Any) -> type[Any]:
    """A `SoundFile` that is only read onwards.

    soundfile seeks to where it already is after every read of a seekable file; in an mp3 that drops the decoder's state
    and changes the samples.
    """

    class ForwardOnly(soundfile.SoundFile):  # type: ignore[misc]
        def seekable(self) -> bool:
            return False

    return ForwardOnly


def _blocks(file: Any, soundfile: Any) -> Iterator[NDArray[np.float32]]:
    buffer = np.empty((max(_BLOCK_SAMPLES // file.channels, 1), file.channels), np.float32)
    try:
        while len(block := file.read(len(buffer), dtype="float32", always_2d=True, out=buffer)):
            yield block
    except soundfile.LibsndfileError:
        corrupt("its sound breaks off or cannot be decoded")


def _check_header(sound: Stream, limits: DecodeLimits) -> None:
    rate, channels = sound.sample_rate, sound.channels
    if rate > limits.max_sample_rate:
        raise AudioError(
            f"The audio's sample rate is {rate} Hz; at most {limits.max_sample_rate} Hz is taken. Resample it first.",
            code=ErrorCode.SAMPLE_RATE_TOO_HIGH,
            details={"sample_rate": rate, "max_sample_rate": limits.max_sample_rate},
        )
    if rate < _LOWEST_SAMPLE_RATE:
        raise AudioError(
            f"The audio's sample rate is {rate} Hz; at least {_LOWEST_SAMPLE_RATE} Hz is needed. Resample it first.",
            code=ErrorCode.SAMPLE_RATE_TOO_LOW,
            details={"sample_rate": rate, "min_sample_rate": _LOWEST_SAMPLE_RATE},
        )
    if channels > limits.max_channels:
        raise AudioError(
            f"The audio has {channels} channels; at most {limits.max_channels} are taken. Send it in stereo.",
            code=ErrorCode.TOO_MANY_CHANNELS,
            details={"channels": channels, "max_channels": limits.max_channels},
        )
    _check_duration(sound.expected or 0, rate, limits)


def _check_duration(num_samples: int, sample_rate: int, limits: DecodeLimits) -> None:
    if num_samples > limits.max_seconds * sample_rate:
        raise AudioError(
            f"The audio is longer than {limits.max_seconds:g} s, which is the most taken. Send a shorter piece of it.",
            code=ErrorCode.AUDIO_TOO_LONG,
            details={"max_seconds": limits.max_seconds},
        )


def _read(sound: Stream, container: str, limits: DecodeLimits, store: SpillBuffer) -> None:
    weights = downmix_weights(sound.channels, container) if sound.channels > 2 else None
    for block in sound.blocks:
        store.add(block if weights is None else block @ weights)
        _check_duration(store.num_samples, sound.sample_rate, limits)


def _check_length(num_samples: int, sound: Stream, container: str) -> tuple[str, ...]:
    missing = (sound.expected or 0) - num_samples
    if missing > 0 and container == "mp3":
        seconds = missing / sound.sample_rate
        return (f"The mp3 file is damaged in places: {seconds:.2f} s less than its header promises could be decoded.",)
    if missing > 0:
        corrupt(f"{num_samples} of the {sound.expected} samples that its header promises can be decoded")
    if num_samples == 0:
        raise AudioError("The audio is empty: it holds no samples. Send a longer one.", code=ErrorCode.EMPTY_AUDIO)
    return ()
