"""Tiny Demucs checkpoints of every architecture, in the files of demucs 4.1 (safetensors and yaml) and 4.0 (.th)."""

from __future__ import annotations

import hashlib
import io
import json
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
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


def save_package(
    network: nn.Module, folder: Path, signature: str, *, numpy: Literal[1, 2] = 1, old_format: bool = False
) -> Path:
    """Writes demucs 4.0's `.th`, by its own code: class, arguments, half-precision weights, metrics; checksum in its
    name.

    Args:
        numpy: the major version whose names the metrics are pickled under; the published files have those of 1.
        old_format: in torch's format from before 2020.
    """
    from demucs.states import serialize_model
    from omegaconf import OmegaConf

    training = OmegaConf.create({"lr": 3e-4, "dset": {"sources": FOUR}, "misc": [1, None]})
    package: dict[str, Any] = serialize_model(network, training)  # type: ignore[no-untyped-call]
    # tools/export.py adds the last metrics of the training; its evaluation averages with numpy.
    test = {"sdr": np.float64(7.5), "nsdr": {"all": np.median([7.0, 8.0]), "count": np.int64(50)}}
    buffer = io.BytesIO()
    torch.save(package | {"metrics": ({"loss": 0.2}, test)}, buffer, _use_new_zipfile_serialization=not old_format)
    data = buffer.getvalue() if old_format else _rename_numpy(buffer.getvalue(), numpy)
    path = folder / f"{signature}-{hashlib.sha256(data).hexdigest()[:8]}.th"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def _rename_numpy(data: bytes, version: Literal[1, 2]) -> bytes:
    """The zip with numpy's functions under the names of `version` in its pickle."""
    names = {1: b"cnumpy.core.multiarray\n", 2: b"cnumpy._core.multiarray\n"}
    renamed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(renamed, "w") as new:
        for name in old.namelist():
            record = old.read(name)
            if name.endswith("/data.pkl"):
                assert any(known in record for known in names.values()), "the metrics are numbers of numpy's"
                for known in names.values():
                    record = record.replace(known, names[version])
            new.writestr(name, record)
    return renamed.getvalue()


def get_arguments(network: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The positional and keyword arguments that the network was built with."""
    args, kwargs = network._init_args_kwargs
    return args, kwargs


def _encode(value: Any) -> Any:
    if isinstance(value, Fraction):
        return {"_type": "fraction", "numerator": value.numerator, "denominator": value.denominator}
    return value
