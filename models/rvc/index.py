"""Reads a voice's `.index`: a faiss `IVF<n>,Flat` or `Flat` index with L2 distances. By numpy alone, without faiss.

Layout: faiss/impl/index_write.cpp. Every size is compared with the file's before anything is read or allocated.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from errors import sanitize
from models.checkpoints.errors import CheckpointError, report_broken
from models.rvc.config import FEATURE_WIDTHS

MAX_BYTES = 4 << 30
MAX_CLUSTERS = 1 << 20
_L2 = 1
_HEADER = struct.Struct("<iqqq?i")
_PAIR = struct.Struct("<QQ")
_FLAT = (b"IxF2", b"IxFI")
_TWICE = "it gives two of its vectors the same id"
_NO_MAP, _ARRAY_MAP, _HASH_MAP = 0, 1, 2
_BLOCK_BYTES = 1 << 22
_MAX_VALUE = 1e9  # features are below 100

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Index:
    """The content features of a voice's training set, in clusters.

    Args:
        vectors: `[N, D]`, in the order of their ids.
        centroids: `[n, D]`; one of zeros if the file has no clusters.
        clusters: `[N]`, the cluster of each vector.
        nprobe: number of clusters that a search looks in.
    """

    vectors: Vectors
    centroids: Vectors
    clusters: NDArray[np.int64]
    nprobe: int


@dataclass(frozen=True, slots=True)
class _Head:
    """Everything before the vectors: their number, and the sizes of the lists they are in.

    Args:
        flat: there is one list, without ids.
    """

    count: int
    nprobe: int
    centroids: Vectors
    sizes: NDArray[np.uint64]
    flat: bool = False


def read_index(path: Path, *, width: int) -> Index:
    """Reads the index at `path`.

    Args:
        width: of the voice's content features: 256 (v1) or 768 (v2).

    Raises:
        ModelError: `broken_checkpoint`: it is damaged, or was made for voices of the other version.
    """
    with _open_index(path) as reader:
        head = _read_head(reader, width)
        vectors = np.empty((head.count, width), np.float32)
        clusters = np.full(head.count, -1, np.int64)
        for cluster, codes, ids in _lists(reader, width, head):
            vectors[ids] = codes
            clusters[ids] = cluster
        if (clusters < 0).any():
            raise CheckpointError(_TWICE)
        return Index(vectors, head.centroids, clusters, head.nprobe)


def check_index(path: Path, *, width: int) -> None:
    """Checks as `read_index` does, and keeps no vectors."""
    with _open_index(path) as reader:
        head = _read_head(reader, width)
        seen = np.zeros(head.count, bool)
        for _, _, ids in _lists(reader, width, head):
            seen[ids] = True
        if not seen.all():
            raise CheckpointError(_TWICE)


@contextmanager
def _open_index(path: Path) -> Iterator[_Reader]:
    """Opens an index; errors name it."""
    remedy = "Create the index again, or remove it: the voice works without one."
    with report_broken(f"The index '{sanitize(path.name)}'", remedy):
        try:
            with path.open("rb") as file:
                yield _Reader(file)
        except OSError as error:
            raise CheckpointError(f"it cannot be read ({type(error).__name__})") from error


class _Reader:
    """Reads little-endian values, and never more than the file still holds."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.left = os.fstat(file.fileno()).st_size
        if self.left > MAX_BYTES:
            raise CheckpointError(f"it has {self.left >> 20} MB, and at most {MAX_BYTES >> 20} MB are read")

    def bytes(self, size: int) -> bytes:
        self.require(size)
        data = self._file.read(size)
        if len(data) < size:
            raise CheckpointError("it is cut short")
        self.left -= size
        return data

    def require(self, size: int) -> None:
        """Raises `CheckpointError` if fewer than `size` bytes are left."""
        if size > self.left:
            raise CheckpointError("it is cut short, or states sizes that it does not have")

    def pack(self, layout: struct.Struct) -> tuple[Any, ...]:
        return layout.unpack(self.bytes(layout.size))

    def number(self) -> int:
        return int.from_bytes(self.bytes(8), "little")

    def array(self, dtype: type[np.generic], count: int) -> NDArray[Any]:
        return np.frombuffer(self.bytes(count * np.dtype(dtype).itemsize), dtype)


def _read_head(reader: _Reader, width: int) -> _Head:
    kind = reader.bytes(4)
    if kind in _FLAT:
        count = _read_count(reader, width)
        if reader.number() != count * width or reader.left != count * width * 4:
            raise CheckpointError("it does not hold as many vectors as it states")
        return _Head(count, 1, np.zeros((1, width), np.float32), np.array([count], np.uint64), flat=True)
    if kind != b"IwFl":
        name = sanitize(kind.decode("ascii", "backslashreplace"))
        raise CheckpointError(f"it is an index of the kind '{name}', and only 'IVF,Flat' and 'Flat' are read")
    count = _read_count(reader, width)
    lists, nprobe = reader.pack(_PAIR)
    if not 1 <= lists <= MAX_CLUSTERS or not 1 <= nprobe <= lists:
        raise CheckpointError("its number of clusters is absurd")
    centroids = _read_centroids(reader, lists, width)
    _skip_map(reader, count)
    sizes = _read_sizes(reader, lists, width, count)
    if reader.left != count * (width * 4 + 8):
        raise CheckpointError("it does not hold as many vectors as it states")
    return _Head(count, nprobe, centroids, sizes)


