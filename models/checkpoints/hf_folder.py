"""Reads a model's folder as transformers stores it; nothing in it runs. Without torch until tensors are read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

SETTINGS_FILE, SAFE_FILE, PICKLE_FILE = "config.json", "model.safetensors", "pytorch_model.bin"
NEEDS = (SETTINGS_FILE, f"{SAFE_FILE}|{PICKLE_FILE}")  # as `Weights.find` takes them


def read_settings(folder: Path) -> Mapping[str, Any]:
    """Of `config.json`; raises `ValueError`, a clause that says why, where there are none."""
    try:
        settings = json.loads((folder / SETTINGS_FILE).read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"its {SETTINGS_FILE} cannot be read") from error
    if not isinstance(settings, Mapping):
        raise ValueError(f"its {SETTINGS_FILE} holds no settings")
    return settings


def read_safetensors(folder: Path) -> dict[str, Tensor]:
    """The tensors of `model.safetensors` by name, on the CPU, mapped from disk; raises `ValueError` as above."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(folder / SAFE_FILE)
    except SafetensorError as error:
        raise ValueError(f"its {SAFE_FILE} cannot be read") from error
