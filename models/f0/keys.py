"""Musical keys by name, as sets of pitch classes. Plain Python."""

from __future__ import annotations

import re
from typing import Final

from errors import ErrorCode, InvalidRequestError, sanitize

CHROMATIC: Final = tuple(range(12))

_MAJOR: Final = (0, 2, 4, 5, 7, 9, 11)
_MINOR: Final = (0, 2, 3, 5, 7, 8, 10)  # natural
_MODES: Final = {
    "": _MAJOR,
    "M": _MAJOR,
    "maj": _MAJOR,
    "major": _MAJOR,
    "m": _MINOR,
    "min": _MINOR,
    "minor": _MINOR,
}
_TONICS: Final = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_ACCIDENTALS: Final = {"": 0, "#": 1, "♯": 1, "b": -1, "♭": -1}
_KEY: Final = re.compile(r"\s*([A-Ga-g])([#♯b♭]?)\s*([A-Za-z]*)\s*")


def parse_key(key: str | None) -> tuple[int, ...]:
    """The pitch classes of a key, 0 = C to 11 = B, ascending.

    Args:
        key: `C major`, `F# minor`, `Bb` (major), `Am`; in words or short, case counting only for `M` and `m`.
            None or `chromatic`: all twelve.

    Raises:
        InvalidRequestError: it is none of these.
    """
    if key is None or key.strip().lower() == "chromatic":
        return CHROMATIC
    match = _KEY.fullmatch(key)
    mode = match[3] if match and len(match[3]) == 1 else match[3].lower() if match else None
    if match is None or mode not in _MODES:
        raise InvalidRequestError(
            f"'{sanitize(key)}' is no key. Give a note from A to G, with # or b where due, and 'major' or 'minor', "
            "such as 'C major', 'F# minor', 'Bb' or 'Am'; or 'chromatic' for all twelve notes.",
            code=ErrorCode.INVALID_REQUEST,
        )
    tonic = _TONICS[match[1].upper()] + _ACCIDENTALS[match[2]]
    return tuple(sorted((tonic + step) % 12 for step in _MODES[mode]))
