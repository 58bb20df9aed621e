"""Demucs files where people have them: torch's cache, and flat in a folder of models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml  # type: ignore[import-untyped]

from errors import ModelError, UnknownNameError
from models.checkpoints.locations import WeightLocations
from models.demucs.bag import read_bag
from models.demucs.catalog import CATALOG
from models.demucs.family import DemucsFamily
from models.demucs.repository import ModelRepository, read_published_bag
from testing import tiny_demucs as tiny
from testing.models import list_as_json


def save_published(name: str, folder: Path) -> list[Path]:
    """Every submodel of the published model `name` as torch.hub has it: `<signature>-<checksum>.th`, without a yaml."""
    bag = read_published_bag(name)
    assert bag is not None
    return [tiny.save_package(tiny.htdemucs(seed=seed), folder, one) for seed, one in enumerate(bag.signatures)]


def list_available(family: DemucsFamily) -> dict[str, str]:
    return {row["name"]: row["available"] for row in list_as_json(family)}


def test_the_bag_of_every_published_model_is_known_without_its_yaml() -> None:
    assert {name for name in CATALOG if read_published_bag(name)} == CATALOG.keys()
    ft = read_published_bag("htdemucs_ft")
    assert ft is not None and ft.signatures[3] == "04573f0d" and ft.weights_for(4)[3] == (0, 0, 0, 1)
    assert read_published_bag("../htdemucs") is None


@pytest.mark.parametrize("place", ["torch", "flat", "shared", "own"])
def test_published_files_without_a_yaml_are_found_and_loaded(tmp_path: Path, place: str) -> None:
    folder = {
        "torch": tmp_path / "torch" / "hub" / "checkpoints",
        "flat": tmp_path / "models",
        "shared": tmp_path / "models" / "demucs",
        "own": tmp_path / "models" / "htdemucs_ft",
    }[place]
    files = save_published("htdemucs_ft", folder)
    family = DemucsFamily(WeightLocations(tmp_path / "models"), torch_cache=tmp_path / "torch" / "hub" / "checkpoints")
    available = list_available(family)
    assert available["htdemucs_ft"] == "local" and "not here" in available["htdemucs"]
    assert list(available) == list(CATALOG), "the submodels of a bag are no models of their own"
    assert family.readiness().is_ready
    found = ModelRepository(WeightLocations(tmp_path / "models"), folder).find("htdemucs_ft")
    assert found is not None and list(found.submodels) == files
    engine = family.load("htdemucs_ft", device="cpu")
    engine.prepare(["vocals"])
    assert engine.stems == tuple(tiny.FOUR)


def test_other_files_in_torchs_cache_are_no_models(tmp_path: Path) -> None:
    tiny.save_package(tiny.htdemucs(), tmp_path, "0badcafe")
    torch.save({"x": torch.zeros(1)}, tmp_path / "resnet18-5c106cde.pth")
    family = DemucsFamily(WeightLocations(), torch_cache=tmp_path)
    assert list(list_available(family)) == list(CATALOG) and not family.readiness().is_ready


def test_a_flat_bag_with_its_yaml_and_a_flat_single_file_are_models(tmp_path: Path) -> None:
    tiny.save_bag(tmp_path, {"one": tiny.htdemucs(), "two": tiny.htdemucs(seed=1)}, name="pair")
    tiny.save_bag(tmp_path, {"5c90dfd2": tiny.htdemucs_6s()}, name="htdemucs_6s")
    tiny.save_package(tiny.hdemucs(), tmp_path, "mine")
    tiny.save(tiny.demucs(), tmp_path / "new.safetensors")
    torch.save({"sample_rate": 32_000, "bands": {"weight": torch.zeros(1)}}, tmp_path / "mbd_musicgen_32khz.th")
    (tmp_path / "settings.yaml").write_text("a: 1")
    (tmp_path / "half.yaml").write_text(yaml.safe_dump({"models": ["absent"]}))
    family = DemucsFamily(WeightLocations(tmp_path))
    available = list_available(family)
    assert available.keys() - CATALOG.keys() == {"pair", "mine", "new"}
    for name in ("pair", "mine", "new", "htdemucs_6s"):
        assert available[name] == "local"
        family.load(name, device="cpu").prepare()
    assert len(family.describe("htdemucs_6s").stems) == 6
    with pytest.raises(UnknownNameError):
        family.resolve("one")


def test_a_complete_place_is_preferred_to_an_earlier_incomplete_one(tmp_path: Path) -> None:
    files = save_published("mdx", tmp_path / "torch")
    (tmp_path / "models" / "mdx").mkdir(parents=True)
    files[0].rename(tmp_path / "models" / "mdx" / files[0].name)
    repository = ModelRepository(WeightLocations(tmp_path / "models"), tmp_path / "torch")
    assert not repository.is_local("mdx")
    save_published("mdx", tmp_path / "torch")
    found = repository.find("mdx")
    assert found is not None and {path.parent for path in found.submodels if path} == {tmp_path / "torch"}


@pytest.mark.parametrize("broken", ["yaml", "header", "package"])
def test_a_default_model_that_is_here_and_broken_is_never_passed_over(tmp_path: Path, broken: str) -> None:
    """Neither for the intact one in torch's cache, nor for a download."""
    if broken == "package":
        path = tiny.save_package(tiny.htdemucs(), tmp_path / "models" / "htdemucs", "955717e8")
        path.write_bytes(path.read_bytes()[:-1000])
    else:
        folder = tiny.save_bag(tmp_path / "models" / "htdemucs", {"955717e8": tiny.htdemucs()})
        path = folder / ("htdemucs.yaml" if broken == "yaml" else "955717e8.safetensors")
        path.write_bytes(b"broken")
    save_published("htdemucs", tmp_path / "torch")
    family = DemucsFamily(WeightLocations(tmp_path / "models"), torch_cache=tmp_path / "torch")
    assert f"'{path.name}' of the separation model cannot be used" in list_available(family)["htdemucs"]
    for question in (family.describe, lambda name: family.load(name, device="cpu")):
        with pytest.raises(ModelError) as caught:
            question(family.resolve(None).name)
        assert caught.value.error_code == "broken_checkpoint" and path.name in caught.value.message


def test_a_folder_that_is_itself_called_like_a_model_may_hold_many(tmp_path: Path) -> None:
    root = tmp_path / "mdx"
    tiny.save_bag(root, {"a": tiny.htdemucs()}, name="first")
    tiny.save_bag(root, {"b": tiny.htdemucs()}, name="second")
    assert ModelRepository(WeightLocations(root)).find("mdx") is None
    assert read_bag(root / "second.yaml").signatures == ("b",)
