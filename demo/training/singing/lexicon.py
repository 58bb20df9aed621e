"""What is sung: syllables with phonemes in espeak-ng's notation for English, and lines made of them. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

VOWELS = ("A:", "i:", "u:", "O:", "0", "V", "E", "I", "3:", "U", "aI", "eI", "oU")
DIPHTHONGS = ("aI", "eI", "oU")
UNVOICED = ("s", "f", "S", "h", "p", "t", "k")
SILENCE, BREATH = "sil", "breath"

CONSONANT_SECONDS: Mapping[str, float] = MappingProxyType(
    {
        "m": 0.08, "n": 0.075, "N": 0.085, "l": 0.07, "r": 0.07, "w": 0.07, "j": 0.065,
        "v": 0.065, "z": 0.085, "D": 0.055, "s": 0.105, "f": 0.09, "S": 0.105, "h": 0.065,
        "b": 0.07, "d": 0.065, "g": 0.07, "p": 0.085, "t": 0.085, "k": 0.09,
    }
)  # fmt: skip
"""Length of each consonant in seconds, the same for every singer, so that two singers of one melody are aligned."""

PHONEMES = (SILENCE, BREATH, *VOWELS, *CONSONANT_SECONDS)
"""Every label that a frame of a sung line can have."""

SYLLABLES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "moon": ("m", "u:", "n"), "sun": ("s", "V", "n"), "star": ("s", "t", "A:"), "light": ("l", "aI", "t"),
        "night": ("n", "aI", "t"), "day": ("d", "eI"), "rain": ("r", "eI", "n"), "sea": ("s", "i:"),
        "wind": ("w", "I", "n", "d"), "home": ("h", "oU", "m"), "road": ("r", "oU", "d"), "we": ("w", "i:"),
        "you": ("j", "u:"), "me": ("m", "i:"), "go": ("g", "oU"), "far": ("f", "A:"), "deep": ("d", "i:", "p"),
        "blue": ("b", "l", "u:"), "green": ("g", "r", "i:", "n"), "warm": ("w", "O:", "m"), "long": ("l", "0", "N"),
        "song": ("s", "0", "N"), "dawn": ("d", "O:", "n"), "mor": ("m", "O:"), "ning": ("n", "I", "N"),
        "shore": ("S", "O:"), "shine": ("S", "aI", "n"), "dream": ("d", "r", "i:", "m"), "sleep": ("s", "l", "i:", "p"),
        "keep": ("k", "i:", "p"), "come": ("k", "V", "m"), "love": ("l", "V", "v"), "live": ("l", "I", "v"),
        "leave": ("l", "i:", "v"), "feet": ("f", "i:", "t"), "heart": ("h", "A:", "t"), "dark": ("d", "A:", "k"),
        "dance": ("d", "A:", "n", "s"), "time": ("t", "aI", "m"), "then": ("D", "E", "n"), "them": ("D", "E", "m"),
        "red": ("r", "E", "d"), "let": ("l", "E", "t"), "men": ("m", "E", "n"), "step": ("s", "t", "E", "p"),
        "bird": ("b", "3:", "d"), "turn": ("t", "3:", "n"), "her": ("h", "3:"), "word": ("w", "3:", "d"),
        "wave": ("w", "eI", "v"), "stay": ("s", "t", "eI"), "make": ("m", "eI", "k"), "name": ("n", "eI", "m"),
        "play": ("p", "l", "eI"), "by": ("b", "aI"), "my": ("m", "aI"), "sky": ("s", "k", "aI"), "high": ("h", "aI"),
        "show": ("S", "oU"), "snow": ("s", "n", "oU"), "boat": ("b", "oU", "t"), "two": ("t", "u:"),
        "room": ("r", "u:", "m"), "soon": ("s", "u:", "n"), "good": ("g", "U", "d"), "look": ("l", "U", "k"),
        "sing": ("s", "I", "N"), "ring": ("r", "I", "N"), "rose": ("r", "oU", "z"), "days": ("d", "eI", "z"),
        "eyes": ("aI", "z"), "zone": ("z", "oU", "n"), "la": ("l", "A:"), "na": ("n", "A:"),
    }
)  # fmt: skip
"""Syllables by their spelling. Each has exactly one vowel. None ends in l, which espeak-ng joins with the vowel."""

LINES: tuple[tuple[str, ...], ...] = tuple(
    tuple(line.split())
    for line in (
        "let me go home by sea",
        "my heart my song my long dark night",
        "come sing me home",
        "far star shine high",
        "blue moon by my deep blue sea",
        "we dance two by two",
        "soon rain soon snow",
        "you look far you turn then you go",
        "stay by me mor ning light",
        "then come then leave then stay",
        "good night good night my love",
        "wind wave rain sun",
        "rose red rose warm",
        "keep her name",
        "let them sleep let them dream",
        "green days long days",
        "her eyes her feet her word",
        "bird sing high mor ning sky",
        "make time make room",
        "show me my road my home",
        "men play men dance men live",
        "ring sun ring sea ring shore",
        "two boat by dawn",
        "step by step we go high",
        "la la na la la na la",
        "dream deep blue moon",
        "warm wind far zone",
    )
)
"""Lines to sing, written for this project."""
