"""The mounted volumes: opens files below them that a request names, and makes directories below them for results.

A path is resolved first, and then opened from the volume's own directory without following any link, so that nothing
that is exchanged in between leads out of the volume.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from errors import ErrorCode, SourceError

MAX_PATH_CHARS = 4096
NO_LINKS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
# O_NONBLOCK: opening a FIFO without a writer would wait for ever.
FILE_FLAGS = NO_LINKS | os.O_NONBLOCK | os.O_NOCTTY


def open_file(path: str, volumes: tuple[Path, ...]) -> BinaryIO | None:
    """Opens the regular file `path`, an absolute path below one of `volumes`; None if it starts with none of them.

    Raises `SourceError` with the code `path_not_allowed` or `path_not_found`. A path outside the volume is always
    `path_not_allowed`, whether the file exists or not.
    """
    for root in _prefixes(volumes):
        if path == root or path.startswith(root + "/"):
            return _open_regular_file(path, root)
    return None


def find_writable(volumes: tuple[Path, ...]) -> Path | None:
    """The first of `volumes` that exists and can be written to."""
    roots = map(Path, _prefixes(volumes))
    return next((root for root in roots if root.is_dir() and os.access(root, os.W_OK | os.X_OK)), None)


def describe_problem(volumes: tuple[Path, ...]) -> str:
    """Why no volume can be written to, as the end of a sentence; empty if one can."""
    if find_writable(volumes) is not None:
        return ""
    if not any(Path(root).is_dir() for root in _prefixes(volumes)):
        return "no volume is mounted"
    return f"the volume cannot be written to by this worker's user (uid {os.geteuid()}): change its owner or mode"


def make_unique_dir(root: Path, *parts: str) -> Path:
    """Makes a directory `root/parts...` that did not exist before; a number is appended if the name is in use."""
    parent = root.joinpath(*parts[:-1])
    parent.mkdir(parents=True, exist_ok=True)
    if not parent.resolve().is_relative_to(root.resolve()):
        raise OSError("the output directory is not on the volume")
    number = 1
    while True:
        folder = parent / (parts[-1] if number == 1 else f"{parts[-1]}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
        else:
            return folder


def open_beneath(root: str, parts: list[str]) -> int:
    """Opens `root/parts...` without following a link at any step; returns the file descriptor. Raises `OSError`."""
    folder = os.open(root, NO_LINKS | os.O_DIRECTORY)
    for part in parts[:-1]:
        try:
            inner = os.open(part, NO_LINKS | os.O_DIRECTORY, dir_fd=folder)
        finally:
            os.close(folder)
        folder = inner
    try:
        return os.open(parts[-1], FILE_FLAGS, dir_fd=folder)
    finally:
        os.close(folder)


def _prefixes(volumes: tuple[Path, ...]) -> Iterator[str]:
    """The volumes as path prefixes, without '/': every path, and every mp3 in base64, would be below it."""
    return (str(root) for root in volumes if root.is_absolute() and root != Path("/"))


def _open_regular_file(path: str, root: str) -> BinaryIO:
    if len(path) > MAX_PATH_CHARS or "\0" in path:
        raise _path_error("is too long or contains a NUL character")
    try:
        real_root = os.path.realpath(root)
        real = os.path.realpath(path)
    except (OSError, UnicodeError) as error:
        raise _path_error("cannot be resolved") from error
    if not real.startswith(real_root + "/"):
        raise _path_error("does not lead to a file below the volume; links and '..' must not leave it")
    with _translate_errors():
        fd = open_beneath(real_root, real[len(real_root) + 1 :].split("/"))
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise _path_error("is not a regular file")
    return os.fdopen(fd, "rb")


@contextmanager
def _translate_errors() -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SourceError(
            "There is no such file on the volume. Check the path.", code=ErrorCode.PATH_NOT_FOUND
        ) from error
    except OSError as error:
        raise _path_error("cannot be opened (a device, a socket, or no permission)") from error


def _path_error(reason: str) -> SourceError:
    return SourceError(f"The path {reason}.", code=ErrorCode.PATH_NOT_ALLOWED)
