"""The worker's version, from the one place where it stands: pyproject.toml."""

from __future__ import annotations

import functools
import tomllib
from pathlib import Path


@functools.cache
def version() -> str:
    """As in pyproject.toml, which lies beside the code."""
    project = tomllib.loads((Path(__file__).resolve().parent.parent / "pyproject.toml").read_text())["project"]
    return str(project["version"])
