"""Reads a voice's `.index`: a faiss `IVF<n>,Flat` or `Flat` index with L2 distances. Numpy only; faiss never sees it.

Layout: faiss/impl/index_write.cpp. All sizes are compared with the file's before anything is read or set aside.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from errors import ErrorCode, ModelError, sanitize
from models.rvc.config import FEATURE_WIDTHS

MAX_BYTES: Final = 4 << 30
MAX_CLUSTERS: Final = 1 << 20
_L2: Final = 1
_HEADER: Final = struct.Struct("<iqqq?i")
_PAIR: Final = struct.Struct("<QQ")
_FLAT: Final = (b"IxF2", b"IxFI")
_TWICE: Final = "it gives two of its vectors one number"
_NO_MAP, _ARRAY_MAP, _HASH_MAP = 0, 1, 2
_BLOCK_BYTES: Final = 1 << 22
_MAX_VALUE: Final = 1e9  # features are below 100

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Index:
    """The content features of a voice's training set, in clusters.

    Args:
        vectors: `[N, D]`, in the order of their ids.
        centroids: `[n, D]`; one of zeros where the file has no clusters.
        clusters: `[N]`, which cluster each vector is in.
        nprobe: in how many clusters a search looks.
    """

    vectors: Vectors
    centroids: Vectors
    clusters: NDArray[np.int64]
    nprobe: int


class _DamagedError(ValueError):
    """The message is a clause that says how."""


@dataclass(frozen=True, slots=True)
class _Head:
    """All before the vectors: how many there are, in lists of which sizes; `flat`: in one, without ids."""

    count: int
    nprobe: int
    centroids: Vectors
    sizes: NDArray[np.uint64]
    flat: bool = False


def read_index(path: Path, *, width: int) -> Index:
    """The index at `path`.

    Args:
        width: of the voice's content features: 256 (v1) or 768 (v2).

    Raises:
        ModelError: `broken_checkpoint` where it was made for the other version, else `broken_checkpoint`.
    """
    with _opened(path) as reader:
        head = _read_head(reader, width)
        vectors = np.empty((head.count, width), np.float32)
        clusters = np.full(head.count, -1, np.int64)
        for cluster, codes, ids in _lists(reader, width, head):
            vectors[ids] = codes
            clusters[ids] = cluster
        if (clusters < 0).any():
            raise _DamagedError(_TWICE)
        return Index(vectors, head.centroids, clusters, head.nprobe)


def check_index(path: Path, *, width: int) -> None:
    """As `read_index`, keeping none of its vectors."""
    with _opened(path) as reader:
        head = _read_head(reader, width)
        seen = np.zeros(head.count, bool)
        for _, _, ids in _lists(reader, width, head):
            seen[ids] = True
        if not seen.all():
            raise _DamagedError(_TWICE)


@contextmanager
def _opened(path: Path) -> Iterator[_Reader]:
    """The file, with errors named after it."""
    try:
        with path.open("rb") as file:
            yield _Reader(file, path)
    except _DamagedError as error:
        raise _refused(path, f"{error}. Make it anew, or remove it: the voice works without") from error
    except OSError as error:
        raise _refused(path, f"it cannot be read ({type(error).__name__})") from error


def _refused(path: Path, reason: str, code: ErrorCode = ErrorCode.BROKEN_CHECKPOINT) -> ModelError:
    return ModelError(f"The index '{sanitize(path.name)}' cannot be used: {reason}.", code=code)


class _Reader:
    """Reads little-endian values, and never more than the file still holds."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self.path = file, path
        self.left = os.fstat(file.fileno()).st_size
        if self.left > MAX_BYTES:
            raise _DamagedError(f"it has {self.left >> 20} MB, and at most {MAX_BYTES >> 20} MB are read")

    def bytes(self, size: int) -> bytes:
        self.demand(size)
        data = self._file.read(size)
        if len(data) < size:
            raise _DamagedError("it is cut short")
        self.left -= size
        return data

    def demand(self, size: int) -> None:
        """Refuses where fewer than `size` bytes are left."""
        if size > self.left:
            raise _DamagedError("it is cut short, or states sizes that it does not have")

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
            raise _DamagedError("it does not hold as many vectors as it states")
        return _Head(count, 1, np.zeros((1, width), np.float32), np.array([count], np.uint64), flat=True)
    if kind != b"IwFl":
        name = sanitize(kind.decode("ascii", "backslashreplace"))
        raise _DamagedError(f"it is an index of the kind '{name}', and only 'IVF,Flat' and 'Flat' are read")
    count = _read_count(reader, width)
    lists, nprobe = reader.pack(_PAIR)
    if not 1 <= lists <= MAX_CLUSTERS or not 1 <= nprobe <= lists:
        raise _DamagedError("its number of clusters is absurd")
    centroids = _read_centroids(reader, lists, width)
    _skip_map(reader, count)
    sizes = _read_sizes(reader, lists, width, count)
    if reader.left != count * (width * 4 + 8):
        raise _DamagedError("it does not hold as many vectors as it states")
    return _Head(count, nprobe, centroids, sizes)


