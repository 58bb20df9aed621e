"""Sounds as base64 inside the reply: the first format that fits the budget, or an error that says what would fit."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from audio.encode import Encoding

from errors import DeliveryError
from worker.artefacts import Artefact, Sounds
from worker.wire import too_large

ADVISED = (
    "wav",
    "wav:16",
    "flac",
    "mp3:320",
    "mp3:256",
    "mp3:192",
    "mp3:128",
    "mp3:96",
    "mp3:64",
    "mp3:32",
    "ogg",
    "opus",
)


@dataclass(frozen=True)
class Budget:
    """Room in the reply.

    Args:
        limit: bytes of the whole JSON.
        around: bytes of the JSON that is not base64.
        twice: whether the first sound stands in the reply twice, at the top level and in `outputs`.
    """

    limit: int
    around: int
    twice: bool

    def total(self, sizes: Sequence[int]) -> int:
        """Bytes of the whole JSON with files of these sizes in it."""
        repeated = [*sizes, sizes[0]] if self.twice else sizes
        return self.around + sum((size + 2) // 3 * 4 for size in repeated)


def place_inline(
    sounds: Sounds, order: Sequence[str], *, budget: Budget, deliveries: Sequence[str]
) -> tuple[list[dict[str, Any]], Encoding]:
    """The artefacts with their `output_audio`, in the first format of `order` that fits.

    Args:
        deliveries: what else this worker offers, for the advice in the error.

    Raises `DeliveryError` (`reply_too_large`) where none fits.
    """
    total = 0
    for entry in order:
        encoding = sounds.encoding(entry)
        if not (sounds.cheap and encoding.format != "wav"):
            estimate = sounds.estimate(encoding)
            total = budget.total(estimate.sizes)
            if budget.total(estimate.least) > budget.limit:
                continue
        with sounds.encoded(encoding) as artefacts:
            total = budget.total([artefact.size for artefact in artefacts])
            if total <= budget.limit:
                return [{"output_audio": _base64(artefact), **artefact.facts} for artefact in artefacts], encoding
    raise _over(total, sounds, order, budget=budget, deliveries=deliveries)


def _base64(artefact: Artefact) -> str:
    return base64.b64encode(artefact.file.read()).decode("ascii")


def _over(
    total: int, sounds: Sounds, order: Sequence[str], *, budget: Budget, deliveries: Sequence[str]
) -> DeliveryError:
    formats = _would_fit(sounds, order, budget)
    ways = [f"'output_format' {_words(entry)}" for entry in formats] + [f"'delivery' {name!r}" for name in deliveries]
    advice = f"What fits: {'; '.join(ways)}." if ways else "No format fits."
    if "bucket" not in deliveries:
        advice += " A bucket (the BUCKET_* settings, or s3Config in the request) takes any size."
    return too_large(total, budget.limit, advice, formats=formats, deliveries=list(deliveries))


def _would_fit(sounds: Sounds, tried: Sequence[str], budget: Budget) -> list[str]:
    """The best entry of each format that fits even where its estimate is too low."""
    found: dict[str, str] = {}
    for entry in ADVISED:
        name = entry.partition(":")[0]
        if name in found or entry in tried:
            continue
        if budget.total(sounds.estimate(sounds.encoding(entry)).most) <= budget.limit:
            found[name] = entry
    return list(found.values())


def _words(entry: str) -> str:
    name, _, number = entry.partition(":")
    field = {"wav": "bit_depth", "mp3": "bitrate"}.get(name)
    return f"'{name}' with '{field}' {number}" if number else f"'{name}'"
