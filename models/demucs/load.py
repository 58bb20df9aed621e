"""Builds a Demucs network from a file: safetensors, or demucs 4.0's `.th`."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from errors import sanitize
from models.checkpoints.errors import CheckpointError
from models.checkpoints.safetensors_header import read_metadata
from models.checkpoints.settings import check_arguments
from models.checkpoints.tensor_loader import read_tensors
from models.checkpoints.torch_file import select_tensors
from models.demucs.bag import report_broken_file
from models.demucs.repository import read_stated_checksum
from models.demucs.spec import NetworkSpec, open_package, parse_metadata

logger = logging.getLogger(__name__)

CHANNELS = 2
_MAX_DEPTH = 32  # layers
# What demucs' and torch's constructors raise for sizes that cannot be. Nothing of ours runs inside the one call that
# these are caught around, and demucs states its requirements as assertions.
_CANNOT_BUILD = (ValueError, RuntimeError, ArithmeticError, AssertionError)


def load_network(path: Path) -> nn.Module:
    """Loads the network of a `.safetensors` or `.th` file, in float32, on the CPU, for inference.

    Raises:
        ModelError: `broken_checkpoint`: the file is damaged, names another class, or its weights do not fit.
    """
    with report_broken_file(path):
        spec, state = _read_package(path) if path.suffix == ".th" else _read_safetensors(path)
        network = _build(spec)
        try:
            network.load_state_dict(_as_float(state), strict=True)
        except RuntimeError as error:
            raise CheckpointError("its weights do not fit the network that they name") from error
        if network.audio_channels != CHANNELS:
            raise CheckpointError(f"it takes {network.audio_channels} channels, and only stereo models are run")
    ready: nn.Module = network.eval().requires_grad_(False)
    return ready


class _WithoutRandomWeights(TorchFunctionMode):
    """Skips the drawing of random weights, which are replaced at once.

    torch's own way, the meta device, imports its compiler (which takes a second, and leaves a temporary folder).
    """

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if function in (torch.Tensor.uniform_, torch.Tensor.normal_):
            return args[0]
        return function(*args, **(kwargs or {}))


def _build(spec: NetworkSpec) -> Any:
    """Builds a network whose weights still have to be set."""
    module, _, name = spec.network.rpartition(".")
    network_class: Any = getattr(importlib.import_module(module), name)
    positions = list(inspect.signature(network_class).parameters)
    if len(spec.args) > len(positions):
        raise CheckpointError("it describes a network that cannot be built")
    stated = dict(zip(positions, spec.args, strict=False)) | dict(spec.kwargs)
    arguments = check_arguments(stated, network_class, fractional=("growth", "segment"))
    if unknown := stated.keys() - arguments.keys():
        logger.info("Left out what this %s does not know: %s", name, ", ".join(sorted(map(str, unknown))))
    layers = [arguments.get(name, 1) for name in ("depth", "t_layers")]
    optional = isinstance(arguments.get("channels_time"), int | None) and isinstance(
        arguments.get("multi_freqs"), list | tuple | None
    )
    if not optional or not all(0 < count <= _MAX_DEPTH for count in layers):
        raise CheckpointError("it describes a network that cannot be built")
    try:
        with _WithoutRandomWeights():
            network = network_class(**arguments | {"sources": list(spec.stems)})
    except _CANNOT_BUILD as error:
        raise CheckpointError("it describes a network that cannot be built") from error
    network.sources = list(spec.stems)
    return network


def _read_safetensors(path: Path) -> tuple[NetworkSpec, Mapping[str, torch.Tensor]]:
    spec = parse_metadata(read_metadata(path))
    try:
        tensors = read_tensors(path)
    except CheckpointError as error:  # which names the file, as the report does
        raise CheckpointError("its weights are damaged, or it is cut short") from error
    if spec.tensor_names is None:
        return spec, tensors
    if missing := [name for name in spec.tensor_names.values() if name not in tensors]:
        raise CheckpointError(f"its tensor '{sanitize(missing[0])}' is missing")
    return spec, {key: tensors[name] for key, name in spec.tensor_names.items()}


def _read_package(path: Path) -> tuple[NetworkSpec, Mapping[str, torch.Tensor]]:
    """Reads a package of demucs 4.0, whose name may state the beginning of its SHA-256."""
    checksum = read_stated_checksum(path)
    with open_package(path) as (file, spec):
        if checksum is not None and not _sha256(path).startswith(checksum):
            raise CheckpointError("its checksum is not the one in its name, so it is damaged or another file")
        return spec, file.read(select_tensors(file.content["state"]))


def _as_float(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Converts half precision, in which demucs publishes its weights, to float32."""
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
