"""Values of ACE-Step's parameters: keys, time signatures, languages, audio codes, timesteps. Read and checked."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from errors import sanitize, suggest_name
from models.acestep.metas import LANGUAGES, MAX_DURATION_S, TIME_SIGNATURES
from models.acestep.schedule import drop_last_zero, find_timestep_error
from models.acestep.tokens import CODE_RATE, NUM_CODES, parse_codes
from operations.params import Int

MAX_CODES: Final = CODE_RATE * MAX_DURATION_S
MAX_TIMESTEPS: Final = 200
NOTE_VALUES: Final = {2: 4, 3: 4, 4: 4, 6: 8}  # the note that is counted, of each number of beats

_KEY = re.compile(r"([A-Ga-g])(#|b|♯|♭| ?sharp| ?flat)?(?: ?(major|maj|M|minor|min|m))?", re.IGNORECASE)
_ACCIDENTALS = {"#": "#", "♯": "#", "sharp": "#", "b": "b", "♭": "b", "flat": "b"}
_TIME_SIGNATURE = re.compile(r"(\d{1,2})(?:/(?:1|2|4|8|16))?")


def parse_key(text: str) -> str:
    """`text` as ACE-Step writes a key: `Am` is `A minor`, `Bb` is `Bb major`.

    Raises:
        ValueError: it is not a major or minor key.
    """
    match = _KEY.fullmatch(text.strip())
    if match is None:
        raise ValueError("must be a note from A to G, optionally with '#' or 'b', and 'major' or 'minor': 'F# minor'")
    note, accidental, mode = match.groups()
    is_minor = mode is not None and (mode == "m" or mode.lower().startswith("min"))
    sign = _ACCIDENTALS[accidental.strip().lower()] if accidental else ""
    return f"{note.upper()}{sign} {'minor' if is_minor else 'major'}"


def parse_time_signature(text: str) -> int:
    """The beats per bar of `4/4` or `4`.

    Raises:
        ValueError: ACE-Step does not know the time signature.
    """
    match = _TIME_SIGNATURE.fullmatch(text.strip())
    if match is None or int(match[1]) not in TIME_SIGNATURES:
        raise ValueError("must be '2/4', '3/4', '4/4' or '6/8', or the beats alone: '2', '3', '4', '6'")
    return int(match[1])


def write_time_signature(beats: int) -> str:
    """`4` as `4/4`, `6` as `6/8`."""
    return f"{beats}/{NOTE_VALUES.get(beats, 4)}"


def find_problem(parse: Callable[[str], object], text: str) -> str:
    """What is wrong with `text` for one of the functions above; empty if it can be parsed."""
    try:
        parse(text)
    except ValueError as error:
        return str(error)
    return ""


def _normalize_time_signature(text: str) -> str:
    return write_time_signature(parse_time_signature(text))


def check_language(text: str) -> str:
    """The code of a language that ACE-Step sings, in lower case.

    Raises:
        ValueError: it does not sing it.
    """
    code = text.strip().lower()
    if code not in LANGUAGES:
        raise ValueError(
            f"names '{sanitize(text)}', which is no language of ACE-Step.{suggest_name(code, LANGUAGES)} Its "
            f"languages: {', '.join(LANGUAGES)}"
        )
    return code


def _read_codes(value: Any) -> Any:
    """Audio codes as a list; a string has them as the planner writes them, or separated by commas."""
    if not isinstance(value, str):
        return value
    return list(parse_codes(value)) if "<" in value else _split_numbers(value, int, "audio codes")


def _read_timesteps(value: Any) -> Any:
    """Timesteps as a list; a string has them separated by commas."""
    return _split_numbers(value, float, "timesteps") if isinstance(value, str) else value


def _check_timesteps(timesteps: list[float]) -> list[float]:
    """The timesteps without a 0 at the end. Raises `ValueError`: they do not fall, or are not in (0, 1]."""
    if problem := find_timestep_error(timesteps, most=MAX_TIMESTEPS):
        raise ValueError(f"cannot be used: {problem}")
    return list(drop_last_zero(timesteps))


def _split_numbers(text: str, kind: type[int] | type[float], what: str) -> list[float]:
    try:
        return [kind(part) for part in re.split(r"[,\s]+", text.strip().strip(",")) if part]
    except ValueError:
        raise ValueError(f"must be a list of numbers, or a string with {what} that are separated by commas") from None


Key = Annotated[str, Field(max_length=20), AfterValidator(parse_key)]
TimeSignature = Annotated[str, Field(max_length=5), AfterValidator(_normalize_time_signature)]
Language = Annotated[str, Field(max_length=20), AfterValidator(check_language)]
Code = Annotated[Int, Field(ge=0, le=NUM_CODES - 1)]
Codes = Annotated[
    list[Code],
    Field(min_length=1, max_length=MAX_CODES),
    BeforeValidator(_read_codes),
    WithJsonSchema(
        {
            "anyOf": [
                {
                    "type": "array",
                    "items": {"type": "integer", "minimum": 0, "maximum": NUM_CODES - 1},
                    "minItems": 1,
                    "maxItems": MAX_CODES,
                },
                {"type": "string"},
            ]
        }
    ),
]
Timesteps = Annotated[
    list[float],
    Field(min_length=1, max_length=MAX_TIMESTEPS + 1),
    BeforeValidator(_read_timesteps),
    AfterValidator(_check_timesteps),
    WithJsonSchema({"anyOf": [{"type": "array", "items": {"type": "number"}, "minItems": 1}, {"type": "string"}]}),
]
