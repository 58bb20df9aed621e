"""Every request in examples/ runs through the handler, on tiny weights of every family in their real formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import handler
from audio.files.formats import Encoding
from testing.repository import ROOT
from testing.signals import encode_file, make_tone
from testing.tiny_acestep import write_tiny_acestep
from testing.tiny_volume import SONGS, list_settings, write_volume
from worker.job import build_job
from worker.settings import Settings

EXAMPLES = sorted((ROOT / "examples").glob("*.json"))
ACESTEP = ("edit_music", "release_task")


def read_example(path: Path, volume: Path) -> dict[str, Any]:
    request: dict[str, Any] = json.loads(path.read_text().replace("/runpod-volume", str(volume)))
    return request


def needs_acestep(path: Path) -> bool:
    given = json.loads(path.read_text())["input"]
    return given["operation"] in ACESTEP or (given["operation"] == "generate_music" and "lyrics" in given["params"])


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_volume(tmp_path_factory.mktemp("volume"))
    (folder / "song.wav").write_bytes(encode_file(make_tone(2.0), Encoding("wav")))
    return folder


@pytest.fixture(scope="module")
def diffusers_volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("diffusers")
    write_tiny_acestep(folder / "models", layout="diffusers", name=SONGS, is_turbo=False)
    (folder / "song.wav").write_bytes(encode_file(make_tone(2.0), Encoding("wav")))
    return folder


def run_example(request: dict[str, Any], volume: Path) -> dict[str, Any]:
    settings = Settings.from_env(list_settings(volume))
    return dict(handler.run_job(build_job(request, job_id="job", timeout_s=0), settings))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_runs_offline(path: Path, volume: Path) -> None:
    request = read_example(path, volume)
    reply = run_example(request, volume)
    assert reply.get("success") is True, reply
    if (wanted := request["input"]["params"].get("steps")) is not None:
        assert [(step["id"], step["operation"]) for step in reply["steps"]] == [
            (s["id"], s["operation"]) for s in wanted
        ]
        assert all(step["timings"]["total_s"] > 0 for step in reply["steps"])


@pytest.mark.parametrize(
    "path",
    [path for path in EXAMPLES if needs_acestep(path) and "thinking" not in path.read_text()],
    ids=lambda path: path.stem,
)
def test_every_example_of_acestep_runs_on_the_layout_of_diffusers(path: Path, diffusers_volume: Path) -> None:
    reply = run_example(read_example(path, diffusers_volume), diffusers_volume)
    assert reply.get("success") is True, reply
    assert reply["model_used"] == SONGS
