"""Where weights are looked for, in one order for every family, and the hub that missing ones come from. No torch."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from errors import ErrorCode, InvalidRequestError, ModelError, sanitize

logger = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*){0,2}")
_REVISION = re.compile(r"[0-9a-f]{7,64}")


class Hub(Protocol):
    """Fetches files of a repository into the local cache."""

    def fetch(self, hub_id: str, patterns: Sequence[str]) -> Path:
        """Returns the folder with the files that match `patterns`; raises `ModelError` if they cannot be downloaded."""


@dataclass(frozen=True)
class HuggingFaceHub:
    """The Hugging Face hub, through its own client.

    Args:
        cache: the hub cache that files go to; None: the client's own.
        endpoint: address of the hub; None: the client's own.
    """

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
                f"'{hub_id}' is not on this worker and could not be downloaded ({type(error).__name__}). Put its files "
                "into a folder below MODELS_DIR, or give the worker access to the Hugging Face hub.",
                details={"hub_id": hub_id},
            ) from error
        return Path(folder)


@dataclass(frozen=True)
class WeightLocations:
    """The places that weights are looked for in, in order, for every family alike.

    Args:
        explicit: MODELS_DIR: a folder of model folders, or of a hub cache, or laid out as HF_HOME.
        hub_caches: hub caches: the client's own, and the platform's mount of cached models.
        folders: more folders of model folders: on volumes, and baked into the image.
        hub: where weights that are in none of these are downloaded from; None: offline.
    """

    explicit: Path | None = None
    hub_caches: tuple[Path, ...] = ()
    folders: tuple[Path, ...] = ()
    hub: Hub | None = None

    @property
    def roots(self) -> tuple[Path, ...]:
        """The folders of model folders, in order."""
        return (*self._first, *self.folders)

    @property
    def _first(self) -> tuple[Path, ...]:
        return (self.explicit,) if self.explicit else ()

    def search_paths(self) -> list[str]:
        """Returns every place, in order, as `list_models` shows them."""
        return [str(path) for path in (*self._first, *self.hub_caches, *self.folders)]

    def candidates(self, names: Sequence[str], hub_ids: Sequence[str]) -> Iterator[Path]:
        """Yields every folder that may hold a model, in the order of the search. Some of them may not exist.

        Args:
            names: paths below a root: `htdemucs`, `demucs/htdemucs`.
            hub_ids: repositories on the hub, whose cached snapshots are yielded.
        """
        for root in self._first:
            yield from (root / name for name in names)
        for cache in (*self._first, *self.hub_caches):
            for hub_id in hub_ids:
                yield from _find_snapshots(cache, hub_id)
        for root in self.folders:
            yield from (root / name for name in names)

    def find(self, names: Sequence[str], hub_ids: Sequence[str], needs: Sequence[str]) -> Path | None:
        """Returns the first of the `candidates` that holds all files `needs`; None if there is none.

        A need may give alternatives: `model.safetensors|pytorch_model.bin`.
        """
        return next((folder for folder in self.candidates(names, hub_ids) if _holds(folder, needs)), None)

    def find_named(self, name: str, needs: Sequence[str]) -> Path | None:
        """Returns the folder called `name` (`x` or `org/x`) below one of the roots, if it holds all files `needs`.

        Raises:
            InvalidRequestError: the name is no plain folder name, so it may lead out of the roots.
        """
        if not _NAME.fullmatch(name) or ".." in name:
            raise InvalidRequestError(
                f"'{sanitize(name)}' cannot be a model name. Use one that list_models shows, or that of a "
                "checkpoint folder below the model paths (letters, digits, '.', '_', '-', '/').",
                code=ErrorCode.INVALID_MODEL_NAME,
            )
        for root in self.roots:
            folder = root / name
            if _holds(folder, needs) and folder.resolve().is_relative_to(root.resolve()):
                return folder
        return None

    def names_of_folders(self, file: str) -> list[str]:
        """Returns the names of all folders, one or two levels below the roots, that hold `file`, as of now."""
        found = set()
        for root in self.roots:
            for path in (*root.glob(f"*/{file}"), *root.glob(f"*/*/{file}")):
                name = path.parent.relative_to(root).as_posix()
                if _NAME.fullmatch(name) and not name.startswith("models--"):
                    found.add(name)
        return sorted(found)


def _find_snapshots(cache: Path, hub_id: str) -> Iterator[Path]:
    """Yields the snapshot that `refs/main` names, then the others, the newest first.

    Args:
        cache: a hub cache, or a folder laid out as HF_HOME, whose hub cache is `hub`.
    """
    for base in (cache, cache / "hub"):
        repository = base / f"models--{hub_id.replace('/', '--')}"
        try:
            revision = (repository / "refs" / "main").read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            revision = ""
        main = repository / "snapshots" / revision if _REVISION.fullmatch(revision) else None
        if main is not None:
            yield main
        try:
            snapshots = [path for path in (repository / "snapshots").iterdir() if path.is_dir() and path != main]
            yield from sorted(snapshots, key=lambda path: path.stat().st_mtime, reverse=True)
        except OSError:
            continue


def _holds(folder: Path, needs: Sequence[str]) -> bool:
    return all(any((folder / name).is_file() for name in need.split("|")) for need in needs)
