"""Compares a downloaded file with the SHA-256 that is on record for it, and removes one that cannot be used."""

from __future__ import annotations

import hashlib
from pathlib import Path

from errors import ErrorCode, ModelError, sanitize
from models.runtime.progress import Check, skip_check

_CHUNK_BYTES = 1 << 20


def require_sha256(path: Path, expected: str, check: Check = skip_check) -> None:
    """Removes a file that is not the one that was published.

    Args:
        path: the file, or the link to it in a hub cache, whose content is then removed as well.
        expected: in hexadecimal digits.
        check: called at every piece; what it raises ends the work, and the file is removed, because it is unchecked.

    Raises:
        ModelError: `broken_checkpoint`: it has another SHA-256.
    """
    digest, is_intact = hashlib.sha256(), False
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                check()
                digest.update(chunk)
        is_intact = digest.hexdigest() == expected
    finally:
        if not is_intact:
            remove_cached_file(path)
    if not is_intact:
        raise ModelError(
            f"The file '{sanitize(path.name)}' that was downloaded is not the one that was published: its SHA-256 is "
            f"{digest.hexdigest()} and not {expected}. It was removed. Put the file of that checksum into a folder "
            "below MODELS_DIR.",
            code=ErrorCode.BROKEN_CHECKPOINT,
        )


def remove_cached_file(path: Path) -> None:
    """Removes a file from a hub cache: the link in the snapshot, and the content that it leads to."""
    content = path.resolve()
    path.unlink(missing_ok=True)
    content.unlink(missing_ok=True)
