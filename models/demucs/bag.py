"""A bag of models as its yaml file states it: which submodels it has, and how their results are weighed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from errors import ModelError
from models.checkpoints.errors import broken_checkpoint

_SIGNATURE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_MAX_SUBMODELS = 64
_MAX_BYTES = 1 << 20


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
    import yaml  # type: ignore[import-untyped]

    try:
        if path.stat().st_size > _MAX_BYTES:
            raise broken_model("its yaml file is too large for one")
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise broken_model("its yaml file cannot be read as plain data") from error
    if not isinstance(content, dict):
        raise broken_model("its yaml file is not a mapping with 'models'")
    signatures = _read_signatures(content.get("models"))
    return Bag(
        signatures, _read_weights(content.get("weights"), len(signatures)), _read_segment(content.get("segment"))
    )


def broken_model(reason: str) -> ModelError:
    """Returns the error for a separation model whose files are present but cannot be used."""
    return broken_checkpoint("The separation model", reason, "Copy its files again as demucs 4.1 publishes them.")


def _read_signatures(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not 0 < len(value) <= _MAX_SUBMODELS:
        raise broken_model("its yaml file has no list 'models'")
    if not all(isinstance(name, str) and _SIGNATURE.fullmatch(name) for name in value):
        raise broken_model("its yaml file names a submodel by something else than a plain file name")
    return tuple(value)


def _read_weights(value: Any, submodels: int) -> tuple[tuple[float, ...], ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != submodels:
        raise broken_model("its yaml file has not one row of 'weights' for each submodel")
    if not all(isinstance(row, list) and row and all(map(_is_weight, row)) for row in value):
        raise broken_model("its 'weights' are not numbers of 0 or more")
    return tuple(tuple(float(weight) for weight in row) for row in value)


def _read_segment(value: Any) -> float | None:
    if value is None:
        return None
    if not _is_weight(value) or not 0 < value <= 3600:
        raise broken_model("its 'segment' is not a number of seconds")
    return float(value)


def _is_weight(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) and value >= 0
