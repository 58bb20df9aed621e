"""Encodes audio of any length into a file of any output format."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from audio.dsp.gain import bring_below_full_scale
from audio.dsp.resample import resample_source
from audio.files.formats import Encoding
from audio.files.ogg import set_serial
from audio.files.quantize import iter_interleaved, quantize
from audio.files.wav import write_wav
from audio.types import AudioSource, Check, Waveform, ignore_check
from errors import DiskFullError

# Nominal bitrates of Vorbis qualities 0 to 10, two channels at 44.1 kHz (libvorbis).
_VORBIS_BITRATES = (64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 500)
_MP3_BLOCK_FRAMES = 65536
_SERIAL = 1


@dataclass(frozen=True, slots=True)
class Written:
    """Properties of a written file.

    Args:
        sample_rate: in Hz.
        channels: number of channels.
        num_samples: per channel.
        warnings: sentences about what had to be changed for the format.
    """

    sample_rate: int
    channels: int
    num_samples: int
    warnings: tuple[str, ...] = ()


def encode(audio: AudioSource, encoding: Encoding, stream: BinaryIO, *, check: Check = ignore_check) -> Written:
    """Writes a whole file to `stream`, an empty file that can be read and sought. The same audio gives the same bytes.

    Samples above full scale that the format cannot keep are never clipped: the level is lowered and a warning says so.
    Pass sources that belong together through `bring_below_full_scale` first, to lower them by one gain.

    Args:
        check: called before each block; what it raises ends the encoding.

    Raises:
        DiskFullError: `stream` is a temporary file that cannot be written.
    """
    assert audio.num_samples > 0, "an audio file has at least one sample"
    with ExitStack() as stack:
        source, warnings = _adapt(audio, encoding, stack)
        warnings += _WRITERS[encoding.format](_CheckedView(source, check), encoding, stream)
    return Written(source.sample_rate, source.channels, source.num_samples, warnings)


class _CheckedView(AudioSource):
    """A source that calls `check` before each block is read."""

    def __init__(self, source: AudioSource, check: Check) -> None:
        super().__init__(source.sample_rate, source.channels, source.num_samples)
        self._source, self._check = source, check

    @property
    def peak(self) -> float:
        return self._source.peak

    def read(self, start: int, count: int) -> Waveform:
        self._check()
        return self._source.read(start, count)


def _adapt(audio: AudioSource, encoding: Encoding, stack: ExitStack) -> tuple[AudioSource, tuple[str, ...]]:
    """The audio at a sample rate and level that the format supports, and warnings about the changes."""
    warnings: tuple[str, ...] = ()
    allowed = encoding.output_format.sample_rates or (audio.sample_rate,)
    # The lowest rate that loses nothing, else the highest.
    rate = next((rate for rate in allowed if rate >= audio.sample_rate), allowed[-1])
    source = resample_source(audio, rate, stack)
    if rate != audio.sample_rate:
        warnings += (f"{encoding.format} does not support {audio.sample_rate} Hz; the file has {rate} Hz.",)
    if not encoding.keeps_overs:
        (source,), gain_db = bring_below_full_scale([source])
        if gain_db is not None:
            warnings += (
                f"{encoding.format} cannot keep peaks above full scale; the level was lowered by {-gain_db:.2f} dB.",
            )
    return source, warnings


def _write_wav(audio: AudioSource, encoding: Encoding, stream: BinaryIO) -> tuple[str, ...]:
    write_wav(audio, encoding.bits, stream)
    return ()


def _write_flac(audio: AudioSource, encoding: Encoding, stream: BinaryIO) -> tuple[str, ...]:
    subtype = f"PCM_{encoding.bits}"
    _write_with_libsndfile(audio, stream, quantize(audio, encoding.bits), format="FLAC", subtype=subtype)
    return ()


def _write_ogg(audio: AudioSource, encoding: Encoding, stream: BinaryIO) -> tuple[str, ...]:
    stereo_kbits = encoding.kbits * 2 / audio.channels
    quality = float(np.interp(stereo_kbits, _VORBIS_BITRATES, np.linspace(0.0, 1.0, len(_VORBIS_BITRATES))))
    _write_with_libsndfile(
        audio, stream, iter_interleaved(audio), format="OGG", subtype="VORBIS", compression_level=1.0 - quality
    )
    return ()


def _write_opus(audio: AudioSource, encoding: Encoding, stream: BinaryIO) -> tuple[str, ...]:
    # libsndfile spreads its levels 1 to 0 over 6 to 256 kbit/s a channel.
    level = 1.0 - (encoding.kbits / audio.channels - 6.0) / 250.0
    _write_with_libsndfile(
        audio,
        stream,
        iter_interleaved(audio),
        format="OGG",
        subtype="OPUS",
        compression_level=min(max(level, 0.0), 1.0),
    )
    return ()


def _write_with_libsndfile(
    audio: AudioSource, stream: BinaryIO, blocks: Iterator[NDArray[Any]], **options: str | float
) -> None:
    import soundfile

    sink = _LibsndfileSink(stream)
    with soundfile.SoundFile(sink, "w", audio.sample_rate, audio.channels, **options) as file:
        for block in blocks:
            file.write(block)
            if sink.error is not None:
                break
    if sink.error is not None:
        raise sink.error
    if options["format"] == "OGG":
        set_serial(stream, _SERIAL)  # libsndfile draws it at random


class _LibsndfileSink:
    """The file that libsndfile writes to. An exception would be lost in libsndfile, so the first one is kept here.

    Later writes are dropped, so that libsndfile ends as usual.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.error: DiskFullError | None = None
        self.seek, self.tell = file.seek, file.tell
        self._file = file

    def write(self, data: bytes) -> int:
        if self.error is None:
            try:
                self._file.write(data)
            except DiskFullError as error:
                self.error = error
        return len(data)


def _write_mp3(audio: AudioSource, encoding: Encoding, stream: BinaryIO) -> tuple[str, ...]:
    """Writes with pedalboard's LAME: the fastest encoder that writes the tag from which players know the exact length
    (lameenc writes none, libsndfile is 3 times slower). Below 64 kbit/s the tag does not fit into a frame."""
    from pedalboard.io import AudioFile

    kbits = encoding.kbits_at(audio.sample_rate)
    step = 1 if audio.num_samples == 2 else _MP3_BLOCK_FRAMES  # a square block does not show which side is the channels
    with AudioFile(stream, "w", audio.sample_rate, audio.channels, quality=kbits, format="mp3") as file:
        for start in range(0, audio.num_samples, step):
            file.write(audio.read(start, step))
    if kbits == encoding.kbits:
        return ()
    return (f"mp3 at {audio.sample_rate} Hz supports at most {kbits} kbit/s; the file has {kbits} kbit/s.",)


_WRITERS: dict[str, Callable[[AudioSource, Encoding, BinaryIO], tuple[str, ...]]] = {
    "wav": _write_wav,
    "flac": _write_flac,
    "mp3": _write_mp3,
    "ogg": _write_ogg,
    "opus": _write_opus,
}
