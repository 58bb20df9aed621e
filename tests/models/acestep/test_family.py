"""Which ACE-Step models are found, what is told of them, what is downloaded, and that one is loaded and runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from errors import ErrorCode, InvalidRequestError, ModelError, RequestError, UnknownNameError
from models.acestep.catalog import BY_NAME, CATALOG, LICENCE, MAIN_HUB_ID, find_catalog_name
from models.acestep.family import AceStepFamily
from models.acestep.info import AceStepModelInfo
from models.acestep.metas import LANGUAGES
from models.acestep.repository import AceStepRepository
from models.bake import bake
from models.checkpoints.hub import HuggingFaceHub
from models.checkpoints.locations import WeightLocations
from models.checkpoints.revisions import REVISIONS
from models.device import GIBIBYTE, Gpu, cpu_multiplies_bfloat16
from models.family import DOWNLOAD, LOCAL, READY
from testing.fake_hub import COMMIT, FakeHub, start_fake_hub
from testing.models import make_models
from testing.repository import ROOT
from testing.tensors import count_tensor_bytes
from testing.tiny_acestep import write_tiny_acestep

TURBO, BASE, XL = "acestep-v15-turbo", "acestep-v15-base", "acestep-v15-xl-turbo"
MODEL_FILES = ("config.json", "silence_latent.pt", "model.safetensors")
SHARED_FILES = (
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
    "Qwen3-Embedding-0.6B/config.json",
    "Qwen3-Embedding-0.6B/model.safetensors",
    "Qwen3-Embedding-0.6B/tokenizer.json",
)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Roots with one model each; tests change copies of them."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("original", "diffusers", "xl")}
    write_tiny_acestep(folders["original"])
    write_tiny_acestep(folders["diffusers"], layout="diffusers", name="any-name", is_turbo=False)
    write_tiny_acestep(folders["xl"], name=XL, xl=True, shards=3)
    return folders


@pytest.fixture
def root(tmp_path: Path, written: dict[str, Path]) -> Path:
    """MODELS_DIR with turbo in the original layout."""
    return shutil.copytree(written["original"], tmp_path / "models")


def locate(root: Path) -> AceStepFamily:
    return AceStepFamily(WeightLocations(explicit=root))


def list_rows(family: AceStepFamily) -> dict[str, AceStepModelInfo]:
    return {info.name: info for info in family.list_models()}


def list_files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_every_published_model_is_listed_with_what_it_can_do() -> None:
    rows = {name: info.to_json() for name, info in list_rows(AceStepFamily(WeightLocations())).items()}
    assert list(rows) == [card.name for card in CATALOG] and len(rows) == 9
    turbo, base = rows[TURBO], rows[BASE]
    assert (turbo["inference_steps"], turbo["shift"], turbo["cfg_coef"]) == (8, 3.0, 1.0)
    assert (base["inference_steps"], base["shift"], base["cfg_coef"]) == (50, 1.0, 7.0)
    shift1 = list_rows(AceStepFamily(WeightLocations()))["acestep-v15-turbo-shift1"]
    assert (shift1.num_steps, shift1.shift, shift1.is_turbo, shift1.max_steps) == (8, 1.0, True, 20)
    assert turbo["tasks"] == ["text2music", "cover", "repaint"] == rows["acestep-v15-xl-sft"]["tasks"]
    assert set(base["tasks"]) - set(turbo["tasks"]) == {"lego", "extract", "complete"}
    assert rows["acestep-v15-xl-base"]["tasks"] == base["tasks"]
    assert {row["licence"] for row in rows.values()} == {LICENCE} == {"MIT (card)"}
    assert {(row["sample_rate"], row["channels"], row["family"]) for row in rows.values()} == {(48_000, 2, "acestep")}
    assert turbo["languages"] == list(LANGUAGES) and (turbo["min_duration_s"], turbo["max_duration_s"]) == (10, 600)
    assert "not here, and the worker does not download" in turbo["available"]
    assert turbo["hub_id"] == MAIN_HUB_ID and base["hub_id"] == "ACE-Step/acestep-v15-base"


def test_a_model_is_found_under_its_own_name_and_that_of_its_repository(root: Path) -> None:
    family = locate(root)
    for name in (TURBO, f"ACE-Step/{TURBO}", MAIN_HUB_ID):
        assert family.resolve(name).name == TURBO
    assert family.resolve(None).name == TURBO
    assert list_rows(family)[TURBO].availability == LOCAL
    assert family.readiness() == READY
    assert find_catalog_name("ACE-Step/acestep-v15-xl-sft-diffusers") == "acestep-v15-xl-sft"


@pytest.mark.parametrize(
    "place", ["checkpoints", "Ace-Step1.5", "ACE-Step/Ace-Step1.5", "ACE-Step-1.5/checkpoints", "hub cache", "HF_HOME"]
)
def test_the_folders_of_the_original_are_found_as_a_whole(tmp_path: Path, written: dict[str, Path], place: str) -> None:
    snapshot = f"models--ACE-Step--Ace-Step1.5/snapshots/{COMMIT}"
    below = {"hub cache": snapshot, "HF_HOME": f"hub/{snapshot}"}.get(place, place)
    shutil.copytree(written["original"], tmp_path / below)
    rows = list_rows(locate(tmp_path))
    assert rows[TURBO].availability == LOCAL
    assert list(rows) == list(BY_NAME)


def test_a_model_in_its_own_place_takes_the_shared_parts_of_the_main_repository(
    tmp_path: Path, written: dict[str, Path]
) -> None:
    cache = tmp_path / "cache"
    main = cache / "models--ACE-Step--Ace-Step1.5" / "snapshots" / COMMIT
    own = cache / "models--ACE-Step--acestep-v15-xl-turbo" / "snapshots" / COMMIT
    for part in ("vae", "Qwen3-Embedding-0.6B"):
        shutil.copytree(written["xl"] / part, main / part)
    shutil.copytree(written["xl"] / XL, own)
    family = AceStepFamily(WeightLocations(hub_caches=(cache,)))
    assert list_rows(family)[XL].availability == LOCAL
    assert family.resolve(None).name == XL
    inside = tmp_path / "inside" / XL
    shutil.copytree(written["xl"] / XL, inside)
    for part in ("vae", "Qwen3-Embedding-0.6B"):
        shutil.copytree(written["xl"] / part, inside / part)
    assert list_rows(locate(inside.parent))[XL].availability == LOCAL


def test_local_models_of_any_name_are_found_in_both_layouts(root: Path, written: dict[str, Path]) -> None:
    shutil.copytree(written["diffusers"] / "any-name", root / "any-name")
    (root / TURBO).rename(root / "my_finetune")
    shutil.copytree(root / "my_finetune", root / "team" / TURBO)
    family = locate(root)
    rows = list_rows(family)
    assert list(rows) == [*BY_NAME, "any-name", "my_finetune", f"team/{TURBO}"]
    mine, other = rows["my_finetune"], rows["any-name"]
    assert (mine.availability, mine.is_turbo, mine.num_steps, mine.max_steps) == (LOCAL, True, 8, 20)
    assert (other.availability, other.is_turbo, other.cfg_coef, other.max_steps) == (LOCAL, False, 7.0, 200)
    assert "extract" in other.tasks and "extract" not in mine.tasks
    assert mine.licence == other.licence == "unknown: see its author's terms"
    assert family.resolve("any-name").name == "any-name"
    assert family.resolve(None).name == "any-name"


def test_a_published_model_in_diffusers_layout_has_its_catalogue_entry(
    tmp_path: Path, written: dict[str, Path]
) -> None:
    """Official turbo files say nothing of turbo in older conversions: the catalogue's word counts."""
    shutil.copytree(written["diffusers"] / "any-name", tmp_path / f"{XL}-diffusers")
    info = list_rows(locate(tmp_path))[XL]
    assert (info.availability, info.licence, info.is_turbo, info.num_steps) == (LOCAL, LICENCE, True, 8)
    assert list(list_rows(locate(tmp_path))) == list(BY_NAME)
    for part in ("audio_tokenizer", "audio_token_detokenizer"):
        shutil.rmtree(tmp_path / f"{XL}-diffusers" / part)
    without = list_rows(locate(tmp_path))[XL]
    assert without.availability == LOCAL
    assert not without.takes_codes and without.tasks == ("text2music", "repaint")


