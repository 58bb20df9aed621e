"""The folder of a model as transformers stores it: its settings, its tokenizer, and which file holds the weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from models.checkpoints.errors import CheckpointError
from models.checkpoints.settings import Settings

if TYPE_CHECKING:
    import tokenizers

CONFIG_FILE, SAFETENSORS_FILE, TORCH_FILE = "config.json", "model.safetensors", "pytorch_model.bin"
TOKENIZER_FILE = "tokenizer.json"
REQUIRED_FILES = (CONFIG_FILE, f"{SAFETENSORS_FILE}|{TORCH_FILE}")  # as `WeightLocations.find` takes them

_MAX_CONFIG = 1 << 20  # characters


def read_config(folder: Path) -> Settings:
    """Reads `config.json`; raises `CheckpointError` if it is missing or holds no settings."""
    try:
        with (folder / CONFIG_FILE).open(encoding="utf-8") as file:
            text = file.read(_MAX_CONFIG + 1)
        values = json.loads(text) if len(text) <= _MAX_CONFIG else None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"its {CONFIG_FILE} cannot be read") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"its {CONFIG_FILE} holds no settings")
    return Settings(values, file=CONFIG_FILE)


def read_tokenizer_file(folder: Path) -> tokenizers.Tokenizer:
    """Reads `tokenizer.json`, which neither cuts nor pads; raises `CheckpointError` if it cannot be read."""
    import tokenizers

    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(folder / TOKENIZER_FILE))
    except Exception as error:
        # The library raises `Exception` itself, and no class below it, for a file that it cannot read.
        if type(error) is not Exception:
            raise
        raise CheckpointError(f"its {TOKENIZER_FILE} cannot be read") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def find_weights(folder: Path) -> Path:
    """Returns `model.safetensors`, or `pytorch_model.bin` if the folder has no such file."""
    safetensors = folder / SAFETENSORS_FILE
    return safetensors if safetensors.is_file() else folder / TORCH_FILE


def measure_weights(folder: Path) -> int:
    """Returns the size of the file of `find_weights` in bytes; 0 if it is not there."""
    try:
        return find_weights(folder).stat().st_size
    except OSError:
        return 0
