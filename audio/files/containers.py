"""Whether a container is whole: what its own headers promise against what the file holds. Decodes no sound.

Decoders mend silently what is cut off (libsndfile plays a truncated wav to its end), so truncation is found here.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, NoReturn

from audio.files import mpeg, ogg
from audio.files.sniff import SNIFF_BYTES
from errors import AudioError, ErrorCode

_MOST_CHUNKS: Final = 10_000
_MOST_HEAD_BYTES: Final = 1 << 20
_MOST_PADDING_BYTES: Final = 1 << 20
_MOST_MISSING_BYTES: Final = 1  # writers that forget the pad byte of an odd chunk but count it

# What writers put where they cannot seek back: ffmpeg, GStreamer and browsers 0xffffffff, arecord 0x80000000, SoX and
# MPlayer 0x7ffff000 and 0x7fffffff.
_UNKNOWN_SIZES: Final = frozenset({0xFFFFFFFF, 0x80000000, 0x7FFFFFFF, 0x7FFFF000, 0x7FFFFFFF - 36, 0xFFFFFFFF - 36})


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a look at the container gave.

    Args:
        length_known: the number of samples in the header is meant, not an estimate or a place-holder.
        head: what decoders are to be given in place of the file's first `skip` bytes.
        skip: see `head`; 0 and no head where the file is good as it is.
        end: where, with a `head`, the file ends for decoders; None: where it does.
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
class _Dialect:
    """How a family of chunked files writes a chunk's head."""

    start: int
    head: struct.Struct
    align: int
    counts_head: bool = False


_RIFF: Final = _Dialect(12, struct.Struct("<4sI"), 2)
_IFF: Final = _Dialect(12, struct.Struct(">4sI"), 2)
_W64: Final = _Dialect(40, struct.Struct("<16sQ"), 8, counts_head=True)


def inspect(stream: BinaryIO, container: str, size: int) -> Inspection:
    """Looks at a whole file of `size` bytes that `sniff` called `container`.

    Raises:
        AudioError: `corrupt_audio`, where the file ends before its own header says, or an Ogg page is damaged.
    """
    look = _INSPECTORS.get(container)
    return look(stream, size) if look else Inspection()


def corrupt(reason: str) -> NoReturn:
    """Refuses a file as broken; `reason` completes "The audio file is damaged or cut off: ..."."""
    raise AudioError(
        f"The audio file is damaged or cut off: {reason}. Check that it plays to its end, and send it again whole.",
        code=ErrorCode.CORRUPT_AUDIO,
    )


def _wav(stream: BinaryIO, size: int) -> Inspection:
    stream.seek(0)
    riff_size = int.from_bytes(stream.read(12)[4:8], "little")
    long_size = 0
    for chunk in _chunks(stream, size, _RIFF):
        if chunk.name == b"ds64":
            stream.seek(chunk.offset + 8)
            long_size = int.from_bytes(stream.read(8), "little")
        if chunk.name == b"data":
            if chunk.size == 0 and chunk.offset < size and riff_size + 8 < size and chunk.offset <= _MOST_HEAD_BYTES:
                return _wav_of_open_length(stream, chunk)
            _demand_wav(chunk, long_size, size - chunk.offset)
            return Inspection()
    corrupt("it has no sound data")


def _wav_of_open_length(stream: BinaryIO, chunk: _Chunk) -> Inspection:
    """Writers that cannot seek back leave the sizes 0; libsndfile takes the second of them at its word."""
    stream.seek(0)
    return Inspection(head=stream.read(chunk.offset - 4) + b"\xff\xff\xff\xff", skip=chunk.offset)


def _demand_wav(chunk: _Chunk, long_size: int, held: int) -> None:
    if chunk.size == 0xFFFFFFFF and 0 < long_size < 1 << 63:
        _demand(long_size, held)
    elif chunk.size not in _UNKNOWN_SIZES:
        _demand(chunk.size, held)


def _w64(stream: BinaryIO, size: int) -> Inspection:
    return _sound_chunk(stream, size, dialect=_W64, prefix=b"data")


def _aiff(stream: BinaryIO, size: int) -> Inspection:
    return _sound_chunk(stream, size, dialect=_IFF, prefix=b"SSND")


