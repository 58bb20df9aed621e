"""Samples to wav and back with NumPy alone. Shapes are `[C, T]`, full scale is 1.0."""

from __future__ import annotations

import importlib
import io
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from music_worker.errors import InputError, OutputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_CHANNELS = 8
PCM, IEEE_FLOAT, EXTENSIBLE = 1, 3, 0xFFFE


@dataclass(frozen=True, slots=True)
class Samples:
    """A NumPy array as an audio input.

    Args:
        array: `[T]` or `[C, T]`; floating point with full scale 1.0, or int16.
        sample_rate: Hz.
    """

    array: NDArray[Any]
    sample_rate: int

    def to_wav(self) -> bytes:
        """A wav file: 32-bit floating point, or 16 bits for int16.

        Raises `InputError` for an array that is not audio.
        """
        np = _import_numpy()
        samples = np.asarray(self.array)
        if samples.ndim == 1:
            samples = samples[None]
        if samples.ndim != 2 or samples.shape[1] == 0:
            raise InputError(f"Samples must be [T] or [C, T] and not empty; the array has the shape {samples.shape}.")
        if not 1 <= samples.shape[0] <= MAX_CHANNELS:
            raise InputError(
                f"The array has {samples.shape[0]} rows, which are its channels ([C, T]). At most {MAX_CHANNELS} are "
                "sent; transpose the array if it is [T, C]."
            )
        if not isinstance(self.sample_rate, int) or not 1 <= self.sample_rate <= 768_000:
            raise InputError("The sample rate must be a whole number of Hz, for example 44100.")
        if samples.dtype == np.int16:
            data, code = samples.astype("<i2"), PCM
        elif np.issubdtype(samples.dtype, np.floating):
            if not np.isfinite(samples).all():
                raise InputError("The array contains NaN or infinite samples.")
            data, code = samples.astype("<f4"), IEEE_FLOAT
        else:
            raise InputError(
                f"Samples must be floating point (full scale 1.0) or int16, not {samples.dtype}. Convert the array "
                "first."
            )
        return _build_wav(data.T.tobytes(), code, samples.shape[0], self.sample_rate, data.dtype.itemsize)


def _build_wav(data: bytes, code: int, channels: int, sample_rate: int, width: int) -> bytes:
    block = channels * width
    if len(data) + 36 > 0xFFFFFFFF:
        raise InputError("The array is too long for a wav file of 4 GB. Write it to a flac file and pass its path.")
    header = struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        *(b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16, code, channels),
        *(sample_rate, sample_rate * block, block, 8 * width, b"data", len(data)),
    )
    return header + data


def decode(content: bytes, filename: str) -> tuple[NDArray[np.float32], int]:
    """Samples `[C, T]` and the sample rate of an audio file.

    wav is decoded here (16, 24, 32 bits and 32-bit floating point), other formats by the package soundfile.
    """
    np = _import_numpy()
    if content[:4] == b"RIFF" and content[8:12] == b"WAVE" and (decoded := _decode_wav(content)) is not None:
        return decoded
    try:
        soundfile = importlib.import_module("soundfile")
    except ImportError:
        raise OutputError(
            f'{filename} is not wav, and soundfile is not installed. Ask for `output_format="wav"`, or install '
            "soundfile."
        ) from None
    try:
        samples, sample_rate = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
    except soundfile.SoundFileError:
        raise OutputError(f"{filename} cannot be decoded.") from None
    return np.ascontiguousarray(samples.T), int(sample_rate)


def _decode_wav(content: bytes) -> tuple[NDArray[np.float32], int] | None:
    """None if the file is damaged, or of a kind that is not decoded here."""
    np = _import_numpy()
    chunks = _list_chunks(content)
    header, data = chunks.get(b"fmt ", b""), chunks.get(b"data")
    if len(header) < 16 or data is None:
        return None
    code, channels, sample_rate, _, _, bits = struct.unpack("<HHIIHH", header[:16])
    if code == EXTENSIBLE and len(header) >= 26:
        code = struct.unpack("<H", header[24:26])[0]
    if channels == 0:
        return None
    width = bits // 8
    data = data[: len(data) // (channels * max(width, 1)) * channels * max(width, 1)]
    if code == IEEE_FLOAT and bits == 32:
        samples = np.frombuffer(data, "<f4").astype(np.float32)
    elif code == PCM and bits == 24:
        padded = np.zeros((len(data) // 3, 4), np.uint8)
        padded[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        samples = (padded.view("<i4")[:, 0] / 2.0**31).astype(np.float32)
    elif code == PCM and bits in (16, 32):
        samples = (np.frombuffer(data, f"<i{width}") / 2.0 ** (bits - 1)).astype(np.float32)
    else:
        return None
    return np.ascontiguousarray(samples.reshape(-1, channels).T), int(sample_rate)


def _list_chunks(content: bytes) -> dict[bytes, bytes]:
    chunks: dict[bytes, bytes] = {}
    position = 12
    while position + 8 <= len(content):
        name, size = content[position : position + 4], struct.unpack_from("<I", content, position + 4)[0]
        chunks.setdefault(name, content[position + 8 : position + 8 + size])
        position += 8 + size + size % 2
    return chunks


def _import_numpy() -> Any:
    try:
        return importlib.import_module("numpy")
    except ImportError:
        raise OutputError("Arrays need NumPy: install music-worker[numpy].") from None