def test_a_complete_folder_counts_before_one_that_lacks_files(tmp_path: Path, written: dict[str, Path]) -> None:
    shutil.copytree(written["original"], tmp_path / "a")
    shutil.copytree(written["original"], tmp_path / "b")
    (tmp_path / "a" / TURBO / "model.safetensors").unlink()
    weights = WeightLocations(explicit=tmp_path / "a", folders=(tmp_path / "b",))
    found = AceStepRepository(weights).find(TURBO)
    assert found is not None and found.model == tmp_path / "b" / TURBO
    assert AceStepFamily(weights).resolve(TURBO).name == TURBO


def test_the_best_model_that_can_be_used_is_the_default_and_what_was_in_its_way_is_said(
    root: Path, written: dict[str, Path]
) -> None:
    shutil.copytree(written["xl"] / XL, root / XL)
    assert locate(root).resolve(None).name == XL
    (root / XL / "config.json").write_text("{")
    handle = locate(root).resolve(None)
    assert handle.name == TURBO
    assert len(handle.warnings) == 1 and XL in handle.warnings[0]
    (root / TURBO / "config.json").write_text("{")
    with pytest.raises(ModelError, match="The request names no model") as caught:
        locate(root).resolve(None)
    assert caught.value.error_code == ErrorCode.BROKEN_CHECKPOINT


