"""Reads files that `torch.save` wrote: their plain content at once, their tensors when they are asked for.

Imports numpy only, until tensors are made. A tensor's data must be exactly as long as the index states.
"""

from __future__ import annotations

import mmap
import os
import pickle
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from errors import sanitize
from models.checkpoints.errors import CheckpointError
from models.checkpoints.safe_pickle import StorageRef, TensorRef, read_pickle
from models.checkpoints.weight_norm import use_old_names
from models.checkpoints.zip_directory import STORED, Entry, find_data, read_directory

if TYPE_CHECKING:
    import torch

_BLOCK_BYTES = 1 << 22
_COUNT_BYTES = 8  # before each storage in torch's format from before 2020
_OLD_FORMAT = b"".join(pickle.dumps(number, 2) for number in (0x1950A86A20F9469CFC6C, 1001))
_OLD_PICKLES = 3  # facts of the system, the content, the keys of the storages
# A floating-point number is infinite or not a number if all bits of its exponent are set.
_EXPONENTS: Mapping[str, tuple[type[np.unsignedinteger[Any]], int]] = {
    "float64": (np.uint64, 0x7FF0_0000_0000_0000),
    "float32": (np.uint32, 0x7F80_0000),
    "float16": (np.uint16, 0x7C00),
    "bfloat16": (np.uint16, 0x7F80),
}


@dataclass(frozen=True, slots=True)
class FileLimits:
    """What a file may have at most.

    Args:
        max_bytes: of the whole file.
        max_entries: of the zip.
        max_index_bytes: of the pickle.
        max_steps: opcodes of the pickle.
        classes: names that the pickle may mention, as `read_pickle` takes them.
        old_format: whether torch's format from before 2020 is read.
    """

    max_bytes: int
    max_entries: int
    max_index_bytes: int
    max_steps: int
    classes: Collection[str] | None = ()
    old_format: bool = False


OPERATOR_LIMITS = FileLimits(
    max_bytes=64 << 30,
    max_entries=20_000,
    max_index_bytes=64 << 20,
    max_steps=4_000_000,
    classes=None,
    old_format=True,
)
"""For files that the operator chose. fairseq's hold a dictionary and settings beside the weights."""


class TorchFile:
    """One open file in torch's format.

    Args:
        file: at any position; stays open while this object is used.
        limits: what it may have at most.

    Raises:
        CheckpointError: it is not in that format, is damaged, or asks for more than tensors, plain values and the
            classes that the limits allow.
    """

    def __init__(self, file: BinaryIO, limits: FileLimits) -> None:
        self._file = file
        size = os.fstat(file.fileno()).st_size
        if size > limits.max_bytes:
            raise CheckpointError(f"it has {size >> 20} MB, and at most {limits.max_bytes >> 20} MB are read")
        file.seek(0)
        if file.read(len(_OLD_FORMAT)) == _OLD_FORMAT:
            if not limits.old_format:
                raise CheckpointError("it is in torch's format from before 2020; load it with torch and save it again")
            self._records: _ZipRecords | _OldRecords = _OldRecords(file, limits)
        else:
            self._records = _ZipRecords(file, limits)
        self.content = self._records.content
        """What was saved, with a `TensorRef` in place of each tensor."""

    def check(self, tensors: Mapping[str, TensorRef]) -> None:
        """Reads every value of `tensors` once and keeps none.

        Raises:
            CheckpointError: data are missing, of the wrong size, or hold a value that is not finite (names the tensor).
        """
        for storage, name in _list_storages(tensors).items():
            for block in self._read_blocks(storage):
                _check_finite(block, storage.dtype, name)

    def read(self, tensors: Mapping[str, TensorRef]) -> dict[str, torch.Tensor]:
        """Reads the tensors by name, in their stored dtypes; tensors that shared a storage share it again.

        Raises:
            CheckpointError: as `check`.
        """
        data: dict[StorageRef, bytearray] = {}
        for storage, name in _list_storages(tensors).items():
            # Memory is taken for what the file was found to hold, not for what its index states.
            data[storage], at = bytearray(self._find(storage)[1]), 0
            for block in self._read_blocks(storage):
                _check_finite(block, storage.dtype, name)
                data[storage][at : at + len(block)] = block
                at += len(block)
        buffers = {storage: _as_tensor(items, storage) for storage, items in data.items()}
        return {name: _view(buffers[tensor.storage], tensor) for name, tensor in tensors.items()}

    def map(self, tensors: Mapping[str, TensorRef]) -> dict[str, torch.Tensor]:
        """As `read`, with the tensors mapped from disk: they are read as they are used, and not checked for infinities.

        They are valid only while the file stays as it is: copy what is kept.
        """
        storages = _list_storages(tensors)
        whole = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_COPY)
        buffers = {storage: _as_tensor(whole, storage, self._find(storage)[0]) for storage in storages}
        return {name: _view(buffers[tensor.storage], tensor) for name, tensor in tensors.items()}

    def _find(self, storage: StorageRef) -> tuple[int, int]:
        """Returns the offset and size of a storage's data, which the file was found to hold."""
        offset, size = self._records.find(storage)
        if size != storage.nbytes:
            raise CheckpointError("a tensor's data do not have the size that its index states")
        return offset, size

    def _read_blocks(self, storage: StorageRef) -> Iterator[bytes]:
        offset, size = self._find(storage)
        self._file.seek(offset)
        while size:
            block = self._file.read(min(size, _BLOCK_BYTES))
            if not block:
                raise CheckpointError("it is cut short")
            size -= len(block)
            yield block


