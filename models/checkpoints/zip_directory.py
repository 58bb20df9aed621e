"""Reads the directory of a zip strictly: entries that overlap, repeat or misstate their sizes are refused.

Not `zipfile`: it makes an object of every entry before it can be asked how many there are, ignores the stated count,
finds overlapping entries only in newer patch releases of Python, cuts a file off at its stated size without an error,
and does not tell where an entry's bytes begin, which mapping tensors from disk needs.
Format: PKWARE's APPNOTE.TXT 6.3.9, sections 4.3 and 4.5.3.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from models.checkpoints.errors import CheckpointError

STORED = 0
DEFLATED = 8
_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_MAX_COMMENT = 0xFFFF
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF  # "see the zip64 record"
_MAX_NAME_BYTES = 512
_CHUNK_BYTES = 1 << 20


class ArchiveError(CheckpointError):
    """The file is not a zip that can be read."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file in a zip.

    Args:
        method: `STORED`, `DEFLATED`, or another, which is not read.
        size: bytes after unpacking, as the zip states them.
        packed_size: bytes in the zip.
        header: offset of its local header.
        limit: offset of what follows it.
        mode: Unix file type and permissions; 0 if the zip was made on another system.
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
    """Reads every entry of the zip `file`, in the order of their offsets.

    Raises:
        ArchiveError: it is not a zip file, is cut short, has too many entries, or entries that overlap or share a name.
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
    return _sort_by_offset(found, place.offset)


def find_data(file: BinaryIO, entry: Entry) -> int:
    """Returns the offset of the entry's bytes, after comparing its own header with the directory.

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
    if signature != b"PK\x03\x04" or method != entry.method or _decode_name(name) != entry.name:
        raise ArchiveError("its directory contradicts its files")
    if start + entry.packed_size > entry.limit:
        raise ArchiveError("files in it overlap")
    return start


def unpack(file: BinaryIO, entry: Entry) -> Iterator[bytes]:
    """Yields the entry's content in pieces of at most 1 MiB; never more than it states.

    Raises:
        ArchiveError: its data are damaged, or do not have the size that it states.
    """
    remaining, produced, crc = entry.packed_size, 0, 0
    inflater = zlib.decompressobj(-zlib.MAX_WBITS) if entry.method == DEFLATED else None
    file.seek(find_data(file, entry))
    while remaining:
        packed = file.read(min(remaining, _CHUNK_BYTES))
        if not packed:
            raise ArchiveError("it is cut short")
        remaining -= len(packed)
        for piece in _inflate(inflater, packed) if inflater else [packed]:
            produced += len(piece)
            crc = zlib.crc32(piece, crc)
            if produced > entry.size:
                raise ArchiveError("a file in it is larger than it states")
            yield piece
    if produced != entry.size or crc != entry.crc or (inflater and not inflater.eof):
        raise ArchiveError("a file in it is damaged")


def _inflate(inflater: zlib._Decompress, packed: bytes) -> Iterator[bytes]:
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
        raise ArchiveError("it is not a zip file, or is cut short")
    _, disk, first_disk, here, entries, size, offset, comment = _END.unpack_from(tail, at)
    if disk or first_disk or here != entries or at + _END.size + comment != len(tail):
        raise ArchiveError("its directory is damaged")
    place = _Directory(offset, size, entries)
    zip64 = _read_zip64(file, start + at)
    if zip64 is None:
        return place
    pairs = ((offset, zip64.offset, _FULL32), (size, zip64.size, _FULL32), (entries, zip64.entries, _FULL16))
    if any(narrow not in (value, full) for narrow, value, full in pairs):
        raise ArchiveError("it has two directories that disagree")
    return zip64


def _read_zip64(file: BinaryIO, end: int) -> _Directory | None:
    """Reads the zip64 record; None if there is none."""
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
        name = _decode_name(directory[begin : begin + n_name])
        extra = directory[begin + n_name : begin + n_name + n_extra]
        size, packed, header = _widen((size, packed, header), extra)
        yield name, method, size, packed, crc, header, mode >> 16, bool(flags & 0x2041)
    if at != len(directory):
        raise ArchiveError("its directory is damaged")


def _widen(values: tuple[int, int, int], extra: bytes) -> Iterator[int]:
    """Replaces what did not fit into 32 bits by the values of the zip64 extra field, in its fixed order."""
    values64 = iter(_zip64_values(extra))
    for value in values:
        if value == _FULL32 and (value := next(values64, -1)) < 0:
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


def _sort_by_offset(found: list[_Found], end: int) -> list[Entry]:
    """Returns the entries in the order of their offsets; each must end before the next begins."""
    found = sorted(found, key=lambda entry: entry[5])
    limits = [*(entry[5] for entry in found), end][1:] if found else []
    entries = []
    for (name, method, size, packed, crc, header, mode, encrypted), limit in zip(found, limits, strict=True):
        if header + _LOCAL.size + packed > limit:
            raise ArchiveError("files in it overlap")
        entries.append(Entry(name, method, size, packed, crc, header, limit, mode, encrypted))
    return entries


def _decode_name(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")
