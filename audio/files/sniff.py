"""Detects the audio container from the first bytes of a file."""

from __future__ import annotations

from collections.abc import Callable

from audio.files.mpeg import frame_length, id3_length

SNIFF_BYTES = 65536
"""Number of bytes to pass to `sniff`; fewer are enough if no tag precedes the audio."""

_W64_GUID = bytes.fromhex("726966662e91cf11a5d628db04c10000")
_EBML = b"\x1a\x45\xdf\xa3"
_IMAGE_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"avif", b"avis", b"crx "})


def sniff(head: bytes) -> str | None:
    """The container of a file that starts with the bytes `head`; None if it is not a supported audio file.

    Returns:
        `wav` (RIFF, RF64), `w64`, `flac`, `mp3`, `ogg` (Vorbis, FLAC or Speex inside), `opus`, `aiff` (also AIFF-C),
        `m4a` (any ISO media file), `aac` (ADTS) or `webm` (any Matroska).
    """
    body = head[id3_length(head) :]
    if not body and head[:3] == b"ID3":
        return "mp3"
    return next((name for name, matches in _SIGNATURES.items() if matches(body)), None)


def _is_mp3(head: bytes) -> bool:
    length = frame_length(head)
    return length > 0 and _is_followed(head, length, frame_length)


def _adts_frame_length(head: bytes) -> int:
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0 or (head[2] >> 2) & 15 > 12:
        return 0
    length = ((head[3] & 3) << 11) | (head[4] << 3) | (head[5] >> 5)
    return length if length > 7 else 0


def _is_adts(head: bytes) -> bool:
    length = _adts_frame_length(head)
    return length > 0 and _is_followed(head, length, _adts_frame_length)


def _is_followed(head: bytes, length: int, length_of: Callable[[bytes], int]) -> bool:
    """Whether a second frame follows the first: the eleven set bits of a header also occur by chance."""
    following = head[length:]
    return len(following) < 7 or length_of(following) > 0


def _match_ogg(codec: bytes) -> Callable[[bytes], bool]:
    return lambda head: head[:4] == b"OggS" and len(head) > 26 and head[27 + head[26] :].startswith(codec)


def _is_iso_media(head: bytes) -> bool:
    return head[4:8] == b"ftyp" and head[8:12] not in _IMAGE_BRANDS


_SIGNATURES: dict[str, Callable[[bytes], bool]] = {
    "wav": lambda head: head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE",
    "w64": lambda head: head[:16] == _W64_GUID,
    "flac": lambda head: head[:4] == b"fLaC",
    "opus": _match_ogg(b"OpusHead"),
    "ogg": lambda head: head[:4] == b"OggS",
    "aiff": lambda head: head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"),
    "m4a": _is_iso_media,
    "webm": lambda head: head[:4] == _EBML,
    "aac": _is_adts,
    "mp3": _is_mp3,
}