@pytest.mark.parametrize("part", ["vae", "Qwen3-Embedding-0.6B", f"{TURBO}/silence_latent.pt"])
def test_a_part_that_is_missing_is_named_with_where_to_put_it(root: Path, part: str) -> None:
    path = root / part
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    family = locate(root)
    with pytest.raises(ModelError) as caught:
        family.resolve(TURBO)
    assert caught.value.error_code == ErrorCode.MODEL_INCOMPLETE
    assert Path(part).name in caught.value.message and MAIN_HUB_ID in caught.value.message
    assert list_rows(family)[TURBO].availability.reason == caught.value.message
    assert not family.readiness().is_ready


def test_a_vae_folder_of_another_model_is_passed_over(root: Path) -> None:
    shutil.copytree(root / "vae", root / TURBO / "vae")
    (root / "vae" / "config.json").write_text('{"_class_name": "AutoencoderKL"}')
    assert locate(root).resolve(TURBO).name == TURBO
    shutil.rmtree(root / TURBO / "vae")
    with pytest.raises(ModelError, match="these parts of it are not: vae"):
        locate(root).resolve(TURBO)


@pytest.mark.parametrize("name", ["../models", "a/../../b", "/etc", "", "a" * 5000, "a\nb", "x//y"])
def test_a_name_that_can_be_no_folder_is_refused(root: Path, name: str) -> None:
    with pytest.raises(InvalidRequestError):
        locate(root).resolve(name)


def test_an_unknown_name_gets_suggestions(root: Path) -> None:
    with pytest.raises(UnknownNameError, match="acestep-v15-turbo"):
        locate(root).resolve("acestep-v15-turbi")
    (root / "other").mkdir()
    (root / "other" / "config.json").write_text('{"model_type": "qwen3"}')
    with pytest.raises(UnknownNameError):
        locate(root).resolve("other")


