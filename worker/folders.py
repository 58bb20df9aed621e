"""What this worker's user can write to, in words for health_check."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from audio.temporary import try_writing


def describe_output_problem(folder: Path) -> str:
    """Why a local run could not write its audio to OUTPUT_DIR; empty if it can. The folder need not exist yet."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
        return ""
    return f"OUTPUT_DIR cannot be written to by this worker's user (uid {os.geteuid()})"


def describe_temporary_problem() -> str:
    """Why no temporary file can be written; empty if one can."""
    try:
        try_writing(Path(tempfile.gettempdir()))
    except OSError as error:
        reason = os.strerror(error.errno or errno.EIO)  # tempfile's own text lists folders
        return f"temporary files cannot be written ({reason}): give the container disk space, or set TMPDIR"
    return ""
