"""Reads what the planner wrote: lines of YAML between `<think>` and `</think>`, then lyrics.

Not by a YAML parser: to YAML the language `no` is false, a caption may hold a colon, and a plan may end early.
"""

from __future__ import annotations

import re
from typing import Final

from models.acestep.metas import LANGUAGES, MAX_BPM, MAX_DURATION_S, MIN_BPM, MIN_DURATION_S, TIME_SIGNATURES, Metas
from models.acestep.planner.request import PlannedSong

_FIELDS: Final = ("bpm", "caption", "duration", "genres", "keyscale", "language", "timesignature")
_FIELD_LINE = re.compile(rf"({'|'.join(_FIELDS)})\s*:(.*)", re.IGNORECASE)
_KEY = re.compile(r"([A-G])\s*([#b♯♭]?)\s*[- ]?\s*(major|minor|maj|min)\b", re.IGNORECASE)
_HEADERS = re.compile(r"\s*(#\s*Languages?\s*\n[^\n]*\n\s*)?(#\s*Lyrics?\s*(\n|$))?", re.IGNORECASE)
_TURN_END = re.compile(r"<\|im_end\|>.*", re.DOTALL)
_BLOCK_SCALAR = re.compile(r"[|>][-+]?\s*")


def parse_plan(text: str) -> PlannedSong:
    """Reads a plan. What cannot be read, or is outside its range, is as if it had not been written.

    Args:
        text: all that the planner wrote, special tokens by their names.
    """
    thoughts, _, rest = text.partition("</think>")
    fields = _split_fields(thoughts.rpartition("<think>")[2])
    language = fields.get("language", "").lower()
    return PlannedSong(
        caption=fields.get("caption") or None,
        lyrics=_clean_lyrics(rest) or None,
        metas=Metas(
            bpm=_parse_number(fields.get("bpm", ""), MIN_BPM, MAX_BPM),
            key=_parse_key(fields.get("keyscale", "")),
            time_signature=_parse_time_signature(fields.get("timesignature", "")),
            duration=_parse_number(fields.get("duration", ""), MIN_DURATION_S, MAX_DURATION_S),
        ),
        language=language if language in LANGUAGES else None,
        genres=fields.get("genres", ""),
    )


def _split_fields(thoughts: str) -> dict[str, str]:
    """The value of each field on one line; a line that begins no field continues the one before it."""
    lines: dict[str, list[str]] = {}
    name = ""
    for line in thoughts.splitlines():
        if (match := _FIELD_LINE.fullmatch(line.rstrip())) and match[1].lower() not in lines:
            name = match[1].lower()
            lines[name] = [match[2]]
        elif name:
            lines[name].append(line)
    return {name: _join_lines(values) for name, values in lines.items()}


def _join_lines(lines: list[str]) -> str:
    if _BLOCK_SCALAR.fullmatch(lines[0].strip()):
        lines = lines[1:]
    value = " ".join(stripped for line in lines if (stripped := line.strip()))
    for quote in ("'", '"'):
        if len(value) > 1 and value[0] == value[-1] == quote:
            value = value[1:-1].replace("''", "'") if quote == "'" else value[1:-1].replace('\\"', '"')
    return value.strip()


def _clean_lyrics(text: str) -> str:
    body = _TURN_END.sub("", text)
    header = _HEADERS.match(body)
    return body[header.end() if header else 0 :].strip()


def _parse_number(value: str, least: int, most: int) -> int | None:
    match = re.match(r"\d+", value)
    number = int(match[0]) if match and len(match[0]) <= len(str(most)) else -1
    return number if least <= number <= most else None


def _parse_key(value: str) -> str | None:
    if (match := _KEY.match(value)) is None:
        return None
    accidental = {"♯": "#", "♭": "b"}.get(match[2], match[2].lower())
    return f"{match[1].upper()}{accidental} {'major' if match[3].lower().startswith('maj') else 'minor'}"


def _parse_time_signature(value: str) -> int | None:
    beats = _parse_number(value, min(TIME_SIGNATURES), max(TIME_SIGNATURES))
    return beats if beats in TIME_SIGNATURES else None
