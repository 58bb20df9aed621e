"""Builds a Demucs network from a file: safetensors, or demucs 4.0's `.th` by torch's safe reader. Knows no folders."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import logging
import pickle
import zipfile
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from models.demucs.bag import broken
from models.demucs.folders import checksum_of
from models.demucs.header import NETWORKS, Blueprint, blueprint

logger = logging.getLogger(__name__)

CHANNELS = 2


def load_network(path: Path) -> nn.Module:
    """The network of a `.safetensors` or `.th` file, in float32, on the CPU, for inference.

    Raises:
        ModelError: `broken_checkpoint`: not such a file, a foreign class, weights that do not fit, quantised weights.
    """
    plan, state = _read_old(path) if path.suffix == ".th" else _read_safetensors(path)
    network = _build(plan)
    try:
        network.load_state_dict(_as_float(state), strict=True)
    except (RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise broken("its weights do not fit the network that they name") from error
    if network.audio_channels != CHANNELS:
        raise broken(f"it takes {network.audio_channels} channels, and only stereo models are run")
    ready: nn.Module = network.eval().requires_grad_(False)
    return ready


class _WithoutRandomWeights(TorchFunctionMode):
    """Saves the time that goes into weights that are replaced at once.

    torch's own way, the meta device, imports its compiler (a second, and a folder left in the temporary one).
    """

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if function in (torch.Tensor.uniform_, torch.Tensor.normal_):
            return args[0]
        return function(*args, **(kwargs or {}))


def _build(plan: Blueprint) -> Any:
    """A network whose weights are still to be read."""
    module, _, name = plan.network.rpartition(".")
    network_class: Any = getattr(importlib.import_module(module), name)
    known = inspect.signature(network_class).parameters
    kwargs = {key: value for key, value in plan.kwargs.items() if key in known}
    if dropped := plan.kwargs.keys() - kwargs.keys():
        logger.info("Left out what this %s does not know: %s", name, ", ".join(sorted(map(str, dropped))))
    try:
        with _WithoutRandomWeights():
            network = network_class(*plan.args, **kwargs)
    except (TypeError, ValueError, AssertionError, RuntimeError, ArithmeticError, IndexError) as error:
        raise broken("its file describes a network that cannot be built") from error
    network.sources = list(plan.stems)
    return network


def _read_safetensors(path: Path) -> tuple[Blueprint, Mapping[str, Any]]:
    try:
        with safe_open(str(path), framework="pt") as file:
            plan = blueprint(file.metadata() or {})
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a mapping)
    except (SafetensorError, OSError) as error:
        raise broken("a weights file is no safetensors file, or is cut short") from error
    state = tensors if plan.structure is None else _nested(plan.structure, tensors)
    if not isinstance(state, Mapping):
        raise broken("its weights are not a mapping of tensors")
    return plan, state


def _nested(node: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Rebuilds a nested state from flat tensors. Nodes that name a class (quantised weights) are refused."""
    if not isinstance(node, dict):
        return node
    if "_tensor" in node and node["_tensor"] in tensors:
        return tensors[node["_tensor"]]
    if "_dict" in node:
        return {key: _nested(item, tensors) for key, item in node["_dict"]}
    raise broken("its weights are quantised, which is not run here; take the model without _q")


def _read_old(path: Path) -> tuple[Blueprint, Mapping[str, Any]]:
    """demucs 4.0's packages are pickles. torch's weights-only reader makes nothing but tensors, plain values and, as
    allowed here, the three networks' classes by name and fractions."""
    stated = checksum_of(path)
    try:
        if stated is not None and not _sha256(path).startswith(stated):
            raise broken("a weights file's checksum is not the one in its name")
        with torch.serialization.safe_globals([*_network_classes(), Fraction]):
            package = torch.load(path, "cpu", weights_only=True)
    except (
        pickle.UnpicklingError,
        OSError,
        EOFError,
        RuntimeError,
        ValueError,
        TypeError,
        zipfile.BadZipFile,
    ) as error:
        raise broken("a .th file holds more than weights, or is cut short; only plain weights are read") from error
    if not isinstance(package, dict) or not {"klass", "args", "kwargs", "state"} <= package.keys():
        raise broken("a .th file is not a demucs package")
    network = package["klass"]
    name = f"{network.__module__}.{network.__qualname__}" if isinstance(network, type) else ""
    state = package["state"]
    if name not in NETWORKS or not isinstance(state, Mapping) or "__quantized" in state:
        raise broken("a .th file holds quantised weights or a foreign network, which are not run here")
    return Blueprint(name, tuple(package["args"]), dict(package["kwargs"])), state


def _network_classes() -> list[Any]:
    return [getattr(importlib.import_module(module), name) for module, _, name in (n.rpartition(".") for n in NETWORKS)]


def _as_float(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Half precision on disk (as demucs publishes its weights) becomes float32."""
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
