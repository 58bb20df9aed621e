"""Where a Demucs model's files lie: model folders, the hub's cache, the platform's mount, the hub. Reads no weights."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from errors import ModelError
from models.demucs.bag import Bag, broken, read_bag
from models.demucs.catalog import CATALOG

logger = logging.getLogger(__name__)

FOLDER_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_OLD_FILE: Final = re.compile(r"(?P<signature>.+?)(-(?P<checksum>[0-9a-f]{8}))?\.th")


@dataclass(frozen=True, slots=True)
class Files:
    """A model's files on this machine. `submodels[i]` is None where that one is still to be downloaded."""

    bag: Bag
    submodels: tuple[Path | None, ...]


@dataclass(frozen=True, slots=True)
class Folders:
    """Looks for models, in this order: `roots`, `hub_caches`, the hub itself.

    A root holds a folder per model (`<root>/<name>/` or `<root>/demucs/<name>/`) with `<name>.yaml` and one
    `<signature>.safetensors` (or demucs 4.0's `.th`) per submodel; or `<root>/demucs/` holds the files of all.
    A folder with a single weights file needs no yaml.

    Args:
        roots: folders of weights.
        hub_caches: folders laid out as the Hugging Face cache; the first is the one downloads go to.
        download: whether what is nowhere may be fetched from the hub.
    """

    roots: Sequence[Path] = ()
    hub_caches: Sequence[Path] = ()
    download: bool = True
    _names: frozenset[str] = field(default=frozenset(CATALOG), repr=False)

    def names(self) -> list[str]:
        """Every model that can be asked for: the catalog's, then the local folders'."""
        local = {path.name for root in self._model_roots() for path in _subfolders(root) if _holds_model(path)}
        return [*CATALOG, *sorted(local - self._names)]

    def is_local(self, name: str) -> bool:
        """Whether every file of `name` is on this machine."""
        try:
            files = self.find(name)
        except ModelError:
            return False
        return files is not None and None not in files.submodels

    def find(self, name: str) -> Files | None:
        """What of `name` is on this machine; None where nothing is. `ModelError` where it is there but broken."""
        for folder in self._candidates(name):
            if (files := _files(folder, name)) is not None:
                return files
        return None

    def fetch(self, name: str, wanted: Sequence[int]) -> Files:
        """The files of `name` with at least the `wanted` submodels, downloaded where they are nowhere.

        Raises:
            ModelError: `model_unavailable`, with what to do.
        """
        files = self.find(name)
        if files is not None and all(files.submodels[index] is not None for index in wanted):
            return files
        if name not in CATALOG:
            raise broken("a weights file that its yaml names is missing")
        if not self.download:
            raise _unavailable(name, "downloads are switched off")
        bag = files.bag if files is not None else read_bag(self._download(name, f"{name}.yaml"))
        submodels: list[Path | None] = list(files.submodels) if files is not None else [None] * len(bag.signatures)
        for index in wanted:
            if submodels[index] is None:
                submodels[index] = self._download(name, f"{bag.signatures[index]}.safetensors")
        return Files(bag, tuple(submodels))

    def bag(self, name: str) -> Bag:
        """The bag alone, downloaded where it is nowhere."""
        return self.fetch(name, ()).bag

    def _download(self, name: str, filename: str) -> Path:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

        logger.info("Downloading %s of %s", filename, name)
        cache = str(self.hub_caches[0]) if self.hub_caches else None
        try:
            return Path(hf_hub_download(CATALOG[name].repository, filename, cache_dir=cache))
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
            raise _unavailable(name, "the hub did not give them") from error

    def _model_roots(self) -> Iterator[Path]:
        for root in self.roots:
            yield root
            yield root / "demucs"

    def _candidates(self, name: str) -> Iterator[Path]:
        for root in self.roots:
            yield root / name
            yield root / "demucs" / name
            yield root / "demucs"
        if name in CATALOG:
            for cache in self.hub_caches:
                yield from _snapshots(cache, CATALOG[name].repository)


def _files(folder: Path, name: str) -> Files | None:
    """The model `name` in `folder`, if it is there."""
    stated = folder / f"{name}.yaml"
    if stated.is_file():
        bag = read_bag(stated)
        return Files(bag, tuple(weights_file(folder, signature) for signature in bag.signatures))
    if folder.name != name:
        return None
    yamls = sorted(folder.glob("*.yaml"))
    if len(yamls) == 1:
        bag = read_bag(yamls[0])
        return Files(bag, tuple(weights_file(folder, signature) for signature in bag.signatures))
    weights = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.th"))
    if len(weights) == 1 and not yamls:
        return Files(Bag((weights[0].stem,)), (weights[0],))
    if yamls or weights:
        raise broken(f"its folder needs one yaml file named as it is, and has {len(yamls)}")
    return None


def weights_file(folder: Path, signature: str) -> Path | None:
    """`<signature>.safetensors`, else demucs 4.0's `<signature>[-<checksum>].th`."""
    new = folder / f"{signature}.safetensors"
    if new.is_file():
        return new
    old = [path for path in sorted(folder.glob("*.th")) if _signature(path.name) == signature]
    return old[0] if old else None


def checksum_of(path: Path) -> str | None:
    """The start of the file's SHA-256 that its name states, as demucs 4.0 names its files."""
    match = _OLD_FILE.fullmatch(path.name)
    return match["checksum"] if match else None


def _signature(file_name: str) -> str | None:
    match = _OLD_FILE.fullmatch(file_name)
    return match["signature"] if match else None


def _subfolders(root: Path) -> list[Path]:
    try:
        return [path for path in root.iterdir() if path.is_dir() and FOLDER_NAME.fullmatch(path.name)]
    except OSError:
        return []


def _holds_model(folder: Path) -> bool:
    """Whether the folder is a Demucs model's: a yaml with 'models', or a single weights file that says so itself."""
    from models.demucs.header import is_demucs_file

    try:
        files = _files(folder, folder.name)
    except (ModelError, OSError):
        return False
    return files is not None and any(path is not None and is_demucs_file(path) for path in files.submodels)


def _snapshots(cache: Path, repository: str) -> Iterator[Path]:
    """The snapshot that `main` points to, then the others, the newest first."""
    home = cache / f"models--{repository.replace('/', '--')}"
    try:
        main = home / "snapshots" / (home / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        main = None
    if main is not None and main.is_dir():
        yield main
    try:
        others = [path for path in (home / "snapshots").iterdir() if path.is_dir() and path != main]
        yield from sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)
    except OSError:
        return


def _unavailable(name: str, reason: str) -> ModelError:
    return ModelError(
        f"The weights of '{name}' are not on this worker and {reason}. Put {name}.yaml and its safetensors files into "
        f"the folder {name} below MODELS_DIR, or give the worker access to the hub.",
        details={"model": name, "repository": CATALOG[name].repository},
    )