@contextmanager
def open_torch_file(path: Path, limits: FileLimits) -> Iterator[TorchFile]:
    """Opens `path`; raises `CheckpointError` also if the system does not let it be read."""
    try:
        with path.open("rb") as file:
            yield TorchFile(file, limits)
    except OSError as error:
        raise CheckpointError(f"it cannot be read ({type(error).__name__})") from error


def select_tensors(content: object) -> dict[str, TensorRef]:
    """Returns the tensors of a state dict that was read, by name; none if it is no dict."""
    items = content.items() if isinstance(content, dict) else ()
    return use_old_names({key: item for key, item in items if isinstance(key, str) and isinstance(item, TensorRef)})


class _ZipRecords:
    """torch's format since 1.6: an uncompressed zip with `data.pkl` and a record for each storage."""

    def __init__(self, file: BinaryIO, limits: FileLimits) -> None:
        self._file = file
        self._entries = _read_entries(file, limits)
        index = self._entries["data.pkl"]
        if index.size > limits.max_index_bytes:
            raise CheckpointError("its index is implausibly long")
        file.seek(find_data(file, index))
        data = file.read(index.size)
        self.content = read_pickle(data, max_steps=limits.max_steps, classes=limits.classes).value

    def find(self, storage: StorageRef) -> tuple[int, int]:
        entry = self._entries.get(f"data/{storage.key}")
        if entry is None:
            raise CheckpointError("a tensor's data are missing")
        return find_data(self._file, entry), entry.size


def _read_entries(file: BinaryIO, limits: FileLimits) -> dict[str, Entry]:
    """Reads the entries by their names below the one folder that torch puts all of them into."""
    entries = read_directory(file, max_entries=limits.max_entries)
    if any(entry.method != STORED or entry.encrypted or entry.size != entry.packed_size for entry in entries):
        raise CheckpointError("it is compressed; torch.save never does that, and it may unpack to any size")
    folders = [entry.name.removesuffix("data.pkl") for entry in entries if entry.name.endswith("/data.pkl")]
    if len(folders) != 1:
        raise CheckpointError("it is a zip, but not one that torch.save wrote")
    records = {entry.name.removeprefix(folders[0]): entry for entry in entries if entry.name.startswith(folders[0])}
    order = records.get("byteorder")
    if order is not None and order.size != len(b"little"):
        raise CheckpointError("its numbers are not in little-endian order")
    return records


class _OldRecords:
    """torch's format from before 2020: pickles one after the other, then the storages.

    Format: torch/serialization.py, `_legacy_save`.
    """

    def __init__(self, file: BinaryIO, limits: FileLimits) -> None:
        file.seek(0)
        data, end = file.read(limits.max_index_bytes), len(_OLD_FORMAT)
        pickles = []
        for _ in range(_OLD_PICKLES):
            pickles.append(read_pickle(data, max_steps=limits.max_steps, classes=limits.classes, start=end))
            end = pickles[-1].end
        _, content, keys = pickles
        self.content, self._places = content.value, dict[str, tuple[int, int]]()
        length = os.fstat(file.fileno()).st_size
        for key in keys.value if isinstance(keys.value, list) else ():
            storage = content.storages.get(key) if isinstance(key, str) else None
            if storage is None:
                raise CheckpointError("its index is damaged")
            if end + _COUNT_BYTES + storage.nbytes > length:
                raise CheckpointError("it is cut short")
            file.seek(end)
            if int.from_bytes(file.read(_COUNT_BYTES), "little") != storage.count:
                raise CheckpointError("a tensor's data do not have the size that its index states")
            self._places[storage.key] = end + _COUNT_BYTES, storage.nbytes
            end += _COUNT_BYTES + storage.nbytes

    def find(self, storage: StorageRef) -> tuple[int, int]:
        if storage.key not in self._places:
            raise CheckpointError("a tensor's data are missing")
        return self._places[storage.key]


def _list_storages(tensors: Mapping[str, TensorRef]) -> dict[StorageRef, str]:
    """Returns every storage once, each with the name of the first tensor in it."""
    storages: dict[StorageRef, str] = {}
    for name, tensor in tensors.items():
        if not tensor.dense:
            raise CheckpointError(f"'{sanitize(name)}' is not contiguous; save it with .contiguous()")
        storages.setdefault(tensor.storage, name)
    return storages


def _check_finite(block: bytes, dtype: str, name: str) -> None:
    if dtype not in _EXPONENTS:
        return
    kind, exponent = _EXPONENTS[dtype]
    bits: NDArray[Any] = np.frombuffer(block, kind)
    mask = kind(exponent)
    if ((bits & mask) == mask).any():
        raise CheckpointError(f"'{sanitize(name)}' holds values that are not finite, so it would produce no sound")


def _as_tensor(buffer: bytearray | mmap.mmap, storage: StorageRef, offset: int = 0) -> torch.Tensor:
    import torch

    dtype: torch.dtype = getattr(torch, storage.dtype)
    if storage.count == 0:
        return torch.empty(0, dtype=dtype)
    if offset % storage.item_bytes:  # possible in the old format only; torch asks for aligned memory
        buffer, offset = bytearray(buffer[offset : offset + storage.nbytes]), 0
    return torch.frombuffer(buffer, dtype=dtype, count=storage.count, offset=offset)


def _view(storage: torch.Tensor, tensor: TensorRef) -> torch.Tensor:
    return storage[tensor.offset :][: tensor.count].reshape(tensor.shape)
