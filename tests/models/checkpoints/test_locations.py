"""Weights are found in the same places, in the same order, by every family."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from models.acestep.family import AceStepFamily
from models.checkpoints.locations import WeightLocations
from models.demucs.family import DemucsFamily
from models.f0 import PitchFamily
from models.family import LOCAL
from models.hubert.family import HubertFamily
from models.musicgen import MusicGenFamily
from testing import tiny_demucs
from testing.repository import ROOT
from testing.tiny_acestep import write_tiny_acestep
from testing.tiny_musicgen import write_checkpoint
from testing.tiny_rvc import write_hubert_folder

REVISION = "0123abcd" * 5


def make_snapshot(cache: Path, hub_id: str, revision: str = REVISION, *, main: bool = True) -> Path:
    """Creates the folder of a snapshot as the hub's client does."""
    repository = cache / f"models--{hub_id.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True, exist_ok=True)
    if main:
        (repository / "refs" / "main").write_text(revision)
    folder = repository / "snapshots" / revision
    folder.mkdir(parents=True)
    return folder


def write_music(cache: Path) -> None:
    shutil.copytree(
        write_checkpoint(cache / "made"), make_snapshot(cache, "facebook/musicgen-small"), dirs_exist_ok=True
    )


def write_separation(cache: Path) -> None:
    folder = make_snapshot(cache, "adefossez/HTDemucs")
    tiny_demucs.save_bag(folder, {"955717e8": tiny_demucs.htdemucs()}, name="htdemucs")


def write_content_encoder(cache: Path) -> None:
    shutil.copytree(
        write_hubert_folder(cache / "made"), make_snapshot(cache, "lengyue233/content-vec-best"), dirs_exist_ok=True
    )


def write_rmvpe(cache: Path) -> None:
    torch.save({}, make_snapshot(cache, "lj1995/VoiceConversionWebUI") / "rmvpe.pt")


def write_songs(cache: Path) -> None:
    write_tiny_acestep(make_snapshot(cache, "ACE-Step/Ace-Step1.5"))


def has_songs(weights: WeightLocations) -> bool:
    family = AceStepFamily(weights)
    return family.resolve(None).name == "acestep-v15-turbo" and family.list_models()[1].availability == LOCAL


def has_music(weights: WeightLocations) -> bool:
    family = MusicGenFamily(weights, demo=Path("/nonexistent"))
    return family.resolve("small").name == "small" and family.describe("small").availability == LOCAL


def has_separation(weights: WeightLocations) -> bool:
    return (
        next(model for model in DemucsFamily(weights).list_models() if model.name == "htdemucs").availability == LOCAL
    )


def has_content_encoder(weights: WeightLocations) -> bool:
    return HubertFamily(weights).list_models()[0].availability == LOCAL


def has_rmvpe(weights: WeightLocations) -> bool:
    return next(model for model in PitchFamily(weights).list_models() if model.name == "rmvpe").availability == LOCAL


FAMILIES: dict[str, tuple[Callable[[Path], None], Callable[[WeightLocations], bool]]] = {
    "songs": (write_songs, has_songs),
    "music": (write_music, has_music),
    "separation": (write_separation, has_separation),
    "content encoder": (write_content_encoder, has_content_encoder),
    "rmvpe": (write_rmvpe, has_rmvpe),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layout", ["hub", "."])
def test_a_models_dir_that_holds_a_hub_cache_is_searched(tmp_path: Path, family: str, layout: str) -> None:
    """`hub`: MODELS_DIR is laid out as HF_HOME; `.`: it is the hub cache itself."""
    write, has = FAMILIES[family]
    write(tmp_path / "models" / layout)
    assert has(WeightLocations(explicit=tmp_path / "models"))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_looks_into_the_hub_cache(tmp_path: Path, family: str) -> None:
    write, has = FAMILIES[family]
    write(tmp_path / "cache")
    assert has(WeightLocations(hub_caches=(tmp_path / "cache",)))


def test_snapshots_are_searched_from_main_to_the_oldest(tmp_path: Path) -> None:
    revisions = {"a" * 40: 100, "b" * 40: 300, "c" * 40: 200}
    for revision, seconds in revisions.items():
        folder = make_snapshot(tmp_path, "org/model", revision, main=revision.startswith("a"))
        os.utime(folder, (seconds, seconds))
    found = [path.name[0] for path in WeightLocations(hub_caches=(tmp_path,)).iter_candidates((), ("org/model",))]
    assert found == ["a", "b", "c"]


def test_a_snapshot_without_the_needed_files_is_passed_over(tmp_path: Path) -> None:
    make_snapshot(tmp_path, "org/model", "a" * 40)
    whole = make_snapshot(tmp_path, "org/model", "b" * 40, main=False)
    (whole / "model.bin").touch()
    assert WeightLocations(hub_caches=(tmp_path,)).find((), ("org/model",), ("model.bin",)) == whole


@pytest.mark.parametrize("content", [b"../../elsewhere", b"", b"\xff\xfe", b"main"])
def test_a_ref_that_is_no_revision_is_ignored(tmp_path: Path, content: bytes) -> None:
    folder = make_snapshot(tmp_path, "org/model")
    (folder.parent.parent / "refs" / "main").write_bytes(content)
    assert list(WeightLocations(hub_caches=(tmp_path,)).iter_candidates((), ("org/model",))) == [folder]


def test_folders_that_the_worker_may_not_read_are_passed_over() -> None:
    """As on a volume where another user put a model. Root may read everything, so the process gives that up."""
    program = """
import os, pathlib, tempfile
from models.acestep.family import AceStepFamily
from models.checkpoints.locations import WeightLocations
from models.demucs import DemucsFamily
from models.f0 import PitchFamily
from models.hubert.family import HubertFamily
from models.musicgen import MusicGenFamily
from models.rvc import RvcFamily, Voices

with tempfile.TemporaryDirectory() as name:
    root = pathlib.Path(name)
    root.chmod(0o755)
    for folder in ("mine", "small", "htdemucs", "demucs", "rvc", "contentvec", "models--facebook--musicgen-small"):
        (root / folder).mkdir(mode=0)
    for folder in ("checkpoints", "vae", "acestep-v15-base", "acestep-v15-sft/vae", "Ace-Step1.5/acestep-v15-turbo"):
        (root / folder).mkdir(parents=True)
        (root / folder / "config.json").write_text('{"model_type": "acestep"}')
        (root / folder).chmod(0)
    weights = WeightLocations(explicit=root, hub_caches=(root,))
    families = (MusicGenFamily(weights, demo=root / "demo"), DemucsFamily(weights), RvcFamily(Voices([root])),
                HubertFamily(weights), PitchFamily(weights), AceStepFamily(weights))
    is_root = os.getuid() == 0
    if is_root:
        os.setresuid(65532, 65532, 0)
    try:
        for family in families:
            assert isinstance(family.list_models(), list) and family.readiness().to_json()
        assert weights.find_named("mine", ("x",)) is None
    finally:
        if is_root:
            os.setresuid(0, 0, 0)
        for path, folders, _ in os.walk(root):
            for folder in folders:
                os.chmod(os.path.join(path, folder), 0o700)
print("done")
"""
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.stdout == "done\n", result.stderr
