"""The tensors of a model's parts, handed out in float32 and checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from zipfile import is_zipfile

import torch

from models.checkpoints.hf_folder import PICKLE_FILE, SAFE_FILE, read_safetensors


def read_tensors(folder: Path) -> Mapping[str, torch.Tensor]:
    """By name, on the CPU, mapped from disk where that can be: `model.safetensors`, else `pytorch_model.bin`."""
    if (folder / SAFE_FILE).is_file():
        return read_safetensors(folder)
    path = folder / PICKLE_FILE
    state = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipfile(path))  # torch's old format is none
    if not isinstance(state, Mapping):
        raise ValueError(f"{PICKLE_FILE} holds no tensors")
    return state


def copy_to(tensor: torch.Tensor, device: torch.device | str, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A copy on the device: never the mapped file itself, which may change or go while the model is in use."""
    return tensor.to(device, dtype, copy=True)


class TensorLoader:
    """Hands out tensors by name, once each, in float32 on a device; knows what was taken and what was left.

    Args:
        state: may be mapped from disk; each tensor is read once.
        prefix: before every name.
    """

    def __init__(self, state: Mapping[str, torch.Tensor], device: str, prefix: str = "") -> None:
        self._state, self._device, self._prefix = state, device, prefix
        self._taken: set[str] = set()
        self.nbytes = 0

    def __contains__(self, name: str) -> bool:
        return self._prefix + name in self._state

    def __call__(self, name: str, *shape: int) -> torch.Tensor:
        """The tensor, held against its shape (-1: any).

        Raises:
            KeyError: it is not there.
            ValueError: it is of another shape.
        """
        tensor = self._state[self._prefix + name]
        fits = tensor.ndim == len(shape) and all(n in (-1, m) for n, m in zip(shape, tensor.shape, strict=True))
        if not fits:
            raise ValueError(f"'{self._prefix}{name}' is {list(tensor.shape)} and should be {list(shape)}")
        self._taken.add(self._prefix + name)
        made = copy_to(tensor, self._device)
        self.nbytes += made.nbytes
        return made

    def left(self) -> list[str]:
        """Names that nobody took."""
        return sorted(name for name in self._state if name.startswith(self._prefix) and name not in self._taken)
