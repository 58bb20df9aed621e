"""A file that `torch.save` wrote: its plain content at once, its tensors on demand, checked as they are read.

Numpy only, until `read` makes tensors. A record is read as raw bytes and must be exactly as long as its storage.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from errors import sanitize
from models.checkpoints.safe_pickle import PickleError, StorageRef, TensorRef, load
from models.checkpoints.zip_directory import STORED, ArchiveError, Entry, read_directory, stored_range

if TYPE_CHECKING:
    import torch

_BLOCK_BYTES: Final = 1 << 22
_OLD_FORMAT: Final = b"\x80\x02"  # the beginning of a bare pickle
_ITEM_BYTES: Final = MappingProxyType(
    {"float64": 8, "int64": 8, "float32": 4, "int32": 4, "float16": 2, "bfloat16": 2, "int16": 2, "int8": 1}
    | {"uint8": 1, "bool": 1}
)
# A floating-point number is infinite or no number where all bits of its exponent are set.
_EXPONENTS: Final[Mapping[str, tuple[type[np.unsignedinteger[Any]], int]]] = MappingProxyType(
    {
        "float64": (np.uint64, 0x7FF0_0000_0000_0000),
        "float32": (np.uint32, 0x7F80_0000),
        "float16": (np.uint16, 0x7C00),
        "bfloat16": (np.uint16, 0x7F80),
    }
)


class TorchFileError(ValueError):
    """The file is no checkpoint that we read; the message is a clause that says why."""


@dataclass(frozen=True, slots=True)
class FileLimits:
    """What a file may have at most. `foreign`: as `pickles.load` takes it."""

    max_bytes: int
    max_entries: int
    max_index_bytes: int
    max_steps: int
    foreign: bool = False


class TorchFile:
    """One open file of torch's zip format.

    Args:
        file: at any position; stays open while this is used.
        limits: what it may have at most.

    Raises:
        TorchFileError: it is not in that format, is damaged, or asks for more than tensors and plain values.
    """

    def __init__(self, file: BinaryIO, limits: FileLimits) -> None:
        self._file = file
        size = os.fstat(file.fileno()).st_size
        if size > limits.max_bytes:
            raise TorchFileError(f"it has {size >> 20} MB, and at most {limits.max_bytes >> 20} MB are read")
        file.seek(0)
        if file.read(2) == _OLD_FORMAT:
            raise TorchFileError("it is in torch's format from before 2020; load it with torch and save it again")
        with _told():
            self._entries = _records(file, limits)
            index = self._entries["data.pkl"]
            if index.size > limits.max_index_bytes:
                raise TorchFileError("its index is implausibly long")
            data = self._bytes(index)
            self.content = load(data, max_steps=limits.max_steps, foreign=limits.foreign)
            """What was saved, with a `TensorRef` in place of each tensor."""

    def check(self, tensors: Mapping[str, TensorRef]) -> None:
        """Reads every value of `tensors` once, keeping none.

        Raises:
            TorchFileError: a record is missing, of the wrong size, or holds a value that is not finite (names it).
        """
        for storage, name in _storages(tensors).items():
            for block in self._blocks(storage):
                _demand_finite(block, storage.dtype, name)

    def read(self, tensors: Mapping[str, TensorRef]) -> dict[str, torch.Tensor]:
        """The tensors by name, in their stored dtypes, each storage read once and shared as it was.

        Raises:
            TorchFileError: as `check`.
        """
        buffers = {storage: self._checked(storage, name) for storage, name in _storages(tensors).items()}
        import torch

        made = {}
        for name, tensor in tensors.items():
            dtype = getattr(torch, tensor.storage.dtype)
            flat = (
                torch.frombuffer(buffers[tensor.storage], dtype=dtype) if tensor.count else torch.empty(0, dtype=dtype)
            )
            made[name] = flat[tensor.offset :][: tensor.count].reshape(tensor.shape)
        return made

    def _checked(self, storage: StorageRef, name: str) -> bytearray:
        whole, at = bytearray(storage.count * _ITEM_BYTES[storage.dtype] if self._matches(storage) else 0), 0
        for block in self._blocks(storage):
            _demand_finite(block, storage.dtype, name)
            whole[at : at + len(block)] = block
            at += len(block)
        return whole

    def _matches(self, storage: StorageRef) -> bool:
        """Whether the file has as much as the storage states: nothing is set aside for what is only stated."""
        entry = self._entries.get(f"data/{storage.key}")
        return entry is not None and entry.size == storage.count * _ITEM_BYTES[storage.dtype]

    def _blocks(self, storage: StorageRef) -> Iterator[bytes]:
        entry = self._entries.get(f"data/{storage.key}")
        if entry is None or not self._matches(storage):
            raise TorchFileError("a tensor's data are missing, or are not of the size that its index states")
        with _told():
            at = stored_range(self._file, entry)
        self._file.seek(at)
        left = entry.size
        while left:
            block = self._file.read(min(left, _BLOCK_BYTES))
            if not block:
                raise TorchFileError("it is cut short")
            left -= len(block)
            yield block

    def _bytes(self, entry: Entry) -> bytes:
        self._file.seek(stored_range(self._file, entry))
        return self._file.read(entry.size)


@contextmanager
def open_torch_file(path: Path, limits: FileLimits) -> Iterator[TorchFile]:
    """Opens `path`; `TorchFileError` also where the system will not let it be read."""
    try:
        with path.open("rb") as file:
            yield TorchFile(file, limits)
    except OSError as error:
        raise TorchFileError(f"it cannot be read ({type(error).__name__})") from error


def _records(file: BinaryIO, limits: FileLimits) -> dict[str, Entry]:
    """The entries by their names below the one folder that torch puts all into."""
    entries = read_directory(file, max_entries=limits.max_entries)
    if any(entry.method != STORED or entry.encrypted or entry.size != entry.packed_size for entry in entries):
        raise TorchFileError("it is compressed; torch.save never does that, and what it unpacks to may be anything")
    tops = [entry.name.removesuffix("data.pkl") for entry in entries if entry.name.endswith("/data.pkl")]
    if len(tops) != 1:
        raise TorchFileError("it is a zip, but not one that torch.save wrote")
    records = {entry.name.removeprefix(tops[0]): entry for entry in entries if entry.name.startswith(tops[0])}
    order = records.get("byteorder")
    if order is not None and order.size != len(b"little"):
        raise TorchFileError("its numbers are not in little-endian order")
    return records


def _storages(tensors: Mapping[str, TensorRef]) -> dict[StorageRef, str]:
    """Every storage once, each with the name of the first tensor that lies in it."""
    found: dict[StorageRef, str] = {}
    for name, tensor in tensors.items():
        if not tensor.dense:
            raise TorchFileError(f"'{sanitize(name)}' does not lie in one piece; save it with .contiguous()")
        found.setdefault(tensor.storage, name)
    if len({storage.key for storage in found}) != len(found):
        raise TorchFileError("tensors of different kinds share one piece of its data")
    return found


def _demand_finite(block: bytes, dtype: str, name: str) -> None:
    if dtype not in _EXPONENTS:
        return
    kind, exponent = _EXPONENTS[dtype]
    bits: NDArray[Any] = np.frombuffer(block, kind)
    mask = kind(exponent)
    if ((bits & mask) == mask).any():
        raise TorchFileError(f"'{sanitize(name)}' holds values that are not finite, so it would make no sound")


@contextmanager
def _told() -> Iterator[None]:
    """Errors of the two formats inside as ours."""
    try:
        yield
    except (ArchiveError, PickleError) as error:
        raise TorchFileError(str(error)) from error
