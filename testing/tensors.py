"""Which tensors work makes, and how many bytes of tensors an object holds."""

from __future__ import annotations

from collections.abc import Mapping
from types import FunctionType, MethodType
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class TensorSizes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the shape and the dtype of every tensor that is made within a `with` block."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tensors: set[tuple[tuple[int, ...], torch.dtype]] = set()

    @property
    def shapes(self) -> set[tuple[int, ...]]:
        return {shape for shape, _ in self.tensors}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else (result,):
            if isinstance(value, torch.Tensor):
                self.tensors.add((tuple(value.shape), value.dtype))
        return result


def count_tensor_bytes(root: object, *, without: tuple[type, ...] = ()) -> int:
    """Bytes of all tensors that can be reached from an object; memory that several share counts once.

    Args:
        without: types whose objects are not looked into.
    """
    seen: set[int] = set()
    storages: dict[int, int] = {}
    waiting: list[Any] = [root]
    while waiting:
        value = waiting.pop()
        if id(value) in seen or isinstance(value, (type, FunctionType, *without)):
            continue
        seen.add(id(value))
        if isinstance(value, torch.Tensor):
            storage = value.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        elif isinstance(value, Mapping):
            waiting += value.values()
        elif isinstance(value, list | tuple | set):
            waiting += value
        elif isinstance(value, MethodType):
            waiting.append(value.__self__)
        elif hasattr(value, "__dict__"):
            waiting += vars(value).values()
    return sum(storages.values())
