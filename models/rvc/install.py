"""Adds a voice: its files are written to a hidden folder, checked by the readers, and put in place in one step.

Nothing is left behind if anything fails. The files come from whoever may send requests, so nothing in them is trusted.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from errors import ErrorCode, InvalidRequestError, ModelError, sanitize
from models.checkpoints.zip_directory import DEFLATED, STORED, ArchiveError, Entry, read_directory, unpack
from models.rvc.checkpoint import VOICE_LIMITS, Header, check_checkpoint
from models.rvc.config import FEATURE_WIDTHS
from models.rvc.index import check_index
from models.rvc.sidecar import MAX_SIDECAR_BYTES, SIDECAR
from models.rvc.voices import VoiceFiles, Voices, select_files

MAX_ENTRIES = 1000
MAX_INDEX_BYTES = 2 << 30
MAX_RATIO = 100  # weights hardly compress at all
_NAME = re.compile(r"[\w .()-]{1,64}")
_MAX_NAME_BYTES = 200
_ARCHIVES = (".zip", ".rar", ".7z", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst")
_STAGING = ".adding-"
_ABANDONED_S = 24 * 3600.0
_CHUNK_BYTES = 1 << 20
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2

Check = Callable[[], None]
Pieces = Iterable[bytes]


def check_new_name(voices: Voices, name: str, *, replace: bool) -> None:
    """Refuses a name that no voice may have, or that a voice has already.

    Raises:
        InvalidRequestError: `invalid_voice_name`, `voice_exists`.
    """
    plain = _NAME.fullmatch(name) and not name.startswith(".") and name == name.strip() and name.lower() != "__macosx"
    if not plain or len(name.encode()) > _MAX_NAME_BYTES:
        raise InvalidRequestError(
            f"'{sanitize(name)}' cannot be a voice's name. Use 1 to 64 letters, digits, blanks, '_', '.', '-', "
            "'(', ')', with no dot in front and no blank at either end.",
            code=ErrorCode.INVALID_VOICE_NAME,
        )
    if not replace and name in voices.names():
        raise _exists(name)


def install(  # noqa: PLR0913  (all but two by keyword)
    voices: Voices,
    name: str,
    *,
    checkpoint: BinaryIO,
    index: BinaryIO | None = None,
    replace: bool = False,
    check: Check = lambda: None,
) -> None:
    """Adds the voice `name`.

    Args:
        checkpoint: the `.pth`; `index`: the `.index` that belongs to it.
        replace: take the place of a voice of that name.
        check: called at every piece; what it raises ends the work.

    Raises:
        InvalidRequestError: as `check_new_name`.
        ModelError: a file is not what it should be, or the folder cannot be written to.
    """
    parts = {".pth": _chunks(checkpoint, VOICE_LIMITS.max_bytes)}
    if index is not None:
        parts[".index"] = _chunks(index, MAX_INDEX_BYTES)
    _install(voices, name, parts, replace=replace, check=check)


def install_archive(
    voices: Voices, name: str, archive: BinaryIO, *, replace: bool = False, check: Check = lambda: None
) -> tuple[str, ...]:
    """As `install`, from a zip with one `.pth`, at most one `.index` and perhaps a `voice.json`, in whatever folder.

    Returns:
        A sentence for each kind of file that was left out, because a voice does not need it.

    Raises:
        ModelError: also `invalid_archive`.
    """
    try:
        entries, chosen = _choose_entries(read_directory(archive, max_entries=MAX_ENTRIES))
        parts = {_get_part(path): unpack(archive, entry) for path, entry in entries.items()}
        _install(voices, name, parts, replace=replace, check=check)
        return chosen.warnings
    except ArchiveError as error:
        raise ModelError(
            f"The archive cannot be used: {error}. Send a plain zip with one .pth and at most one .index.",
            code=ErrorCode.INVALID_ARCHIVE,
        ) from error


def _install(voices: Voices, name: str, parts: dict[str, Iterator[bytes]], *, replace: bool, check: Check) -> None:
    check_new_name(voices, name, replace=replace)
    if (home := voices.home) is None:
        raise ModelError(
            "There is no folder for voices. Make one and set RVC_MODELS_DIR.", code=ErrorCode.VOICE_FOLDER_UNAVAILABLE
        )
    try:
        with _staging(home) as staging:
            new = staging / "new"
            new.mkdir()
            for part, pieces in parts.items():
                _write(new / (part if part == SIDECAR else f"{name}{part}"), pieces, check)
            index = new / f"{name}.index"
            check_voice(new / f"{name}.pth", index if index.exists() else None)
            check()
            _put(new, home / name, name=name, replace=replace)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise ModelError(
            f"The voice could not be written: {'the disk is full' if full else 'its folder cannot be written to'}.",
            code=ErrorCode.DISK_FULL if full else ErrorCode.VOICE_FOLDER_UNAVAILABLE,
        ) from error


def check_voice(checkpoint: Path, index: Path | None) -> Header:
    """Checks everything in the files of a voice, as nothing in them is trusted.

    Raises:
        ModelError: a file is not what it should be, or the index does not fit the checkpoint.
    """
    header = check_checkpoint(checkpoint)
    if index is not None:
        check_index(index, width=FEATURE_WIDTHS[header.version])
    return header


def _chunks(file: BinaryIO, most: int) -> Iterator[bytes]:
    total = 0
    while chunk := file.read(_CHUNK_BYTES):
        total += len(chunk)
        if total > most:
            raise ModelError(f"A voice's file may have at most {most >> 20} MB.", code=ErrorCode.INPUT_TOO_LARGE)
        yield chunk


def _choose_entries(entries: list[Entry]) -> tuple[dict[PurePosixPath, Entry], VoiceFiles[PurePosixPath]]:
    """Returns the checkpoint and the index in an archive; raises `ArchiveError` if it holds what no voice needs."""
    files = {PurePosixPath(entry.name.replace("\\", "/")): entry for entry in entries}
    if len(files) != len(entries):
        raise ArchiveError("it holds two files of the same name")
    for path, entry in files.items():
        _check_entry(path, entry)
    shown_files = [path for path, entry in files.items() if not entry.name.endswith("/") and not _is_clutter(path)]
    if nested := [path for path in shown_files if path.suffix.lower() in _ARCHIVES]:
        raise ArchiveError(f"it holds another archive, '{sanitize(nested[0].name)}'")
    chosen = select_files(shown_files)
    if len(chosen.checkpoints) != 1 or len(chosen.indexes) > 1:
        raise ArchiveError(f"it holds {len(chosen.checkpoints)} .pth and {len(chosen.indexes)} .index files")
    for paths, most in ((chosen.checkpoints, VOICE_LIMITS.max_bytes), (chosen.indexes, MAX_INDEX_BYTES)):
        for path in paths:
            _check_size(files[path], most)
    sidecars = [path for path in shown_files if path.name == SIDECAR]
    if len(sidecars) > 1:
        raise ArchiveError(f"it holds {len(sidecars)} files called {SIDECAR}")
    for path in sidecars:
        _check_size(files[path], MAX_SIDECAR_BYTES)
    return {path: files[path] for path in (*chosen.checkpoints, *chosen.indexes, *sidecars)}, chosen


def _get_part(path: PurePosixPath) -> str:
    """What a file is to a voice: `voice.json`, or its suffix."""
    return SIDECAR if path.name == SIDECAR else path.suffix.lower()


def _check_entry(path: PurePosixPath, entry: Entry) -> None:
    if path.is_absolute() or ".." in path.parts or any(":" in part for part in path.parts[:1]):
        raise ArchiveError("it holds a file whose name leads out of it")
    kind = stat.S_IFMT(entry.mode)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ArchiveError("it holds a link or a device")
    if entry.encrypted:
        raise ArchiveError("it is encrypted")


def _check_size(entry: Entry, most: int) -> None:
    if entry.method not in (STORED, DEFLATED):
        raise ArchiveError("it is compressed in a way that is not read")
    if entry.size > most or entry.size > MAX_RATIO * entry.packed_size:
        raise ArchiveError("it would unpack to more than a voice can have")


def _is_clutter(path: PurePosixPath) -> bool:
    """Whether it is one of the files that desktop systems add to archives."""
    return "__macosx" in (part.lower() for part in path.parts) or path.name.startswith(".")


@contextmanager
def _staging(home: Path) -> Iterator[Path]:
    """Creates a hidden folder beside the voices, and removes it afterwards with everything in it."""
    home.mkdir(exist_ok=True)
    for old in home.glob(f"{_STAGING}*"):
        if time.time() - old.lstat().st_mtime > _ABANDONED_S:  # its worker was killed
            shutil.rmtree(old, ignore_errors=True)
    staging = Path(tempfile.mkdtemp(prefix=_STAGING, dir=home))
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _write(path: Path, pieces: Pieces, check: Check) -> None:
    with path.open("xb") as file:
        for piece in pieces:
            check()
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())


def _put(new: Path, target: Path, *, name: str, replace: bool) -> None:
    """Renames `new` to `target`; a voice that is there changes places with it, or is an error."""
    try:
        os.rename(new, target)  # replaces an empty folder, but not a voice
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        if not replace:
            raise _exists(name) from error
        if not _exchange(new, target):
            _exchange_in_steps(new, target)


def _exchange(new: Path, target: Path) -> bool:
    """Exchanges two folders in one step; False if the system or the file system cannot.

    By Linux's renameat2, because `os.replace` does not replace a folder that has files in it, and with two renames
    there is no voice in between.
    """
    rename: Any = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    return int(rename(_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(target), _RENAME_EXCHANGE)) == 0


def _exchange_in_steps(new: Path, target: Path) -> None:
    """Exchanges two folders in two steps, between which there is no voice. Undone if the second fails."""
    old = new.with_name("old")
    os.rename(target, old)
    try:
        os.rename(new, target)
    except OSError:
        os.rename(old, target)
        raise


def _exists(name: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"There is a voice called '{sanitize(name)}' already. Choose another name, or set 'replace' to true.",
        code=ErrorCode.VOICE_EXISTS,
    )
