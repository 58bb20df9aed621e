"""Looks into a torch checkpoint without torch: its plain values, and the shapes of its tensors, in milliseconds.

Reads the pickle inside the zip with every class refused but the few that stand for tensors and settings, so a file that
carries code is found out here, before anything is loaded. Knows nothing of MusicGen.
"""

from __future__ import annotations

import importlib
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_PICKLE_BYTES = 64 * 1024 * 1024
DTYPE_BYTES = {
    "DoubleStorage": 8,
    "LongStorage": 8,
    "FloatStorage": 4,
    "IntStorage": 4,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
    "ShortStorage": 2,
    "ByteStorage": 1,
    "CharStorage": 1,
    "BoolStorage": 1,
}
SETTINGS_CLASSES = (
    ("omegaconf.dictconfig", "DictConfig"),
    ("omegaconf.listconfig", "ListConfig"),
    ("omegaconf.base", "ContainerMetadata"),
    ("omegaconf.base", "Metadata"),
    ("omegaconf.base", "SCMode"),
    ("omegaconf.nodes", "AnyNode"),
    ("omegaconf.nodes", "StringNode"),
    ("omegaconf.nodes", "IntegerNode"),
    ("omegaconf.nodes", "FloatNode"),
    ("omegaconf.nodes", "BooleanNode"),
    ("typing", "Any"),
    ("builtins", "dict"),
    ("builtins", "list"),
    ("builtins", "int"),
    ("builtins", "float"),
    ("builtins", "str"),
    ("builtins", "bool"),
    ("collections", "defaultdict"),
)
"""Settings as older exports pickle them: data holders, none of which runs anything when it is made."""


class UnsafeCheckpointError(ValueError):
    """The file needs a class that is neither a tensor nor a setting; the message is that class's name."""


class UnreadableCheckpointError(ValueError):
    """The file is not a checkpoint in torch's zip format; the message says how not."""


@dataclass(frozen=True)
class TensorShape:
    """A tensor that was not read: its shape and how many bytes it takes."""

    shape: tuple[int, ...]
    nbytes: int


@dataclass(frozen=True)
class _Storage:
    item_bytes: int


def peek(path: Path) -> Mapping[Any, Any]:
    """The dict that `torch.save` wrote to `path`, with a `TensorShape` in place of each tensor.

    Raises:
        UnsafeCheckpointError: the pickle in it asks for a class that we do not make.
        UnreadableCheckpointError: no zip, truncated, no dict.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entry = next(info for info in archive.infolist() if info.filename.endswith("/data.pkl"))
            if entry.file_size > MAX_PICKLE_BYTES:
                raise UnreadableCheckpointError("its index is implausibly large")
            with archive.open(entry) as file:
                content = _Unpickler(file).load()
    except UnsafeCheckpointError:
        raise
    except (zipfile.BadZipFile, StopIteration) as error:
        raise UnreadableCheckpointError("it is truncated, or not a file written by torch.save") from error
    except OSError as error:
        raise UnreadableCheckpointError(f"it cannot be read ({type(error).__name__})") from error
    except _BROKEN_PICKLE as error:
        raise UnreadableCheckpointError("its index is damaged") from error
    if not isinstance(content, Mapping):
        raise UnreadableCheckpointError("it holds no dictionary")
    return content


# What the pickle machine raises on bytes that make no sense to it.
_BROKEN_PICKLE = (pickle.UnpicklingError, EOFError, LookupError, TypeError, ValueError, AttributeError, MemoryError)


class _Unpickler(pickle._Unpickler):
    """Makes tensors into shapes, and nothing else but settings.

    On the pickle machine in Python: the one in C allocates whatever memory a damaged file's memo index asks for.
    """

    def find_class(self, module: str, name: str) -> Any:
        module, name = _OLD_NAMES.get((module, name), (module, name))
        if (module, name) in _STAND_INS:
            return _STAND_INS[module, name]
        if module == "torch" and name in DTYPE_BYTES:
            return name
        if (module, name) in SETTINGS_CLASSES:
            return getattr(importlib.import_module(module), name)
        raise UnsafeCheckpointError(f"{module}.{name}"[:100])

    def persistent_load(self, pid: Any) -> _Storage:
        return _Storage(DTYPE_BYTES[pid[1]])


def _tensor(storage: _Storage, offset: int, size: tuple[int, ...], *_: Any) -> TensorShape:
    count = 1
    for length in size:
        count *= length
    return TensorShape(shape=tuple(size), nbytes=count * storage.item_bytes)


def _parameter(tensor: TensorShape, *_: Any) -> TensorShape:
    return tensor


# Protocol 2, which torch writes, calls builtins by what they were called in Python 2.
_OLD_NAMES = {("__builtin__", name): ("builtins", name) for name in ("dict", "list", "float", "bool", "int", "str")}
_OLD_NAMES |= {("__builtin__", "long"): ("builtins", "int"), ("__builtin__", "unicode"): ("builtins", "str")}
_STAND_INS: Mapping[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
}
