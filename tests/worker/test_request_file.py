"""Requests in files: what `@path` in them stands for, and which files may be named."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from worker.request_file import RequestFileError, inline_files


def test_a_reference_becomes_the_base64_of_the_file_beside_the_request_and_other_values_stay(tmp_path: Path) -> None:
    (tmp_path / "inputs").mkdir()
    (tmp_path / "inputs" / "song.flac").write_bytes(b"fLaC")
    request = {"audio": "@inputs/song.flac", "tracks": [{"audio": "@inputs/song.flac"}], "seed": 1, "at": "a@b"}
    encoded = base64.b64encode(b"fLaC").decode()
    assert inline_files(request, tmp_path, root=tmp_path) == {
        "audio": encoded,
        "tracks": [{"audio": encoded}],
        "seed": 1,
        "at": "a@b",
    }


def test_a_doubled_mark_is_text(tmp_path: Path) -> None:
    assert inline_files({"prompt": "@@home"}, tmp_path, root=tmp_path) == {"prompt": "@home"}


@pytest.mark.parametrize("name", ["@missing.flac", "@", "@a\0b"])
def test_a_file_that_cannot_be_read_is_named_with_what_to_do(tmp_path: Path, name: str) -> None:
    with pytest.raises(RequestFileError, match="cannot be read: .*write '@@'"):
        inline_files(name, tmp_path, root=tmp_path)


def test_a_file_elsewhere_is_refused_also_through_a_link_and_one_below_the_root_is_not(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"key")
    folder = tmp_path / "repository" / "examples"
    folder.mkdir(parents=True)
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder.parent / "voice.pth").write_bytes(b"voice")
    for name in ("@../../secret", f"@{tmp_path / 'secret'}", "@link"):
        with pytest.raises(RequestFileError, match="leads out"):
            inline_files(name, folder, root=folder.parent)
    assert inline_files("@../voice.pth", folder, root=folder.parent) == base64.b64encode(b"voice").decode()
