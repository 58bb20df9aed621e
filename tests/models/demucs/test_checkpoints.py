"""Where Demucs models are found, what is refused in their files, and what list_models says of them."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from audio import Audio
from errors import ModelError, UnknownNameError
from models.checkpoints.locations import WeightLocations
from models.demucs.bag import Bag, read_bag
from models.demucs.catalog import CATALOG, FOUR_STEMS
from models.demucs.family import DemucsFamily
from models.demucs.load import load_network
from models.demucs.repository import ModelRepository
from models.demucs.spec import read_spec
from models.runtime.progress import UNATTENDED, Observer, ignore_progress
from models.separation import InferenceOptions, Mix
from testing import tiny_demucs as tiny
from testing.models import list_as_json, make_models
from testing.repository import ROOT


def cache_snapshot(cache: Path, repository: str, revision: str = "0123abc") -> Path:
    """A folder of a hub cache, as the hub's client lays it out."""
    home = cache / f"models--{repository.replace('/', '--')}"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(revision)
    folder = home / "snapshots" / revision
    folder.mkdir(parents=True)
    return folder


class FakeHub:
    """Serves files out of a folder, and remembers what was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[tuple[str, list[str]]] = []

    def fetch(self, hub_id: str, patterns: Sequence[str], observer: Observer = UNATTENDED) -> Path:
        self.asked.append((hub_id, list(patterns)))
        return self.folder


def test_a_file_loads_as_demucss_own_loader_loads_it(tmp_path: Path) -> None:
    from demucs.hf import load_safetensors_model

    for name, network in {"a": tiny.htdemucs(), "b": tiny.hdemucs(), "c": tiny.demucs()}.items():
        tiny.save(network, tmp_path / f"{name}.safetensors", half=True)
        ours, theirs = (
            load_network(tmp_path / f"{name}.safetensors"),
            load_safetensors_model(tmp_path / f"{name}.safetensors"),
        )
        assert type(ours) is type(theirs)
        for (key, left), (other, right) in zip(ours.state_dict().items(), theirs.state_dict().items(), strict=True):
            assert key == other and left.dtype == torch.float32
            torch.testing.assert_close(left, right)


@pytest.mark.parametrize("network", ["os.system", "torch.nn.Linear", "demucs.solver.Solver", "HTDemucs", ""])
def test_metadata_that_name_a_class_outside_the_three_networks_are_refused(tmp_path: Path, network: str) -> None:
    path = tmp_path / "bad.safetensors"
    save_file({"x": torch.zeros(1)}, str(path), metadata={"klass": network, "args": '["true"]', "kwargs": "{}"})
    for read in (read_spec, load_network):
        with pytest.raises(ModelError, match="only ones built"):
            read(path)


@pytest.mark.parametrize(
    "metadata",
    [
        {"args": "[", "kwargs": "{}"},
        {"args": "{}", "kwargs": "{}"},
        {"kwargs": "{}"},
        {"args": '[["a", "b"]]', "kwargs": '{"segment": {"_type": "fraction", "numerator": 1, "denominator": 0}}'},
        {"args": '[["a", "b"]]', "kwargs": '{"depth": -1}'},
        {"args": '[["a", "b"]]', "kwargs": '{"nfft": "x"}'},
        {"args": "[]", "kwargs": "{}"},
        {"args": "[[1, 2]]", "kwargs": "{}"},
        {"args": '[["a", "a"]]', "kwargs": "{}"},
    ],
)
def test_damaged_descriptions_of_a_network_are_refused(tmp_path: Path, metadata: dict[str, str]) -> None:
    path = tmp_path / "bad.safetensors"
    save_file({"x": torch.zeros(1)}, str(path), metadata={"klass": "demucs.htdemucs.HTDemucs"} | metadata)
    with pytest.raises(ModelError) as caught:
        load_network(path)
    assert caught.value.error_code == "broken_checkpoint"


def test_a_flattened_state_is_put_together_again(tmp_path: Path) -> None:
    network = tiny.htdemucs()
    nodes = [[key, {"_tensor": key}] for key in network.state_dict()]
    tiny.save(network, tmp_path / "a.safetensors", metadata={"structure": json.dumps({"_dict": nodes})})
    assert sum(p.numel() for p in load_network(tmp_path / "a.safetensors").parameters()) > 1000


def test_cut_off_foreign_and_ill_fitting_files_are_refused(tmp_path: Path) -> None:
    whole = tmp_path / "whole.safetensors"
    tiny.save(tiny.htdemucs(), whole)
    (tmp_path / "cut.safetensors").write_bytes(whole.read_bytes()[:-1000])
    (tmp_path / "text.safetensors").write_text("no weights")
    (tmp_path / "empty.safetensors").touch()
    (tmp_path / "text.th").write_text("no weights")
    state = {"x": torch.zeros(1)}
    described = {"klass": "demucs.htdemucs.HTDemucs", "args": '[["a", "b"]]', "kwargs": "{}"}
    save_file(state, str(tmp_path / "other.safetensors"), metadata=described)
    for name in ("cut.safetensors", "text.safetensors", "empty.safetensors", "text.th", "other.safetensors"):
        with pytest.raises(ModelError) as caught:
            load_network(tmp_path / name)
        assert caught.value.error_code == "broken_checkpoint" and str(tmp_path) not in caught.value.message
        assert caught.value.message.count(name) == 1


def test_a_mono_model_is_refused(tmp_path: Path) -> None:
    tiny.save(tiny.htdemucs(audio_channels=1), tmp_path / "mono.safetensors")
    with pytest.raises(ModelError, match="stereo"):
        load_network(tmp_path / "mono.safetensors")


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['true']",
        "models: !!python/name:os.system",
        "models: ['../../etc/passwd']",
        "models: ['a/b']",
        "models: []",
        "models: a",
        "[]",
        "models: [a]\nweights: [[1, .nan]]",
        "models: [a]\nweights: [[1, -1]]",
        "models: [a, b]\nweights: [[1]]",
        "models: [a]\nsegment: -3",
        "models: [a]\nsegment: yes",
        "{",
        "models: &x [*x]",
    ],
)
def test_a_yaml_that_is_no_bag_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(ModelError) as caught:
        read_bag(path)
    assert caught.value.error_code == "broken_checkpoint"


def test_weights_must_suit_the_stems(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="4 for each"):
        Bag(("a",), ((1.0, 1.0),)).weights_for(4)
    with pytest.raises(ModelError, match="no submodel"):
        Bag(("a",), ((1.0, 0.0),)).weights_for(2)


def test_the_yamls_that_demucs_ships_are_all_read() -> None:
    import demucs

    folder = Path(demucs.__file__).parent / "remote"
    for name, row in CATALOG.items():
        bag = read_bag(folder / f"{name}.yaml")
        assert len(bag.signatures) == row.submodels
        assert len(bag.weights_for(len(row.stems))) == row.submodels


def test_repositories_are_those_of_demucs() -> None:
    from demucs.hf import DEFAULT_NAMESPACE, hf_repo_name

    assert {name: row.repository for name, row in CATALOG.items()} == {
        name: f"{DEFAULT_NAMESPACE}/{hf_repo_name(name)}" for name in CATALOG
    }


def test_models_are_found_in_every_place(tmp_path: Path) -> None:
    network = tiny.htdemucs()
    explicit, cache, volume = tmp_path / "explicit", tmp_path / "cache", tmp_path / "volume"
    tiny.save_bag(explicit / "own", {"s1": network})
    tiny.save_bag(explicit / "demucs" / "nested", {"s2": network})
    tiny.save_bag(explicit / "demucs", {"955717e8": network}, name="htdemucs")
    tiny.save_bag(cache_snapshot(cache, "adefossez/HTDemucs-6s"), {"5c90dfd2": network}, name="htdemucs_6s")
    (volume / "single").mkdir(parents=True)
    tiny.save(network, volume / "single" / "any.safetensors")
    tiny.save_package(network, volume / "old", "75fc33f5")
    folders = ModelRepository(WeightLocations(explicit, (cache,), (volume,)))
    assert folders.names() == [*CATALOG, "nested", "old", "own", "single"]
    for name in ("own", "nested", "htdemucs", "htdemucs_6s", "single", "old"):
        files = folders.find(name)
        assert files is not None and files.submodels[0] is not None and files.submodels[0].is_file(), name
        assert folders.is_local(name)
    assert folders.find("mdx") is None and not folders.is_local("mdx")


def test_a_folder_of_another_family_is_no_separation_model(tmp_path: Path) -> None:
    (tmp_path / "musicgen").mkdir()
    save_file({"x": torch.zeros(1)}, str(tmp_path / "musicgen" / "model.safetensors"))
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "config.yaml").write_text("a: 1")
    assert ModelRepository(WeightLocations(tmp_path)).names() == list(CATALOG)


@pytest.mark.parametrize("name", ["../own", "own/..", "/etc", "", ".", "a\x00b", "x" * 200])
def test_a_name_that_is_a_path_finds_nothing(tmp_path: Path, name: str) -> None:
    tiny.save_bag(tmp_path / "root" / "own", {"s": tiny.htdemucs()})
    family = DemucsFamily(WeightLocations(tmp_path / "root"))
    assert ModelRepository(WeightLocations(tmp_path / "root")).find(name) is None
    with pytest.raises(UnknownNameError):
        family.resolve(name)


def test_only_what_is_needed_is_downloaded(tmp_path: Path) -> None:
    served = tmp_path / "served"
    networks = {signature: tiny.htdemucs(seed=index) for index, signature in enumerate("abcd")}
    identity = [[float(row == column) for column in range(4)] for row in range(4)]
    tiny.save_bag(served, networks, name="htdemucs_ft", weights=identity)
    hub = FakeHub(served)
    engine = DemucsFamily(WeightLocations(hub=hub)).load("htdemucs_ft", device="cpu")
    engine.prepare(["vocals"])
    repository = "adefossez/HTDemucs-ft"
    assert [asked for _, asked in hub.asked] == [["htdemucs_ft.yaml"], ["htdemucs_ft.yaml"], ["d.safetensors"]]
    assert {hub_id for hub_id, _ in hub.asked} == {repository}


def test_offline_a_bag_of_which_one_submodel_is_here_separates_its_stem(tmp_path: Path) -> None:
    networks = {signature: tiny.htdemucs(seed=index) for index, signature in enumerate("abcd")}
    identity = [[float(row == column) for column in range(4)] for row in range(4)]
    folder = tiny.save_bag(tmp_path / "htdemucs_ft", networks, weights=identity)
    for signature in "abc":
        (folder / f"{signature}.safetensors").unlink()
    models = make_models(separation=DemucsFamily(WeightLocations(explicit=tmp_path)), budget_bytes=10**10)
    handle = models.families.separation.resolve("htdemucs_ft")

    def separate_stem(stem: str) -> None:
        mix = Mix(Audio(np.zeros((2, 1000), np.float32), 44_100), 44_100)
        models.run(
            handle,
            lambda engine: list(engine.separate(mix, [stem], options=InferenceOptions(), progress=ignore_progress)),
        )

    separate_stem("vocals")
    with pytest.raises(ModelError, match="offline"):
        separate_stem("drums")


def test_what_the_hub_lacks_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="lacks files"):
        ModelRepository(WeightLocations(hub=FakeHub(tmp_path))).fetch("htdemucs")


def test_offline_the_error_says_what_to_put_where(tmp_path: Path) -> None:
    family = DemucsFamily(WeightLocations(tmp_path))
    with pytest.raises(ModelError) as caught:
        family.load("htdemucs", device="cpu")
    assert caught.value.error_code == "model_unavailable"
    assert "MODELS_DIR" in caught.value.message and str(tmp_path) not in caught.value.message


def test_a_half_copied_model_says_so(tmp_path: Path) -> None:
    folder = tiny.save_bag(tmp_path / "own", {"a": tiny.htdemucs(), "b": tiny.htdemucs(seed=1)})
    (folder / "b.safetensors").unlink()
    family = DemucsFamily(WeightLocations(tmp_path))
    row = next(row for row in list_as_json(family) if row["name"] == "own")
    assert "missing" in row["available"]
    with pytest.raises(ModelError, match="missing"):
        family.load("own", device="cpu").prepare()


def test_rows_say_what_each_model_does_and_whether_it_is_here(tmp_path: Path) -> None:
    tiny.save_bag(tmp_path / "own", {"s": tiny.htdemucs_6s()})
    family = DemucsFamily(WeightLocations(tmp_path, hub=FakeHub(tmp_path)))
    listed = {row["name"]: row for row in list_as_json(family)}
    assert listed["own"]["available"] == "local" and listed["own"]["stems"] == tiny.SIX
    assert listed["own"]["max_segment_s"] == pytest.approx(1.56)
    assert listed["htdemucs"]["available"] == "download" and listed["htdemucs"]["stems"] == list(FOUR_STEMS)
    assert family.readiness().is_ready
    assert family.resolve(None).name == "htdemucs" and family.resolve("own").name == "own"
    with pytest.raises(UnknownNameError, match="htdemucs_ft"):
        family.resolve("htdemucs_fit")


def test_a_broken_local_model_is_listed_with_its_fault(tmp_path: Path) -> None:
    folder = tiny.save_bag(tmp_path / "htdemucs", {"s": tiny.htdemucs()})
    (folder / "htdemucs.yaml").write_text("models: 3")
    family = DemucsFamily(WeightLocations(tmp_path))
    row = list_as_json(family)[0]
    assert row["name"] == "htdemucs" and "cannot be used" in row["available"]
    assert not family.readiness().is_ready


def test_memory_is_estimated_before_loading_and_known_after(tmp_path: Path) -> None:
    tiny.save_bag(tmp_path / "own", {"s": tiny.htdemucs()})
    family = DemucsFamily(WeightLocations(tmp_path))
    assert family.memory_bytes("htdemucs") == CATALOG["htdemucs"].parameters * 4
    assert family.memory_bytes("own") > 100_000
    assert 0 < family.load("own", device="cpu").memory_bytes < 2 * family.memory_bytes("own")


def test_listing_and_resolving_import_no_torch(tmp_path: Path) -> None:
    tiny.save_bag(tmp_path / "own", {"s": tiny.htdemucs()})
    code = (
        "import sys; from pathlib import Path; from models.demucs import DemucsFamily; "
        "from models.checkpoints.locations import WeightLocations; "
        f"family = DemucsFamily(WeightLocations(Path({str(tmp_path)!r}))); "
        "assert any(model.availability.to_json() == 'local' for model in family.list_models()); "
        "family.resolve('own'); family.readiness(); "
        "family.describe('own'); family.memory_bytes('own'); import operations.separate; "
        "assert not {'torch', 'demucs', 'safetensors', 'soxr', 'huggingface_hub'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=60)


def test_the_tiny_files_are_not_pickles(tmp_path: Path) -> None:
    """The fixtures must be what demucs publishes; a pickle by another name would prove nothing."""
    tiny.save(tiny.htdemucs(), tmp_path / "a.safetensors")
    with pytest.raises(pickle.UnpicklingError):
        pickle.loads((tmp_path / "a.safetensors").read_bytes())
    assert np.frombuffer((tmp_path / "a.safetensors").read_bytes()[:8], "<u8")[0] < 1 << 20