def test_broken_folders_are_listed_with_the_reason_and_hide_no_others(root: Path, written: dict[str, Path]) -> None:
    shutil.copytree(written["diffusers"] / "any-name", root / "broken")
    shutil.rmtree(root / "broken" / "condition_encoder")
    (root / "cut").mkdir()
    (root / "cut" / "silence_latent.pt").write_bytes(b"")
    (root / "cut" / "config.json").write_text("[]")
    (root / "index").mkdir()
    shutil.copy(root / TURBO / "silence_latent.pt", root / "index")
    shutil.copy(root / TURBO / "config.json", root / "index")
    (root / "index" / "model.safetensors.index.json").write_text("{}")
    rows = list_rows(locate(root))
    assert rows[TURBO].availability == LOCAL
    for name in ("broken", "cut", "index"):
        assert not rows[name].availability.is_usable and name in rows[name].availability.reason


def test_listing_and_refusing_need_no_torch(root: Path, written: dict[str, Path]) -> None:
    shutil.copytree(written["diffusers"] / "any-name", root / "any-name")
    code = f"""
import sys
from pathlib import Path
from errors import RequestError
from models.acestep.family import AceStepFamily
from models.checkpoints.locations import WeightLocations
family = AceStepFamily(WeightLocations(explicit=Path({str(root)!r})))
rows = [info.to_json() for info in family.list_models()]
family.resolve({TURBO!r}), family.resolve(None), family.readiness(), family.version_key({TURBO!r})
family.memory_bytes("any-name")
for name in ("acestep-v15-sft", "unknown"):
    try:
        family.resolve(name)
    except RequestError:
        pass
print(len(rows), *[name for name in ("torch", "diffusers", "transformers", "safetensors") if name in sys.modules])
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["10"]


@pytest.fixture
def hub(written: dict[str, Path]) -> Iterator[FakeHub]:
    """Serves turbo as in the main repository, and XL as in its own; both under every id, their names differ."""
    files = {}
    for source in ("original", "xl"):
        for name in list_files(written[source]):
            files[name.removeprefix(f"{XL}/")] = (written[source] / name).read_bytes()
    with start_fake_hub(files) as server:
        yield server


def connect(hub: FakeHub, cache: Path, **places: Path) -> AceStepFamily:
    client = HuggingFaceHub(cache=cache, endpoint=hub.endpoint, retry_s=0.01)
    return AceStepFamily(WeightLocations(hub_caches=(cache,), hub=client, explicit=places.get("explicit")))


def test_exactly_the_files_that_are_needed_are_downloaded(hub: FakeHub, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    family = connect(hub, cache)
    assert list_rows(family)[TURBO].availability == DOWNLOAD
    assert 6e9 < list_rows(family)[TURBO].download_bytes < 7e9 < 2e10 < list_rows(family)[XL].download_bytes < 2.2e10
    family.download(TURBO)
    assert sorted(hub.sent) == sorted([*(f"{TURBO}/{file}" for file in MODEL_FILES), *SHARED_FILES])
    assert list_rows(family)[TURBO].availability == LOCAL
    hub.sent.clear()
    family.download(TURBO)
    assert hub.sent == []
    family.download(XL)
    shards = [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
    assert sorted(hub.sent) == sorted(["config.json", "silence_latent.pt", "model.safetensors.index.json", *shards])
    assert list_rows(family)[XL].availability == LOCAL
    assert not [name for name in list_files(cache) if name.endswith(".py")]


def test_a_local_model_without_the_shared_parts_gets_them_alone(hub: FakeHub, root: Path, tmp_path: Path) -> None:
    shutil.rmtree(root / "vae")
    family = connect(hub, tmp_path / "cache", explicit=root)
    info = list_rows(family)[TURBO]
    assert info.availability == DOWNLOAD
    assert family.resolve(None).name == TURBO
    family.download(TURBO)
    assert sorted(hub.sent) == sorted(name for name in SHARED_FILES if name.startswith("vae/"))
    assert list_rows(family)[TURBO].availability == LOCAL


def test_a_download_that_was_cut_off_between_shards_goes_on(hub: FakeHub, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    family = connect(hub, cache)
    family.download(XL)
    [shard] = cache.rglob("snapshots/*/model-00002-of-00003.safetensors")
    shard.resolve().unlink()
    shard.unlink()
    hub.sent.clear()
    assert list_rows(family)[XL].availability == DOWNLOAD
    family.download(XL)
    assert hub.sent == [shard.name]


def test_a_repository_whose_index_is_broken_ends_the_download_with_its_name(hub: FakeHub, tmp_path: Path) -> None:
    hub.files["model.safetensors.index.json"] = b"{}"
    with pytest.raises(ModelError, match="lists no files"):
        connect(hub, tmp_path / "cache").download(XL)


def test_a_build_bakes_a_model_by_its_name(hub: FakeHub, tmp_path: Path) -> None:
    family = connect(hub, tmp_path / "cache")
    bake([TURBO], make_models(music=family))
    assert list_rows(family)[TURBO].availability == LOCAL
    assert f"{TURBO}/model.safetensors" in hub.sent and f"{TURBO}/must_never_be_imported.py" in hub.files


def test_every_published_repository_is_pinned() -> None:
    assert {card.hub_id for card in CATALOG} | {MAIN_HUB_ID} <= REVISIONS.keys()


@pytest.mark.parametrize("name", [TURBO, XL, "any-name"])
def test_the_estimate_of_memory_holds_for_the_loaded_engine(
    tmp_path: Path, written: dict[str, Path], name: str
) -> None:
    for folder in written.values():
        shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    family = locate(tmp_path)
    engine = family.load(name, device="cpu")
    estimate = family.memory_bytes(name)
    assert 0.99 * estimate <= family.engine_bytes(engine) <= 1.01 * estimate + 10_000
    print(f"{name}: estimate {estimate}, engine {family.engine_bytes(engine)}, reached {count_tensor_bytes(engine)}")
    assert count_tensor_bytes(engine) <= 1.15 * estimate


def test_estimates_for_the_published_sizes_are_those_of_their_parameters() -> None:
    """By the counts of the note: 6.3 GB and 11.5 GB on a GPU, with text encoder and VAE; twice that before Ampere."""
    hub = HuggingFaceHub()
    ampere, turing = (Gpu("a card", 24 * GIBIBYTE, 24 * GIBIBYTE, capability) for capability in ((8, 0), (7, 5)))
    on_gpu = AceStepFamily(WeightLocations(hub=hub), gpu_finder=lambda: ampere)
    in_float32 = AceStepFamily(WeightLocations(hub=hub), gpu_finder=lambda: turing)
    assert in_float32.memory_bytes(TURBO) == 2 * on_gpu.memory_bytes(TURBO)
    assert round(on_gpu.memory_bytes(TURBO) / 1e9, 1) == 6.3
    assert round(on_gpu.memory_bytes(XL) / 1e9, 1) == 11.5
    on_cpu = AceStepFamily(WeightLocations(hub=hub)).memory_bytes(TURBO)
    assert round(on_cpu / 1e9, 1) == (6.7 if cpu_multiplies_bfloat16() else 12.6)


def test_the_cache_loads_a_model_once_and_again_when_its_files_change(root: Path) -> None:
    from models.acestep.engine import AceStepEngine

    family = locate(root)
    models = make_models()
    handle = family.resolve(TURBO)
    first = models.run(handle, lambda engine: engine)
    assert isinstance(first, AceStepEngine)
    assert models.run(handle, lambda engine: engine) is first
    os.utime(root / "vae" / "config.json", (1, 1))
    assert models.run(handle, lambda engine: engine) is not first


def test_an_engine_is_warmed_up(root: Path) -> None:
    family = locate(root)
    engine = family.load(TURBO, device="cpu")
    family.warm_up(engine)
    assert not family.needs_restart(engine)
    family.free_memory(engine)


def test_weights_that_break_while_they_are_loaded_end_in_a_request_error(root: Path) -> None:
    weights = root / TURBO / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-10])
    with pytest.raises(RequestError):
        locate(root).load(TURBO, device="cpu")
