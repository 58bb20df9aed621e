"""Sound blocks out of the ffmpeg program, for what libsndfile cannot read. Knows no limits but those that bound ffmpeg.

pydub would serve here too, but it decodes a whole file into a temporary one and into integer samples, with no bound on
either and with ffmpeg guessing the demuxer (a playlist may then name other files and hosts). So ffmpeg is called
directly: the demuxer we sniffed and no other, no protocol but `file`, audio decoders only, float samples over a pipe.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import IO, Final, cast

import numpy as np
from numpy.typing import NDArray

from audio.files.containers import corrupt
from audio.files.sample_buffer import Stream
from errors import AudioError, ErrorCode

DEMUXERS: Final = {
    "m4a": "mov",
    "aac": "aac",
    "webm": "matroska",
    "ogg": "ogg",
    "opus": "ogg",
    "wav": "wav",
    "aiff": "aiff",
    "w64": "w64",
    "flac": "flac",
    "mp3": "mp3",
}

_BLOCK_FRAMES: Final = 65536
_MOST_ALLOCATED_AT_ONCE: Final = 128 * 1024 * 1024
_CPU_SECONDS: Final = 900
_AU_HEADER: Final = struct.Struct(">4s5I")
_CUT_OFF_WORDS: Final = (b"ended prematurely", b"partial file", b"Truncating packet", b"corrupt input packet")


@contextmanager
def open_ffmpeg(file: IO[bytes], container: str, program: str = "ffmpeg") -> Iterator[Stream]:
    """Runs `program` on the file; it is ended on leaving, however far it came.

    Raises:
        AudioError: `decoder_missing` where there is no such program, `corrupt_audio` where it reads no sound.
    """
    found = shutil.which(program)
    if found is None:
        raise AudioError(
            f"Reading {container} needs the ffmpeg program, which is not installed here. "
            "Send wav, flac, mp3, ogg, opus or aiff instead, or install ffmpeg.",
            code=ErrorCode.DECODER_MISSING,
        )
    with ExitStack() as stack:
        complaints = stack.enter_context(tempfile.TemporaryFile())
        # ffmpeg must be able to seek (m4a may keep its index at the end); nameless, so nothing is ever left behind.
        seekable = stack.enter_context(tempfile.TemporaryFile())
        file.seek(0)
        shutil.copyfileobj(file, seekable, 1 << 20)
        seekable.seek(0)
        process = stack.enter_context(
            subprocess.Popen(
                [found, *_arguments(container)],
                stdin=seekable,
                stdout=subprocess.PIPE,
                stderr=complaints,
                env={"LC_ALL": "C"},
            )
        )
        stack.callback(process.kill)
        output = cast(IO[bytes], process.stdout)
        header = output.read(_AU_HEADER.size)
        if len(header) < _AU_HEADER.size:
            corrupt(f"no sound can be read from it as {container}")
        magic, offset, _, encoding, sample_rate, channels = _AU_HEADER.unpack(header)
        assert (magic, encoding) == (b".snd", 6), "ffmpeg was asked for 32-bit float AU"
        output.read(offset - _AU_HEADER.size)
        yield Stream(sample_rate, channels, _blocks(process, complaints, channels))


def _arguments(container: str) -> list[str]:
    audio_codecs = (
        "aac,alac,mp3float,mp3,opus,libopus,vorbis,flac,ac3,eac3,libspeex,speex,pcm_s16le,pcm_s24le,pcm_s32le"
    )
    return [
        *("-nostdin", "-hide_banner", "-loglevel", "error", "-xerror", "-threads", "1"),
        *("-max_alloc", str(_MOST_ALLOCATED_AT_ONCE), "-timelimit", str(_CPU_SECONDS)),
        *("-protocol_whitelist", "file", "-codec_whitelist", f"{audio_codecs},pcm_f32le,pcm_s16be,pcm_s24be,pcm_u8"),
        *("-f", DEMUXERS[container], "-i", "/dev/stdin"),
        *("-map", "0:a:0", "-vn", "-sn", "-dn", "-c:a", "pcm_f32be", "-f", "au", "pipe:1"),
    ]


def _blocks(process: subprocess.Popen[bytes], complaints: IO[bytes], channels: int) -> Iterator[NDArray[np.float32]]:
    output = cast(IO[bytes], process.stdout)
    size = _BLOCK_FRAMES * channels * 4
    while len(data := output.read(size)) >= 4 * channels:
        yield (
            np.frombuffer(data, ">f4", len(data) // (4 * channels) * channels).reshape(-1, channels).astype(np.float32)
        )
    complaints.seek(0)
    said = complaints.read(65536)
    if process.wait() != 0 or any(word in said for word in _CUT_OFF_WORDS):
        corrupt("its sound breaks off or cannot be decoded")
