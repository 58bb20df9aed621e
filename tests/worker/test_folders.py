"""What cannot be written is described in words."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from testing.processes import build_environment
from testing.repository import ROOT
from worker import volume
from worker.folders import describe_output_problem, describe_temporary_problem


def test_a_temporary_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert describe_temporary_problem() == ""
    code = (
        "import tempfile; tempfile.tempdir = '/absent'; from worker.folders import describe_temporary_problem;"
        "print(describe_temporary_problem())"
    )
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, cwd=ROOT, env=build_environment(tmp_path), capture_output=True, text=True, check=True)
    assert "temporary files cannot be written" in run.stdout and "TMPDIR" in run.stdout and "/absent" not in run.stdout


@pytest.mark.parametrize("parts", [(), ("new",), ("new", "deep")])
def test_an_output_folder_that_can_be_made_is_no_problem(tmp_path: Path, parts: tuple[str, ...]) -> None:
    assert describe_output_problem(tmp_path.joinpath(*parts)) == ""
    assert list(tmp_path.iterdir()) == []


def test_an_output_folder_below_a_file_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "OUTPUT_DIR cannot be written" in describe_output_problem(tmp_path / "file" / "out")


def test_a_volume_is_missing_or_writable(tmp_path: Path) -> None:
    assert volume.describe_problem((tmp_path / "absent",)) == "no volume is mounted"
    assert volume.describe_problem((tmp_path / "absent", tmp_path)) == ""
