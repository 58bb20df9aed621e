"""Finds the folders of ACE-Step models in both layouts, and the parts that models share. Reads no weights; no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from errors import ModelError
from models.acestep.catalog import (
    BY_NAME,
    CATALOG,
    MAIN_HUB_ID,
    TEXT_ENCODER_FOLDER,
    VAE_FOLDER,
    ModelCard,
    find_catalog_name,
)
from models.acestep.checkpoint import (
    INDEX_FILE,
    MODEL_STEM,
    PART_STEM,
    SILENCE_FILE,
    ModelFolders,
    find_layout,
    holds_vae,
    list_missing_files,
)
from models.checkpoints.errors import CheckpointError
from models.checkpoints.hf_folder import CONFIG_FILE, TOKENIZER_FILE
from models.checkpoints.hub import Hub
from models.checkpoints.locations import WeightLocations, can_search
from models.checkpoints.safetensors_shards import list_weight_files, name_index
from models.runtime.progress import Observer

COLLECTIONS: Final = ("checkpoints", "ACE-Step-1.5/checkpoints", "Ace-Step1.5", MAIN_HUB_ID)  # of model folders
_VAE_FILES = (CONFIG_FILE, f"{PART_STEM}.safetensors")
_TEXT_ENCODER_FILES = (CONFIG_FILE, f"{MODEL_STEM}.safetensors", TOKENIZER_FILE)


@dataclass(frozen=True, slots=True)
class AceStepRepository:
    """Looks for models in the order that `WeightLocations` defines.

    A model is `<name>/` in either layout, below a root or below one of the folders that collect them: `checkpoints`,
    `Ace-Step1.5`. A snapshot in a hub cache counts as such a folder. The VAE and the text encoder of the original
    layout are in the model's folder, beside it, or below any root or collection.
    """

    weights: WeightLocations

    def list_names(self) -> list[str]:
        """Returns the catalogue, then every other model that is here."""
        known = {folders.model.resolve() for card in CATALOG if (folders := self.find(card.name))}
        local = {
            name
            for marker in (SILENCE_FILE, INDEX_FILE)
            for name in self.weights.list_folder_names(marker)
            if find_catalog_name(name) not in BY_NAME
        }
        others = [name for name in sorted(local) if (found := self.find(name)) and found.model.resolve() not in known]
        return [*BY_NAME, *others]

    def find(self, name: str) -> ModelFolders | None:
        """Returns where the parts of the model with the canonical `name` are; None if its own folder is not here.

        A folder with all of its files counts before one without.

        Raises:
            InvalidRequestError: the name can be none of a folder.
        """
        found = list(self._iter_folders(name))
        complete = (folders for folders in found if _is_complete(folders))
        return next(complete, found[0] if found else None)

    def _iter_folders(self, name: str) -> Iterator[ModelFolders]:
        if name in BY_NAME:
            places = self._iter_published(BY_NAME[name])
        else:
            place = self.weights.find_named(name, (f"{CONFIG_FILE}|{INDEX_FILE}",))
            places = iter([place] if place else [])
        for folder in places:
            layout = find_layout(folder)
            if layout == "diffusers":
                yield ModelFolders(folder, layout, folder / VAE_FOLDER, folder / "text_encoder")
            elif layout == "original":
                yield ModelFolders(folder, layout, self._find_vae(folder), self._find_text_encoder(folder))

    def _iter_published(self, card: ModelCard) -> Iterator[Path]:
        names = [card.name, f"{card.name}-diffusers"]
        paths = [*names, *(f"ACE-Step/{name}" for name in names), *COLLECTIONS]
        hub_ids = [hub_id for hub_id in (card.hub_id, card.diffusers_id) if hub_id]
        for folder in self.weights.iter_candidates(paths, hub_ids):
            yield from filter(can_search, (folder, folder / card.name))

    def _find_vae(self, model: Path) -> Path | None:
        places = self._iter_shared(model, VAE_FOLDER)
        return next((folder for folder in places if holds_vae(folder) and _holds(folder, PART_STEM)), None)

    def _find_text_encoder(self, model: Path) -> Path | None:
        places = self._iter_shared(model, TEXT_ENCODER_FOLDER)
        return next((folder for folder in places if _holds(folder, MODEL_STEM, TOKENIZER_FILE)), None)

    def _iter_shared(self, model: Path, part: str) -> Iterator[Path]:
        collections = self.weights.iter_candidates((".", *COLLECTIONS), (MAIN_HUB_ID,))
        yield from filter(can_search, (folder / part for folder in (model, model.parent, *collections)))


def fetch_model(hub: Hub, card: ModelCard, observer: Observer) -> None:
    """Downloads a model's own files, in the original layout: its settings, its weights and the silence.

    Raises:
        ModelError: they cannot be had.
    """
    below = f"{card.name}/" if card.hub_id == MAIN_HUB_ID else ""
    weights = f"{below}{MODEL_STEM}.safetensors|{below}{name_index(MODEL_STEM)}"
    folder = hub.fetch(card.hub_id, (below + CONFIG_FILE, below + SILENCE_FILE, weights), observer)
    if shards := list_missing_files(ModelFolders(folder / below, "original", None, None)):
        hub.fetch(card.hub_id, tuple(below + shard for shard in shards), observer)


def fetch_shared(hub: Hub, folders: ModelFolders, observer: Observer) -> None:
    """Downloads those of the VAE and the text encoder that are not here; raises `ModelError` as `fetch_model`."""
    for part, folder, files in (
        (VAE_FOLDER, folders.vae, _VAE_FILES),
        (TEXT_ENCODER_FOLDER, folders.text_encoder, _TEXT_ENCODER_FILES),
    ):
        if folder is None:
            hub.fetch(MAIN_HUB_ID, tuple(f"{part}/{file}" for file in files), observer)


def _is_complete(folders: ModelFolders) -> bool:
    try:
        return not list_missing_files(folders)
    except ModelError:
        return False


def _holds(folder: Path, stem: str, *files: str) -> bool:
    """Whether a folder holds settings, weights and `files`. Broken weights count: reading them says what is wrong."""
    try:
        weights = list_weight_files(folder, stem)
    except CheckpointError:
        return True
    return all((folder / file).is_file() for file in (CONFIG_FILE, *weights, *files))
