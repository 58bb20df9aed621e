"""Voices that a request names by their repository on the Hugging Face hub, as `hf://<user>/<repo>`. No torch.

Whoever may send requests chooses the repository, so its files are checked as those of an uploaded voice are, and of its
own text only the names of files that the hub lists are used.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from errors import ErrorCode, InvalidRequestError, ModelError, sanitize
from models.checkpoints.checksum import remove_cached_file
from models.checkpoints.hub import HubRepository, ListingHub
from models.runtime.progress import UNATTENDED, Observer
from models.rvc.checkpoint import VOICE_LIMITS
from models.rvc.install import MAX_INDEX_BYTES, check_voice
from models.rvc.sidecar import MAX_SIDECAR_BYTES, SIDECAR, Sidecar, read_sidecar
from models.rvc.voices import Voice, select_files

PREFIX = "hf://"
_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"
_HUB_ID = re.compile(f"{_PART}/{_PART}")  # as the hub allows it
_FORBIDDEN = ("--", "..")
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class _Files:
    """The files of a repository that make a voice, by their names in it."""

    checkpoint: PurePosixPath
    index: PurePosixPath | None
    sidecar: PurePosixPath | None
    warnings: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        return [str(path) for path in (self.checkpoint, self.index, self.sidecar) if path is not None]


class HubVoices:
    """The voices that were fetched from the hub since the process began. Their files stay in the hub cache.

    Args:
        hub: lists and fetches files; None: the worker is offline.
    """

    def __init__(self, hub: ListingHub | None) -> None:
        self._hub = hub
        self._fetched: dict[str, tuple[str, Voice]] = {}  # the commit and the voice, by its name

    def find(self, name: str) -> Voice:
        """Returns a voice that was fetched; raises `ModelError` if it was not."""
        if name not in self._fetched:
            raise ModelError(
                f"Voice model not found: '{sanitize(name)}' has not been downloaded. A request to generate_cover that "
                "names it downloads it.",
                code=ErrorCode.VOICE_NOT_FOUND,
            )
        return self._fetched[name][1]

    def fetch(self, name: str, observer: Observer = UNATTENDED) -> None:
        """Downloads the newest version of a voice, unless it is here, and checks it.

        Raises:
            InvalidRequestError: `name` is not of the form `hf://<user>/<repo>`.
            ModelError: the repository does not hold one voice, it cannot be had, or a file is not what it should be.
        """
        hub_id = parse_name(name)
        if self._hub is None:
            raise ModelError(
                f"The voice '{sanitize(name)}' cannot be downloaded, because this worker is set to work offline. Name "
                "one that list_models shows, or set HF_HUB_OFFLINE=0 on the worker."
            )
        try:
            repository = self._hub.list_files(hub_id, observer)
        except ModelError as error:
            if name not in self._fetched or error.error_code != ErrorCode.MODEL_UNAVAILABLE:
                raise
            commit = self._fetched[name][0]
            observer.warn(
                f"The hub could not be asked for a newer version of the voice '{sanitize(name)}', so the one that was "
                f"downloaded before ({commit[:7]}) was used."
            )
            return
        if name in self._fetched and self._fetched[name][0] == repository.commit and _is_here(self._fetched[name][1]):
            return
        files = _choose_files(hub_id, repository)
        folder = self._hub.find_cached(hub_id, repository.commit, files.names)
        if folder is None:
            folder = self._hub.fetch(hub_id, files.names, observer, revision=repository.commit)
        self._fetched[name] = (repository.commit, _read_voice(name, folder, files))


def is_hub_name(name: str) -> bool:
    """Whether a voice's name is meant to be an address on the hub."""
    return name.lower().startswith(PREFIX)


def parse_name(name: str) -> str:
    """Returns the repository's id; raises `InvalidRequestError` if the name is not of the form `hf://<user>/<repo>`."""
    hub_id = name[len(PREFIX) :]
    is_valid = name.startswith(PREFIX) and _HUB_ID.fullmatch(hub_id) and not hub_id.endswith(".git")
    if not is_valid or any(part in hub_id for part in _FORBIDDEN):
        raise InvalidRequestError(
            f"'{sanitize(name)}' is not the address of a voice on the Hugging Face hub. Its form is "
            "hf://<user>/<repo>, without a file or a revision.",
            code=ErrorCode.INVALID_VOICE_NAME,
        )
    return hub_id


