"""Writes wav files front to back: 16 and 24-bit PCM and 32-bit float, as RF64 if 32-bit sizes are too small.

Not with libsndfile: it clips when converting float to integers, and writes the time of day into every float file (the
PEAK chunk), but the same audio must give the same bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from audio.files.quantize import iter_interleaved, quantize
from audio.types import AudioSource

_MAX_RIFF_BYTES = 0xFFFFFFFF
_PCM, _FLOAT = 1, 3


def write_wav(audio: AudioSource, bit_depth: int, stream: BinaryIO) -> None:
    """Writes a whole wav file, without seeking: PCM for 16 and 24 bits, float for 32.

    Beyond 4 GiB the file is RF64 (EBU Tech 3306).
    """
    stream.write(_make_header(audio.sample_rate, audio.channels, bit_depth, num_samples=audio.num_samples))
    for block in _to_float_bytes(audio) if bit_depth == 32 else _to_pcm_bytes(audio, bit_depth):
        stream.write(block)
    stream.write(bytes(audio.num_samples * audio.channels * bit_depth // 8 % 2))


def _to_float_bytes(audio: AudioSource) -> Iterator[bytes]:
    for block in iter_interleaved(audio):
        yield block.astype("<f4", copy=False).tobytes()


def _to_pcm_bytes(audio: AudioSource, bit_depth: int) -> Iterator[bytes]:
    for block in quantize(audio, bit_depth):
        little = block.astype(block.dtype.newbyteorder("<"), copy=False)
        yield little.tobytes() if bit_depth == 16 else little.view(np.uint8).reshape(-1, 4)[:, 1:].tobytes()


def _make_header(sample_rate: int, channels: int, bit_depth: int, *, num_samples: int) -> bytes:
    frame_bytes = channels * bit_depth // 8
    data_bytes = num_samples * frame_bytes
    is_float = bit_depth == 32
    fmt = struct.pack(
        "<HHIIHH",
        _FLOAT if is_float else _PCM,
        channels,
        sample_rate,
        sample_rate * frame_bytes,
        frame_bytes,
        bit_depth,
    )
    body = _make_chunk(b"fmt ", fmt + bytes(2) if is_float else fmt)
    body += _make_chunk(b"fact", struct.pack("<I", min(num_samples, _MAX_RIFF_BYTES))) if is_float else b""
    riff_bytes = 4 + len(body) + 8 + data_bytes + data_bytes % 2
    if riff_bytes <= _MAX_RIFF_BYTES:
        return b"RIFF" + struct.pack("<I", riff_bytes) + b"WAVE" + body + b"data" + struct.pack("<I", data_bytes)
    ds64 = _make_chunk(b"ds64", struct.pack("<QQQI", riff_bytes + 36, data_bytes, num_samples, 0))
    unknown = struct.pack("<I", _MAX_RIFF_BYTES)
    return b"RF64" + unknown + b"WAVE" + ds64 + body + b"data" + unknown


def _make_chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content
