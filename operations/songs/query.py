"""What a short description says about the vocals: their language, and whether there are any."""

from __future__ import annotations

import re
from typing import Final

# English names of ACE-Step's languages, and what their speakers call them if that is another word.
_NAMES: Final = {
    "ar": "arabic|العربية",
    "az": "azerbaijani",
    "bg": "bulgarian|български",
    "bn": "bengali|bangla|বাংলা",
    "ca": "catalan|català",
    "cs": "czech|čeština",
    "da": "danish|dansk",
    "de": "german|deutsch",
    "el": "greek|ελληνικά",
    "en": "english",
    "es": "spanish|español",
    "fa": "persian|farsi|فارسی",
    "fi": "finnish|suomi",
    "fr": "french|français",
    "he": "hebrew|עברית",
    "hi": "hindi|हिन्दी|हिंदी",
    "hr": "croatian|hrvatski",
    "ht": "haitian|kreyòl",
    "hu": "hungarian|magyar",
    "id": "indonesian",
    "is": "icelandic|íslenska",
    "it": "italian|italiano",
    "ja": "japanese|日本語",
    "ko": "korean|한국어",
    "la": "latin lyrics|in latin",
    "lt": "lithuanian|lietuvių",
    "ms": "malay|melayu",
    "ne": "nepali|नेपाली",
    "nl": "dutch|nederlands",
    "no": "norwegian|norsk",
    "pa": "punjabi|ਪੰਜਾਬੀ",
    "pl": "polish|polski",
    "pt": "portuguese|português",
    "ro": "romanian|română",
    "ru": "russian|русский",
    "sa": "sanskrit|संस्कृत",
    "sk": "slovak|slovenčina",
    "sr": "serbian|српски",
    "sv": "swedish|svenska",
    "sw": "swahili|kiswahili",
    "ta": "tamil|தமிழ்",
    "te": "telugu|తెలుగు",
    "th": "thai|ไทย",
    "tl": "tagalog|filipino",
    "tr": "turkish|türkçe",
    "uk": "ukrainian|українська",
    "ur": "urdu|اردو",
    "vi": "vietnamese|tiếng việt",
    "yue": "cantonese|粤语|粵語|廣東話",
    "zh": "chinese|mandarin|中文|普通话",
}
_LANGUAGE: Final = re.compile(
    "|".join(f"(?P<{code}>(?<!\\w)(?:{names})(?!\\w))" for code, names in _NAMES.items()), re.IGNORECASE
)
_INSTRUMENTAL: Final = re.compile(
    r"\binstrumental\b|\bpure music\b|\b(?:no|without) vocals?\b|\bsolo\W*$", re.IGNORECASE
)


def find_language(query: str) -> str | None:
    """The code of the first language that `query` names; None: it names none. Words like `it` and `no` are no names."""
    match = _LANGUAGE.search(query)
    return None if match is None else match.lastgroup


def asks_for_instrumental(query: str) -> bool:
    """Whether `query` asks for music without vocals: `instrumental`, `pure music`, or a solo at its end."""
    return _INSTRUMENTAL.search(query) is not None
