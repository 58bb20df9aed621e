"""Finds the voices of this worker, in a folder of voice folders. Every call looks again; no weights are read."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Generic, TypeVar

from errors import ErrorCode, InvalidRequestError, ModelError, UnknownNameError, sanitize, suggest_name
from models.demo import CONTENT_ENCODER
from models.family import LOCAL, Availability, FileStamp, ModelInfo, describe_each, stamp_file, stamp_files
from models.hubert.catalog import DEFAULT_ENCODER, find_encoder
from models.rvc.checkpoint import read_header
from models.rvc.sidecar import SIDECAR, Sidecar, read_sidecar

MAX_NAME_CHARS = 128
_NAMES_SHOWN = 50
_IGNORED_NAMES = ("__macosx",)
_RETRY_S = 10.0  # while a voice is being replaced again and again
# What RVC's training leaves beside the two files of a voice: the state that it goes on from, and an index without
# vectors, from which the `added_...` one is made.
_TRAINING_STATE = re.compile(r"[GD]_\d+\.pth", re.IGNORECASE)
_TRAINED_INDEX = re.compile(r"trained_.*\.index", re.IGNORECASE | re.DOTALL)

_FILES_SHOWN = 5

PathT = TypeVar("PathT", bound=PurePath)


@dataclass(frozen=True, slots=True)
class Voice:
    """One voice on disk.

    Args:
        version: `v1` or `v2`.
        sample_rate: in Hz.
        f0: whether it takes a pitch.
        size: bytes of its files.
        warnings: sentences about files that were left out, and labels that are wrong.
        f0_hz: median f0 of what the voice usually sings, in Hz, from its `voice.json`; None: not known.
        embedder: the content encoder that it was trained with, from its `voice.json` or checkpoint; None: the default.
    """

    name: str
    checkpoint: Path
    index: Path | None
    version: str
    sample_rate: int
    f0: bool
    size: int
    warnings: tuple[str, ...] = ()
    f0_hz: float | None = None
    embedder: str | None = None

    def choose_encoder(self, requested: str | None) -> str | None:
        """Returns the content encoder to convert with: the requested one, else the voice's; None: the default.

        Raises:
            InvalidRequestError: `option_unsupported`, for a demo voice with another encoder than the demo's, or another
                voice with the demo's. Their features have nothing in common.
        """
        own = self.embedder or DEFAULT_ENCODER
        other = find_encoder(requested) if requested is not None else own
        if (own == CONTENT_ENCODER) != (other == CONTENT_ENCODER):
            raise InvalidRequestError(
                f"The voice '{self.name}' was trained with the content encoder '{own}' and cannot be converted with "
                f"'{sanitize(other or requested or '')}'. Leave out 'embedder'.",
                code=ErrorCode.OPTION_UNSUPPORTED,
                details={"content_encoder": own},
            )
        return requested or self.embedder


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
        optional = {"f0_hz": voice.f0_hz, "embedder": voice.embedder, "warnings": list(voice.warnings) or None}
        return {
            "name": voice.name,
            "version": voice.version,
            "sample_rate": voice.sample_rate,
            "f0": voice.f0,
            "has_index": voice.index is not None,
            "size": voice.size,
            "available": self.availability.to_json(),
            **{key: value for key, value in optional.items() if value is not None},
        }


@dataclass(frozen=True, slots=True)
class VoiceFiles(Generic[PathT]):
    """The files of one voice, unread.

    Args:
        warnings: a sentence for each kind of file that was left out.
    """

    checkpoints: tuple[PathT, ...]
    indexes: tuple[PathT, ...]
    warnings: tuple[str, ...] = ()


def select_files(paths: Iterable[PathT]) -> VoiceFiles[PathT]:
    """Selects the files of a voice by their names, and leaves out what RVC's training writes beside them."""
    checkpoints, states = _split([path for path in paths if path.suffix.lower() == ".pth"], _TRAINING_STATE)
    indexes, trained = _split([path for path in paths if path.suffix.lower() == ".index"], _TRAINED_INDEX)
    warnings = []
    if checkpoints and states:
        warnings.append(f"Left out of the voice: {_list_names(states)}, which hold the state of a training run.")
    if trained and not indexes:
        warnings.append(
            f"Left out of the voice: {_list_names(trained)}, which RVC's training makes without the vectors that are "
            "searched. Add the index whose name begins with 'added_', if there is one."
        )
    # A state of training alone is read, so that the error says what it is.
    return VoiceFiles(tuple(checkpoints or states[:1]), tuple(indexes), tuple(warnings))


