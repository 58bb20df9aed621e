"""Decodes with the ffmpeg program what libsndfile cannot read.

Not through pydub: that decodes the whole file into a temporary one and into integer samples, without a limit on either,
and lets ffmpeg choose the demuxer (a playlist could then name other files and hosts). Here ffmpeg may use only the
demuxer of the sniffed container, the `file` protocol and audio decoders, and returns float samples through a pipe.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from audio.files.buffer import DecoderStream
from audio.files.containers import raise_corrupt
from errors import AudioError, ErrorCode

_DEMUXERS = {
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

_BLOCK_FRAMES = 65536
_MAX_ALLOCATION_BYTES = 128 * 1024 * 1024
_CPU_SECONDS = 900
_AU_HEADER = struct.Struct(">4s5I")
_TRUNCATION_MESSAGES = (b"ended prematurely", b"partial file", b"Truncating packet", b"corrupt input packet")


@contextmanager
def open_ffmpeg(file: IO[bytes], container: str, program: str = "ffmpeg") -> Iterator[DecoderStream]:
    """Runs `program` on the file; the process is killed on leaving.

    Raises:
        AudioError: `decoder_missing` if the program is not installed, `corrupt_audio` if it finds no audio.
    """
    executable = shutil.which(program)
    if executable is None:
        raise AudioError(
            f"Decoding {container} needs the ffmpeg program, which is not installed. "
            "Send wav, flac, mp3, ogg, opus or aiff instead, or install ffmpeg.",
            code=ErrorCode.DECODER_MISSING,
        )
    with ExitStack() as stack:
        log = stack.enter_context(tempfile.TemporaryFile())
        # ffmpeg must be able to seek (m4a may have its index at the end); an unnamed file is never left behind.
        seekable = stack.enter_context(tempfile.TemporaryFile())
        file.seek(0)
        shutil.copyfileobj(file, seekable, 1 << 20)
        seekable.seek(0)
        process = stack.enter_context(
            subprocess.Popen(
                [executable, *_build_arguments(container)],
                stdin=seekable,
                stdout=subprocess.PIPE,
                stderr=log,
                env={"LC_ALL": "C"},
            )
        )
        stack.callback(process.kill)
        output = cast(IO[bytes], process.stdout)
        header = output.read(_AU_HEADER.size)
        if len(header) < _AU_HEADER.size:
            raise_corrupt(f"no audio can be decoded from it as {container}")
        magic, offset, _, encoding, sample_rate, channels = _AU_HEADER.unpack(header)
        assert (magic, encoding) == (b".snd", 6), "ffmpeg writes 32-bit float AU"
        output.read(offset - _AU_HEADER.size)
        yield DecoderStream(sample_rate, channels, _read_blocks(process, log, channels))


def _build_arguments(container: str) -> list[str]:
    audio_codecs = (
        "aac,alac,mp3float,mp3,opus,libopus,vorbis,flac,ac3,eac3,libspeex,speex,pcm_s16le,pcm_s24le,pcm_s32le"
    )
    return [
        *("-nostdin", "-hide_banner", "-loglevel", "error", "-xerror", "-threads", "1"),
        *("-max_alloc", str(_MAX_ALLOCATION_BYTES), "-timelimit", str(_CPU_SECONDS)),
        *("-protocol_whitelist", "file", "-codec_whitelist", f"{audio_codecs},pcm_f32le,pcm_s16be,pcm_s24be,pcm_u8"),
        *("-f", _DEMUXERS[container], "-i", "/dev/stdin"),
        *("-map", "0:a:0", "-vn", "-sn", "-dn", "-c:a", "pcm_f32be", "-f", "au", "pipe:1"),
    ]


def _read_blocks(process: subprocess.Popen[bytes], log: IO[bytes], channels: int) -> Iterator[NDArray[np.float32]]:
    output = cast(IO[bytes], process.stdout)
    size = _BLOCK_FRAMES * channels * 4
    while len(data := output.read(size)) >= 4 * channels:
        yield (
            np.frombuffer(data, ">f4", len(data) // (4 * channels) * channels).reshape(-1, channels).astype(np.float32)
        )
    log.seek(0)
    messages = log.read(65536)
    if process.wait() != 0 or any(message in messages for message in _TRUNCATION_MESSAGES):
        raise_corrupt("its audio data ends early or cannot be decoded")