def _is_here(voice: Voice) -> bool:
    return voice.checkpoint.is_file() and (voice.index is None or voice.index.is_file())


def _choose_files(hub_id: str, repository: HubRepository) -> _Files:
    """Returns the one voice in a repository; raises `ModelError` if it has none, several, or one that is too large."""
    paths = [PurePosixPath(name) for name in repository.sizes if _is_plain(name)]
    chosen = select_files(paths)
    if not chosen.checkpoints:
        archives = [path for path in paths if path.suffix.lower() == ".zip"]
        hint = "Name a repository with one .pth in it."
        if archives:
            address = f"https://huggingface.co/{hub_id}/resolve/main/{archives[0]}"
            hint = f"It has archives: send the address of one ({sanitize(address)}) to add_voice."
        raise ModelError(
            f"No model file exists in the repository '{hub_id}' on the hub: it holds no .pth. {hint}",
            code=ErrorCode.NO_MODEL_FILE,
            details={"hub_id": hub_id},
        )
    for kind, found in ((".pth", chosen.checkpoints), (".index", chosen.indexes)):
        if len(found) > 1:
            raise ModelError(
                f"The repository '{hub_id}' on the hub holds {len(found)} {kind} files ({_list_names(found)}), and a "
                "voice has one. Send the addresses of the files that you want to add_voice.",
                code=ErrorCode.AMBIGUOUS_VOICE,
                details={"hub_id": hub_id},
            )
    checkpoint, index = chosen.checkpoints[0], next(iter(chosen.indexes), None)
    for path, most in ((checkpoint, VOICE_LIMITS.max_bytes), (index, MAX_INDEX_BYTES)):
        if path is not None and repository.sizes[str(path)] > most:
            raise ModelError(
                f"'{sanitize(path.name)}' in the repository '{hub_id}' has {repository.sizes[str(path)] >> 20} MB, and "
                f"such a file may have at most {most >> 20} MB.",
                code=ErrorCode.INPUT_TOO_LARGE,
                details={"hub_id": hub_id},
            )
    sidecar = checkpoint.with_name(SIDECAR)
    has_sidecar = sidecar in paths and repository.sizes[str(sidecar)] <= MAX_SIDECAR_BYTES
    return _Files(checkpoint, index, sidecar if has_sidecar else None, chosen.warnings)


def _is_plain(name: str) -> bool:
    """Whether a name can be that of a file below a folder, and means nothing else to the hub's client."""
    path = PurePosixPath(name)
    is_below = not path.is_absolute() and str(path) == name and not any(part.startswith(".") for part in path.parts)
    return is_below and name.isprintable() and not any(char in name for char in "|?*\\")


def _list_names(paths: Sequence[PurePosixPath]) -> str:
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return ", ".join(f"'{sanitize(str(path))}'" for path in paths[:_SHOWN]) + more


def _read_voice(name: str, folder: Path, files: _Files) -> Voice:
    """Checks the files of a voice, which are removed from the cache if they cannot be used."""
    checkpoint = folder / files.checkpoint
    index = folder / files.index if files.index is not None else None
    try:
        header = check_voice(checkpoint, index)
    except ModelError:
        for path in (checkpoint, index):
            if path is not None:
                remove_cached_file(path)
        raise
    sidecar = read_sidecar(folder / files.sidecar) if files.sidecar is not None else Sidecar()
    return Voice(
        name,
        checkpoint,
        index,
        header.version,
        header.sample_rate,
        header.f0,
        sum(path.stat().st_size for path in (checkpoint, index) if path is not None),
        (*files.warnings, *header.warnings, *sidecar.warnings),
        sidecar.f0_hz,
        sidecar.embedder or header.embedder,
    )
