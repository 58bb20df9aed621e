"""Finds the folders of RoFormer models, and tells what a model is for. Reads no weights, and imports no torch."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from errors import ModelError
from models.checkpoints.errors import CheckpointError
from models.checkpoints.locations import WeightLocations
from models.roformer.catalog import ALIASES, CATALOG
from models.roformer.checkpoint import SUFFIXES, ModelFiles, broken_model, read_settings, report_broken_file
from models.roformer.config import RoformerConfig
from models.separation import Role

SHARED_FOLDER = "separators"
ROLE_FILE = "role.json"
_FOLDER_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_MAX_ROLE_BYTES = 4096
_DRY = {"noreverb", "no reverb", "dereverb", "dry"}
_CLEAN = {"denoise", "denoised", "no noise", "nonoise"}
_INSTRUMENTAL = {"other", "instrumental", "instrum", "accompaniment"}


@dataclass(frozen=True, slots=True)
class RoformerRepository:
    """Looks for models in the order that `WeightLocations` defines.

    A folder of models holds a folder for each model, `<name>/` or `separators/<name>/`, with one `.ckpt` or
    `.safetensors`, its `.yaml`, and perhaps a `role.json`. With several of them, those with the folder's name count.
    """

    weights: WeightLocations

    def names(self) -> list[str]:
        """Returns the models that are here, or of which the catalogue knows, by their canonical names."""
        local = {canonical_name(folder.name) for folder in self._list_folders()}
        return [*CATALOG, *sorted(local - CATALOG.keys())]

    def find_folder(self, name: str) -> Path | None:
        """Returns the folder of a model, intact or not; None if it is not here."""
        if not _FOLDER_NAME.fullmatch(name):
            return None
        aliases = CATALOG[name].aliases if name in CATALOG else ()
        paths = [f"{parent}{one}" for one in (name, *aliases) for parent in (f"{SHARED_FOLDER}/", "")]
        candidates = self.weights.iter_candidates(paths, ())
        return next((folder for folder in candidates if _is_model(folder)), None)

    def find(self, name: str) -> ModelFiles | None:
        """Returns the files of a model; None if it is not here. Raises `ModelError` if its folder is incomplete."""
        folder = self.find_folder(name)
        return None if folder is None else find_files(folder)

    def _list_folders(self) -> Iterator[Path]:
        for root in self.weights.roots:
            for parent in (root / SHARED_FOLDER, root):
                try:
                    folders = sorted(path for path in parent.iterdir() if _FOLDER_NAME.fullmatch(path.name))
                except OSError:
                    continue
                yield from filter(_is_model, folders)


def canonical_name(name: str) -> str:
    """Returns the catalogue's name for one of its aliases; any other name as it is."""
    return ALIASES.get(name, name)


def find_files(folder: Path) -> ModelFiles:
    """Returns the two files of the model in a folder; raises `ModelError` if they are not there."""
    weights, settings = _list_weights(folder), _list_files(folder, (".yaml", ".yml"))
    own = [path for path in weights if path.stem == folder.name] or weights
    if len(own) != 1:
        raise broken_model(folder.name, f"its folder needs one .ckpt or .safetensors file, and has {len(own)}")
    stated = [path for path in settings if path.stem in (own[0].stem, folder.name)] or settings
    if len(stated) != 1:
        raise broken_model(folder.name, f"its folder needs one .yaml file beside the weights, and has {len(stated)}")
    return ModelFiles(own[0], stated[0])


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


def _is_model(folder: Path) -> bool:
    """Whether a folder is that of a RoFormer, intact or not.

    Folders of other families hold safetensors files, too; Demucs' have a yaml, without the sections of a RoFormer's.
    """
    try:
        weights = _list_weights(folder)
        if not weights or folder.parent.name == SHARED_FOLDER:
            return bool(weights)
        settings = _list_files(folder, (".yaml", ".yml"))
        if any(path.suffix == ".ckpt" for path in weights):
            return bool(settings)
        return any(map(_has_network_settings, settings))
    except OSError:
        return False


def _has_network_settings(path: Path) -> bool:
    try:
        settings = read_settings(path)
    except ModelError:
        return False
    return settings.get("training.instruments") is not None


def _list_weights(folder: Path) -> list[Path]:
    return _list_files(folder, SUFFIXES)


def _list_files(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix in suffixes and path.is_file())
