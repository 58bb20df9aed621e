"""The result line of a benchmark, and how a benchmark ends if a program that its reference needs is missing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.common import Stopwatch, print_result
from testing.repository import ROOT


def test_the_ratio_of_a_result_is_the_references_seconds_over_ours(capsys: pytest.CaptureFixture[str]) -> None:
    print_result("name", device="cpu", ours=0.25, reference=1.0, runs=3)
    expected = {"name": "name", "device": "cpu", "ours": 0.25, "reference": 1.0, "ratio": 4.0, "runs": 3}
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == expected


def test_a_result_without_a_reference_has_no_ratio(capsys: pytest.CaptureFixture[str]) -> None:
    print_result("name", device="cpu", ours=0.25, reference=None)
    result = json.loads(capsys.readouterr().out)
    assert (result["reference"], result["ratio"]) == (None, None)


def test_a_stopwatch_adds_the_time_of_every_call_to_its_stage() -> None:
    ticks = iter([0.0, 1.0, 5.0, 7.0])
    stopwatch = Stopwatch(lambda: next(ticks), "cpu")
    double = stopwatch.wrap("double", lambda number: 2 * number)
    assert (double(1), double(2)) == (2, 4)
    assert stopwatch.seconds == {"double": 3.0}


def test_the_separation_benchmark_ends_with_one_sentence_if_ffmpeg_is_not_on_path(tmp_path: Path) -> None:
    environment = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "benchmarks.separate"]
    result = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 1
    assert result.stdout == ""  # nothing was measured before the check
    [sentence] = result.stderr.splitlines()
    assert sentence.startswith("ffmpeg was not found on PATH")


def test_the_reference_of_the_separation_benchmark_can_be_imported() -> None:
    """Its package names libraries that the worker does without."""
    from demucs.api import Separator
    from demucs.audio import save_audio

    assert callable(Separator) and callable(save_audio)
