"""Finds the folders of planners, and downloads them. Reads no weights; no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from models.acestep.catalog import MAIN_HUB_ID
from models.acestep.planner.catalog import BY_NAME, PlannerCard, find_catalog_name
from models.acestep.planner.checkpoint import STEM, holds_planner, list_missing_files, report_planner
from models.acestep.repository import COLLECTIONS
from models.checkpoints.errors import CheckpointError
from models.checkpoints.hf_folder import CONFIG_FILE, TOKENIZER_FILE
from models.checkpoints.hub import Hub
from models.checkpoints.locations import WeightLocations, can_search
from models.checkpoints.safetensors_shards import name_index
from models.runtime.progress import Observer


@dataclass(frozen=True, slots=True)
class PlannerRepository:
    """Looks for planners in the order that `WeightLocations` defines.

    A planner is `<name>/` below a root, or below one of the folders that collect models: `checkpoints`, `Ace-Step1.5`.
    A snapshot in a hub cache counts as such a folder.
    """

    weights: WeightLocations

    def list_names(self) -> list[str]:
        """Returns the catalogue, then every other planner that is here."""
        known = {folder.resolve() for name in BY_NAME if (folder := self.find(name))}
        local = [
            name
            for name in self.weights.list_folder_names(TOKENIZER_FILE)
            if find_catalog_name(name) not in BY_NAME and (folder := self.find(name)) and folder.resolve() not in known
        ]
        return [*BY_NAME, *local]

    def find(self, name: str) -> Path | None:
        """Returns the folder of the planner with the canonical `name`; None if it is not here.

        A folder with all of its files counts before one without.

        Raises:
            InvalidRequestError: the name can be none of a folder.
        """
        found = [
            folder
            for folder in self._iter_folders(name)
            if holds_planner(folder) or (folder.name == name in BY_NAME and (folder / CONFIG_FILE).is_file())
        ]
        return next(filter(_is_complete, found), found[0] if found else None)

    def _iter_folders(self, name: str) -> Iterator[Path]:
        if name not in BY_NAME:
            folder = self.weights.find_named(name, (CONFIG_FILE,))
            yield from [folder] if folder else []
            return
        paths = [name, f"ACE-Step/{name}", *COLLECTIONS]
        for folder in self.weights.iter_candidates(paths, (f"ACE-Step/{name}", MAIN_HUB_ID)):
            yield from filter(can_search, (folder, folder / name))


def fetch_planner(hub: Hub, card: PlannerCard, observer: Observer) -> Path:
    """Downloads a planner; returns its folder. Raises `ModelError` if it cannot be had."""
    below = card.files_below
    weights = f"{below}{STEM}.safetensors|{below}{name_index(STEM)}"
    folder = hub.fetch(card.hub_id, (below + CONFIG_FILE, below + TOKENIZER_FILE, weights), observer) / below
    with report_planner(folder):
        if shards := list_missing_files(folder):
            hub.fetch(card.hub_id, tuple(below + shard for shard in shards), observer)
    return folder


def _is_complete(folder: Path) -> bool:
    try:
        return not list_missing_files(folder)
    except CheckpointError:
        return False
