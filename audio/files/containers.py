"""Checks whether a container is complete: the sizes in its headers against the bytes in the file.

Decoders accept truncated files silently (libsndfile plays a truncated wav to its end), so truncation is found here.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, NoReturn

from audio.files import mpeg, ogg
from audio.files.sniff import SNIFF_BYTES
from audio.types import Check
from errors import AudioError, ErrorCode

_MAX_CHUNKS = 10_000
_MAX_HEAD_BYTES = 1 << 20
_MAX_PADDING_BYTES = 1 << 20
_MAX_MISSING_BYTES = 1  # some writers count the pad byte of an odd chunk but do not write it

# Sizes written by programs that cannot seek back: ffmpeg, GStreamer and browsers 0xffffffff, arecord 0x80000000, SoX
# and MPlayer 0x7ffff000 and 0x7fffffff.
_UNKNOWN_SIZES = frozenset({0xFFFFFFFF, 0x80000000, 0x7FFFFFFF, 0x7FFFF000, 0x7FFFFFFF - 36, 0xFFFFFFFF - 36})


@dataclass(frozen=True, slots=True)
class Inspection:
    """Result of `inspect`.

    Args:
        length_known: whether the number of samples in the header is exact, not an estimate or a placeholder.
        head: what decoders read instead of the file's first `skip` bytes; empty if the file needs no patch.
        skip: see `head`.
        end: position at which the file ends for decoders if there is a `head`; None: its own end.
        warnings: sentences for the caller.
    """

    length_known: bool = True
    head: bytes = b""
    skip: int = 0
    end: int | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Chunk:
    name: bytes
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class _ChunkLayout:
    """How a family of chunked files writes the header of a chunk."""

    start: int
    head: struct.Struct
    align: int
    counts_head: bool = False


_RIFF = _ChunkLayout(12, struct.Struct("<4sI"), 2)
_IFF = _ChunkLayout(12, struct.Struct(">4sI"), 2)
_W64 = _ChunkLayout(40, struct.Struct("<16sQ"), 8, counts_head=True)


def inspect(stream: BinaryIO, container: str, size: int, check: Check) -> Inspection:
    """Inspects a whole file of `size` bytes; `container` is what `sniff` returned for it.

    Args:
        check: called before each page of an Ogg file, of which every byte is read; what it raises ends the inspection.

    Raises:
        AudioError: `corrupt_audio` if the file ends before its own header says, or an Ogg page is damaged.
    """
    if container in _OGG:
        return _inspect_ogg(stream, check)
    inspector = _INSPECTORS.get(container)
    return inspector(stream, size) if inspector else Inspection()


def raise_corrupt(reason: str) -> NoReturn:
    """Raises `AudioError` (`corrupt_audio`); `reason` completes "The audio file is damaged or cut off: ..."."""
    raise AudioError(
        f"The audio file is damaged or cut off: {reason}. Check that it plays to its end, and send the complete file.",
        code=ErrorCode.CORRUPT_AUDIO,
    )


def _inspect_wav(stream: BinaryIO, size: int) -> Inspection:
    stream.seek(0)
    riff_size = int.from_bytes(stream.read(12)[4:8], "little")
    long_size = 0
    for chunk in _chunks(stream, size, _RIFF):
        if chunk.name == b"ds64":
            stream.seek(chunk.offset + 8)
            long_size = int.from_bytes(stream.read(8), "little")
        if chunk.name == b"data":
            if chunk.size == 0 and chunk.offset < size and riff_size + 8 < size and chunk.offset <= _MAX_HEAD_BYTES:
                return _patch_wav_without_sizes(stream, chunk)
            if chunk.size == 0xFFFFFFFF and 0 < long_size < 1 << 63:
                _require_bytes(long_size, size - chunk.offset)
            elif chunk.size not in _UNKNOWN_SIZES:
                _require_bytes(chunk.size, size - chunk.offset)
            return Inspection()
    raise_corrupt("it has no audio data")


def _patch_wav_without_sizes(stream: BinaryIO, chunk: _Chunk) -> Inspection:
    """Writers that cannot seek back leave the sizes 0; libsndfile would believe the second of them."""
    stream.seek(0)
    return Inspection(head=stream.read(chunk.offset - 4) + b"\xff\xff\xff\xff", skip=chunk.offset)


def _inspect_w64(stream: BinaryIO, size: int) -> Inspection:
    return _inspect_chunks(stream, size, layout=_W64, prefix=b"data")


def _inspect_aiff(stream: BinaryIO, size: int) -> Inspection:
    return _inspect_chunks(stream, size, layout=_IFF, prefix=b"SSND")


def _inspect_chunks(stream: BinaryIO, size: int, *, layout: _ChunkLayout, prefix: bytes) -> Inspection:
    for chunk in _chunks(stream, size, layout):
        if chunk.name.startswith(prefix):
            if chunk.size not in _UNKNOWN_SIZES:
                _require_bytes(chunk.size, size - chunk.offset)
            return Inspection()
    raise_corrupt("it has no audio data")


def _require_bytes(stated: int, available: int) -> None:
    if stated > available + _MAX_MISSING_BYTES:
        raise_corrupt(f"its header states {stated} bytes of audio, but the file contains {max(available, 0)}")


def _chunks(stream: BinaryIO, size: int, layout: _ChunkLayout) -> Iterator[_Chunk]:
    offset = layout.start
    for _ in range(_MAX_CHUNKS):
        stream.seek(offset)
        head = stream.read(layout.head.size)
        if len(head) < layout.head.size:
            return
        name, length = layout.head.unpack(head)
        length = max(length - layout.head.size, 0) if layout.counts_head else length
        offset += layout.head.size
        yield _Chunk(name, offset, length)
        offset += length + -length % layout.align
        if offset >= size:
            return


def _inspect_ogg(stream: BinaryIO, check: Check) -> Inspection:
    ended = True
    try:
        for page in ogg.iter_pages(stream):
            check()
            if not page.is_intact:
                raise_corrupt("the checksum of an Ogg page is wrong")
            ended = page.ends_stream
    except ogg.OggError as error:
        raise_corrupt(str(error))
    no_end = ("The audio has no end mark, as is usual for recorded streams; it may be cut short.",)
    return Inspection(warnings=() if ended else no_end)


def _inspect_mp3(stream: BinaryIO, size: int) -> Inspection:
    """MP3 frames do not state the total length; the Xing/Info tag in the first one does, if the encoder wrote it."""
    stream.seek(0)
    start = mpeg.id3_length(stream.read(10))
    stream.seek(start)
    frame = stream.read(SNIFF_BYTES)
    length = mpeg.frame_length(frame)
    if length == 0:
        return Inspection(length_known=False)
    tag = mpeg.xing_tag(frame)
    if tag is None or tag.frames is None:
        head = mpeg.make_open_ended_frame(frame[:4], size)
        return Inspection(length_known=False, head=head, skip=start, end=_find_padding(stream, size))
    if tag.size is None:
        return Inspection()
    if tag.size > size - start + length:
        raise_corrupt(f"its header states {tag.size} bytes of audio, but the file contains {max(size - start, 0)}")
    stream.seek(start + tag.size)
    if mpeg.frame_length(stream.read(4)) == 0:
        return Inspection()
    joined = ("The audio is several mp3 files in one; they were decoded one after the other.",)
    head = mpeg.make_open_ended_frame(frame[:4], size)
    return Inspection(length_known=False, head=head, skip=start + length, warnings=joined)


def _find_padding(stream: BinaryIO, size: int) -> int:
    """Position of the zeros that some writers append: mpg123 treats 1024 of them as damage."""
    start = max(size - _MAX_PADDING_BYTES, 0)
    stream.seek(start)
    return start + len(stream.read().rstrip(b"\0"))


_OGG = frozenset({"ogg", "opus"})
_INSPECTORS: dict[str, Callable[[BinaryIO, int], Inspection]] = {
    "wav": _inspect_wav,
    "w64": _inspect_w64,
    "aiff": _inspect_aiff,
    "mp3": _inspect_mp3,
}


class PatchedStream(io.RawIOBase):
    """A file whose first `skip` bytes are replaced by `head` and which ends at `end`, without copying it."""

    def __init__(self, stream: BinaryIO, inspection: Inspection) -> None:
        end = stream.seek(0, io.SEEK_END) if inspection.end is None else inspection.end
        self._stream, self._head = stream, inspection.head
        self._shift = inspection.skip - len(inspection.head)
        self._length = end - self._shift
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = max(
            offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._length}[whence], 0
        )
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = self._head[self._position : self._position + len(view)]
        if not data:
            self._stream.seek(self._shift + self._position)
            data = self._stream.read(max(min(len(view), self._length - self._position), 0))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)
