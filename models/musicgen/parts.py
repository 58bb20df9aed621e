"""Reads what lies in a folder as transformers stores it: settings and tensors, nothing that runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch

SETTINGS_FILE = "config.json"
SAFE_FILE, PICKLE_FILE = "model.safetensors", "pytorch_model.bin"


def read_settings(folder: Path) -> Mapping[str, Any]:
    """Of `config.json`; raises `ValueError` where it holds no settings."""
    settings = json.loads((folder / SETTINGS_FILE).read_text())
    if not isinstance(settings, Mapping):
        raise ValueError(f"{SETTINGS_FILE} holds no settings")
    return settings


def read_tensors(folder: Path) -> Mapping[str, torch.Tensor]:
    """By name, on the CPU, mapped from disk where that can be: `model.safetensors`, else `pytorch_model.bin`."""
    if (folder / SAFE_FILE).is_file():
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(folder / SAFE_FILE)
        except SafetensorError as error:
            raise ValueError(f"{SAFE_FILE} cannot be read") from error
    path = folder / PICKLE_FILE
    state = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipfile(path))  # torch's old format is none
    if not isinstance(state, Mapping):
        raise ValueError(f"{PICKLE_FILE} holds no tensors")
    return state


class Taker:
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
        made = tensor.to(self._device, torch.float32, copy=True)  # never the file itself, which may change or go
        self.nbytes += made.nbytes
        return made

    def left(self) -> list[str]:
        """Names that nobody took."""
        return sorted(name for name in self._state if name.startswith(self._prefix) and name not in self._taken)