def _sound_chunk(stream: BinaryIO, size: int, *, dialect: _Dialect, prefix: bytes) -> Inspection:
    for chunk in _chunks(stream, size, dialect):
        if chunk.name.startswith(prefix):
            if chunk.size not in _UNKNOWN_SIZES:
                _demand(chunk.size, size - chunk.offset)
            return Inspection()
    corrupt("it has no sound data")


def _demand(promised: int, held: int) -> None:
    if promised > held + _MOST_MISSING_BYTES:
        corrupt(f"its header promises {promised} bytes of sound, the file holds {max(held, 0)}")


def _chunks(stream: BinaryIO, size: int, dialect: _Dialect) -> Iterator[_Chunk]:
    offset = dialect.start
    for _ in range(_MOST_CHUNKS):
        stream.seek(offset)
        head = stream.read(dialect.head.size)
        if len(head) < dialect.head.size:
            return
        name, length = dialect.head.unpack(head)
        length = max(length - dialect.head.size, 0) if dialect.counts_head else length
        offset += dialect.head.size
        yield _Chunk(name, offset, length)
        offset += length + -length % dialect.align
        if offset >= size:
            return


def _ogg(stream: BinaryIO, size: int) -> Inspection:
    ended = True
    try:
        for page in ogg.pages(stream):
            if not page.checksum_holds:
                corrupt("a page's checksum is wrong")
            ended = page.ends_stream
    except ogg.OggError as error:
        corrupt(str(error))
    unended = ("The audio ends without an end mark, as recorded streams do; it may have been cut short.",)
    return Inspection(warnings=() if ended else unended)


def _mp3(stream: BinaryIO, size: int) -> Inspection:
    """MP3 frames say nothing of the whole; the Xing/Info tag in the first one does, where an encoder wrote it."""
    stream.seek(0)
    start = mpeg.id3_length(stream.read(10))
    stream.seek(start)
    frame = stream.read(SNIFF_BYTES)
    length = mpeg.frame_length(frame)
    if length == 0:
        return Inspection(length_known=False)
    tag = mpeg.xing_tag(frame)
    if tag is None or tag.frames is None:
        head = mpeg.open_ended_frame(frame[:4], size)
        return Inspection(length_known=False, head=head, skip=start, end=_before_padding(stream, size))
    if tag.size is None:
        return Inspection()
    if tag.size > size - start + length:
        corrupt(f"its header promises {tag.size} bytes of sound, the file holds {max(size - start, 0)}")
    stream.seek(start + tag.size)
    if mpeg.frame_length(stream.read(4)) == 0:
        return Inspection()
    joined = ("The audio is several mp3 files in one; they were read one after the other.",)
    head = mpeg.open_ended_frame(frame[:4], size)
    return Inspection(length_known=False, head=head, skip=start + length, warnings=joined)


def _before_padding(stream: BinaryIO, size: int) -> int:
    """Where the zeros begin that some writers leave at the end: mpg123 takes 1024 of them for damage."""
    start = max(size - _MOST_PADDING_BYTES, 0)
    stream.seek(start)
    return start + len(stream.read().rstrip(b"\0"))


_INSPECTORS: Final[dict[str, Callable[[BinaryIO, int], Inspection]]] = {
    "wav": _wav,
    "w64": _w64,
    "aiff": _aiff,
    "ogg": _ogg,
    "opus": _ogg,
    "mp3": _mp3,
}


class Spliced(io.RawIOBase):
    """A file with its first `skip` bytes replaced by `head`, and ending at `end`, without a copy of it."""

    def __init__(self, stream: BinaryIO, inspection: Inspection) -> None:
        end = stream.seek(0, io.SEEK_END) if inspection.end is None else inspection.end
        self._stream, self._head = stream, inspection.head
        self._shift = inspection.skip - len(inspection.head)
        self._length = end - self._shift
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length}[whence], 0)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = self._head[self._at : self._at + len(view)]
        if not data:
            self._stream.seek(self._shift + self._at)
            data = self._stream.read(max(min(len(view), self._length - self._at), 0))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)
