"""The published EnCodec checkpoints, as data. Importable without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from models.encodec.spec import CodecSpec, Segments

NON_COMMERCIAL = "CC-BY-NC 4.0"
UNKNOWN_LICENCE = "unknown: see its author's terms"
DEFAULT_CODEC = "encodec_32khz"


@dataclass(frozen=True, slots=True)
class CodecCard:
    """One published codec.

    Args:
        spec: as its config.json says.
        download_bytes: of its weights.
        licence: of its weights.
        about: one line for people.
    """

    spec: CodecSpec
    download_bytes: int
    licence: str
    about: str


CATALOG: Mapping[str, CodecCard] = MappingProxyType(
    {
        DEFAULT_CODEC: CodecCard(
            CodecSpec(32_000, 1, 640, 4, 2048, (2.2,)),
            236_000_000,
            NON_COMMERCIAL,
            "codec of MusicGen, 32 kHz mono, 2.2 kbit/s",
        ),
        "encodec_24khz": CodecCard(
            CodecSpec(24_000, 1, 320, 32, 1024, (1.5, 3.0, 6.0, 12.0, 24.0)),
            93_000_000,
            UNKNOWN_LICENCE,
            "codec of speech and music, 24 kHz mono, 1.5 to 24 kbit/s",
        ),
        "encodec_48khz": CodecCard(
            CodecSpec(48_000, 2, 320, 16, 1024, (3.0, 6.0, 12.0, 24.0), 1, Segments(48_000, 47_520, normalize=True)),
            76_000_000,
            UNKNOWN_LICENCE,
            "codec of music, 48 kHz stereo, 3 to 24 kbit/s",
        ),
    }
)
"""In the order in which a default is chosen."""


def find_codec_name(name: str) -> str:
    """`facebook/encodec_24khz` and `encodec_24khz` are one; other names stay as they are."""
    short = name.removeprefix("facebook/")
    return short if short in CATALOG else name


def hub_id(name: str) -> str:
    """The repository of the published codec called `name`."""
    return f"facebook/{name}"
