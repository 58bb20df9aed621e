"""A request in a file, for the command line: a text `@path` in it stands for the base64 of the file at that path.

Requests that come over a network never pass through here.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

MARK = "@"


class RequestFileError(Exception):
    """A file that the request names cannot be used; the message is a sentence for the user."""


def inline_files(value: Any, folder: Path, *, root: Path) -> Any:
    """A JSON value in which each text `@path` is replaced by the base64 of that file; `@@text` stands for `@text`.

    Args:
        folder: of the request's file; the paths are relative to it.
        root: the repository. A path leads below it or below `folder`.

    Raises:
        RequestFileError: a file is elsewhere, does not exist or cannot be read.
    """
    return replace_references(value, lambda path: _read(path, folder, root))


def replace_references(value: Any, replace: Callable[[str], str]) -> Any:
    """A JSON value in which each text `@path` is replaced by what `replace` gives for the path."""
    if isinstance(value, Mapping):
        return {key: replace_references(item, replace) for key, item in value.items()}
    if isinstance(value, list):
        return [replace_references(item, replace) for item in value]
    if not isinstance(value, str) or not value.startswith(MARK):
        return value
    text = value.removeprefix(MARK)
    return text if text.startswith(MARK) else replace(text)


def _read(name: str, folder: Path, root: Path) -> str:
    try:
        path = (folder / name).resolve()
        if not any(path.is_relative_to(parent.resolve()) for parent in (folder, root)):
            raise RequestFileError(
                f"'{MARK}{name}' leads out of the request's folder. Put the file beside the request."
            )
        return base64.b64encode(path.read_bytes()).decode()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no path"
        raise RequestFileError(
            f"'{MARK}{name}' names a file that cannot be read: {reason}. A text that begins with '{MARK}' names a file "
            f"beside the request; write '{MARK}{MARK}' for the character itself."
        ) from None
