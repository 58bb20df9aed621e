"""Ogg pages (RFC 3533): walking them, checking them, and giving them a fixed serial number. Knows no codec."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

_HEADER_BYTES: Final = 27
_REVERSED_BITS: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class OggError(ValueError):
    """A page is cut off, damaged, or not where it ought to be."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page.

    Args:
        offset: where it starts, in bytes.
        data: all of it, header included.
    """

    offset: int
    data: bytes

    @property
    def checksum_holds(self) -> bool:
        return int.from_bytes(self.data[22:26], "little") == checksum(self.data[:22] + bytes(4) + self.data[26:])

    @property
    def ends_stream(self) -> bool:
        return bool(self.data[5] & 4)


def pages(stream: BinaryIO) -> Iterator[Page]:
    """Every page of a seekable stream from its start; `OggError` where one is cut off or is none."""
    offset = 0
    while True:
        stream.seek(offset)
        header = stream.read(_HEADER_BYTES)
        if not header:
            return
        if len(header) < _HEADER_BYTES or header[:4] != b"OggS":
            raise OggError("cut off or overwritten within a page header")
        sizes = stream.read(header[26])
        body = stream.read(sum(sizes))
        if len(sizes) < header[26] or len(body) < sum(sizes):
            raise OggError("cut off within a page")
        page = Page(offset, header + sizes + body)
        yield page
        offset += len(page.data)


def checksum(data: bytes) -> int:
    """The CRC-32 of RFC 3533 section 6: polynomial 0x04c11db7, zero start, not reflected.

    zlib's runs on mirrored bits and inverts at both ends; mirroring and inverting back makes it ours at C speed.
    """
    mirrored = zlib.crc32(data.translate(_REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(mirrored.to_bytes(4, "little").translate(_REVERSED_BITS), "big")


def set_serial(stream: BinaryIO, serial: int) -> None:
    """Rewrites every page's serial number in place: encoders draw it at random, and the same sound is to give the
    same bytes. The stream holds one logical bitstream and is readable, writable and seekable."""
    for page in pages(stream):
        unsigned = page.data[:14] + serial.to_bytes(4, "little") + page.data[18:22] + bytes(4) + page.data[26:]
        stream.seek(page.offset + 14)
        stream.write(unsigned[14:22] + checksum(unsigned).to_bytes(4, "little"))
    stream.seek(0, 2)
