"""Reads the pickle in a torch checkpoint as plain data: tensors become references, nothing is imported or called.

An interpreter of our own for the opcodes that `torch.save` writes (pickle protocol 2), and for no others. It does not
recurse, so nesting costs nothing, and every opcode is counted, so a small file cannot become much.
Background: CVE-2025-32434 and CVE-2026-24747 were holes in torch's own restricted unpickler.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from errors import sanitize

_MAX_DIMENSIONS: Final = 8
_MAX_LENGTH: Final = 1 << 40
_MAX_NAME_BYTES: Final = 256
_MAX_MARKS: Final = 64
_MAX_INT_BYTES: Final = 8

DTYPES: Final = MappingProxyType(
    {
        "DoubleStorage": "float64",
        "FloatStorage": "float32",
        "HalfStorage": "float16",
        "BFloat16Storage": "bfloat16",
        "LongStorage": "int64",
        "IntStorage": "int32",
        "ShortStorage": "int16",
        "CharStorage": "int8",
        "ByteStorage": "uint8",
        "BoolStorage": "bool",
    }
)
"""Storage classes of torch by name, and the dtype of each."""


class PickleError(ValueError):
    """The pickle holds what a checkpoint has no need of, or is damaged; the message is a clause that says which."""


@dataclass(frozen=True, slots=True)
class StorageRef:
    """A storage that was not read: `count` items of `dtype` in the record `data/<key>`."""

    dtype: str
    key: str
    count: int


@dataclass(frozen=True, slots=True)
class TensorRef:
    """A tensor that was not read. `dense`: its items lie one after the other, in row-major order."""

    storage: StorageRef
    offset: int
    shape: tuple[int, ...]
    dense: bool

    @property
    def count(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True, eq=False)
class Foreign:
    """An object, or a class, of a kind that we do not make: its name is all there is of it."""

    name: str


@dataclass(frozen=True, slots=True)
class _Global:
    """One of the few names that mean something to us."""

    name: str


_ORDERED_DICT: Final = _Global("OrderedDict")
_TENSOR: Final = _Global("_rebuild_tensor_v2")
_PARAMETER: Final = _Global("_rebuild_parameter")
_GLOBALS: Final[Mapping[tuple[str, str], Any]] = MappingProxyType(
    {
        ("collections", "OrderedDict"): _ORDERED_DICT,
        ("torch._utils", "_rebuild_tensor_v2"): _TENSOR,
        ("torch._utils", "_rebuild_parameter"): _PARAMETER,
        **{("torch", name): _Global(name) for name in DTYPES},
    }
)


def load(data: bytes, *, max_steps: int, foreign: bool = False) -> Any:
    """What the pickle describes: dicts, lists, tuples, text, numbers, `TensorRef`s.

    Args:
        data: the whole pickle.
        max_steps: opcodes that it may have.
        foreign: objects of unknown classes become `Foreign`, and what they hold is lost; otherwise they are refused.

    Raises:
        PickleError: it is damaged, or holds what is not allowed.
    """
    return _Machine(data, foreign=foreign).run(max_steps)


class _Machine:
    """The pickle machine: a stack, the stacks below each mark, and the memo."""

    def __init__(self, data: bytes, *, foreign: bool) -> None:
        self._data, self._at, self._foreign = data, 0, foreign
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def run(self, max_steps: int) -> Any:
        for _ in range(max_steps):
            code = self._take(1)[0]
            if code == ord("."):
                return self._pop()
            step = _STEPS.get(code)
            if step is None:
                raise PickleError(f"its index uses the pickle instruction 0x{code:02x}, which no voice needs")
            step(self)
        raise PickleError("its index is implausibly long")

    def _take(self, size: int) -> bytes:
        piece = self._data[self._at : self._at + size]
        if len(piece) < size:
            raise PickleError("its index is cut short")
        self._at += size
        return piece

    def _number(self, layout: str) -> Any:
        return struct.unpack(layout, self._take(struct.calcsize(layout)))[0]

    def _line(self) -> str:
        end = self._data.find(b"\n", self._at, self._at + _MAX_NAME_BYTES)
        if end < 0:
            raise PickleError("its index is damaged")
        line = self._data[self._at : end]
        self._at = end + 1
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
        if size > _MAX_INT_BYTES and not self._foreign:
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
        elif not isinstance(target, Foreign):
            raise PickleError("its index is damaged")

    def set_items(self, items: list[Any]) -> None:
        target = self._top()
        if len(items) % 2 or not isinstance(target, dict | Foreign):
            raise PickleError("its index is damaged")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Nothing nested: hashing a tuple of tuples of tuples may take for ever.
            if not isinstance(key, str | int | None):
                if not self._foreign:
                    raise PickleError("its index is damaged")
            elif isinstance(target, dict):
                target[key] = value

    def find_global(self) -> None:
        module, name = self._line(), self._line()
        known = _GLOBALS.get((module, name))
        if known is None and not self._foreign:
            asked = sanitize(f"{module}.{name}")
            raise PickleError(f"it asks for '{asked}', which may be code, and a voice has none")
        self._stack.append(known or Foreign(f"{module}.{name}"))

    def persistent(self) -> None:
        match self._pop():
            case ("storage", _Global(name), str(key), str(), int(count)) if (
                name in DTYPES and 0 <= count <= _MAX_LENGTH
            ):
                self._stack.append(StorageRef(DTYPES[name], key, count))
            case _:
                raise PickleError("its index is damaged")

    def reduce(self) -> None:
        arguments, function = self._pop(), self._pop()
        if not isinstance(arguments, tuple):
            raise PickleError("its index is damaged")
        self._stack.append(self._called(function, arguments))

    def _called(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        if function is _ORDERED_DICT and not arguments:
            return {}
        if function is _TENSOR:
            return _tensor(arguments)
        if function is _PARAMETER and arguments and isinstance(arguments[0], TensorRef):
            return arguments[0]
        if self._foreign and isinstance(function, Foreign | _Global):
            return Foreign(function.name)
        raise PickleError("its index builds something that is no tensor")

    def new_object(self) -> None:
        _, kind = self._pop(), self._pop()
        if not isinstance(kind, Foreign):
            raise PickleError("its index builds something that is no tensor")
        self._stack.append(Foreign(kind.name))

    def build(self) -> None:
        """Attributes of an object: those of a state dict (its `_metadata`) and of foreign objects are dropped."""
        self._pop()
        if not isinstance(self._top(), dict | Foreign):
            raise PickleError("its index builds something that is no tensor")


def _tensor(arguments: tuple[Any, ...]) -> TensorRef:
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


_STEPS: Final[Mapping[int, Callable[[_Machine], None]]] = MappingProxyType(
    {
        ord(code): step
        for code, step in {
            "\x80": _Machine.proto,
            "(": _Machine.mark,
            "}": lambda machine: machine._stack.append({}),
            "]": lambda machine: machine._stack.append([]),
            ")": lambda machine: machine._stack.append(()),
            "N": lambda machine: machine._stack.append(None),
            "\x88": lambda machine: machine._stack.append(True),
            "\x89": lambda machine: machine._stack.append(False),
            "J": lambda machine: machine._stack.append(machine._number("<i")),
            "K": lambda machine: machine._stack.append(machine._number("<B")),
            "M": lambda machine: machine._stack.append(machine._number("<H")),
            "G": lambda machine: machine._stack.append(machine._number(">d")),
            "\x8a": _Machine.long,
            "X": _Machine.text,
            "q": lambda machine: machine.put(machine._number("<B")),
            "r": lambda machine: machine.put(machine._number("<I")),
            "h": lambda machine: machine.get(machine._number("<B")),
            "j": lambda machine: machine.get(machine._number("<I")),
            "t": _Machine.marked_tuple,
            "\x85": lambda machine: machine.tuple_of(1),
            "\x86": lambda machine: machine.tuple_of(2),
            "\x87": lambda machine: machine.tuple_of(3),
            "0": lambda machine: machine._pop(),
            "1": lambda machine: machine._since_mark(),
            "a": lambda machine: machine.append([machine._pop()]),
            "e": lambda machine: machine.append(machine._since_mark()),
            "s": lambda machine: machine.set_items([machine._pop(), machine._pop()][::-1]),
            "u": lambda machine: machine.set_items(machine._since_mark()),
            "c": _Machine.find_global,
            "Q": _Machine.persistent,
            "R": _Machine.reduce,
            "\x81": _Machine.new_object,
            "b": _Machine.build,
        }.items()
    }
)
"""The opcodes that we follow. Refused: INST, OBJ, EXT, the text protocols, bytes, sets, frames."""