def _split(paths: Iterable[PathT], left_out: re.Pattern[str]) -> tuple[list[PathT], list[PathT]]:
    """Returns the paths without, and with, names of that pattern."""
    parts: tuple[list[PathT], list[PathT]] = [], []
    for path in paths:
        parts[bool(left_out.fullmatch(path.name))].append(path)
    return parts


def _list_names(paths: Sequence[PurePath]) -> str:
    more = f" and {len(paths) - _FILES_SHOWN} more" if len(paths) > _FILES_SHOWN else ""
    return ", ".join(f"'{sanitize(path.name)}'" for path in paths[:_FILES_SHOWN]) + more


@dataclass(frozen=True, slots=True)
class _Header:
    """What a checkpoint states about itself."""

    version: str
    sample_rate: int
    f0: bool
    warnings: tuple[str, ...]
    embedder: str | None


class Voices:
    """The voices below the first of `folders` that exists.

    A voice is a folder with one `.pth` and at most one `.index`, and has the folder's name; or it is a single `.pth`,
    with the `.index` of the same name if there is one. A `voice.json` in the folder, or a `.json` of the same name
    beside a single `.pth`, states more about the voice. Names that begin with a dot, and links that lead out of the
    folder, are ignored.

    Args:
        folders: the places, in order.
        demo: folder of the demo voices, which are here beside those of the folder that is used; a voice there with the
            name of a demo voice is taken in its place.
    """

    def __init__(self, folders: Sequence[Path], *, demo: Path | None = None) -> None:
        self.folders = tuple(folders)
        self.demo = demo
        self._headers: dict[FileStamp, _Header] = {}

    @property
    def folder(self) -> Path | None:
        """The folder that is used; None if none exists."""
        return next((folder for folder in self.folders if folder.is_dir()), None)

    @property
    def home(self) -> Path | None:
        """Where a new voice goes: the folder that is used, else the first that can be created."""
        creatable = (folder for folder in self.folders if os.access(folder.absolute().parent, os.W_OK | os.X_OK))
        return self.folder or next(creatable, None)

    def names(self) -> list[str]:
        """Returns the name of every voice, usable or not, sorted. A folder without a checkpoint holds no voice."""
        return sorted(name for name, place in self._list_places().items() if self._list_files(place).checkpoints)

    def find(self, name: str) -> Voice:
        """Returns the voice called `name`.

        Raises:
            UnknownNameError: `voice_not_found`.
            ModelError: `no_model_file`, `ambiguous_voice`, or as `read_header`.
        """
        places = self._list_places()
        if name not in places:
            raise _not_found(name, self.names())
        return self._read_voice(name, places[name])

    def is_demo(self, name: str) -> bool:
        """Whether the voice called `name` is one of the demo voices."""
        place = self._list_places().get(name)
        return place is not None and place.parent == self.demo

    def version_key(self, name: str) -> tuple[FileStamp, ...]:
        """Returns a value that changes whenever one of the voice's files does."""
        place = self._list_places().get(name)
        files = self._list_files(place) if place else None
        return stamp_files((*files.checkpoints, *files.indexes) if files else ())

    def list_voices(self) -> list[VoiceInfo]:
        """Returns every voice; those that cannot be used with the reason."""
        places = self._list_places()

        def describe(name: str) -> VoiceInfo:
            return VoiceInfo.of(self._read_voice(name, places[name]))

        def report(name: str, availability: Availability) -> VoiceInfo:
            return VoiceInfo(name=name, availability=availability)

        return describe_each(sorted(places), describe, report)

    def _list_places(self) -> dict[str, Path]:
        """Returns each voice's folder or single checkpoint; a folder wins over a file of the same name."""
        places: dict[str, Path] = {}
        for root in filter(None, (self.demo, self.folder)):
            entries = _list_below(root, root.resolve())
            places |= {path.stem: path for path in entries if path.suffix.lower() == ".pth" and path.is_file()}
            places |= {path.name: path for path in entries if path.is_dir()}
        return places

    def _read_voice(self, name: str, place: Path) -> Voice:
        """Reads the voice at `place`, again if it was replaced meanwhile.

        A folder that was opened before it was replaced is listed while it is being deleted, so files seem to be
        missing; and its files may be gone when they are opened.
        """
        deadline = time.monotonic() + _RETRY_S
        while True:
            with _pin(place) as is_in_place:
                try:
                    voice = self._check_files(name, self._list_files(place), self._read_sidecar(place))
                except ModelError:
                    if is_in_place() or time.monotonic() > deadline:
                        raise
                else:
                    if is_in_place() or time.monotonic() > deadline:
                        return voice

    def _list_files(self, place: Path) -> VoiceFiles[Path]:
        root = self.folder
        folder = place if place.is_dir() else place.parent
        files = [path for path in _list_below(folder, (root or folder).resolve()) if path.is_file()]
        if folder == place:
            return select_files(files)
        indexes = [path for path in files if path.suffix.lower() == ".index" and path.stem == place.stem]
        return VoiceFiles((place,), tuple(indexes))

    def _read_sidecar(self, place: Path) -> Sidecar:
        path = place / SIDECAR if place.is_dir() else place.with_suffix(".json")
        return read_sidecar(path) if _leads_below(path, (self.folder or place.parent).resolve()) else Sidecar()

    def _check_files(self, name: str, files: VoiceFiles[Path], sidecar: Sidecar) -> Voice:
        for kind, paths in ((".pth", files.checkpoints), (".index", files.indexes)):
            if len(paths) > 1:
                raise ModelError(
                    f"The folder of the voice '{sanitize(name)}' holds {len(paths)} {kind} files "
                    f"({_list_names(paths)}), and only "
                    "one can be used. Remove the others.",
                    code=ErrorCode.AMBIGUOUS_VOICE,
                )
        if not files.checkpoints:
            raise ModelError(
                f"No model file exists for '{sanitize(name)}': its folder holds no .pth. Put its checkpoint there.",
                code=ErrorCode.NO_MODEL_FILE,
                details={"voice": sanitize(name)},
            )
        checkpoint, index = files.checkpoints[0], next(iter(files.indexes), None)
        header = self._read_header(checkpoint)
        size = sum(key[-1] for path in (checkpoint, index) if path and (key := stamp_file(path)))
        return Voice(
            name,
            checkpoint,
            index,
            header.version,
            header.sample_rate,
            header.f0,
            size,
            (*files.warnings, *header.warnings, *sidecar.warnings),
            sidecar.f0_hz,
            sidecar.embedder or header.embedder,
        )

    def _read_header(self, path: Path) -> _Header:
        """Reads what the checkpoint states about itself; again only if the file has changed."""
        key = stamp_file(path)
        if key is None:
            raise ModelError(f"No model file exists any more at '{sanitize(path.name)}'.", code=ErrorCode.NO_MODEL_FILE)
        if key not in self._headers:
            read = read_header(path)
            header = _Header(read.version, read.sample_rate, read.f0, read.warnings, read.embedder)
            self._headers = {old: kept for old, kept in self._headers.items() if old[0] != key[0]} | {key: header}
        return self._headers[key]


