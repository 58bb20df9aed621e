"""What a safetensors file says of its network, read without torch. Decides which classes may be built."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from models.demucs.bag import broken

# Named by metadata, so by whoever wrote the file: nothing else is ever imported.
NETWORKS: Final = ("demucs.htdemucs.HTDemucs", "demucs.hdemucs.HDemucs", "demucs.demucs.Demucs")
_MOST_HEADER_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class Blueprint:
    """How to build a network: a class of `NETWORKS` and what its constructor takes."""

    network: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    structure: Any = None

    @property
    def stems(self) -> tuple[str, ...]:
        """The names of what it separates, in its own order."""
        sources = self.kwargs.get("sources", self.args[0] if self.args else None)
        if not isinstance(sources, list | tuple) or not sources or not all(isinstance(name, str) for name in sources):
            raise broken("its file names no stems")
        if len(set(sources)) != len(sources):
            raise broken("its file names a stem twice")
        return tuple(sources)

    @property
    def sample_rate(self) -> int:
        """In Hz."""
        return int(self.kwargs.get("samplerate", 44_100))

    @property
    def max_segment(self) -> float | None:
        """Seconds that the network was trained on and cannot exceed; None where it takes any length."""
        if self.network != NETWORKS[0] or not self.kwargs.get("use_train_segment", True):
            return None
        return float(self.kwargs.get("segment", 10))


def read_blueprint(path: Path) -> Blueprint:
    """The blueprint in a safetensors header; `ModelError` where there is none or it names a foreign class."""
    try:
        metadata = _metadata(path)
    except (OSError, ValueError, RecursionError) as error:
        raise broken("a weights file is no safetensors file, or is cut short") from error
    return blueprint(metadata)


def is_demucs_file(path: Path) -> bool:
    """Whether the file looks like one of a Demucs network, sound or not."""
    if path.suffix == ".th":
        return True
    try:
        return "klass" in _metadata(path)
    except (OSError, ValueError):
        return False


def blueprint(metadata: Mapping[str, str]) -> Blueprint:
    """The blueprint that safetensors metadata state as JSON, as demucs 4.1 writes them."""
    network = metadata.get("klass")
    if network not in NETWORKS:
        raise broken(f"its file asks for a network other than {', '.join(NETWORKS)}, which are the only ones built")
    try:
        args = _decoded(json.loads(metadata["args"]))
        kwargs = _decoded(json.loads(metadata["kwargs"]))
        structure = json.loads(metadata["structure"]) if "structure" in metadata else None
    except (KeyError, ValueError, ZeroDivisionError, RecursionError) as error:
        raise broken("its file's description of the network is damaged") from error
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise broken("its file's description of the network is damaged")
    return Blueprint(str(network), tuple(args), kwargs, structure)


def _metadata(path: Path) -> Mapping[str, str]:
    """safetensors: a little-endian 64-bit length, then that much JSON."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= _MOST_HEADER_BYTES:
            raise ValueError("no safetensors header")
        header = json.loads(file.read(length))
    metadata = header.get("__metadata__", {}) if isinstance(header, dict) else {}
    return {key: value for key, value in metadata.items() if isinstance(value, str)}


def _decoded(value: Any) -> Any:
    """Fractions (the `segment` of HTDemucs) stand as `{"_type": "fraction", "numerator", "denominator"}`."""
    if isinstance(value, dict):
        if value.get("_type") == "fraction":
            return Fraction(int(value["numerator"]), int(value["denominator"]))
        return {key: _decoded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    return value
