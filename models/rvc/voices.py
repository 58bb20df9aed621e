"""The voices of this worker, looked for anew at each call: a folder of voice folders. Reads no weights."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from errors import ErrorCode, ModelError, UnknownNameError, sanitize, suggest_name
from models.family import LOCAL, ModelInfo, unavailable
from models.rvc.checkpoint import read_header

MAX_NAME_CHARS: Final = 128
_NAMES_SHOWN: Final = 50
_NO_VOICES: Final = ("__macosx",)
_MOST_READS: Final = 20  # of a voice that is replaced again and again
_UNUSED_INDEX: Final = "trained_"  # what RVC's training leaves beside the index that is searched, `added_...`

Stamp = tuple[str, int, int, int]


@dataclass(frozen=True, slots=True)
class Voice:
    """One voice on disk.

    Args:
        version: `v1` or `v2`.
        sample_rate: in Hz.
        f0: whether it takes a pitch.
        size: bytes of its files.
    """

    name: str
    checkpoint: Path
    index: Path | None
    version: str
    sample_rate: int
    f0: bool
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VoiceInfo(ModelInfo):
    """A voice as list_models shows it; `voice` is None if it cannot be used."""

    voice: Voice | None = None

    @classmethod
    def of(cls, voice: Voice) -> VoiceInfo:
        return cls(name=voice.name, availability=LOCAL, voice=voice)

    def to_json(self) -> dict[str, Any]:
        if (voice := self.voice) is None:
            return {"name": self.name, "available": self.availability.to_json()}
        return {
            "name": voice.name,
            "version": voice.version,
            "sample_rate": voice.sample_rate,
            "f0": voice.f0,
            "has_index": voice.index is not None,
            "size": voice.size,
            "available": self.availability.to_json(),
        }


@dataclass(frozen=True, slots=True)
class _Files:
    """What lies where a voice is looked for: the checkpoints and indexes there are, sound or not."""

    checkpoints: tuple[Path, ...]
    indexes: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class _Facts:
    version: str
    sample_rate: int
    f0: bool


class Voices:
    """The voices below the first of `folders` that exists.

    A voice is a folder with one `.pth` and at most one `.index`, called as the folder is; or a `.pth` by itself, with
    the `.index` of the same name if there is one. What begins with a dot, and links that lead out, do not count.

    Args:
        folders: the places, in order.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = tuple(folders)
        self._known: dict[Stamp, _Facts] = {}

    @property
    def folder(self) -> Path | None:
        """The folder that counts; None where none exists."""
        return next((folder for folder in self.folders if folder.is_dir()), None)

    @property
    def home(self) -> Path | None:
        """Where a new voice goes: the folder that counts, else the first that can be made."""
        makeable = (folder for folder in self.folders if os.access(folder.absolute().parent, os.W_OK | os.X_OK))
        return self.folder or next(makeable, None)

    def names(self) -> list[str]:
        """Of every voice, sound or not, sorted."""
        return sorted(self._places())

    def find(self, name: str) -> Voice:
        """The voice called `name`.

        Raises:
            UnknownNameError: `voice_not_found`.
            ModelError: `no_model_file`, `ambiguous_voice`, or as `read_header`.
        """
        places = self._places()
        if name not in places:
            raise _not_found(name, sorted(places))
        return self._whole(name, places[name])

    def stamp(self, name: str) -> tuple[Stamp, ...]:
        """Changes whenever one of the voice's files does."""
        place = self._places().get(name)
        files = self._files(place) if place else _Files((), ())
        return tuple(stamp for path in (*files.checkpoints, *files.indexes) if (stamp := _stamp(path)) is not None)

    def list_voices(self) -> list[VoiceInfo]:
        """Every voice; those that cannot be used with the reason."""
        return [self._describe_or_report(name, place) for name, place in sorted(self._places().items())]

    def _describe_or_report(self, name: str, place: Path) -> VoiceInfo:
        try:
            return VoiceInfo.of(self._whole(name, place))
        except ModelError as error:
            return VoiceInfo(name=name, availability=unavailable(error.message))

    def _places(self) -> dict[str, Path]:
        """Each voice's folder or loose checkpoint, a folder before a file of the same name."""
        if (root := self.folder) is None:
            return {}
        entries = _below(root, root.resolve())
        loose = {path.stem: path for path in entries if path.suffix.lower() == ".pth" and path.is_file()}
        return loose | {path.name: path for path in entries if path.is_dir()}

    def _whole(self, name: str, place: Path) -> Voice:
        """The voice at `place`, read anew where another took its place meanwhile.

        A folder that was opened before it was replaced is listed while it is being deleted: it seems to lack files.
        """
        for _ in range(_MOST_READS):
            before = _stamp(place)
            try:
                voice = self._voice(name, self._files(place))
            except ModelError:
                if _stamp(place) == before:
                    raise
            else:
                if _stamp(place) == before:
                    return voice
        return self._voice(name, self._files(place))

    def _files(self, place: Path) -> _Files:
        root = self.folder
        beside = place if place.is_dir() else place.parent
        files = [path for path in _below(beside, (root or beside).resolve()) if path.is_file()]
        if beside == place:
            return _Files(_ending(files, ".pth"), indexes_in(_ending(files, ".index")))
        indexes = [path for path in _ending(files, ".index") if path.stem == place.stem]
        return _Files((place,), tuple(indexes))

    def _voice(self, name: str, files: _Files) -> Voice:
        for kind, paths in ((".pth", files.checkpoints), (".index", files.indexes)):
            if len(paths) > 1:
                names = ", ".join(sanitize(path.name) for path in paths[:5])
                raise ModelError(
                    f"The folder of the voice '{sanitize(name)}' holds {len(paths)} {kind} files ({names}), and which "
                    "one is meant is not clear. Leave one of them there.",
                    code=ErrorCode.AMBIGUOUS_VOICE,
                )
        if not files.checkpoints:
            raise ModelError(
                f"No model file exists for '{sanitize(name)}': its folder holds no .pth. Put its checkpoint there.",
                code=ErrorCode.NO_MODEL_FILE,
                details={"voice": sanitize(name)},
            )
        checkpoint, index = files.checkpoints[0], next(iter(files.indexes), None)
        facts = self._facts(checkpoint)
        size = sum(stamp[-1] for path in (checkpoint, index) if path and (stamp := _stamp(path)))
        return Voice(name, checkpoint, index, facts.version, facts.sample_rate, facts.f0, size)

    def _facts(self, path: Path) -> _Facts:
        """What the checkpoint says of itself, read again only where the file has changed."""
        stamp = _stamp(path)
        if stamp is None:
            raise ModelError(f"No model file exists any more at '{sanitize(path.name)}'.", code=ErrorCode.NO_MODEL_FILE)
        if stamp not in self._known:
            header = read_header(path)
            facts = _Facts(header.version, header.sample_rate, header.f0)
            self._known = {key: kept for key, kept in self._known.items() if key[0] != stamp[0]} | {stamp: facts}
        return self._known[stamp]