@contextmanager
def _pin(place: Path) -> Iterator[Callable[[], bool]]:
    """Holds `place` open, and yields a function that says whether the same file or folder is still there.

    An inode is given to another file as soon as it is free, so comparing its number, times and size is not enough;
    while it is held open, it is not free.
    """
    try:
        descriptor = os.open(place, os.O_RDONLY)
    except OSError:
        yield place.exists
        return
    try:
        pinned = os.fstat(descriptor)

        def is_in_place() -> bool:
            try:
                status = place.stat()
            except OSError:
                return False
            return (status.st_dev, status.st_ino) == (pinned.st_dev, pinned.st_ino)

        yield is_in_place
    finally:
        os.close(descriptor)


def _not_found(name: str, names: Sequence[str]) -> UnknownNameError:
    more = len(names) - _NAMES_SHOWN
    listed = ", ".join(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
    there = f"Voices here: {listed}." if names else "There are none here: put a folder with a .pth into RVC_MODELS_DIR."
    return UnknownNameError(
        f"Voice model not found: '{sanitize(name)}'.{suggest_name(name, names)} {there}",
        code=ErrorCode.VOICE_NOT_FOUND,
        details={"voice": sanitize(name), "valid": list(names[:_NAMES_SHOWN])},
    )


def _list_below(folder: Path, root: Path) -> list[Path]:
    """Returns what is in `folder`, really below `root`, and has a name that can be shown; sorted."""
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if _is_plain(entry.name))
    except OSError:
        return []
    return [path for name in names if _leads_below(path := folder / name, root)]


def _is_plain(name: str) -> bool:
    hidden = name.startswith(".") or name.lower() in _IGNORED_NAMES
    return not hidden and name.isprintable() and name == name.strip() and len(name) <= MAX_NAME_CHARS


def _leads_below(path: Path, root: Path) -> bool:
    try:
        return not path.is_symlink() or Path(os.path.realpath(path)).is_relative_to(root)
    except OSError:  # a folder that the worker's user may not enter
        return False
