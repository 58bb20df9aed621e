"""Baking: the image's build puts weights into a folder in which the worker looks for them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from errors import RequestError, UnknownNameError, unknown_name_error
from models.bake import bake
from models.checkpoints.locations import WeightLocations
from models.demucs import DemucsFamily
from models.family import ModelHandle
from models.musicgen import MusicGenFamily
from models.musicgen.engine import Engine
from models.registry import BAKED, find_weights
from models.runtime.progress import UNATTENDED, Observer
from testing.models import make_models
from testing.repository import ROOT


class StubMusic(MusicGenFamily):
    """Knows `small`, and records what is downloaded."""

    def __init__(self) -> None:
        super().__init__(WeightLocations(), demo=Path("no demo"))
        self.downloaded: list[str] = []

    def resolve(self, name: str | None, *, conditioning: str = "text") -> ModelHandle[Engine]:
        if name != "small":
            raise unknown_name_error("model", str(name), ("small",))
        return ModelHandle(self, name)

    def download(self, name: str, observer: Observer = UNATTENDED) -> None:
        self.downloaded.append(name)


class StubSeparation(DemucsFamily):
    """Knows the catalogue, and records what is downloaded."""

    def __init__(self) -> None:
        super().__init__(WeightLocations())
        self.downloaded: list[str] = []

    def download(self, name: str, observer: Observer = UNATTENDED) -> None:
        self.downloaded.append(name)


def test_a_model_is_downloaded_by_the_family_that_knows_it() -> None:
    music, separation = StubMusic(), StubSeparation()
    bake(["mdx", "small", "demucs/htdemucs"], make_models(music=music, separation=separation))
    assert (music.downloaded, separation.downloaded) == (["small"], ["mdx", "htdemucs"])


def test_an_unknown_model_ends_the_build_before_later_ones_are_downloaded() -> None:
    music = StubMusic()
    with pytest.raises(UnknownNameError):
        bake(["smal", "small"], make_models(music=music))
    assert music.downloaded == []


@pytest.mark.parametrize("name", ["rvc/alice", "suno/V5"])
def test_a_model_of_a_family_without_downloads_is_unknown(name: str) -> None:
    with pytest.raises(RequestError, match=name.partition("/")[2]):
        bake([name], make_models())


def test_the_folder_of_baked_weights_is_a_search_path() -> None:
    weights = find_weights(models_dir=Path("elsewhere"), volume_dirs=())
    assert str(BAKED) in weights.search_paths()


class FakeHub:
    """A hub that has every file, and records what is fetched."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fetched: list[str] = []

    def fetch(self, hub_id: str, patterns: Sequence[str], observer: Observer = UNATTENDED) -> Path:
        self.fetched += patterns
        for pattern in patterns:
            content = "models: ['aaaa1111', 'bbbb2222']" if pattern.endswith(".yaml") else "weights"
            (self.folder / pattern).write_text(content)
        return self.folder


def test_baking_a_bag_downloads_every_submodel(tmp_path: Path) -> None:
    hub = FakeHub(tmp_path)
    DemucsFamily(WeightLocations(hub=hub)).download("mdx")
    assert {"mdx.yaml", "aaaa1111.safetensors", "bbbb2222.safetensors"} <= set(hub.fetched)


def test_the_command_reports_an_error_in_one_sentence() -> None:
    command = [sys.executable, "-m", "models.bake", "../outside"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 1
    assert len(ended.stderr.strip().splitlines()) == 1 and "Traceback" not in ended.stderr
