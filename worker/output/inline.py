"""Sounds as base64 inside the reply: the first format that fits the budget, or an error that says what would fit."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from audio.files.encode import Encoding
from worker.output import encodings as formats
from worker.output.artefacts import Artefact, Sounds
from worker.output.strict_json import too_large


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
    sounds: Sounds, choices: Sequence[Encoding], *, budget: Budget, deliveries: Sequence[str]
) -> tuple[list[dict[str, Any]], Encoding]:
    """The artefacts with their `output_audio`, in the first of `choices` that fits.

    Args:
        deliveries: what else this worker offers, for the advice in the error.

    Raises `DeliveryError` (`reply_too_large`) where none fits.
    """
    total = 0
    for encoding in choices:
        estimate = sounds.estimate(encoding)
        total = budget.total([round(size) for size in estimate.likely])
        if budget.total(estimate.least) > budget.limit:
            continue
        with sounds.encoded(encoding) as artefacts:
            total = budget.total([artefact.size for artefact in artefacts])
            if total <= budget.limit:
                sounds.accept(artefacts)
                return [{"output_audio": _base64(artefact), **artefact.facts} for artefact in artefacts], encoding
    raise too_large(total, budget.limit, *_advice(sounds, choices, budget, deliveries))


def _base64(artefact: Artefact) -> str:
    return base64.b64encode(artefact.file.read()).decode("ascii")


def _advice(
    sounds: Sounds, tried: Sequence[Encoding], budget: Budget, deliveries: Sequence[str]
) -> tuple[str, dict[str, Any]]:
    """What would fit, as a sentence and as details."""
    would_fit = [formats.fields(encoding) for encoding in _fitting(sounds, tried, budget)]
    ways = [", ".join(f"{name} {value}" for name, value in way.items()) for way in would_fit]
    ways += [f"delivery {name}" for name in deliveries]
    sentence = f"What would fit: {'; '.join(ways)}." if ways else "No format would fit."
    if "bucket" not in deliveries:
        sentence += " With a bucket (the BUCKET_* settings, or s3Config beside the input) any size goes."
    return sentence, {"would_fit": would_fit, "deliveries": list(deliveries)}


def _fitting(sounds: Sounds, tried: Sequence[Encoding], budget: Budget) -> Iterator[Encoding]:
    """The best encoding of each format that fits even where its estimate is too low."""
    found: set[str] = set()
    for encoding in formats.advised():
        if encoding.format in found or encoding in tried:
            continue
        most = sounds.estimate(encoding).most
        if most is not None and budget.total(most) <= budget.limit:
            found.add(encoding.format)
            yield encoding
