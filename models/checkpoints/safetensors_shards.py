"""A network's weights in one safetensors file or in several with an index: which files, and where each tensor is.

Reads headers only, without torch. Format of the index: transformers' `<stem>.safetensors.index.json`.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from errors import sanitize
from models.checkpoints.errors import CheckpointError
from models.checkpoints.locations import can_search
from models.checkpoints.safetensors_header import read_shapes

_MAX_INDEX_CHARS = 8 << 20
_MAX_SHARDS = 256
_SHARD_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,120}\.safetensors")


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor that was not read: its file, its name there and its shape."""

    path: Path
    name: str
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


Tensors = Mapping[str, StoredTensor]


def name_index(stem: str) -> str:
    """Returns the name of the index of shards."""
    return f"{stem}.safetensors.index.json"


def list_weight_files(folder: Path, stem: str) -> tuple[str, ...]:
    """Returns the names of the files that hold a network's weights, whether they are there or not.

    `<stem>.safetensors` counts before an index.

    Raises:
        CheckpointError: the index is broken, or names what cannot be a file of its folder.
    """
    if not can_search(folder):
        raise CheckpointError("its folder is missing or cannot be read")
    index = folder / name_index(stem)
    if not index.is_file() or (folder / f"{stem}.safetensors").is_file():
        return (f"{stem}.safetensors",)
    try:
        with index.open(encoding="utf-8") as file:
            text = file.read(_MAX_INDEX_CHARS + 1)
        content = json.loads(text) if len(text) <= _MAX_INDEX_CHARS else None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"its {index.name} cannot be read") from error
    files = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(files, dict) or not files or not all(isinstance(name, str) for name in files.values()):
        raise CheckpointError(f"its {index.name} lists no files")
    names = sorted(set(files.values()))
    if len(names) > _MAX_SHARDS or not all(_SHARD_NAME.fullmatch(name) for name in names):
        raise CheckpointError(f"its {index.name} lists files that cannot be its shards")
    return tuple(names)


def find_tensors(folder: Path, stem: str) -> dict[str, StoredTensor]:
    """Returns every tensor of a network by its name.

    Raises:
        CheckpointError: a file is missing or broken (names it), or two of them hold the same tensor.
    """
    tensors: dict[str, StoredTensor] = {}
    for file in list_weight_files(folder, stem):
        path = folder / file
        try:
            status = path.stat()
        except OSError as error:
            raise CheckpointError(f"its file {sanitize(file)} is missing") from error
        try:
            shapes = _read_shapes(path, (status.st_ino, status.st_mtime_ns, status.st_size))
        except CheckpointError as error:
            raise CheckpointError(f"its file {sanitize(file)} is broken: {error}") from error
        for name, shape in shapes.items():
            if name in tensors:
                raise CheckpointError(f"two of its files hold '{sanitize(name)}'")
            tensors[name] = StoredTensor(path, name, shape)
    return tensors


def count_elements(tensors: Tensors) -> int:
    """Returns the number of values in all tensors."""
    return sum(tensor.count for tensor in tensors.values())


def check_shapes(tensors: Tensors, expected: Mapping[str, tuple[int, ...]], network: str) -> None:
    """Raises `CheckpointError` if a tensor is missing or has another shape than expected; the message names it."""
    for name, shape in expected.items():
        if name not in tensors:
            raise CheckpointError(f"the tensor '{sanitize(name)}' of its {network} is missing")
        if tensors[name].shape != shape:
            found = list(tensors[name].shape)
            raise CheckpointError(f"the tensor '{sanitize(name)}' of its {network} is {found} and not {list(shape)}")


@functools.lru_cache(maxsize=64)
def _read_shapes(path: Path, version: tuple[int, int, int]) -> Mapping[str, tuple[int, ...]]:
    """Reads one version of a file, once: every request asks for it several times."""
    return read_shapes(path)
