"""Reads the pickle in a torch checkpoint as plain data. Nothing is imported, constructed or called.

An interpreter for the opcodes that `torch.save` writes (pickle protocol 2), and for no others. Tensors become
references to their data, and objects of classes on the caller's list become `PickledObject`s. The interpreter does not
recurse, so nesting costs nothing, and it counts opcodes, so a small file cannot expand without bound.
Background: CVE-2025-32434 and CVE-2026-24747 were holes in torch's own restricted unpickler.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from errors import sanitize
from models.checkpoints.errors import CheckpointError, UnsafeCheckpointError

_MAX_DIMENSIONS = 8
_MAX_LENGTH = 1 << 40
_MAX_NAME_BYTES = 256
_MAX_MARKS = 64
_MAX_INT_BYTES = 8

_STORAGES: Mapping[str, tuple[str, int]] = MappingProxyType(
    {
        "DoubleStorage": ("float64", 8),
        "FloatStorage": ("float32", 4),
        "HalfStorage": ("float16", 2),
        "BFloat16Storage": ("bfloat16", 2),
        "LongStorage": ("int64", 8),
        "IntStorage": ("int32", 4),
        "ShortStorage": ("int16", 2),
        "CharStorage": ("int8", 1),
        "ByteStorage": ("uint8", 1),
        "BoolStorage": ("bool", 1),
    }
)
"""Storage classes of torch by name, each with its dtype and the bytes of one item."""
_ITEM_BYTES = MappingProxyType(dict(_STORAGES.values()))


class PickleError(CheckpointError):
    """The pickle holds what a checkpoint does not need, or is damaged."""


@dataclass(frozen=True, slots=True)
class StorageRef:
    """A storage that was not read: `count` items of `dtype`, found in the file by `key`."""

    dtype: str
    key: str
    count: int

    @property
    def item_bytes(self) -> int:
        return _ITEM_BYTES[self.dtype]

    @property
    def nbytes(self) -> int:
        return self.count * self.item_bytes


@dataclass(frozen=True, slots=True)
class TensorRef:
    """A tensor that was not read. `dense`: its items are contiguous, in row-major order."""

    storage: StorageRef
    offset: int
    shape: tuple[int, ...]
    dense: bool

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.count * self.storage.item_bytes


@dataclass(frozen=True, slots=True, eq=False)
class PickledClass:
    """A class or function that the pickle names; it was not imported."""

    name: str


@dataclass(slots=True, eq=False)
class PickledObject:
    """An object that was not constructed: what its pickle says of it.

    Args:
        name: of its class, `module.name`.
        arguments: what its class would have been called with.
        state: what it would have been given as its attributes; None if there is nothing.
    """

    name: str
    arguments: tuple[Any, ...]
    state: Any = None


@dataclass(frozen=True, slots=True)
class Pickle:
    """One pickle that was read.

    Args:
        value: dicts, lists, tuples, text, numbers, `TensorRef`s, `PickledObject`s and `PickledClass`es.
        storages: every storage that it mentions, by key.
        end: where in the data it ends.
    """

    value: Any
    storages: Mapping[str, StorageRef]
    end: int


@dataclass(frozen=True, slots=True)
class _Global:
    """One of the few names that the interpreter gives a meaning."""

    name: str


_ORDERED_DICT = _Global("OrderedDict")
_TENSOR = _Global("_rebuild_tensor_v2")
_PARAMETER = _Global("_rebuild_parameter")
_GLOBALS: Mapping[tuple[str, str], _Global] = MappingProxyType(
    {
        ("collections", "OrderedDict"): _ORDERED_DICT,
        ("torch._utils", "_rebuild_tensor_v2"): _TENSOR,
        ("torch._utils", "_rebuild_parameter"): _PARAMETER,
        **{("torch", name): _Global(name) for name in _STORAGES},
    }
)

NUMPY_SCALAR_NAMES = frozenset(
    {"numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype", "_codecs.encode"}
)
"""What numpy 1 and 2 pickle a single number by, such as a metric that was measured with `np.mean`, for lists of
`classes`. As everything on such a list they become `PickledObject`s, and are never called."""


def read_pickle(data: bytes, *, max_steps: int, classes: Collection[str] | None = (), start: int = 0) -> Pickle:
    """Reads the pickle that begins at `start`.

    Args:
        max_steps: the most opcodes that it may have.
        classes: names that it may mention, as `module.name`, or `package.*` for every name in a package; objects of
            these become `PickledObject`s, and dictionary keys that are not plain are passed over. None: any.

    Raises:
        UnsafeCheckpointError: it asks for another class or function.
        PickleError: it is damaged, or holds what is not allowed.
    """
    return _Interpreter(data, start, classes).run(max_steps)


class _Interpreter:
    """Pickle's stack machine: a stack, the stacks below each mark, and the memo."""

    def __init__(self, data: bytes, start: int, classes: Collection[str] | None) -> None:
        self._data, self._position, self._classes = data, start, classes
        self._storages: dict[str, StorageRef] = {}
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def run(self, max_steps: int) -> Pickle:
        for _ in range(max_steps):
            code = self._take(1)[0]
            if code == ord("."):
                return Pickle(self._pop(), self._storages, self._position)
            step = _STEPS.get(code)
            if step is None:
                raise PickleError(f"its index uses the pickle instruction 0x{code:02x}, which torch.save never writes")
            step(self)
        raise PickleError("its index is implausibly long")

    def _take(self, size: int) -> bytes:
        piece = self._data[self._position : self._position + size]
        if len(piece) < size:
            raise PickleError("its index is cut short")
        self._position += size
        return piece

    def _number(self, layout: str) -> Any:
        return struct.unpack(layout, self._take(struct.calcsize(layout)))[0]

    def _line(self) -> str:
        end = self._data.find(b"\n", self._position, self._position + _MAX_NAME_BYTES)
        if end < 0:
            raise PickleError("its index is damaged")
        line = self._data[self._position : end]
        self._position = end + 1
        return line.decode("ascii", "backslashreplace")

    def _pop(self) -> Any:
        if not self._stack:
            raise PickleError("its index is damaged")
        return self._stack.pop()

    def _top(self) -> Any:
        if not self._stack:
            raise PickleError("its index is damaged")
        return self._stack[-1]

    def _since_mark(self) -> list[Any]:
        if not self._below:
            raise PickleError("its index is damaged")
        items, self._stack = self._stack, self._below.pop()
        return items

    def proto(self) -> None:
        if self._number("<B") != 2:
            raise PickleError("its index is in another pickle protocol than torch.save's own, 2")

    def mark(self) -> None:
        if len(self._below) >= _MAX_MARKS:
            raise PickleError("its index is nested too deeply")
        self._below.append(self._stack)
        self._stack = []

    def text(self) -> None:
        data = self._take(self._number("<I"))
        try:
            self._stack.append(data.decode("utf-8", "surrogatepass"))
        except UnicodeDecodeError as error:
            raise PickleError("its index is damaged") from error

    def long(self) -> None:
        size = self._number("<B")
        if size > _MAX_INT_BYTES and self._classes is not None:
            raise PickleError("its index holds an absurdly large number")
        self._stack.append(int.from_bytes(self._take(size), "little", signed=True))

    def put(self, index: int) -> None:
        self._memo[index] = self._top()

    def get(self, index: int) -> None:
        if index not in self._memo:
            raise PickleError("its index is damaged")
        self._stack.append(self._memo[index])

    def tuple_of(self, count: int) -> None:
        items = [self._pop() for _ in range(count)]
        self._stack.append(tuple(reversed(items)))

    def marked_tuple(self) -> None:
        items = tuple(self._since_mark())
        self._stack.append(items)

    def append(self, items: list[Any]) -> None:
        target = self._top()
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, PickledObject):
            raise PickleError("its index is damaged")

    def set_items(self, items: list[Any]) -> None:
        target = self._top()
        if len(items) % 2 or not isinstance(target, dict | PickledObject):
            raise PickleError("its index is damaged")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Nothing nested: hashing a tuple of tuples of tuples may take for ever.
            if not isinstance(key, str | int | None):
                if self._classes is not None and not self._classes:
                    raise PickleError("its index is damaged")
            elif isinstance(target, dict):
                target[key] = value

    def find_global(self) -> None:
        module, name = self._line(), self._line()
        known = _GLOBALS.get((module, name))
        full_name = f"{module}.{name}"
        if known is None and not self._allows(full_name):
            raise UnsafeCheckpointError(sanitize(full_name))
        self._stack.append(known or PickledClass(full_name))

    def _allows(self, name: str) -> bool:
        classes = self._classes
        return classes is None or name in classes or f"{name.partition('.')[0]}.*" in classes

    def persistent(self) -> None:
        match self._pop():
            # torch's format from before 2020 adds a sixth item: None, unless a storage is a part of another.
            case ("storage", _Global(name), str(key), str(), int(count), *rest) if (
                name in _STORAGES and 0 <= count <= _MAX_LENGTH and rest in ([], [None])
            ):
                storage = StorageRef(_STORAGES[name][0], key, count)
                if self._storages.setdefault(key, storage) != storage:
                    raise PickleError("tensors of different kinds share one piece of its data")
                self._stack.append(storage)
            # The same format has a network's class with its source code, which is not kept.
            case ("module", PickledClass() as network, *_):
                self._stack.append(network)
            case _:
                raise PickleError("its index is damaged")

    def reduce(self) -> None:
        arguments, function = self._pop(), self._pop()
        if not isinstance(arguments, tuple):
            raise PickleError("its index is damaged")
        self._stack.append(self._call(function, arguments))

    def _call(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        if function is _ORDERED_DICT and not arguments:
            return {}
        if function is _TENSOR:
            return _rebuild_tensor(arguments)
        if function is _PARAMETER and arguments and isinstance(arguments[0], TensorRef):
            return arguments[0]
        if isinstance(function, PickledClass) or (self._classes is None and isinstance(function, _Global)):
            return PickledObject(function.name, arguments)
        raise PickleError("its index builds something that is no tensor")

    def new_object(self) -> None:
        arguments, kind = self._pop(), self._pop()
        if not isinstance(kind, PickledClass) or not isinstance(arguments, tuple):
            raise PickleError("its index builds something that is no tensor")
        self._stack.append(PickledObject(kind.name, arguments))

    def build(self) -> None:
        """Sets the attributes of an object; those of a state dict (its `_metadata`) are dropped."""
        attributes, target = self._pop(), self._top()
        if isinstance(target, PickledObject):
            target.state = attributes
        elif not isinstance(target, dict):
            raise PickleError("its index builds something that is no tensor")


def _rebuild_tensor(arguments: tuple[Any, ...]) -> TensorRef:
    match arguments:
        case (StorageRef() as storage, int(offset), tuple(shape), tuple(strides), *_):
            pass
        case _:
            raise PickleError("a tensor in its index is damaged")
    lengths = all(type(length) is int and 0 <= length <= _MAX_LENGTH for length in (offset, *shape, *strides))
    if not lengths or len(shape) > _MAX_DIMENSIONS or len(shape) != len(strides):
        raise PickleError("a tensor in its index is damaged")
    tensor = TensorRef(storage, offset, shape, _is_dense(shape, strides))
    if tensor.dense and offset + tensor.count > storage.count:
        raise PickleError("a tensor in its index reaches beyond its data")
    return tensor


def _is_dense(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    step = 1
    for length, stride in zip(reversed(shape), reversed(strides), strict=True):
        if length > 1 and stride != step:
            return False
        step *= max(length, 1)
    return True


_STEPS: Mapping[int, Callable[[_Interpreter], None]] = MappingProxyType(
    {
        ord(code): step
        for code, step in {
            "\x80": _Interpreter.proto,
            "(": _Interpreter.mark,
            "}": lambda run: run._stack.append({}),
            "]": lambda run: run._stack.append([]),
            ")": lambda run: run._stack.append(()),
            "N": lambda run: run._stack.append(None),
            "\x88": lambda run: run._stack.append(True),
            "\x89": lambda run: run._stack.append(False),
            "J": lambda run: run._stack.append(run._number("<i")),
            "K": lambda run: run._stack.append(run._number("<B")),
            "M": lambda run: run._stack.append(run._number("<H")),
            "G": lambda run: run._stack.append(run._number(">d")),
            "\x8a": _Interpreter.long,
            "X": _Interpreter.text,
            "q": lambda run: run.put(run._number("<B")),
            "r": lambda run: run.put(run._number("<I")),
            "h": lambda run: run.get(run._number("<B")),
            "j": lambda run: run.get(run._number("<I")),
            "t": _Interpreter.marked_tuple,
            "\x85": lambda run: run.tuple_of(1),
            "\x86": lambda run: run.tuple_of(2),
            "\x87": lambda run: run.tuple_of(3),
            "0": lambda run: run._pop(),
            "1": lambda run: run._since_mark(),
            "a": lambda run: run.append([run._pop()]),
            "e": lambda run: run.append(run._since_mark()),
            "s": lambda run: run.set_items([run._pop(), run._pop()][::-1]),
            "u": lambda run: run.set_items(run._since_mark()),
            "c": _Interpreter.find_global,
            "Q": _Interpreter.persistent,
            "R": _Interpreter.reduce,
            "\x81": _Interpreter.new_object,
            "b": _Interpreter.build,
        }.items()
    }
)
"""The opcodes that are followed. Refused: INST, OBJ, EXT, the text protocols, bytes, sets, frames."""
