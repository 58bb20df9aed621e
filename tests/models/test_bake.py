"""The image's build puts weights where the worker looks for them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from errors import UnknownNameError, unknown_name
from models.bake import bake
from models.cache import Models
from models.checkpoints.locations import WeightLocations
from models.demucs import DemucsFamily
from models.registry import BAKED, find_weights
from testing.repository import ROOT


class Fetching:
    """A family that knows some names and notes what is fetched."""

    def __init__(self, name: str, knows: set[str]) -> None:
        self.name = name
        self.knows = knows
        self.fetched: list[str] = []

    def rows(self) -> list[dict[str, Any]]:
        return [{"name": name} for name in self.knows]

    def status(self) -> str:
        return "ready"

    def search_paths(self) -> list[str]:
        return []

    def resolve(self, name: str | None) -> str:
        if name not in self.knows:
            raise unknown_name("model", str(name), self.knows)
        return str(name)

    def memory_bytes(self, name: str) -> int:
        return 0

    def load(self, name: str, *, device: str) -> None:
        raise AssertionError("nothing is loaded to bake it")

    def fetch(self, name: str) -> None:
        self.fetched.append(name)


def test_a_model_is_fetched_by_the_family_that_knows_it() -> None:
    songs, stems = Fetching("songs", {"small"}), Fetching("stems", {"four", "six"})
    bake(["six", "small", "stems/four"], Models({"songs": songs, "stems": stems}))
    assert (songs.fetched, stems.fetched) == (["small"], ["six", "four"])


def test_an_unknown_model_ends_the_build_before_later_ones_are_fetched() -> None:
    songs = Fetching("songs", {"small"})
    with pytest.raises(UnknownNameError):
        bake(["smal", "small"], Models({"songs": songs}))
    assert songs.fetched == []


def test_baked_weights_are_among_the_places_that_are_looked_at() -> None:
    weights = find_weights(models_dir=Path("elsewhere"), volume_dirs=())
    assert str(BAKED) in weights.search_paths()


class Repository:
    """A hub that has whatever is asked for, and notes it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []

    def fetch(self, hub_id: str, patterns: Sequence[str]) -> Path:
        self.asked += patterns
        for pattern in patterns:
            content = "models: ['aaaa1111', 'bbbb2222']" if pattern.endswith(".yaml") else "weights"
            (self.folder / pattern).write_text(content)
        return self.folder


def test_baking_a_bag_fetches_all_its_submodels(tmp_path: Path) -> None:
    hub = Repository(tmp_path)
    DemucsFamily(WeightLocations(hub=hub)).fetch("mdx")
    assert {"mdx.yaml", "aaaa1111.safetensors", "bbbb2222.safetensors"} <= set(hub.asked)


def test_the_command_says_in_one_sentence_what_is_wrong() -> None:
    command = [sys.executable, "-m", "models.bake", "../outside"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 1
    assert len(ended.stderr.strip().splitlines()) == 1 and "Traceback" not in ended.stderr
