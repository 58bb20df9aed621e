"""Reads the header of a safetensors file without torch and without its tensors.

Format: huggingface.co/docs/safetensors: a little-endian 64-bit length, then that many bytes of JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.checkpoints.errors import CheckpointError

_MAX_HEADER_BYTES = 16 << 20


def read_metadata(path: Path) -> Mapping[str, str]:
    """Returns the text entries of `__metadata__`; raises `CheckpointError` if the file is not a safetensors file."""
    metadata = _read_header(path).get("__metadata__")
    entries = metadata.items() if isinstance(metadata, dict) else ()
    return {key: value for key, value in entries if isinstance(value, str)}


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every tensor that the header states; raises as `read_metadata`."""
    shapes = {}
    for name, entry in _read_header(path).items():
        if name == "__metadata__":
            continue
        shape = entry.get("shape") if isinstance(entry, dict) else None
        if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
            raise CheckpointError("it is not a safetensors file, or is cut short")
        shapes[name] = tuple(shape)
    return shapes


def _read_header(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if 2 <= length <= _MAX_HEADER_BYTES else None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError("it is not a safetensors file, or is cut short") from error
    if not isinstance(header, dict):
        raise CheckpointError("it is not a safetensors file, or is cut short")
    return header
