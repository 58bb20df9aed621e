"""The metas of a song as ACE-Step names them: what may stand in each, and how it is written. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# fmt: off
LANGUAGES: Final = (
    "ar", "az", "bg", "bn", "ca", "cs", "da", "de", "el", "en", "es", "fa", "fi", "fr", "he", "hi", "hr",
    "ht", "hu", "id", "is", "it", "ja", "ko", "la", "lt", "ms", "ne", "nl", "no", "pa", "pl", "pt", "ro",
    "ru", "sa", "sk", "sr", "sv", "sw", "ta", "te", "th", "tl", "tr", "uk", "ur", "vi", "yue", "zh", "unknown",
)
# fmt: on
TIME_SIGNATURES: Final = (2, 3, 4, 6)
MIN_BPM, MAX_BPM = 30, 300
MIN_DURATION_S, MAX_DURATION_S = 10, 600
# fmt: off
TRACKS: Final = (
    "woodwinds", "brass", "fx", "synth", "strings", "percussion", "keyboard", "guitar", "bass", "drums",
    "backing_vocals", "vocals",
)
# fmt: on
INSTRUMENTAL: Final = "[Instrumental]"  # the lyrics of music without vocals


@dataclass(frozen=True, slots=True, kw_only=True)
class Metas:
    """What is known of a song besides its caption and lyrics; None: not known.

    Args:
        bpm: beats per minute, 30..300.
        key: note from A to G, optionally with `#` or `b`, and `major` or `minor`: "F# minor".
        time_signature: beats per bar, 2, 3, 4 or 6.
        duration: seconds.
    """

    bpm: int | None = None
    key: str | None = None
    time_signature: int | None = None
    duration: float | None = None