def _read_count(reader: _Reader, width: int) -> int:
    """Reads the number of vectors from a header whose other fields must be as in RVC's."""
    found, count, _, _, trained, metric = reader.pack(_HEADER)
    if metric != _L2 or not trained:
        raise CheckpointError("it is untrained, or uses another distance than L2")
    if found != width:
        versions = [version for version, taken in FEATURE_WIDTHS.items() if taken == found]
        made_for = f"; it was made for a {versions[0]} voice" if versions else ""
        reason = f"its vectors have {found} numbers, and this voice's features {width}.{made_for}"
        raise CheckpointError(reason)
    if not 0 < count <= reader.left // (width * 4):
        raise CheckpointError("it is empty, cut short, or states sizes that it does not have")
    return int(count)


def _read_centroids(reader: _Reader, lists: int, width: int) -> Vectors:
    if reader.bytes(4) not in _FLAT:
        raise CheckpointError("its clusters are of a kind that is not read")
    if _read_count(reader, width) != lists or reader.number() != lists * width:
        raise CheckpointError("it states two different numbers of clusters")
    centroids: Vectors = reader.array(np.float32, lists * width).reshape(lists, width).copy()
    _check_finite(centroids)
    return centroids


def _skip_map(reader: _Reader, count: int) -> None:
    """Skips the map from ids to positions, which faiss writes on request; the lists hold the same information."""
    kind, size = reader.bytes(1)[0], reader.number()
    if kind not in (_NO_MAP, _ARRAY_MAP, _HASH_MAP) or size not in (0, count):
        raise CheckpointError("its map of ids is damaged")
    reader.bytes(8 * size)
    if kind == _HASH_MAP:
        pairs = reader.number()
        if pairs > count:
            raise CheckpointError("its map of ids is damaged")
        reader.bytes(16 * pairs)


def _read_sizes(reader: _Reader, lists: int, width: int, count: int) -> NDArray[np.uint64]:
    if reader.bytes(4) != b"ilar":
        raise CheckpointError("its lists are of a kind that is not read")
    found, code_size = reader.pack(_PAIR)
    if found != lists or code_size != width * 4:
        raise CheckpointError("its lists do not fit its clusters")
    kind, stated = reader.bytes(4), reader.number()
    sizes = np.zeros(lists, np.uint64)
    if kind == b"full" and stated == lists:
        sizes[:] = reader.array(np.uint64, lists)
    elif kind == b"sprs" and stated % 2 == 0 and stated <= 2 * lists:
        pairs = reader.array(np.uint64, stated).reshape(-1, 2)
        if len(pairs) and (pairs[:, 0].max() >= lists or (np.diff(pairs[:, 0].astype(np.int64)) <= 0).any()):
            raise CheckpointError("its lists do not fit its clusters")
        sizes[pairs[:, 0].astype(np.int64)] = pairs[:, 1]
    else:
        raise CheckpointError("the sizes of its lists are of a kind that is not read")
    if sizes.max() > count or int(sizes.sum()) != count:
        raise CheckpointError("the sizes of its lists do not sum to its vectors")
    return sizes


def _lists(reader: _Reader, width: int, head: _Head) -> Iterator[tuple[int, Vectors, NDArray[np.int64]]]:
    """Yields the vectors in pieces: (cluster, `[n, width]`, ids)."""
    most = _BLOCK_BYTES // (4 * width)
    if head.flat:
        for start in range(0, head.count, most):
            ids = np.arange(start, min(start + most, head.count))
            yield 0, _vectors(reader, len(ids), width), ids
        return
    for cluster in np.flatnonzero(head.sizes):
        codes = _vectors(reader, int(head.sizes[cluster]), width)
        ids = reader.array(np.int64, len(codes))
        if ids.min() < 0 or ids.max() >= head.count:
            raise CheckpointError("it holds an id for which there is no vector")
        yield int(cluster), codes, ids


def _vectors(reader: _Reader, count: int, width: int) -> Vectors:
    values: Vectors = reader.array(np.float32, count * width).reshape(count, width)
    _check_finite(values)
    return values


def _check_finite(values: Vectors) -> None:
    """Raises `CheckpointError` also for values whose square is not finite."""
    if not (np.abs(values) < _MAX_VALUE).all():
        raise CheckpointError("it holds values that are not finite, or absurdly large")
