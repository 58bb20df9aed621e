"""Every family whose models are files notices that one was replaced."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.acestep.family import AceStepFamily
from models.checkpoints.locations import WeightLocations
from models.demucs import DemucsFamily
from models.f0 import PitchFamily
from models.family import ModelFamily
from models.hubert.family import HubertFamily
from models.musicgen import MusicGenFamily
from testing.tiny_acestep import write_tiny_acestep
from testing.tiny_demucs import htdemucs, save_bag
from testing.tiny_musicgen import write_checkpoint
from testing.tiny_rvc import write_hubert_file, write_hubert_folder, write_rmvpe

Case = tuple[Callable[[Path], Any], Callable[[WeightLocations], ModelFamily[Any]], str, str]

CASES: dict[str, Case] = {
    "songs": (
        lambda folder: write_tiny_acestep(folder, name="mine"),
        AceStepFamily,
        "mine",
        "Qwen3-Embedding-0.6B/tokenizer.json",
    ),
    "songs of another layout": (
        lambda folder: write_tiny_acestep(folder, layout="diffusers", name="mine"),
        AceStepFamily,
        "mine",
        "mine/transformer/config.json",
    ),
    "music": (
        lambda folder: write_checkpoint(folder / "mine"),
        lambda weights: MusicGenFamily(weights, demo=Path("no demo")),
        "mine",
        "mine/t5/config.json",
    ),
    "separation": (
        lambda folder: save_bag(folder / "mine", {"a": htdemucs()}),
        DemucsFamily,
        "mine",
        "mine/a.safetensors",
    ),
    "bag": (lambda folder: save_bag(folder / "mine", {"a": htdemucs()}), DemucsFamily, "mine", "mine/mine.yaml"),
    "content encoder": (
        lambda folder: write_hubert_file(folder / "hubert_base.pt"),
        HubertFamily,
        "contentvec",
        "hubert_base.pt",
    ),
    "another content encoder": (
        lambda folder: write_hubert_folder(folder / "spin"),
        HubertFamily,
        "spin",
        "spin/config.json",
    ),
    "f0": (lambda folder: write_rmvpe(folder / "rmvpe.pt"), PitchFamily, "rmvpe", "rmvpe.pt"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_version_key_changes_with_a_file_of_the_model_and_only_then(case: Case, tmp_path: Path) -> None:
    write, make_family, name, file = case
    write(tmp_path)
    family = make_family(WeightLocations(tmp_path))
    name = family.resolve(name).name
    before = family.version_key(name)
    assert before is not None and family.version_key(name) == before
    path = tmp_path / file
    if path.suffix == ".yaml":
        path.write_text(path.read_text() + "segment: 2\n")
    else:
        os.utime(path, ns=(1, 1))
    assert family.version_key(name) != before
