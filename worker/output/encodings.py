"""The encodings that a request's audio-out fields stand for, best first. Encodes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from audio.files.encode import BIT_DEPTHS, Encoding
from audio.files.encode import Format as FileFormat
from worker.reply import AudioOut

_ADVISED = ("wav:24", "wav:16", "flac:24", "flac:16", *(f"mp3:{kbits}" for kbits in (320, 256, 192, 128, 96, 64, 32)))
NUMBERED = {"wav": "bit_depth", "flac": "bit_depth", "mp3": "bitrate", "ogg": "bitrate", "opus": "bitrate"}


def encodings(audio_out: AudioOut) -> list[Encoding]:
    """What may be written, best first: the format asked for, or all of `auto_order`.

    A `bitrate` that is given bounds those of `auto_order`. Raises `InvalidRequestError` for a combination that does
    not exist, such as flac with 32 bits.
    """
    if audio_out.output_format != "auto":
        return [Encoding(format=audio_out.output_format, bit_depth=audio_out.bit_depth, bitrate=audio_out.bitrate)]
    chosen = [_automatic(entry, audio_out) for entry in audio_out.auto_order]
    return list(dict.fromkeys(chosen))


def _automatic(entry: str, audio_out: AudioOut) -> Encoding:
    name, _, kbits = entry.partition(":")
    form = cast(FileFormat, name)
    bitrate = min(int(kbits), audio_out.bitrate or int(kbits)) if kbits else audio_out.bitrate
    bit_depth = min(audio_out.bit_depth, max(BIT_DEPTHS[name])) if name in BIT_DEPTHS else None
    return Encoding(format=form, bit_depth=bit_depth, bitrate=bitrate)


def advised() -> Sequence[Encoding]:
    """What to offer where a result is too large as asked, from large to small."""
    entries = (*_ADVISED, "opus:192", "opus:96", "opus:32")
    parts = (entry.partition(":") for entry in entries)
    return [Encoding(cast(FileFormat, name), **{NUMBERED[name]: int(number)}) for name, _, number in parts]


def fields(encoding: Encoding) -> dict[str, str | int]:
    """The audio-out fields that ask for this encoding."""
    number = encoding.bits if NUMBERED[encoding.format] == "bit_depth" else encoding.kbits
    return {"output_format": encoding.format, NUMBERED[encoding.format]: number}
