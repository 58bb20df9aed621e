"""MPEG audio (mp3) frames: their headers, the ID3v2 tag before them, the Xing/Info tag in the first one.

Sources: ISO/IEC 11172-3 and 13818-3 2.4.2.3, id3.org ID3v2.4 section 3.1, and the Xing tag as
LAME and mpg123 write and read it.
"""

from __future__ import annotations

from dataclasses import dataclass

_BITRATES_V1 = (
    (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
)
_BITRATES_V2 = (
    (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
)
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
# mpg123 ignores a frame count above INT_MAX / 4 / 1152 and estimates the length.
_MAX_FRAMES = 466_000


def id3_length(head: bytes) -> int:
    """Size in bytes of an ID3v2 tag at the start, 0 if there is none (id3.org, ID3v2.4 section 3.1)."""
    if len(head) < 10 or head[:3] != b"ID3" or any(byte & 0x80 for byte in head[6:10]):
        return 0
    size = (head[6] << 21) | (head[7] << 14) | (head[8] << 7) | head[9]
    return size + (20 if head[5] & 0x10 else 10)


def frame_length(head: bytes) -> int:
    """Size in bytes of the MPEG audio frame whose header starts `head`; 0 if that is not a valid header."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return 0
    version, layer = (head[1] >> 3) & 3, 4 - ((head[1] >> 1) & 3)
    bitrate_index, rate_index = head[2] >> 4, (head[2] >> 2) & 3
    if version == 1 or layer == 4 or bitrate_index in (0, 15) or rate_index == 3 or head[3] & 3 == 2:
        return 0
    bitrate = 1000 * (_BITRATES_V1 if version == 3 else _BITRATES_V2)[layer - 1][bitrate_index - 1]
    padding, rate = (head[2] >> 1) & 1, _RATES[version][rate_index]
    if layer == 1:
        return (12 * bitrate // rate + padding) * 4
    return (72 if layer == 3 and version != 3 else 144) * bitrate // rate + padding


@dataclass(frozen=True, slots=True)
class XingTag:
    """Totals that the first frame states, each None if it does not.

    Args:
        frames: number of frames.
        size: bytes from the start of the first frame to the end of the last.
    """

    frames: int | None
    size: int | None


def xing_tag(frame: bytes) -> XingTag | None:
    """The Xing or Info tag in an mp3 file's first frame, None if there is none."""
    if frame_length(frame) == 0:
        return None
    tag = frame[4 + _side_info_length(frame) :][:16]
    if tag[:4] not in (b"Xing", b"Info") or len(tag) < 16:
        return None
    frames = int.from_bytes(tag[8:12], "big") if tag[7] & 1 else None
    size_at = 12 if tag[7] & 1 else 8
    return XingTag(frames, int.from_bytes(tag[size_at : size_at + 4], "big") if tag[7] & 2 else None)


def make_open_ended_frame(header: bytes, size: int) -> bytes:
    """A silent first frame whose tag states as many frames as `size` bytes could ever hold.

    Without a tag libsndfile estimates the length from the first frame's bitrate and stops there: an mp3 of variable
    bitrate would lose most of its audio. Inserted before the real frames, this frame makes it read to the end.
    """
    largest = bytes([header[0], header[1] | 1, (header[2] & 0x0D) | 0xE0, header[3]])
    frames = min(size // 24 + 1, _MAX_FRAMES)
    tag = largest + bytes(_side_info_length(largest)) + b"Xing" + (1).to_bytes(4, "big") + frames.to_bytes(4, "big")
    return tag.ljust(frame_length(largest), b"\0")


def _side_info_length(header: bytes) -> int:
    mpeg1, mono = (header[1] >> 3) & 3 == 3, header[3] >> 6 == 3
    return (17 if mono else 32) if mpeg1 else (9 if mono else 17)
