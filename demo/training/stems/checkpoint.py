"""Writes trained weights as the public models publish theirs: demucs 4.1's safetensors and yaml, a RoFormer's ckpt."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
import yaml  # type: ignore[import-untyped]
from safetensors.torch import save_file
from torch import nn

from demo.training.stems.training import load_mean

WEIGHTS = Path(__file__).parents[2] / "weights"


def export_demucs(state_file: Path, network: nn.Module, name: str, *, root: Path = WEIGHTS) -> Path:
    """Write the running mean of a training's weights to `demucs/<name>/` below `root`, in half precision.

    Args:
        state_file: the training's state.
        network: any network with the arguments of the trained one.
        root: the folder of all demo models.
    """
    folder = root / "demucs" / name
    folder.mkdir(parents=True, exist_ok=True)
    args, kwargs = network._init_args_kwargs  # type: ignore[misc]
    description = {
        "klass": f"{type(network).__module__}.{type(network).__qualname__}",
        "args": json.dumps(args),
        "kwargs": json.dumps({key: _encode(value) for key, value in kwargs.items()}),
    }
    tensors = {key: value.half().contiguous() for key, value in load_mean(state_file).items()}
    save_file(tensors, folder / f"{name}.safetensors", metadata=description)
    (folder / f"{name}.safetensors").chmod(0o644)  # it is written for its owner alone
    (folder / f"{name}.yaml").write_text(yaml.safe_dump({"models": [name]}))
    return folder


def _encode(value: Any) -> Any:
    if isinstance(value, Fraction):
        return {"_type": "fraction", "numerator": value.numerator, "denominator": value.denominator}
    return value


def export_roformer(state_file: Path, settings: dict[str, Any], name: str, *, root: Path = WEIGHTS) -> Path:
    """Write the running mean of a training's weights, in half precision, and its yaml to `roformer/<name>/`."""
    folder = root / "roformer" / name
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(
        {key: value.half().contiguous() for key, value in load_mean(state_file).items()}, folder / f"{name}.ckpt"
    )
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    return folder
