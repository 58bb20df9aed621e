"""A bag of models as its yaml file states it: which submodels it has, and how their results are weighed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from errors import ModelError, sanitize
from models.checkpoints.errors import CheckpointError, broken_checkpoint, report_broken
from models.checkpoints.plain_yaml import read_plain_yaml

MAX_SEGMENT_S = 3600.0
_SIGNATURE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_REMEDY = "Copy its files again as demucs 4.1 publishes them."
_MAX_SUBMODELS = 64
_MAX_WEIGHT = 1e6
_MAX_BYTES = 1 << 12  # the published ones have at most 200
_MAX_BRACKETS = 2 * _MAX_SUBMODELS


@dataclass(frozen=True, slots=True)
class Bag:
    """Submodels by signature; stem k of the result is their average, weighed by `weights[submodel][k]`.

    Args:
        signatures: file names without their endings.
        weights: one row for each submodel, one column for each stem; None: all ones.
        segment: seconds of audio that the submodels process at once; None: their own.
    """

    signatures: tuple[str, ...]
    weights: tuple[tuple[float, ...], ...] | None = None
    segment: float | None = None

    def weights_for(self, num_stems: int) -> tuple[tuple[float, ...], ...]:
        """Returns `[submodels][stems]`, each stem's column summing to 1; raises `ModelError` if that is impossible."""
        rows = self.weights or ((1.0,) * num_stems,) * len(self.signatures)
        if any(len(row) != num_stems for row in rows):
            raise broken_model(f"its weights are not {num_stems} for each submodel, one for each stem")
        totals = [sum(column) for column in zip(*rows, strict=True)]
        if min(totals) <= 0:
            raise broken_model("its weights leave a stem to no submodel")
        return tuple(tuple(weight / total for weight, total in zip(row, totals, strict=True)) for row in rows)


def select_submodels(weights: Sequence[Sequence[float]], stems: Sequence[str], wanted: Iterable[str]) -> list[int]:
    """Returns the submodels that the wanted stems need: of htdemucs_ft, one for each stem."""
    columns = [stems.index(name) for name in wanted]
    return [index for index, row in enumerate(weights) if any(row[column] != 0 for column in columns)]


def read_bag(path: Path) -> Bag:
    """Reads `<name>.yaml`, as plain values; raises `ModelError` (`broken_checkpoint`) if it is no bag."""
    with report_broken_file(path):
        content = read_plain_yaml(path, max_bytes=_MAX_BYTES, max_brackets=_MAX_BRACKETS)
        if not isinstance(content, dict):
            raise CheckpointError("it is not a mapping with 'models'")
        signatures = _read_signatures(content.get("models"))
        weights = _read_weights(content.get("weights"), len(signatures))
        return Bag(signatures, weights, _read_segment(content.get("segment")))


def broken_model(reason: str) -> ModelError:
    """Returns the error for a separation model whose files are present but cannot be used."""
    return broken_checkpoint("The separation model", reason, _REMEDY)


def report_broken_file(path: Path) -> AbstractContextManager[None]:
    """Raises `broken_checkpoint`, with the file's name, in place of every `CheckpointError` inside."""
    return report_broken(f"The file '{sanitize(path.name)}' of the separation model", _REMEDY)


def _read_signatures(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not 0 < len(value) <= _MAX_SUBMODELS:
        raise CheckpointError("it has no list 'models'")
    if not all(isinstance(name, str) and _SIGNATURE.fullmatch(name) for name in value):
        raise CheckpointError("it names a submodel by something else than a plain file name")
    return tuple(value)


def _read_weights(value: Any, submodels: int) -> tuple[tuple[float, ...], ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != submodels:
        raise CheckpointError("it has not one row of 'weights' for each submodel")
    if not all(isinstance(row, list) and row and all(map(_is_weight, row)) for row in value):
        raise CheckpointError(f"its 'weights' are not numbers from 0 to {_MAX_WEIGHT:g}")
    return tuple(tuple(float(weight) for weight in row) for row in value)


def _read_segment(value: Any) -> float | None:
    if value is None:
        return None
    if not _is_weight(value) or not 0 < value <= MAX_SEGMENT_S:
        raise CheckpointError("its 'segment' is not a number of seconds")
    return float(value)


def _is_weight(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _MAX_WEIGHT
