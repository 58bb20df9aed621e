"""What several tests of the audio package share."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from audio.files.mpg123 import log_mpg123_messages
from testing.open_files import list_open_files


@pytest.fixture
def no_files_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Redirects temporary files to a folder; fails if it is not empty, or a file is still open, after the test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with log_mpg123_messages():
        pass  # opens a file that stays open
    before = list_open_files()
    yield tmp_path
    assert list(tmp_path.iterdir()) == [] and not list_open_files() - before
