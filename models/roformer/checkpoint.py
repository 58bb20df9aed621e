"""Reads a RoFormer's two files: the weights (`.ckpt` or `.safetensors`) and the yaml. Imports no torch until it reads
weights."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from errors import ErrorCode, ModelError, sanitize
from models.checkpoints.errors import CheckpointError, broken_checkpoint, report_broken
from models.checkpoints.plain_yaml import read_plain_yaml
from models.checkpoints.safe_pickle import NUMPY_SCALAR_NAMES, TensorRef
from models.checkpoints.safetensors_header import read_shapes
from models.checkpoints.settings import Settings
from models.checkpoints.torch_file import OPERATOR_LIMITS, TorchFile, open_torch_file, select_tensors
from models.family import FileStamp, stamp_file
from models.roformer.config import RoformerConfig, UnsupportedVariantError, read_config

if TYPE_CHECKING:
    import torch

SUFFIXES = (".ckpt", ".safetensors")
_LIMITS = replace(
    OPERATOR_LIMITS,
    max_entries=65_535,  # a file with 53 stems has 13,600
    classes=NUMPY_SCALAR_NAMES,  # of the metrics that training code saves beside the weights
    old_format=False,
)
_WRAPPERS = ("state", "state_dict", "model_state_dict", "model")
_PREFIX = "module."
_MAX_YAML_BYTES = 1 << 16  # the published ones have at most 5,000
_MAX_YAML_BRACKETS = 256
_REMEDY = "Copy its files again as they were published: the weights, and the yaml that belongs to them."


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The files of a model.

    Args:
        weights: the `.ckpt` or `.safetensors`.
        settings: the yaml; or what it would state, for a published model that has none.
    """

    weights: Path
    settings: Path | Mapping[str, Any]

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that are there."""
        return (self.weights, self.settings) if isinstance(self.settings, Path) else (self.weights,)


class RoformerCheckpoint:
    """A model whose weights are still in their file.

    Args:
        files: where it is.

    Raises:
        ModelError: `broken_checkpoint`; `model_unsupported` for a variant that is not run. The message names the file.
    """

    def __init__(self, files: ModelFiles) -> None:
        self.files = files
        self.config = read_model_config(files)

    def read(self, prefixes: Sequence[str]) -> Mapping[str, torch.Tensor]:
        """Reads the tensors whose names, without `module.`, begin with one of the prefixes.

        Returns:
            Tensors on the CPU, in their stored dtypes.

        Raises:
            ModelError: `broken_checkpoint`: data are missing, or hold a value that is not finite.
        """
        path = self.files.weights
        with report_broken_file(path):
            if path.suffix == ".safetensors":
                return _read_safetensors(path, tuple(prefixes))
            with _open_weights(path) as (file, tensors):
                return file.read({name: ref for name, ref in tensors.items() if name.startswith(tuple(prefixes))})

    def report_broken(self) -> AbstractContextManager[None]:
        """Raises `broken_checkpoint`, with the file's name, in place of every `CheckpointError` inside."""
        return report_broken_file(self.files.weights)


def read_model_config(files: ModelFiles) -> RoformerConfig:
    """Reads what a model is, from its settings and from the names and shapes of the tensors; raises as the class."""
    settings = files.settings
    stated = read_settings(settings) if isinstance(settings, Path) else Settings(settings)
    with report_broken_file(files.weights):
        try:
            if (version := stamp_file(files.weights)) is None:
                raise CheckpointError("it cannot be read")
            return read_config(_read_shapes(version), stated)
        except UnsupportedVariantError as error:
            raise ModelError(
                f"The separation model '{sanitize(files.weights.name)}' cannot be run: {error}.",
                code=ErrorCode.MODEL_UNSUPPORTED,
            ) from error


def read_settings(path: Path) -> Settings:
    """Reads the yaml; raises `ModelError` (`broken_checkpoint`) if it is not one of a separation model."""
    with report_broken_file(path):
        content = read_plain_yaml(path, max_bytes=_MAX_YAML_BYTES, max_brackets=_MAX_YAML_BRACKETS, tuples=True)
        if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
            raise CheckpointError("it has no section 'model'")
        return Settings(content, file=path.name)


def report_broken_file(path: Path) -> AbstractContextManager[None]:
    """Raises `broken_checkpoint`, with the file's name, in place of every `CheckpointError` inside."""
    return report_broken(f"The file '{sanitize(path.name)}' of the separation model", _REMEDY)


def broken_model(name: str, reason: str) -> ModelError:
    """Returns the error for a model whose folder does not hold what it needs."""
    return broken_checkpoint(f"The separation model '{sanitize(name)}'", reason, _REMEDY)


@functools.lru_cache(maxsize=64)
def _read_shapes(version: FileStamp) -> Mapping[str, tuple[int, ...]]:
    """Reads one version of a file, once: the index of a file with 53 stems takes half a second."""
    path = version[0]
    if path.suffix == ".safetensors":
        return {name.removeprefix(_PREFIX): shape for name, shape in read_shapes(path).items()}
    with _open_weights(path) as (_, tensors):
        return {name: ref.shape for name, ref in tensors.items()}


@contextmanager
def _open_weights(path: Path) -> Iterator[tuple[TorchFile, dict[str, TensorRef]]]:
    """Opens a `.ckpt`, whose state dict is its content, or an entry of it."""
    with open_torch_file(path, _LIMITS) as file:
        content: Any = file.content
        for key in _WRAPPERS:
            if isinstance(content, dict) and isinstance(content.get(key), dict):
                content = content[key]
        tensors = {name.removeprefix(_PREFIX): ref for name, ref in select_tensors(content).items()}
        if not tensors:
            raise CheckpointError("it holds no weights by name")
        yield file, tensors


def _read_safetensors(path: Path, prefixes: tuple[str, ...]) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            names = {name.removeprefix(_PREFIX): name for name in file.keys()}  # noqa: SIM118  (it is no dict)
            tensors = {new: file.get_tensor(old).clone() for new, old in names.items() if new.startswith(prefixes)}
    except (SafetensorError, OSError) as error:
        raise CheckpointError("it is not a safetensors file, or is cut short") from error
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise CheckpointError(f"'{sanitize(name)}' holds values that are not finite, so it would produce no sound")
    return tensors
