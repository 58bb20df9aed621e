"""Example songs that ship with the worker, for the mode `random`. They were written for it."""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from errors import InvalidRequestError

FILE = Path(__file__).with_name("examples.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A song as a request for it: a short description, and the same song written out."""

    description: str
    caption: str
    lyrics: str
    instrumental: bool
    bpm: int
    key: str
    time_signature: str
    duration: float
    vocal_language: str


@functools.cache
def load_examples() -> Sequence[Example]:
    """All examples, in the order of the file."""
    return tuple(Example(**fields) for fields in json.loads(FILE.read_text(encoding="utf-8")))


def draw_example(seed: int, *, language: str | None = None, instrumental: bool | None = None) -> Example:
    """One of the examples that fit.

    Args:
        language: of the vocals; None: any.
        instrumental: without vocals, or with; None: either.

    Raises:
        InvalidRequestError: there is none in that language; the message names those that there are.
    """
    fitting = [
        example
        for example in load_examples()
        if language in (None, example.vocal_language) and instrumental in (None, example.instrumental)
    ]
    if not fitting:
        languages = sorted({example.vocal_language for example in load_examples() if not example.instrumental})
        raise InvalidRequestError(
            f"There is no example like that. Songs with vocals are in these languages: {', '.join(languages)}; music "
            "without vocals has no language.",
            details={"field": "vocal_language", "valid": languages},
        )
    return random.Random(seed).choice(fitting)
