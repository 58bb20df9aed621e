"""Ogg pages (RFC 3533): reading them, checking them, and setting their serial number."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

_HEADER_BYTES = 27
_REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class OggError(ValueError):
    """A page is cut off, damaged, or missing."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page.

    Args:
        offset: position in the file, in bytes.
        data: the whole page with its header.
    """

    offset: int
    data: bytes

    @property
    def is_intact(self) -> bool:
        return int.from_bytes(self.data[22:26], "little") == checksum(self.data[:22] + bytes(4) + self.data[26:])

    @property
    def ends_stream(self) -> bool:
        return bool(self.data[5] & 4)


def iter_pages(stream: BinaryIO) -> Iterator[Page]:
    """Every page of a seekable stream from its start; raises `OggError` if one is cut off or not a page."""
    offset = 0
    while True:
        stream.seek(offset)
        header = stream.read(_HEADER_BYTES)
        if not header:
            return
        if len(header) < _HEADER_BYTES or header[:4] != b"OggS":
            raise OggError("an Ogg page header is cut off or overwritten")
        sizes = stream.read(header[26])
        body = stream.read(sum(sizes))
        if len(sizes) < header[26] or len(body) < sum(sizes):
            raise OggError("an Ogg page is cut off")
        page = Page(offset, header + sizes + body)
        yield page
        offset += len(page.data)


def checksum(data: bytes) -> int:
    """The CRC-32 of RFC 3533 section 6: polynomial 0x04c11db7, zero start, not reflected.

    zlib's CRC-32 works on reflected bits and inverts its start and end value; undoing both gives this one at C speed.
    """
    reflected = zlib.crc32(data.translate(_REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(reflected.to_bytes(4, "little").translate(_REVERSED_BITS), "big")


def set_serial(stream: BinaryIO, serial: int) -> None:
    """Sets every page's serial number in place: encoders draw one at random, but equal audio must give equal bytes.

    The stream contains one logical bitstream and is readable, writable and seekable.
    """
    for page in iter_pages(stream):
        unsigned = page.data[:14] + serial.to_bytes(4, "little") + page.data[18:22] + bytes(4) + page.data[26:]
        stream.seek(page.offset + 14)
        stream.write(unsigned[14:22] + checksum(unsigned).to_bytes(4, "little"))
    stream.seek(0, 2)
