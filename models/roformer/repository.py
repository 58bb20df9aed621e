"""Finds and downloads the files of RoFormer models. Reads no weights, and imports no torch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from errors import ModelError
from models.checkpoints.checksum import require_sha256
from models.checkpoints.locations import WeightLocations
from models.roformer.catalog import CATALOG, ModelCard
from models.roformer.checkpoint import SUFFIXES, ModelFiles, broken_model, read_settings
from models.runtime.progress import UNATTENDED, Observer

SHARED_FOLDER = "separators"
_FOLDER_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True, slots=True)
class RoformerRepository:
    """Looks for models in the order that `WeightLocations` defines.

    A folder of models holds a folder for each model, `<name>/` or `separators/<name>/`, with one `.ckpt` or
    `.safetensors`, its `.yaml`, and perhaps a `role.json`. With several of them, those with the folder's name count. Of
    a published model, the files that the hub cache or a downloaded release holds count, too.

    Args:
        weights: the places, and where downloads come from.
        catalog: the published models.
    """

    weights: WeightLocations
    catalog: Mapping[str, ModelCard] = field(default_factory=lambda: CATALOG)

    def names(self) -> list[str]:
        """Returns the models that are here, or of which the catalogue knows, by their canonical names."""
        local = {self.canonical_name(folder.name) for folder in self._list_folders()}
        return [*self.catalog, *sorted(local - self.catalog.keys())]

    def is_here(self, name: str) -> bool:
        """Whether files of a model are here, intact or not."""
        return self._find_folder(name) is not None or self._find_published(name) is not None

    def _find_folder(self, name: str) -> Path | None:
        """Returns the folder that somebody put the model into, intact or not; None if there is none."""
        if not _FOLDER_NAME.fullmatch(name):
            return None
        aliases = self.catalog[name].aliases if name in self.catalog else ()
        paths = [f"{parent}{one}" for one in (name, *aliases) for parent in (f"{SHARED_FOLDER}/", "")]
        candidates = self.weights.iter_candidates(paths, ())
        return next((folder for folder in candidates if self._is_model(folder)), None)

    def find(self, name: str) -> ModelFiles | None:
        """Returns the files of a model; None if it is not here. Raises `ModelError` if its folder is incomplete."""
        folder = self._find_folder(name)
        return self._find_published(name) if folder is None else self._find_files(folder)

    def can_download(self, name: str) -> bool:
        """Whether the files of a model can be downloaded, and are known by their checksums."""
        card = self.catalog.get(name)
        if card is None or not card.files:
            return False
        return (self.weights.hub if card.release is None else self.weights.releases) is not None

    def download(self, name: str, observer: Observer = UNATTENDED) -> None:
        """Downloads the files of a published model, unless they are here.

        Raises:
            ModelError: they cannot be had, or are not those that were published.
        """
        if self.is_here(name) or not self.can_download(name):
            return
        card = self.catalog[name]
        if card.release is not None and self.weights.releases is not None:
            self.weights.releases.fetch(name, card.release, card.files, observer)
        elif self.weights.hub is not None:
            folder = self.weights.hub.fetch(card.hub_id, [file.name for file in card.files], observer)
            for file in card.files:
                require_sha256(folder / file.name, file.sha256, observer.check)

    def _find_published(self, name: str) -> ModelFiles | None:
        """Returns the files of a published model that were downloaded; None if there are none."""
        card = self.catalog.get(name)
        if card is None or not card.weights_file:
            return None
        hub_ids = (card.hub_id,) if card.hub_id else ()
        for folder in (*self.weights.iter_candidates((), hub_ids), *self.weights.iter_released(name)):
            weights, settings = folder / card.weights_file, card.settings or folder / card.settings_file
            if weights.is_file() and (not isinstance(settings, Path) or settings.is_file()):
                return ModelFiles(weights, settings)
        return None

    def _list_folders(self) -> Iterator[Path]:
        for root in self.weights.roots:
            for parent in (root / SHARED_FOLDER, root):
                try:
                    folders = sorted(path for path in parent.iterdir() if _FOLDER_NAME.fullmatch(path.name))
                except OSError:
                    continue
                yield from filter(self._is_model, folders)

    def canonical_name(self, name: str) -> str:
        """Returns the catalogue's name for one of its aliases; any other name as it is."""
        return next((known for known, card in self.catalog.items() if name in card.aliases), name)

    def find_card(self, name: str, weights: Path) -> ModelCard | None:
        """Returns the catalogue's entry of a model, by its name or that of its weights.

        Other weights under the name of a published model are told by their size, as far as it is on record.
        """
        names = (self.canonical_name(name), self.canonical_name(weights.stem))
        card = next((self.catalog[known] for known in names if known in self.catalog), None)
        if card is None or (card.size and weights.stat().st_size != card.size):
            return None
        return card

    def _find_files(self, folder: Path) -> ModelFiles:
        """Returns the files of the model in a folder; raises `ModelError` if they are not there."""
        weights, settings = _list_weights(folder), _list_files(folder, (".yaml", ".yml"))
        own = [path for path in weights if path.stem == folder.name] or weights
        if len(own) != 1:
            raise broken_model(folder.name, f"its folder needs one .ckpt or .safetensors file, and has {len(own)}")
        stated = [path for path in settings if path.stem in (own[0].stem, folder.name)] or settings
        if not stated and (card := self.find_card(folder.name, own[0])) is not None and card.settings is not None:
            return ModelFiles(own[0], card.settings)
        if len(stated) != 1:
            raise broken_model(
                folder.name, f"its folder needs one .yaml file beside the weights, and has {len(stated)}"
            )
        return ModelFiles(own[0], stated[0])

    def _is_model(self, folder: Path) -> bool:
        """Whether a folder is that of a RoFormer, intact or not.

        Folders of other families hold safetensors files, too; Demucs' have a yaml, without the sections of a
        RoFormer's.
        """
        try:
            weights = _list_weights(folder)
            is_named = folder.parent.name == SHARED_FOLDER or self.canonical_name(folder.name) in self.catalog
            if not weights or is_named:
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
