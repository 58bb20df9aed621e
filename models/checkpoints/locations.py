"""Where weights are looked for, in which order, and the hub that they come from where none are here. Without torch."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from errors import ErrorCode, InvalidRequestError, ModelError, sanitize

logger = logging.getLogger(__name__)

LM_FILE = "state_dict.bin"
CODEC_FILE = "compression_state_dict.bin"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*){0,2}")


class Hub(Protocol):
    """Fetches files of a repository into the local cache."""

    def fetch(self, hub_id: str, patterns: Sequence[str]) -> Path:
        """The folder with the files that match `patterns`; raises `ModelError` where they cannot be had."""


@dataclass(frozen=True)
class HuggingFaceHub:
    """The Hugging Face hub, through its own client, into `cache` (None: the client's own cache)."""

    cache: Path | None = None
    endpoint: str | None = None

    def fetch(self, hub_id: str, patterns: Sequence[str]) -> Path:
        import httpx2
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

        logger.info("Downloading %s", hub_id)
        try:
            folder = snapshot_download(
                hub_id, allow_patterns=list(patterns), cache_dir=self.cache, endpoint=self.endpoint
            )
        except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, httpx2.HTTPError, OSError) as error:
            raise ModelError(
                f"'{hub_id}' is not here and could not be downloaded ({type(error).__name__}). Put its files into a "
                "folder below MODELS_DIR, or give the worker a way to the Hugging Face hub.",
                details={"hub_id": hub_id},
            ) from error
        return Path(folder)


@dataclass(frozen=True)
class WeightLocations:
    """The places where weights may lie, in the order in which they are looked at.

    Args:
        explicit: MODELS_DIR: a folder of checkpoint folders (or in the layout of a hub cache).
        hub_caches: in the layout of the hub's cache: the client's own, and the platform's mount of cached models.
        folders: more folders of checkpoint folders: on volumes, baked into the image.
        hub: where to fetch what is nowhere; None: offline.
    """

    explicit: Path | None = None
    hub_caches: tuple[Path, ...] = ()
    folders: tuple[Path, ...] = ()
    hub: Hub | None = None

    @property
    def _first(self) -> tuple[Path, ...]:
        return (self.explicit,) if self.explicit else ()

    def search_paths(self) -> list[str]:
        """Every place, in order."""
        return [str(path) for path in (*self._first, *self.hub_caches, *self.folders)]

    def find(self, names: Sequence[str], hub_ids: Sequence[str], needs: Sequence[str]) -> Path | None:
        """The first folder called one of `names`, or cached from one of `hub_ids`, that holds all files `needs`.

        A need may give alternatives: `model.safetensors|pytorch_model.bin`.
        """
        places = [folder / name for folder in self._first for name in names]
        for cache in (*self._first, *self.hub_caches):
            places += [snapshot for hub_id in hub_ids for snapshot in _snapshots(cache, hub_id)]
        places += [folder / name for folder in self.folders for name in names]
        return next((place for place in places if _holds(place, needs)), None)

    def checkpoint(self, name: str) -> Path | None:
        """The checkpoint folder called `name` (`x` or `org/x`) below one of the folders; never outside them.

        Raises:
            InvalidRequestError: the name is no plain folder name.
        """
        if not _NAME.fullmatch(name) or ".." in name:
            raise InvalidRequestError(
                f"'{sanitize(name)}' cannot be a model: give a name that list_models shows, or that of a checkpoint "
                "folder below the model paths (letters, digits, '.', '_', '-', '/').",
                code=ErrorCode.INVALID_MODEL_NAME,
            )
        for root in (*self._first, *self.folders):
            folder = root / name
            if _holds(folder, (LM_FILE,)) and folder.resolve().is_relative_to(root.resolve()):
                return folder
        return None

    def checkpoint_names(self) -> list[str]:
        """Names of all checkpoint folders, one or two levels below the folders; looks anew at each call."""
        return sorted({name for root in (*self._first, *self.folders) for name in _checkpoints(root)})


def _checkpoints(root: Path) -> Iterator[str]:
    for pattern in (f"*/{LM_FILE}", f"*/*/{LM_FILE}"):
        for file in root.glob(pattern):
            name = file.parent.relative_to(root).as_posix()
            if _NAME.fullmatch(name) and not name.startswith("models--"):
                yield name


def _snapshots(cache: Path, hub_id: str) -> Iterator[Path]:
    """The snapshot that `refs/main` points at, else every one there is, in either layout of a hub cache."""
    for base in (cache, cache / "hub"):
        repository = base / f"models--{hub_id.replace('/', '--')}"
        try:
            revision = (repository / "refs" / "main").read_text().strip()
        except OSError:
            revision = ""
        if re.fullmatch(r"[0-9a-f]{7,64}", revision):
            yield repository / "snapshots" / revision
        elif (repository / "snapshots").is_dir():
            yield from sorted((repository / "snapshots").iterdir())


def _holds(folder: Path, needs: Sequence[str]) -> bool:
    return all(any((folder / name).is_file() for name in need.split("|")) for need in needs)