def _not_found(name: str, names: Sequence[str]) -> UnknownNameError:
    more = len(names) - _NAMES_SHOWN
    listed = ", ".join(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
    there = f"Voices here: {listed}." if names else "There are none here: put a folder with a .pth into RVC_MODELS_DIR."
    return UnknownNameError(
        f"Voice model not found: '{sanitize(name)}'.{suggest_name(name, names)} {there}",
        code=ErrorCode.VOICE_NOT_FOUND,
        details={"voice": sanitize(name), "valid": list(names[:_NAMES_SHOWN])},
    )


def indexes_in(paths: Sequence[Path]) -> tuple[Path, ...]:
    """Those of a voice's index files that are searched: RVC leaves a `trained_` one, without vectors, beside it."""
    if len(paths) < 2:
        return tuple(paths)
    return tuple(path for path in paths if not path.name.lower().startswith(_UNUSED_INDEX)) or tuple(paths)


def _below(folder: Path, root: Path) -> list[Path]:
    """What lies in `folder` under a name that can be shown and really below `root`, sorted."""
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if _is_plain(entry.name))
    except OSError:
        return []
    return [path for name in names if _leads_below(path := folder / name, root)]


def _is_plain(name: str) -> bool:
    hidden = name.startswith(".") or name.lower() in _NO_VOICES
    return not hidden and name.isprintable() and name == name.strip() and len(name) <= MAX_NAME_CHARS


def _leads_below(path: Path, root: Path) -> bool:
    return not path.is_symlink() or Path(os.path.realpath(path)).is_relative_to(root)


def _ending(paths: Iterable[Path], suffix: str) -> tuple[Path, ...]:
    return tuple(path for path in paths if path.suffix.lower() == suffix)


def _stamp(path: Path) -> Stamp | None:
    """Path, inode (which is given anew once it is free), time of change and size."""
    try:
        status = path.stat()
    except OSError:
        return None
    return str(path), status.st_ino, status.st_mtime_ns, status.st_size
