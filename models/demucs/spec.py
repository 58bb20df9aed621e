"""What a weights file states about its network: which class to build, with which arguments. Read without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from models.checkpoints.errors import CheckpointError
from models.checkpoints.safetensors_header import read_metadata
from models.demucs.bag import broken_model

# Files name one of these. No other class is ever imported or built.
NETWORKS = ("demucs.htdemucs.HTDemucs", "demucs.hdemucs.HDemucs", "demucs.demucs.Demucs")


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """How to build a network.

    Args:
        network: one of `NETWORKS`.
        args, kwargs: of its constructor.
        structure: how a nested state was flattened into named tensors; None: it was flat.
    """

    network: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    structure: Any = None

    @property
    def stems(self) -> tuple[str, ...]:
        """The names of its outputs, in its own order; raises `ModelError` if the file does not name them."""
        sources = self.kwargs.get("sources", self.args[0] if self.args else None)
        if not isinstance(sources, list | tuple) or not sources or not all(isinstance(name, str) for name in sources):
            raise broken_model("its file names no stems")
        if len(set(sources)) != len(sources):
            raise broken_model("its file names a stem twice")
        return tuple(sources)

    @property
    def sample_rate(self) -> int:
        """In Hz."""
        return int(self.kwargs.get("samplerate", 44_100))

    @property
    def max_segment(self) -> float | None:
        """The longest audio in seconds that the network takes at once; None if it takes any length."""
        if self.network != NETWORKS[0] or not self.kwargs.get("use_train_segment", True):
            return None
        return float(self.kwargs.get("segment", 10))


def read_spec(path: Path) -> NetworkSpec:
    """Reads a safetensors header; raises `ModelError` if it describes no network, or one of another class."""
    try:
        metadata = read_metadata(path)
    except CheckpointError as error:
        raise broken_model(f"of a weights file, {error}") from error
    return parse_spec(metadata)


def is_demucs_file(path: Path) -> bool:
    """Whether the file looks like that of a Demucs network, intact or not."""
    if path.suffix == ".th":
        return True
    try:
        return "klass" in read_metadata(path)
    except CheckpointError:
        return False


def parse_spec(metadata: Mapping[str, str]) -> NetworkSpec:
    """Parses the metadata that demucs 4.1 writes: JSON in each entry."""
    network = metadata.get("klass")
    if network not in NETWORKS:
        raise broken_model(
            f"its file asks for a network other than {', '.join(NETWORKS)}, which are the only ones built"
        )
    if not {"args", "kwargs"} <= metadata.keys():
        raise broken_model("its file does not describe its network")
    try:
        args = _decode(json.loads(metadata["args"]))
        kwargs = _decode(json.loads(metadata["kwargs"]))
        structure = json.loads(metadata["structure"]) if "structure" in metadata else None
    except (ValueError, ZeroDivisionError, RecursionError) as error:
        raise broken_model("its file's description of the network is damaged") from error
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise broken_model("its file's description of the network is damaged")
    return NetworkSpec(network, tuple(args), kwargs, structure)


def _decode(value: Any) -> Any:
    """Restores fractions (HTDemucs' `segment`), stored as `{"_type": "fraction", "numerator", "denominator"}`."""
    if isinstance(value, dict):
        if value.get("_type") == "fraction":
            return _read_fraction(value.get("numerator"), value.get("denominator"))
        return {key: _decode(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_decode(item) for item in value]
    return value


def _read_fraction(numerator: Any, denominator: Any) -> Fraction:
    if not isinstance(numerator, int) or not isinstance(denominator, int):
        raise ValueError("a fraction without whole numbers")
    return Fraction(numerator, denominator)
