"""Finds and downloads the files of Demucs models. Reads no weights."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from errors import ModelError
from models.checkpoints.locations import WeightLocations
from models.demucs.bag import Bag, broken_model, read_bag
from models.demucs.catalog import CATALOG
from models.demucs.spec import is_demucs_file
from models.runtime.progress import UNATTENDED, Observer

SHARED_FOLDER = "demucs"
FOLDER_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_OLD_FILE = re.compile(r"(?P<signature>.+?)(-(?P<checksum>[0-9a-f]{8}))?\.th")


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model's files on this machine. `submodels[i]` is None if that one still has to be downloaded."""

    bag: Bag
    submodels: tuple[Path | None, ...]


@dataclass(frozen=True, slots=True)
class ModelRepository:
    """Looks for models in the order that `WeightLocations` defines.

    A folder of models holds a folder for each model (`<name>/` or `demucs/<name>/`) with `<name>.yaml` and one
    `<signature>.safetensors` (or demucs 4.0's `.th`) for each submodel; or its `demucs/` holds the files of all.
    A model of a single weights file needs no yaml.

    Args:
        weights: the places, and the hub.
    """

    weights: WeightLocations

    def names(self) -> list[str]:
        """Returns every model that can be asked for: the catalogue's, then those of local folders."""
        local = {path.name for root in self._roots() for path in _list_subfolders(root) if _holds_model(path)}
        return [*CATALOG, *sorted(local - CATALOG.keys())]

    def is_local(self, name: str) -> bool:
        """Whether every file of `name` is on this machine."""
        files = self.find(name)
        return files is not None and None not in files.submodels

    def find(self, name: str) -> ModelFiles | None:
        """Returns the files of `name` that are here; None if there are none. Raises `ModelError` if they are broken."""
        if not FOLDER_NAME.fullmatch(name):
            return None
        found = (_find_files(folder, name) for folder in self._candidates(name))
        return next((files for files in found if files is not None), None)

    def fetch(self, name: str, wanted: Sequence[int] = (), observer: Observer = UNATTENDED) -> ModelFiles:
        """Returns the files of `name` with at least the `wanted` submodels, which are downloaded if they are missing.

        Raises:
            ModelError: `model_unavailable` or `broken_checkpoint`, with what to do.
        """
        files = self.find(name)
        if files is None:
            files = ModelFiles(read_bag(self._download(name, [f"{name}.yaml"], observer) / f"{name}.yaml"), ())
        submodels = list(files.submodels) or [None] * len(files.bag.signatures)
        missing = [f"{files.bag.signatures[index]}.safetensors" for index in wanted if submodels[index] is None]
        if missing:
            folder = self._download(name, missing, observer)
            pairs = zip(submodels, files.bag.signatures, strict=True)
            submodels = [path or find_weights_file(folder, signature) for path, signature in pairs]
        return ModelFiles(files.bag, tuple(submodels))

    def _download(self, name: str, patterns: Sequence[str], observer: Observer) -> Path:
        if name not in CATALOG:
            raise broken_model("a weights file that its yaml names is missing")
        if self.weights.hub is None:
            raise ModelError(
                f"The weights of '{name}' are not on this worker, and it is set to work offline. Put {name}.yaml and "
                f"its safetensors files into a folder {name} below MODELS_DIR.",
                details={"model": name, "repository": CATALOG[name].repository},
            )
        folder = self.weights.hub.fetch(CATALOG[name].repository, patterns, observer)
        if not all((folder / pattern).is_file() for pattern in patterns):
            raise broken_model("its repository on the hub lacks files that its yaml names")
        return folder

    def _roots(self) -> Iterator[Path]:
        for root in self.weights.roots:
            yield root
            yield root / SHARED_FOLDER

    def _candidates(self, name: str) -> Iterator[Path]:
        hub_ids = (CATALOG[name].repository,) if name in CATALOG else ()
        return self.weights.iter_candidates((name, f"{SHARED_FOLDER}/{name}", SHARED_FOLDER), hub_ids)


def _find_files(folder: Path, name: str) -> ModelFiles | None:
    """Returns the files of the model `name` in `folder`; None if the folder holds another model or none."""
    stated = folder / f"{name}.yaml"
    if stated.is_file():
        bag = read_bag(stated)
        return ModelFiles(bag, tuple(find_weights_file(folder, signature) for signature in bag.signatures))
    if folder.name != name:
        return None
    yamls = sorted(folder.glob("*.yaml"))
    if len(yamls) == 1:
        bag = read_bag(yamls[0])
        return ModelFiles(bag, tuple(find_weights_file(folder, signature) for signature in bag.signatures))
    weights = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.th"))
    if len(weights) == 1 and not yamls:
        return ModelFiles(Bag((weights[0].stem,)), (weights[0],))
    if yamls or weights:
        raise broken_model(f"its folder needs one yaml file with the folder's name, and has {len(yamls)}")
    return None


def find_weights_file(folder: Path, signature: str) -> Path | None:
    """Returns `<signature>.safetensors`, else demucs 4.0's `<signature>[-<checksum>].th`; None if neither exists."""
    new = folder / f"{signature}.safetensors"
    if new.is_file():
        return new
    old = [path for path in sorted(folder.glob("*.th")) if _read_signature(path.name) == signature]
    return old[0] if old else None


def read_stated_checksum(path: Path) -> str | None:
    """Returns the beginning of the file's SHA-256 that its name states, as demucs 4.0 names files; None without one."""
    match = _OLD_FILE.fullmatch(path.name)
    return match["checksum"] if match else None


def _read_signature(file_name: str) -> str | None:
    match = _OLD_FILE.fullmatch(file_name)
    return match["signature"] if match else None


def _list_subfolders(root: Path) -> list[Path]:
    try:
        folders = [path for path in root.iterdir() if path.is_dir() and FOLDER_NAME.fullmatch(path.name)]
    except OSError:
        return []
    return [path for path in folders if path.name != SHARED_FOLDER]


def _holds_model(folder: Path) -> bool:
    """Whether the folder is that of a Demucs model: a yaml with 'models', or one weights file with Demucs' metadata."""
    try:
        files = _find_files(folder, folder.name)
    except (ModelError, OSError):
        return False
    return files is not None and any(path is not None and is_demucs_file(path) for path in files.submodels)
