"""Tiny Demucs checkpoints of every architecture, in the files of demucs 4.1 (safetensors and yaml) and 4.0 (.th)."""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
import yaml  # type: ignore[import-untyped]
from safetensors.torch import save_file
from torch import nn

FOUR = ["drums", "bass", "other", "vocals"]
SIX = [*FOUR, "guitar", "piano"]


def htdemucs(
    stems: Sequence[str] = FOUR, seed: int = 0, segment: Fraction = Fraction(39, 25), **more: Any
) -> nn.Module:
    from demucs.htdemucs import HTDemucs

    shape = {"channels": 8, "dconv_mode": 3, "bottom_channels": 16, "t_layers": 3, "t_heads": 2, "nfft": 2048}
    return _build_random(HTDemucs, list(stems), seed=seed, segment=segment, depth=3, **shape | more)


def htdemucs_6s(seed: int = 0) -> nn.Module:
    return htdemucs(SIX, seed, bottom_channels=0)


def hdemucs(seed: int = 0, segment: float = 4, **more: Any) -> nn.Module:
    from demucs.hdemucs import HDemucs

    shape = {"channels": 8, "nfft": 4096, "depth": 6}
    return _build_random(HDemucs, FOUR, seed=seed, segment=segment, **shape | more)


def demucs(seed: int = 0, segment: float = 4, **more: Any) -> nn.Module:
    from demucs.demucs import Demucs

    return _build_random(Demucs, FOUR, seed=seed, segment=segment, channels=8, **more)


def _build_random(network_class: Callable[..., nn.Module], stems: list[str], *, seed: int, **kwargs: Any) -> nn.Module:
    """Random weights. The residual branches are scaled as if trained; initially they hardly contribute."""
    from demucs.transformer import LayerScale

    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = network_class(stems, **kwargs).eval()
    for part in network.modules():
        if isinstance(part, LayerScale):
            part.scale.data.uniform_(0.05, 0.5)
    return network


def save(network: nn.Module, path: Path, *, half: bool = False, metadata: Mapping[str, str] | None = None) -> None:
    """Writes one submodel as demucs 4.1 publishes them: class and arguments as JSON in the safetensors metadata."""
    args, kwargs = get_arguments(network)
    description = {
        "klass": f"{type(network).__module__}.{type(network).__qualname__}",
        "args": json.dumps([_encode(value) for value in args]),
        "kwargs": json.dumps({key: _encode(value) for key, value in kwargs.items()}),
    }
    state = {key: (value.half() if half else value).contiguous() for key, value in network.state_dict().items()}
    save_file(state, str(path), metadata=description | dict(metadata or {}))


def save_bag(folder: Path, networks: Mapping[str, nn.Module], name: str | None = None, **bag: Any) -> Path:
    """Writes `<name>.yaml` and a safetensors file per submodel."""
    folder.mkdir(parents=True, exist_ok=True)
    for signature, network in networks.items():
        save(network, folder / f"{signature}.safetensors")
    content = {"models": list(networks)} | bag
    (folder / f"{name or folder.name}.yaml").write_text(yaml.safe_dump(content))
    return folder


def save_old(network: nn.Module, folder: Path, signature: str) -> Path:
    """Writes demucs 4.0's package: a pickle of class, arguments and half-precision weights, checksum in its name."""
    args, kwargs = get_arguments(network)
    state = {key: value.half() for key, value in network.state_dict().items()}
    package = {"klass": type(network), "args": args, "kwargs": kwargs, "state": state, "training_args": {"lr": 3e-4}}
    buffer = io.BytesIO()
    torch.save(package, buffer)
    path = folder / f"{signature}-{hashlib.sha256(buffer.getvalue()).hexdigest()[:8]}.th"
    path.write_bytes(buffer.getvalue())
    return path


def get_arguments(network: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The positional and keyword arguments that the network was built with."""
    args, kwargs = network._init_args_kwargs
    return args, kwargs


def _encode(value: Any) -> Any:
    if isinstance(value, Fraction):
        return {"_type": "fraction", "numerator": value.numerator, "denominator": value.denominator}
    return value
