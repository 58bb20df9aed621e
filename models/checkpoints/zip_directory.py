"""The directory of a zip, read strictly: entries that overlap, repeat or lie about themselves are refused.

Our own parser, because `zipfile` makes an object of every entry before it can be asked how many there are.

Format: PKWARE's APPNOTE.TXT 6.3.9, sections 4.3 and 4.5.3.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

STORED: Final = 0
DEFLATED: Final = 8
_END: Final = struct.Struct("<4s4H2LH")
_LOCATOR: Final = struct.Struct("<4sLQL")
_END64: Final = struct.Struct("<4sQ2H2L4Q")
_ENTRY: Final = struct.Struct("<4s6H3L5H2L")
_LOCAL: Final = struct.Struct("<4s5H3L2H")
_MAX_COMMENT: Final = 0xFFFF
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF  # "see the zip64 record"
_MAX_NAME_BYTES: Final = 512
_CHUNK_BYTES: Final = 1 << 20


class ArchiveError(ValueError):
    """The file is no zip that we read; the message is a clause that says why."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file in a zip.

    Args:
        method: `STORED`, `DEFLATED`, or another that we do not read.
        size: bytes, as stated; `packed_size` of them in the zip.
        header: where its local header begins; `limit`: where what follows it begins.
        mode: Unix file type and permissions; 0 where the zip was made elsewhere.
    """

    name: str
    method: int
    size: int
    packed_size: int
    crc: int
    header: int
    limit: int
    mode: int
    encrypted: bool


@dataclass(frozen=True, slots=True)
class _Directory:
    offset: int
    size: int
    entries: int


def read_directory(file: BinaryIO, *, max_entries: int) -> list[Entry]:
    """Every entry of the zip `file`, in the order of their places in it.

    Raises:
        ArchiveError: no zip, cut short, too many entries, or entries that overlap or have the same name.
    """
    length = file.seek(0, os.SEEK_END)
    place = _find_directory(file, length)
    if place.entries > max_entries or place.size > max_entries * (_ENTRY.size + 2 * _MAX_NAME_BYTES):
        raise ArchiveError(f"it holds more than {max_entries} files")
    if place.offset + place.size > length:
        raise ArchiveError("its directory is damaged")
    file.seek(place.offset)
    found = list(_entries(file.read(place.size), place.entries))
    if len({name for name, *_ in found}) != len(found):
        raise ArchiveError("it holds two files of the same name")
    return _placed(found, place.offset)


def stored_range(file: BinaryIO, entry: Entry) -> int:
    """Where the entry's bytes begin, after its own header was compared with the directory.

    Raises:
        ArchiveError: the two disagree, or the bytes would reach into what follows.
    """
    file.seek(entry.header)
    head = file.read(_LOCAL.size)
    if len(head) < _LOCAL.size:
        raise ArchiveError("it is cut short")
    signature, _, _, method, _, _, _, _, _, name_size, extra_size = _LOCAL.unpack(head)
    start: int = entry.header + _LOCAL.size + name_size + extra_size
    name = file.read(name_size)
    if signature != b"PK\x03\x04" or method != entry.method or _text(name) != entry.name:
        raise ArchiveError("its directory contradicts its files")
    if start + entry.packed_size > entry.limit:
        raise ArchiveError("files in it overlap")
    return start


def unpacked(file: BinaryIO, entry: Entry) -> Iterator[bytes]:
    """The entry's content by pieces of at most 1 MiB; never more than it states.

    Raises:
        ArchiveError: its data are damaged, or not of the size that it states.
    """
    left, produced, crc = entry.packed_size, 0, 0
    inflater = zlib.decompressobj(-zlib.MAX_WBITS) if entry.method == DEFLATED else None
    file.seek(stored_range(file, entry))
    while left:
        packed = file.read(min(left, _CHUNK_BYTES))
        if not packed:
            raise ArchiveError("it is cut short")
        left -= len(packed)
        for piece in _inflated(inflater, packed) if inflater else [packed]:
            produced += len(piece)
            crc = zlib.crc32(piece, crc)
            if produced > entry.size:
                raise ArchiveError("a file in it is larger than it states")
            yield piece
    if produced != entry.size or crc != entry.crc or (inflater and not inflater.eof):
        raise ArchiveError("a file in it is damaged")


def _inflated(inflater: zlib._Decompress, packed: bytes) -> Iterator[bytes]:
    try:
        while packed and not inflater.eof:
            yield inflater.decompress(packed, _CHUNK_BYTES)
            packed = inflater.unconsumed_tail
    except zlib.error as error:
        raise ArchiveError("a file in it is damaged") from error


def _find_directory(file: BinaryIO, length: int) -> _Directory:
    start = max(0, length - _END.size - _MAX_COMMENT)
    file.seek(start)
    tail = file.read(length - start)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _END.size:
        raise ArchiveError("it is no zip, or is cut short")
    _, disk, first_disk, here, entries, size, offset, comment = _END.unpack_from(tail, at)
    if disk or first_disk or here != entries or at + _END.size + comment != len(tail):
        raise ArchiveError("its directory is damaged")
    place = _Directory(offset, size, entries)
    wide = _read_wide(file, start + at)
    if wide is None:
        return place
    pairs = ((offset, wide.offset, _FULL32), (size, wide.size, _FULL32), (entries, wide.entries, _FULL16))
    if any(narrow not in (value, full) for narrow, value, full in pairs):
        raise ArchiveError("it has two directories that disagree")
    return wide


def _read_wide(file: BinaryIO, end: int) -> _Directory | None:
    """The zip64 record, where there is one."""
    if end < _LOCATOR.size:
        return None
    file.seek(end - _LOCATOR.size)
    signature, disk, at, disks = _LOCATOR.unpack(file.read(_LOCATOR.size))
    if signature != b"PK\x06\x07":
        return None
    if disk or disks != 1 or at + _END64.size > end:
        raise ArchiveError("its directory is damaged")
    file.seek(at)
    signature, _, _, _, disk, first_disk, here, entries, size, offset = _END64.unpack(file.read(_END64.size))
    if signature != b"PK\x06\x06" or disk or first_disk or here != entries or offset + size > at:
        raise ArchiveError("its directory is damaged")
    return _Directory(offset, size, entries)


_Found = tuple[str, int, int, int, int, int, int, bool]  # name, method, size, packed size, crc, header, mode, encrypted


def _entries(directory: bytes, count: int) -> Iterator[_Found]:
    at = 0
    for _ in range(count):
        if len(directory) - at < _ENTRY.size:
            raise ArchiveError("its directory is damaged")
        fields = _ENTRY.unpack_from(directory, at)
        signature, _, _, flags, method, _, _, crc, packed, size, n_name, n_extra, n_comment, disk, _, mode, header = (
            fields
        )
        begin, at = at + _ENTRY.size, at + _ENTRY.size + n_name + n_extra + n_comment
        if signature != b"PK\x01\x02" or at > len(directory) or disk or not 0 < n_name <= _MAX_NAME_BYTES:
            raise ArchiveError("its directory is damaged")
        name = _text(directory[begin : begin + n_name])
        extra = directory[begin + n_name : begin + n_name + n_extra]
        size, packed, header = _widened((size, packed, header), extra)
        yield name, method, size, packed, crc, header, mode >> 16, bool(flags & 0x2041)
    if at != len(directory):
        raise ArchiveError("its directory is damaged")


def _widened(values: tuple[int, int, int], extra: bytes) -> Iterator[int]:
    """Replaces what did not fit into 32 bits by what the zip64 extra field says, in its fixed order."""
    wide = iter(_zip64_values(extra))
    for value in values:
        if value == _FULL32 and (value := next(wide, -1)) < 0:
            raise ArchiveError("its directory is damaged")
        yield value


def _zip64_values(extra: bytes) -> list[int]:
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            body = extra[at + 4 : at + 4 + size]
            return [value for (value,) in struct.iter_unpack("<Q", body[: len(body) // 8 * 8])]
        at += 4 + size
    return []


def _placed(found: list[_Found], end: int) -> list[Entry]:
    """Entries in the order of their places; each must end before the next begins."""
    found = sorted(found, key=lambda entry: entry[5])
    limits = [*(entry[5] for entry in found), end][1:] if found else []
    entries = []
    for (name, method, size, packed, crc, header, mode, encrypted), limit in zip(found, limits, strict=True):
        if header + _LOCAL.size + packed > limit:
            raise ArchiveError("files in it overlap")
        entries.append(Entry(name, method, size, packed, crc, header, limit, mode, encrypted))
    return entries


def _text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")
