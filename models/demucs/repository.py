"""Finds and downloads the files of Demucs models. Reads no weights."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from errors import ModelError
from models.checkpoints.locations import WeightLocations, can_search
from models.demucs.bag import Bag, broken_model, read_bag
from models.demucs.catalog import CATALOG
from models.demucs.spec import is_demucs_file
from models.runtime.progress import UNATTENDED, Observer

SHARED_FOLDER = "demucs"
FOLDER_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_OLD_FILE = re.compile(r"(?P<signature>.+?)(-(?P<checksum>[0-9a-f]{8}))?\.th")
_SUFFIXES = (".safetensors", ".th")


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model's files on this machine. `submodels[i]` is None if that one still has to be downloaded."""

    bag: Bag
    submodels: tuple[Path | None, ...]

    @property
    def is_complete(self) -> bool:
        return None not in self.submodels


@dataclass(frozen=True, slots=True)
class ModelRepository:
    """Looks for models in the order that `WeightLocations` defines, then in torch's cache.

    A folder of models holds a folder for each model (`<name>/` or `demucs/<name>/`) with `<name>.yaml` and one
    `<signature>.safetensors` (or demucs 4.0's `.th`) for each submodel; or it, or its `demucs/`, holds the files of
    all. A published model needs no yaml, because demucs has it, nor does a model of a single weights file.

    Args:
        weights: the places, and the hub.
        torch_cache: the folder that `torch.hub` downloads checkpoints to, as demucs 4.0 did; None: there is none.
    """

    weights: WeightLocations
    torch_cache: Path | None = None

    def names(self) -> list[str]:
        """Returns every model that can be asked for: the catalogue's, then those of local folders and files."""
        local: set[str] = set()
        for root in self._flat_folders():
            local.update(path.name for path in _list_subfolders(root) if _holds_model(path))
            local.update(_list_flat_models(root))
        return [*CATALOG, *sorted(local - CATALOG.keys())]

    def is_local(self, name: str) -> bool:
        """Whether every file of `name` is on this machine."""
        files = self.find(name)
        return files is not None and files.is_complete

    def find(self, name: str) -> ModelFiles | None:
        """Returns the files of `name` that are here, from a place that has all of them if there is one.

        None if there are none. Raises `ModelError` if they are broken.
        """
        if not FOLDER_NAME.fullmatch(name):
            return None
        incomplete = None
        for files in self._search(name):
            if files is not None and files.is_complete:
                return files
            incomplete = incomplete or files
        return incomplete

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

    def _flat_folders(self) -> Iterator[Path]:
        """The folders that may hold the files of several models."""
        for root in self.weights.roots:
            yield root
            yield root / SHARED_FOLDER

    def _search(self, name: str) -> Iterator[ModelFiles | None]:
        hub_ids = (CATALOG[name].repository,) if name in CATALOG else ()
        names = (name, f"{SHARED_FOLDER}/{name}", SHARED_FOLDER, ".")
        for folder in self.weights.iter_candidates(names, hub_ids):
            yield _find_files(folder, name, own=folder.name == name and folder not in self.weights.roots)
        if self.torch_cache is not None:
            yield _find_published(self.torch_cache, name)


def _find_files(folder: Path, name: str, *, own: bool) -> ModelFiles | None:
    """Returns the files of the model `name` in `folder`; None if the folder holds another model or none.

    Args:
        own: whether it is the folder of this model alone.
    """
    stated = folder / f"{name}.yaml"
    if stated.is_file():
        return _locate(read_bag(stated), folder)
    if published := _find_published(folder, name):
        return published
    if not own:
        single = find_weights_file(folder, name)
        return ModelFiles(Bag((name,)), (single,)) if single is not None and is_demucs_file(single) else None
    yamls = sorted(folder.glob("*.yaml"))
    if len(yamls) == 1:
        return _locate(read_bag(yamls[0]), folder)
    weights = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.th"))
    if len(weights) == 1 and not yamls:
        return ModelFiles(Bag((weights[0].stem,)), (weights[0],))
    if yamls or weights:
        raise broken_model(f"its folder needs one yaml file with the folder's name, and has {len(yamls)}")
    return None


def _find_published(folder: Path, name: str) -> ModelFiles | None:
    """Returns the files in `folder` that have the signatures of the published model `name`; None if there are none."""
    bag = read_published_bag(name)
    files = _locate(bag, folder) if bag is not None else None
    return files if files is not None and any(files.submodels) else None


def _locate(bag: Bag, folder: Path) -> ModelFiles:
    return ModelFiles(bag, tuple(find_weights_file(folder, signature) for signature in bag.signatures))


@functools.cache
def read_published_bag(name: str) -> Bag | None:
    """Returns the bag of a published model as the demucs package has it; None if the model or the package is unknown.

    The package is found, not imported.
    """
    package = find_spec("demucs") if name in CATALOG else None
    folders = (package.submodule_search_locations or []) if package else []
    paths = [Path(folder) / "remote" / f"{name}.yaml" for folder in folders]
    return next((read_bag(path) for path in paths if path.is_file()), None)


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
    return [path for path in folders if path.name != SHARED_FOLDER and can_search(path)]


def _holds_model(folder: Path) -> bool:
    """Whether the folder is that of a Demucs model, intact or not."""
    try:
        files = _find_files(folder, folder.name, own=True)
    except ModelError:
        return any(map(is_demucs_file, _list_weights(folder)))
    if files is None:
        return False
    is_described = any(folder.glob("*.yaml"))
    return any(path is not None and (is_described or is_demucs_file(path)) for path in files.submodels)


def _list_flat_models(folder: Path) -> set[str]:
    """Returns the models whose files are in `folder` itself: those with a yaml, and single files of no such model."""
    bags = [read_published_bag(name) for name in CATALOG]
    names = set()
    for path in sorted(folder.glob("*.yaml")):
        try:
            bag = read_bag(path)
        except ModelError:
            continue  # most yaml files are no bags
        if any(_locate(bag, folder).submodels):
            names.add(path.stem)
            bags.append(bag)
    known = {signature for bag in bags if bag is not None for signature in bag.signatures}
    for path in _list_weights(folder):
        signature = _read_signature(path.name) or path.stem
        if signature not in known and is_demucs_file(path):
            names.add(signature)
    return {name for name in names if FOLDER_NAME.fullmatch(name)}


def _list_weights(folder: Path) -> list[Path]:
    return [path for suffix in _SUFFIXES for path in sorted(folder.glob(f"*{suffix}")) if path.is_file()]
