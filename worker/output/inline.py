"""Audio and files as base64 in the reply: the first encoding that fits the budget, or an error that says what would."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from audio.files.formats import Encoding, suggested_encodings
from worker.output.artefacts import Artefact, OutputEncoder
from worker.output.strict_json import too_large_error


@dataclass(frozen=True, slots=True)
class InlineBudget:
    """How much base64 fits into a reply.

    Args:
        limit: bytes of the whole JSON.
        overhead_bytes: bytes of the JSON that are not base64 of audio.
        first_is_duplicated: whether the first output is in the reply twice, at the top level and in `outputs`.
    """

    limit: int
    overhead_bytes: int
    first_is_duplicated: bool

    def measure(self, sizes: Sequence[int]) -> int:
        """Bytes of the whole JSON with files of these sizes in it."""
        all_sizes = [*sizes, sizes[0]] if self.first_is_duplicated else sizes
        return self.overhead_bytes + sum(map(base64_size, all_sizes))


def encode_inline(
    encoder: OutputEncoder, encodings: Sequence[Encoding], *, budget: InlineBudget, deliveries: Sequence[str]
) -> tuple[list[dict[str, Any]], Encoding]:
    """The fields of each artefact with its `output_audio`, in the first of `encodings` that fits.

    Args:
        deliveries: what else this worker offers; the error names them.

    Raises `DeliveryError` (`too_large_error`) if none fits.
    """
    total = 0
    for encoding in encodings:
        estimate = encoder.estimate_sizes(encoding)
        total = budget.measure([round(size) for size in estimate.expected])
        if budget.measure(estimate.minimum) > budget.limit:
            continue
        with encoder.encode(encoding) as artefacts:
            total = budget.measure([artefact.size for artefact in artefacts])
            if total <= budget.limit:
                encoder.record_warnings(artefacts)
                base64_audio = (base64.b64encode(artefact.file.read()).decode("ascii") for artefact in artefacts)
                return [
                    {"output_audio": audio, **artefact.fields}
                    for audio, artefact in zip(base64_audio, artefacts, strict=True)
                ], encoding
    would_fit = [encoding.request_fields for encoding in _find_fitting(encoder, encodings, budget)]
    options = [", ".join(f"{name} {value}" for name, value in fields.items()) for fields in would_fit]
    options += [f"delivery {name}" for name in deliveries]
    advice = [f"What would fit: {'; '.join(options)}."] if options else ["No format would fit."] * encoder.has_audio
    if "bucket" not in deliveries:
        advice.append("A bucket (the BUCKET_* settings, or s3Config beside the input) takes files of any size.")
    details = {"would_fit": would_fit, "deliveries": list(deliveries)}
    raise too_large_error(total, budget.limit, " ".join(advice), details)


def encode_files(files: Sequence[Artefact]) -> list[dict[str, Any]]:
    """The fields of each file with its base64 in `output_file`."""
    encoded = []
    for artefact in files:
        artefact.file.seek(0)  # an upload that failed may have read it
        encoded.append({"output_file": base64.b64encode(artefact.file.read()).decode("ascii"), **artefact.fields})
    return encoded


def base64_size(size: int) -> int:
    """Characters of base64 for `size` bytes."""
    return (size + 2) // 3 * 4


def _find_fitting(encoder: OutputEncoder, tried: Sequence[Encoding], budget: InlineBudget) -> list[Encoding]:
    """The best encoding of each format that fits even if its estimate is too low."""
    fitting: dict[str, Encoding] = {}
    for encoding in suggested_encodings():
        if encoding.format not in fitting and encoding not in tried:
            maximum = encoder.estimate_sizes(encoding).maximum
            if maximum is not None and budget.measure(maximum) <= budget.limit:
                fitting[encoding.format] = encoding
    return list(fitting.values())
