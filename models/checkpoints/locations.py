"""Where weights are looked for, in one order for every family, and the hub that missing ones come from. No torch."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from errors import ErrorCode, InvalidRequestError, sanitize
from models.checkpoints.hub import Hub
from models.checkpoints.releases import FOLDER, Releases

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*){0,2}")
_REVISION = re.compile(r"[0-9a-f]{7,64}")


@dataclass(frozen=True)
class WeightLocations:
    """The places that weights are looked for in, in order, for every family alike.

    Args:
        explicit: MODELS_DIR: a folder of model folders, or of a hub cache, or laid out as HF_HOME.
        hub_caches: hub caches: the client's own, and the platform's mount of cached models.
        folders: more folders of model folders: on volumes, and baked into the image.
        hub: where weights that are in none of these are downloaded from; None: offline.
        revisions: the commit to prefer in a hub cache, by repository.
        releases: where weights that were published as a release on GitHub are downloaded from; None: offline.
    """

    explicit: Path | None = None
    hub_caches: tuple[Path, ...] = ()
    folders: tuple[Path, ...] = ()
    hub: Hub | None = None
    revisions: Mapping[str, str] = field(default_factory=dict)
    releases: Releases | None = None

    @property
    def roots(self) -> tuple[Path, ...]:
        """The folders of model folders, in order."""
        return (*self._first, *self.folders)

    @property
    def _first(self) -> tuple[Path, ...]:
        return (self.explicit,) if self.explicit else ()

    def add_folder(self, folder: Path | None) -> WeightLocations:
        """The same places with one more folder of model folders, which is looked at last."""
        return self if folder is None else replace(self, folders=(*self.folders, folder))

    def search_paths(self) -> list[str]:
        """Returns every place, in order, as `list_models` shows them."""
        return [str(path) for path in (*self._first, *self.hub_caches, *self.folders)]

    def iter_candidates(self, names: Sequence[str], hub_ids: Sequence[str]) -> Iterator[Path]:
        """Yields every folder that may hold a model and can be searched, in the order of the search.

        Args:
            names: paths below a root: `htdemucs`, `demucs/htdemucs`.
            hub_ids: repositories on the hub, whose cached snapshots are yielded.
        """
        return filter(can_search, self._iter_places(names, hub_ids))

    def _iter_places(self, names: Sequence[str], hub_ids: Sequence[str]) -> Iterator[Path]:
        for root in self._first:
            yield from (root / name for name in names)
        for cache in (*self._first, *self.hub_caches):
            for hub_id in hub_ids:
                yield from _find_snapshots(cache, hub_id, self.revisions.get(hub_id, ""))
        for root in self.folders:
            yield from (root / name for name in names)

    def iter_released(self, model: str) -> Iterator[Path]:
        """Yields every folder that may hold the files of a release that were downloaded as `model`."""
        return filter(can_search, (cache / FOLDER / model for cache in (*self._first, *self.hub_caches)))

    def find(self, names: Sequence[str], hub_ids: Sequence[str], needs: Sequence[str]) -> Path | None:
        """Returns the first of the `iter_candidates` that holds all files `needs`; None if there is none.

        A need may give alternatives: `model.safetensors|pytorch_model.bin`.
        """
        return next((folder for folder in self.iter_candidates(names, hub_ids) if _holds(folder, needs)), None)

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
            if can_search(folder) and _holds(folder, needs) and folder.resolve().is_relative_to(root.resolve()):
                return folder
        return None

    def list_folder_names(self, file: str) -> list[str]:
        """Returns the names of all folders, one or two levels below the roots, that hold `file`, as of now."""
        found = set()
        for root in self.roots:
            for path in (*root.glob(f"*/{file}"), *root.glob(f"*/*/{file}")):
                name = path.parent.relative_to(root).as_posix()
                if _NAME.fullmatch(name) and not name.startswith("models--"):
                    found.add(name)
        return sorted(found)


def can_search(folder: Path) -> bool:
    """Whether the folder exists and the worker's user may look into it.

    Others are passed over: one folder of another user must not keep every other model from being listed.
    """
    return os.access(folder, os.R_OK | os.X_OK)


def _find_snapshots(cache: Path, hub_id: str, pinned: str) -> Iterator[Path]:
    """Yields the pinned snapshot, then the one that `refs/main` names, then the others, the newest first.

    Args:
        cache: a hub cache, or a folder laid out as HF_HOME, whose hub cache is `hub`.
        pinned: a commit; empty: none.
    """
    for base in (cache, cache / "hub"):
        repository = base / f"models--{hub_id.replace('/', '--')}"
        try:
            main = (repository / "refs" / "main").read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            main = ""
        preferred = [repository / "snapshots" / name for name in (pinned, main) if _REVISION.fullmatch(name)]
        yield from preferred
        try:
            others = [path for path in (repository / "snapshots").iterdir() if path.is_dir() and path not in preferred]
            yield from sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)
        except OSError:
            continue


def _holds(folder: Path, needs: Sequence[str]) -> bool:
    return all(any((folder / name).is_file() for name in need.split("|")) for need in needs)
