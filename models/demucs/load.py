"""Builds a Demucs network from a file: safetensors, or demucs 4.0's `.th`."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from models.checkpoints.errors import CheckpointError
from models.checkpoints.safe_pickle import PickledClass, PickledObject
from models.checkpoints.settings import check_arguments
from models.checkpoints.tensor_loader import read_tensors
from models.checkpoints.torch_file import OPERATOR_LIMITS, open_torch_file, select_tensors
from models.demucs.bag import broken_model
from models.demucs.repository import read_stated_checksum
from models.demucs.spec import NETWORKS, NetworkSpec, read_spec

logger = logging.getLogger(__name__)

CHANNELS = 2
_MAX_DEPTH = 32  # layers
_FRACTION_CLASS = "fractions.Fraction"
_FRACTION = re.compile(r"(\d{1,9})(?:/([1-9]\d{0,8}))?")
_PACKAGE_LIMITS = replace(OPERATOR_LIMITS, classes=frozenset({*NETWORKS, _FRACTION_CLASS}))
# What demucs' and torch's constructors raise for sizes that cannot be. Nothing of ours runs inside the one call that
# these are caught around, and demucs states its requirements as assertions.
_CANNOT_BUILD = (ValueError, RuntimeError, ArithmeticError, AssertionError)


def load_network(path: Path) -> nn.Module:
    """Loads the network of a `.safetensors` or `.th` file, in float32, on the CPU, for inference.

    Raises:
        ModelError: `broken_checkpoint`: the file is damaged, names another class, or its weights do not fit.
    """
    spec, state = _read_old(path) if path.suffix == ".th" else _read_safetensors(path)
    network, weights = _build(spec), _as_float(state)
    try:
        network.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise broken_model("its weights do not fit the network that they name") from error
    if network.audio_channels != CHANNELS:
        raise broken_model(f"it takes {network.audio_channels} channels, and only stereo models are run")
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
        raise broken_model("its file describes a network that cannot be built")
    stated = dict(zip(positions, spec.args, strict=False)) | dict(spec.kwargs)
    try:
        arguments = check_arguments(stated, network_class, fractional=("growth", "segment"))
    except CheckpointError as error:
        raise broken_model(f"of its file, {error}") from error
    if unknown := stated.keys() - arguments.keys():
        logger.info("Left out what this %s does not know: %s", name, ", ".join(sorted(map(str, unknown))))
    layers = [arguments.get(name, 1) for name in ("depth", "t_layers")]
    optional = isinstance(arguments.get("channels_time"), int | None) and isinstance(
        arguments.get("multi_freqs"), list | tuple | None
    )
    if not optional or not all(0 < count <= _MAX_DEPTH for count in layers):
        raise broken_model("its file describes a network that cannot be built")
    try:
        with _WithoutRandomWeights():
            network = network_class(**arguments | {"sources": list(spec.stems)})
    except _CANNOT_BUILD as error:
        raise broken_model("its file describes a network that cannot be built") from error
    network.sources = list(spec.stems)
    return network


def _read_safetensors(path: Path) -> tuple[NetworkSpec, Mapping[str, Any]]:
    spec = read_spec(path)
    try:
        tensors = read_tensors(path)
    except CheckpointError as error:
        raise broken_model(str(error)) from error
    state = tensors if spec.structure is None else _nest(spec.structure, tensors)
    if not isinstance(state, Mapping):
        raise broken_model("its weights are not a mapping of tensors")
    return spec, state


def _nest(node: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """Rebuilds a nested state from flat tensors. Nodes that name a class (quantised weights) are refused."""
    if not isinstance(node, dict):
        return node
    if isinstance(name := node.get("_tensor"), str) and name in tensors:
        return tensors[name]
    items = node.get("_dict")
    if isinstance(items, list) and all(isinstance(item, list) and len(item) == 2 for item in items):
        return {str(key): _nest(item, tensors) for key, item in items}
    raise broken_model("its weights are quantised, which is not run here; take the model without _q")


def _read_old(path: Path) -> tuple[NetworkSpec, Mapping[str, Any]]:
    """Reads a package of demucs 4.0: a pickle that may name the three networks and fractions, and nothing else."""
    checksum = read_stated_checksum(path)
    try:
        with open_torch_file(path, _PACKAGE_LIMITS) as file:
            if checksum is not None and not _sha256(path).startswith(checksum):
                raise broken_model("a weights file's checksum is not the one in its name")
            package = file.content if isinstance(file.content, dict) else {}
            state = file.read(select_tensors(package.get("state")))
    except CheckpointError as error:
        raise broken_model(f"of a .th file, which may hold no more than weights, {error}") from error
    network = package.get("klass")
    args, kwargs = _decode(package.get("args")), _decode(package.get("kwargs"))
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise broken_model("a .th file is not a demucs package")
    if not isinstance(network, PickledClass) or network.name not in NETWORKS or not state:
        raise broken_model("a .th file holds quantised weights or another network, which are not run here")
    return NetworkSpec(network.name, tuple(args), kwargs), state


def _decode(value: Any) -> Any:
    """Returns plain values; fractions are restored."""
    if isinstance(value, PickledObject):
        return _read_fraction(value)
    if isinstance(value, list | tuple):
        return [_decode(item) for item in value]
    return {key: _decode(item) for key, item in value.items()} if isinstance(value, dict) else value


def _read_fraction(value: PickledObject) -> Fraction:
    """Restores a fraction, pickled as a call with its text (before Python 3.11) or with its two numbers."""
    match value.arguments:
        case (str(text),) if value.name == _FRACTION_CLASS and (found := _FRACTION.fullmatch(text)):
            return Fraction(int(found[1]), int(found[2] or 1))
        case (int(numerator), int(denominator)) if value.name == _FRACTION_CLASS and denominator > 0:
            return Fraction(numerator, denominator)
    raise broken_model("a .th file is not a demucs package")


def _as_float(state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Converts half precision, in which demucs publishes its weights, to float32."""
    if not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise broken_model("its weights are not a mapping of tensors")
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
