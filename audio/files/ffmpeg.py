"""Decodes with the ffmpeg program what libsndfile cannot read.

Not through pydub: that decodes the whole file into a temporary one and into integer samples, without a limit on either,
and lets ffmpeg choose the demuxer (a playlist could then name other files and hosts). Here ffmpeg may use only the
demuxer of the sniffed container, the `file` protocol and audio decoders, and returns float samples through a pipe.
"""

from __future__ import annotations

import os
import resource
import selectors
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from audio.files.buffer import DecoderStream
from audio.files.containers import raise_corrupt
from audio.temporary import SpooledFile
from audio.types import Check
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
_COPY_BYTES = 1 << 20
_POLL_S = 0.1
_MAX_ALLOCATION_BYTES = 128 * 1024 * 1024
_MAX_MESSAGE_BYTES = 65536
_AU_HEADER = struct.Struct(">4s5I")
_TRUNCATION_MESSAGES = (b"ended prematurely", b"partial file", b"Truncating packet", b"corrupt input packet")


@dataclass(frozen=True, slots=True)
class ProcessLimits:
    """What the ffmpeg process may use, enforced by the kernel.

    Args:
        memory_bytes: of address space. Eight channels of aac take 290 MB, mostly libraries; 55 MB are resident.
        cpu_seconds: of processor time.
    """

    memory_bytes: int = 1 << 30
    cpu_seconds: int = 900

    def apply(self, process: subprocess.Popen[bytes]) -> None:
        """Limits a process that has just been started; limits that are lower already stay. Only Linux can do that."""
        if sys.platform != "linux":
            return
        with suppress(ProcessLookupError):  # it has ended already
            for kind, limit in ((resource.RLIMIT_AS, self.memory_bytes), (resource.RLIMIT_CPU, self.cpu_seconds)):
                _, hard = resource.prlimit(process.pid, kind)
                ceiling = limit + 1 if hard == resource.RLIM_INFINITY else hard
                resource.prlimit(process.pid, kind, (min(limit, ceiling), min(limit + 1, ceiling)))


@contextmanager
def open_ffmpeg(
    file: IO[bytes],
    container: str,
    program: str = "ffmpeg",
    *,
    check: Check,
    limits: ProcessLimits = ProcessLimits(),
) -> Iterator[DecoderStream]:
    """Runs `program` on the file; the process is killed on leaving.

    Args:
        check: called at least ten times a second while ffmpeg works; what it raises ends the decoding.

    Raises:
        AudioError: `decoder_missing` if the program is not installed, `corrupt_audio` if it finds no audio,
            `invalid_audio` if it exceeds the limit of processor time.
        DiskFullError: the file cannot be copied for it.
    """
    executable = shutil.which(program)
    if executable is None:
        raise AudioError(
            f"Decoding {container} needs the ffmpeg program, which is not installed. "
            "Send wav, flac, mp3, ogg, opus or aiff instead, or install ffmpeg.",
            code=ErrorCode.DECODER_MISSING,
        )
    with ExitStack() as stack:
        # ffmpeg must be able to seek (m4a may have its index at the end); an unnamed file is never left behind.
        seekable = stack.enter_context(SpooledFile(_COPY_BYTES))
        file.seek(0)
        while block := file.read(_COPY_BYTES):
            check()
            seekable.write(block)
        seekable.rollover()
        seekable.seek(0)
        process = stack.enter_context(
            subprocess.Popen(
                [executable, *_build_arguments(container)],
                bufsize=0,
                stdin=seekable.fileno(),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={"LC_ALL": "C"},
            )
        )
        stack.callback(process.kill)
        limits.apply(process)
        output = stack.enter_context(_ProcessOutput(process, check))
        header = output.read(_AU_HEADER.size)
        if len(header) < _AU_HEADER.size:
            output.wait(limits)
            raise_corrupt(f"no audio can be decoded from it as {container}")
        magic, offset, _, encoding, sample_rate, channels = _AU_HEADER.unpack(header)
        assert (magic, encoding) == (b".snd", 6), "ffmpeg writes 32-bit float AU"
        output.read(offset - _AU_HEADER.size)
        yield DecoderStream(sample_rate, channels, _read_blocks(output, channels, limits))


def _build_arguments(container: str) -> list[str]:
    audio_codecs = (
        "aac,alac,mp3float,mp3,opus,libopus,vorbis,flac,ac3,eac3,libspeex,speex,pcm_s16le,pcm_s24le,pcm_s32le"
    )
    return [
        *("-nostdin", "-hide_banner", "-loglevel", "error", "-xerror", "-threads", "1"),
        *("-max_alloc", str(_MAX_ALLOCATION_BYTES)),
        *("-protocol_whitelist", "file", "-codec_whitelist", f"{audio_codecs},pcm_f32le,pcm_s16be,pcm_s24be,pcm_u8"),
        *("-f", _DEMUXERS[container], "-i", "/dev/stdin"),
        *("-map", "0:a:0", "-vn", "-sn", "-dn", "-c:a", "pcm_f32be", "-f", "au", "pipe:1"),
    ]


def _read_blocks(output: _ProcessOutput, channels: int, limits: ProcessLimits) -> Iterator[NDArray[np.float32]]:
    while len(data := output.read(_BLOCK_FRAMES * channels * 4)) >= 4 * channels:
        yield (
            np.frombuffer(data, ">f4", len(data) // (4 * channels) * channels).reshape(-1, channels).astype(np.float32)
        )
    succeeded = output.wait(limits)
    if not succeeded or any(message in output.messages for message in _TRUNCATION_MESSAGES):
        raise_corrupt("its audio data ends early or cannot be decoded")


class _ProcessOutput:
    """What a process writes, read without waiting longer than a moment between two calls of `check`."""

    def __init__(self, process: subprocess.Popen[bytes], check: Check) -> None:
        self.messages = bytearray()
        self._process, self._check = process, check
        self._stdout, self._stderr = (cast(IO[bytes], stream).fileno() for stream in (process.stdout, process.stderr))
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._stdout, selectors.EVENT_READ)
        self._selector.register(self._stderr, selectors.EVENT_READ)

    def __enter__(self) -> _ProcessOutput:
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()

    def read(self, size: int) -> bytes:
        """The next `size` bytes of standard output; fewer at its end."""
        data = bytearray()
        while len(data) < size and self._stdout in self._selector.get_map():
            data += self._read_pipes(size - len(data))
        return bytes(data)

    def wait(self, limits: ProcessLimits) -> bool:
        """Whether the process ends well. Raises `AudioError` if it has used up its processor time."""
        while self._selector.get_map():
            self._read_pipes(_MAX_MESSAGE_BYTES)
        while True:
            self._check()
            with suppress(subprocess.TimeoutExpired):
                status = self._process.wait(_POLL_S)
                break
        if status == -signal.SIGXCPU:
            raise AudioError(
                f"The audio takes more than {limits.cpu_seconds} s of processor time to decode. Send it as wav "
                "or flac.",
                code=ErrorCode.INVALID_AUDIO,
            )
        return status == 0

    def _read_pipes(self, size: int) -> bytes:
        """Waits a moment for data; returns at most `size` bytes of standard output, and keeps the messages."""
        self._check()
        output = b""
        for key, _ in self._selector.select(_POLL_S):
            data = os.read(key.fd, size)
            if not data:
                self._selector.unregister(key.fd)
            elif key.fd == self._stdout:
                output = data
            else:
                self.messages += data[: _MAX_MESSAGE_BYTES - len(self.messages)]
        return output
