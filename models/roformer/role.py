"""Tells what a RoFormer model is for: from `role.json`, its name, or its stems. No torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

from models.checkpoints.errors import CheckpointError
from models.roformer.checkpoint import ModelFiles, report_broken_file
from models.roformer.config import RoformerConfig
from models.separation import Role

ROLE_FILE = "role.json"
_MAX_ROLE_BYTES = 4096
_DRY = {"noreverb", "no reverb", "dereverb", "dry"}
_CLEAN = {"denoise", "denoised", "no noise", "nonoise"}
_INSTRUMENTAL = {"other", "instrumental", "instrum", "accompaniment"}


def choose_role(files: ModelFiles, config: RoformerConfig) -> Role:
    """Returns what a model is for: what `role.json` states, else what its name and its stems show.

    Some models that take the lead vocal out of the vocals name their stems as those for vocals do: they are told by
    `karaoke` in the name of the folder or of the weights.
    """
    if (stated := _read_role(files.weights.parent / ROLE_FILE)) is not None:
        return stated
    outputs = set(config.outputs)
    if "karaoke" in f"{files.weights.parent.name}/{files.weights.name}".lower() or "karaoke" in outputs:
        return "karaoke"
    if len(outputs) > 2:  # noqa: PLR2004  (a stem and the rest)
        return "stems"
    if any(name.startswith("lead") for name in outputs) and config.stems[0].startswith("lead"):
        return "karaoke"
    if config.stems[0] in _CLEAN or outputs == {"dry", "other"}:
        return "denoise"
    if config.stems[0] in _DRY:
        return "dereverb"
    is_vocals = "vocals" in config.stems and outputs <= {"vocals", *_INSTRUMENTAL}
    return "vocals" if is_vocals else "stems"


def _read_role(path: Path) -> Role | None:
    if not path.is_file():
        return None
    with report_broken_file(path):
        try:
            with path.open("rb") as file:
                content = json.loads(file.read(_MAX_ROLE_BYTES))
        except (OSError, ValueError, RecursionError) as error:
            raise CheckpointError("it cannot be read as JSON") from error
        stated = content.get("role") if isinstance(content, dict) else None
        for role in get_args(Role):
            if stated == role:
                known: Role = role
                return known
        raise CheckpointError(f"its 'role' has to be one of: {', '.join(get_args(Role))}")
