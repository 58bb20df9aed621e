"""Reads a model's tensors by name, in whichever format they are stored, and hands them out checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from errors import sanitize
from models.checkpoints.errors import CheckpointError
from models.checkpoints.torch_file import OPERATOR_LIMITS, open_torch_file, select_tensors
from models.checkpoints.weight_norm import use_old_names


def read_tensors(path: Path, *, mapped: bool = False) -> dict[str, torch.Tensor]:
    """Reads a state dict: a `.safetensors` file, or a file of `torch.save` in either of torch's formats.

    If the file's dict has an entry `model` (fairseq) or `state_dict`, that one is taken. Objects of other classes
    (fairseq's dictionary and settings) are ignored: they are never imported, and never constructed. Names of weight
    norm are the older ones (`weight_norm.use_old_names`).

    Args:
        mapped: leave the tensors on disk until they are used; they are valid only while the file stays as it is.

    Returns:
        Tensors on the CPU in their stored dtypes.

    Raises:
        CheckpointError: the file cannot be read, or holds no tensors by name; the message names the file.
    """
    try:
        return _read_safetensors(path, mapped) if path.suffix == ".safetensors" else _read_torch(path, mapped)
    except CheckpointError as error:
        raise CheckpointError(f"its file {sanitize(path.name)} is broken: {error}") from error


def _read_torch(path: Path, mapped: bool) -> dict[str, torch.Tensor]:
    with open_torch_file(path, OPERATOR_LIMITS) as file:
        content = file.content
        for key in ("model", "state_dict"):
            if isinstance(content, dict) and isinstance(content.get(key), dict):
                content = content[key]
        tensors = select_tensors(content)
        if not tensors:
            raise CheckpointError("it holds no weights by name")
        return file.map(tensors) if mapped else file.read(tensors)


def _read_safetensors(path: Path, mapped: bool) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError("it is not a safetensors file, or is cut short") from error
    return use_old_names(tensors if mapped else {name: tensor.clone() for name, tensor in tensors.items()})


def copy_to(tensor: torch.Tensor, device: torch.device | str, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Copies a tensor to the device. Never returns the mapped file itself, which may change while a model is in use."""
    return tensor.to(device, dtype, copy=True)


class TensorLoader:
    """Hands out tensors by name, each checked against the shape that the network needs, as copies on a device.

    Args:
        state: may be mapped from disk; each tensor is read when it is asked for.
        device: where the copies go.
        prefix: before every name.
        dtype: of the copies, unless a call names another.
    """

    def __init__(
        self, state: Mapping[str, torch.Tensor], device: str, prefix: str = "", *, dtype: torch.dtype = torch.float32
    ) -> None:
        self._state, self.device, self._prefix, self._dtype = state, device, prefix, dtype
        self._used: set[str] = set()
        self.nbytes = 0

    def __contains__(self, name: str) -> bool:
        return self._prefix + name in self._state

    def __call__(
        self, name: str, *shape: int, dtype: torch.dtype | None = None, rows: slice = slice(None)
    ) -> torch.Tensor:
        """Copies one tensor.

        Args:
            shape: of the whole tensor; -1 allows any length.
            rows: the part of its first dimension that is copied.

        Raises:
            CheckpointError: it is not there, or has another shape.
        """
        full_name = self._prefix + name
        tensor = self._state.get(full_name)
        if tensor is None:
            raise CheckpointError(f"'{full_name}' is missing")
        if tensor.ndim != len(shape) or any(n not in (-1, m) for n, m in zip(shape, tensor.shape, strict=True)):
            raise CheckpointError(f"'{full_name}' is {list(tensor.shape)} and not {list(shape)}")
        self._used.add(full_name)
        part = tensor if rows == slice(None) else tensor[rows]
        copy = copy_to(part, self.device, dtype or self._dtype)
        self.nbytes += copy.nbytes
        return copy

    def check_all_used(self, prefix: str = "") -> None:
        """Raises `CheckpointError` if tensors whose names begin with `prefix` were not asked for."""
        start = self._prefix + prefix
        if unused := sorted(name for name in self._state if name.startswith(start) and name not in self._used):
            raise CheckpointError(f"{len(unused)} tensors are left over, the first is '{sanitize(unused[0])}'")