def _read_count(reader: _Reader, width: int) -> int:
    """Of the vectors, from a header of which everything else must be as in RVC's."""
    found, count, _, _, trained, metric = reader.pack(_HEADER)
    if metric != _L2 or not trained:
        raise _DamagedError("it is untrained, or measures something else than L2 distances")
    if found != width:
        versions = [version for version, taken in FEATURE_WIDTHS.items() if taken == found]
        made_for = f" It was made for a {versions[0]} voice." if versions else ""
        reason = f"its vectors have {found} numbers, and this voice's features {width}.{made_for}"
        raise _refused(reader.path, reason, ErrorCode.BROKEN_CHECKPOINT)
    if not 0 < count <= reader.left // (width * 4):
        raise _DamagedError("it is empty, cut short, or states sizes that it does not have")
    return int(count)


def _read_centroids(reader: _Reader, lists: int, width: int) -> Vectors:
    if reader.bytes(4) not in _FLAT:
        raise _DamagedError("its clusters are of a kind that is not read")
    if _read_count(reader, width) != lists or reader.number() != lists * width:
        raise _DamagedError("it states two different numbers of clusters")
    centroids: Vectors = reader.array(np.float32, lists * width).reshape(lists, width).copy()
    _demand_finite(centroids)
    return centroids


def _skip_map(reader: _Reader, count: int) -> None:
    """The map from ids to places, which faiss writes where it was asked for one; the lists say the same."""
    kind, size = reader.bytes(1)[0], reader.number()
    if kind not in (_NO_MAP, _ARRAY_MAP, _HASH_MAP) or size not in (0, count):
        raise _DamagedError("its map of ids is damaged")
    reader.bytes(8 * size)
    if kind == _HASH_MAP:
        pairs = reader.number()
        if pairs > count:
            raise _DamagedError("its map of ids is damaged")
        reader.bytes(16 * pairs)


def _read_sizes(reader: _Reader, lists: int, width: int, count: int) -> NDArray[np.uint64]:
    if reader.bytes(4) != b"ilar":
        raise _DamagedError("its lists are of a kind that is not read")
    found, code_size = reader.pack(_PAIR)
    if found != lists or code_size != width * 4:
        raise _DamagedError("its lists do not fit its clusters")
    kind, stated = reader.bytes(4), reader.number()
    sizes = np.zeros(lists, np.uint64)
    if kind == b"full" and stated == lists:
        sizes[:] = reader.array(np.uint64, lists)
    elif kind == b"sprs" and stated % 2 == 0 and stated <= 2 * lists:
        pairs = reader.array(np.uint64, stated).reshape(-1, 2)
        if len(pairs) and (pairs[:, 0].max() >= lists or (np.diff(pairs[:, 0].astype(np.int64)) <= 0).any()):
            raise _DamagedError("its lists do not fit its clusters")
        sizes[pairs[:, 0].astype(np.int64)] = pairs[:, 1]
    else:
        raise _DamagedError("the sizes of its lists are of a kind that is not read")
    if sizes.max() > count or int(sizes.sum()) != count:
        raise _DamagedError("the sizes of its lists do not sum to its vectors")
    return sizes


def _lists(reader: _Reader, width: int, head: _Head) -> Iterator[tuple[int, Vectors, NDArray[np.int64]]]:
    """The vectors by pieces: (cluster, `[n, width]`, ids)."""
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
            raise _DamagedError("it numbers vectors that it does not have")
        yield int(cluster), codes, ids


def _vectors(reader: _Reader, count: int, width: int) -> Vectors:
    values: Vectors = reader.array(np.float32, count * width).reshape(count, width)
    _demand_finite(values)
    return values


def _demand_finite(values: Vectors) -> None:
    """Also refuses what has no finite square."""
    if not (np.abs(values) < _MAX_VALUE).all():
        raise _DamagedError("it holds values that are not finite, or absurdly large")
