"""Checkpoints on disk: their search, what is known of them without torch, and which are refused."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml  # type: ignore[import-untyped]

from errors import InvalidRequestError, ModelError, RequestError, UnknownNameError
from models.checkpoints.errors import CheckpointError
from models.checkpoints.hub import HuggingFaceHub
from models.checkpoints.locations import WeightLocations
from models.musicgen import MusicGenFamily
from models.musicgen.catalog import BY_NAME, CATALOG, find_catalog_name
from models.musicgen.inspect import (
    AUDIOCRAFT_LIMITS,
    CODEC_FILE,
    LM_FILE,
    inspect_checkpoint,
    read_package,
    report_part,
)
from models.musicgen.load import load_engine
from models.musicgen.request import GenerationRequest
from testing.dispatch import answer
from testing.fake_hub import FolderHub, into_cache, start_fake_hub
from testing.models import list_as_json, make_models
from testing.repository import ROOT
from testing.tiny_musicgen import Shape, write_checkpoint, write_codec_pointer, write_hub_codec, write_t5
from worker.settings import Settings

NOWHERE = Path("/nonexistent")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("original") / "tiny")


@pytest.fixture
def checkpoint(original: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(original, tmp_path / "models" / "tiny"))


def family_of(weights: WeightLocations, demo: Path = NOWHERE) -> MusicGenFamily:
    return MusicGenFamily(weights, demo=demo)


def row(family: MusicGenFamily, name: str) -> dict[str, Any]:
    return family.describe(name).to_json()


def test_every_published_model_has_a_row_with_its_licence() -> None:
    listed = list_as_json(family_of(WeightLocations(hub=FolderHub({}, NOWHERE))))
    assert {row["name"] for row in listed} == set(BY_NAME)
    for row_of in listed:
        assert row_of["licence"] == "CC-BY-NC 4.0"
        assert set(row_of) >= {"family", "sample_rate", "channels", "conditioning", "available"}
    assert {row_of["available"] for row_of in listed if row_of["name"] != "style"} == {"download"}


def test_offline_and_without_files_a_row_says_so() -> None:
    assert "offline" in row(family_of(WeightLocations()), "small")["available"]
    assert "audiocraft 1.4" in row(family_of(WeightLocations()), "style")["available"]
    assert "MODELS_DIR" in family_of(WeightLocations()).readiness().reason


@pytest.mark.parametrize("name", ["small", "musicgen-small", "facebook/musicgen-small"])
def test_a_model_has_one_name_however_it_is_spelt(name: str) -> None:
    assert family_of(WeightLocations(hub=FolderHub({}, NOWHERE))).resolve(name).name == "small"


def test_catalog_names_are_unique_and_their_own() -> None:
    assert [find_catalog_name(entry.name) for entry in CATALOG] == [entry.name for entry in CATALOG] == list(BY_NAME)


def test_a_local_folder_is_described_by_its_files(checkpoint: Path) -> None:
    family = family_of(WeightLocations(explicit=checkpoint.parent))
    told = row(family, "tiny")
    assert told["available"] == "local"
    assert (told["sample_rate"], told["channels"], told["window_s"]) == (16_000, 1, 2.0)
    assert told["conditioning"] == ["text"]
    assert family.resolve("tiny").name == "tiny" and family.readiness().is_ready


def test_folders_are_looked_at_anew_at_each_call(checkpoint: Path) -> None:
    family = family_of(WeightLocations(explicit=checkpoint.parent))
    assert "tiny" in {model.name for model in family.list_models()}
    checkpoint.rename(checkpoint.parent / "other")
    assert {"other"} == {model.name for model in family.list_models()} - set(BY_NAME)


@pytest.mark.parametrize(
    "name",
    [
        "../tiny",
        "..",
        "a/../../tiny",
        "/etc/passwd",
        "tiny\0",
        "tiny/../tiny",
        ".hidden",
        "a//b",
        "a\\b",
        "",
        "a/b/c/d",
    ],
)
def test_a_name_that_is_no_folder_below_the_model_paths_is_refused(checkpoint: Path, name: str) -> None:
    family = family_of(WeightLocations(explicit=checkpoint.parent / "tiny", folders=(checkpoint.parent,)))
    with pytest.raises(InvalidRequestError) as refused:
        family.resolve(name)
    assert str(checkpoint.parent) not in refused.value.message


def test_a_link_out_of_the_model_paths_is_not_followed(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "models_dir").mkdir()
    (tmp_path / "models_dir" / "outside").symlink_to(checkpoint)
    with pytest.raises(UnknownNameError):
        family_of(WeightLocations(explicit=tmp_path / "models_dir")).resolve("outside")


def test_an_unknown_model_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'stereo-melody'"):
        family_of(WeightLocations()).resolve("stereo-melodie")


def test_weights_are_found_in_the_promised_order(original: Path, tmp_path: Path) -> None:
    hub_id = "facebook/musicgen-small"
    explicit, cache, mount, volume, baked = (tmp_path / name for name in ("explicit", "hf", "mount", "volume", "baked"))
    weights = WeightLocations(explicit=explicit, hub_caches=(cache, mount), folders=(volume, baked))
    find: Callable[[], Path | None] = lambda: weights.find(("small",), (hub_id,), (LM_FILE, CODEC_FILE))  # noqa: E731
    assert find() is None
    puts: tuple[tuple[Path, Callable[[], object]], ...] = (
        (baked, lambda: shutil.copytree(original, baked / "small")),
        (volume, lambda: shutil.copytree(original, volume / "small")),
        (mount, lambda: into_cache(original, mount, hub_id)),
        (cache, lambda: into_cache(original, cache, hub_id)),
        (explicit, lambda: shutil.copytree(original, explicit / "small")),
    )
    for place, put in puts:
        put()
        found = find()
        assert found is not None and found.is_relative_to(place)
    assert weights.search_paths() == [str(path) for path in (explicit, cache, mount, volume, baked)]


def test_the_cached_snapshot_is_the_one_that_refs_main_names(original: Path, tmp_path: Path) -> None:
    hub_id = "facebook/musicgen-small"
    into_cache(original, tmp_path, hub_id, "f" * 40)
    into_cache(original, tmp_path, hub_id, "a" * 40)
    found = WeightLocations(hub_caches=(tmp_path,)).find((), (hub_id,), (LM_FILE,))
    assert found is not None and found.name == "a" * 40


def test_the_default_is_the_best_model_here_and_the_demo_last(original: Path, tmp_path: Path) -> None:
    models_dir, demo = tmp_path / "models_dir", Path(shutil.copytree(original, tmp_path / "demo"))
    family = family_of(WeightLocations(explicit=models_dir, hub=FolderHub({}, NOWHERE)), demo)
    order = ["demo", "mine", "small", "stereo-medium", "medium", "large"]
    assert family.resolve(None).name == family.resolve("demo").name == "demo"
    for name in order[1:]:
        shutil.copytree(original, models_dir / name)
        assert family.resolve(None).name == name


def test_a_better_model_that_is_broken_is_named_beside_the_one_that_answers(original: Path, tmp_path: Path) -> None:
    for name in ("large", "medium", "small"):
        shutil.copytree(original, tmp_path / "models_dir" / name)
    family = family_of(WeightLocations(explicit=tmp_path / "models_dir"))
    (tmp_path / "models_dir" / "small" / CODEC_FILE).unlink()  # nobody would have been given it
    assert family.resolve(None).name == "large" and family.resolve(None).warnings == ()
    (tmp_path / "models_dir" / "large" / CODEC_FILE).unlink()
    chosen = family.resolve(None)
    assert chosen.name == "medium" and len(chosen.warnings) == 1
    assert "'large' is here but cannot be used, so 'medium' was used" in chosen.warnings[0]
    assert CODEC_FILE in chosen.warnings[0] and chosen.warnings[0].endswith(".")


@pytest.mark.parametrize("online", [True, False])
def test_the_demo_does_not_answer_for_a_model_that_is_broken(original: Path, tmp_path: Path, online: bool) -> None:
    models_dir, demo = tmp_path / "models_dir", Path(shutil.copytree(original, tmp_path / "demo"))
    family = family_of(WeightLocations(explicit=models_dir, hub=FolderHub({}, NOWHERE) if online else None), demo)
    shutil.copytree(original, models_dir / "mine")
    (models_dir / "mine" / CODEC_FILE).write_bytes(b"")
    with pytest.raises(ModelError, match=f"'mine', cannot be used: The part {CODEC_FILE}") as refused:
        family.resolve(None)
    assert refused.value.error_code == "broken_checkpoint"
    assert refused.value.details == {"part": CODEC_FILE, "model": "mine"}
    assert family.resolve("demo").name == "demo"
    shutil.copytree(original, models_dir / "small")
    assert family.resolve(None).name == "small"


def test_a_model_whose_parts_are_still_to_be_fetched_comes_after_complete_ones_and_before_the_demo(
    original: Path, tmp_path: Path
) -> None:
    models_dir, demo = tmp_path / "models_dir", Path(shutil.copytree(original, tmp_path / "demo"))
    shutil.copytree(original, models_dir / "large")
    shutil.rmtree(models_dir / "large" / "t5")
    online = family_of(WeightLocations(explicit=models_dir, hub=FolderHub({}, NOWHERE)), demo)
    assert online.resolve(None).name == "large"
    with pytest.raises(ModelError, match="its part t5-base is not"):
        family_of(WeightLocations(explicit=models_dir), demo).resolve(None)
    shutil.copytree(original, models_dir / "small")
    assert online.resolve(None).name == "small"


def test_a_model_of_another_kind_does_not_stand_in_the_way_of_the_demo(original: Path, tmp_path: Path) -> None:
    demo = Path(shutil.copytree(original, tmp_path / "demo"))
    shutil.copytree(original, tmp_path / "models_dir" / "audiogen-medium")
    (tmp_path / "models_dir" / "audiogen-medium" / CODEC_FILE).unlink()
    family = family_of(WeightLocations(explicit=tmp_path / "models_dir"), demo)
    assert family.resolve(None).name == "demo"
    shutil.copytree(original, tmp_path / "models_dir" / "style")  # which is not run, whatever its files are
    with pytest.raises(ModelError, match="'style'"):
        family.resolve(None)


def test_the_default_for_a_melody_is_a_melody_model(original: Path, tmp_path: Path) -> None:
    shutil.copytree(original, tmp_path / "large")
    family = family_of(WeightLocations(explicit=tmp_path))
    with pytest.raises(ModelError, match="melody"):
        family.resolve(None, conditioning="melody")
    write_checkpoint(tmp_path / "melody", Shape(melody=True))
    assert family.resolve(None, conditioning="melody").name == "melody"
    assert family.resolve(None).name == "large"


@pytest.mark.parametrize(
    ("breakage", "part"),
    [
        (lambda folder: (folder / CODEC_FILE).unlink(), CODEC_FILE),
        (lambda folder: (folder / LM_FILE).write_bytes((folder / LM_FILE).read_bytes()[:5000]), LM_FILE),
        (lambda folder: (folder / LM_FILE).write_bytes(b""), LM_FILE),
        (lambda folder: (folder / CODEC_FILE).write_bytes(b"PK\x03\x04 no zip"), CODEC_FILE),
        (lambda folder: torch.save([1, 2], folder / LM_FILE), LM_FILE),
        (lambda folder: torch.save({"best_state": {}, "xp.cfg": "a: [", "x": 1}, folder / LM_FILE), LM_FILE),
        (lambda folder: torch.save({"best_state": {}, "xp.cfg": "lm_model: x"}, folder / LM_FILE), LM_FILE),
        (lambda folder: torch.save({"xp.cfg": "a: 1"}, folder / LM_FILE), LM_FILE),
        (lambda folder: edit(folder / LM_FILE, "n_q: 4", "n_q: 3"), LM_FILE),
        (lambda folder: edit(folder / LM_FILE, "card: 32", "card: 64"), LM_FILE),
        (lambda folder: edit(folder / LM_FILE, "num_layers: 2", "num_layers: 3"), LM_FILE),
        (lambda folder: edit(folder / LM_FILE, "model: t5", "model: clap"), LM_FILE),
        (lambda folder: edit(folder / CODEC_FILE, "n_q: 4", "n_q: 2"), CODEC_FILE),
        (lambda folder: edit(folder / CODEC_FILE, "bins: 32", "bins: 64"), CODEC_FILE),
        (lambda folder: write_codec_pointer(folder, "dac_44khz"), CODEC_FILE),
        (lambda folder: write_t5(folder / "t5", width=32), "t5"),
        (lambda folder: (folder / "t5" / "config.json").write_text("{"), "t5"),
        (lambda folder: (folder / "t5" / "config.json").write_text("[" * 100_000), "t5"),
        (lambda folder: (folder / "t5" / "config.json").write_text('{"d_model": 1e999}'), "t5"),
        (lambda folder: edit(folder / LM_FILE, "n_q: 4", "n_q: .inf"), LM_FILE),
        (lambda folder: edit(folder / LM_FILE, "n_q: 4", "n_q: .nan"), LM_FILE),
        (lambda folder: edit(folder / LM_FILE, "n_q: 4", f"n_q: 0x{'f' * 5000}"), LM_FILE),
        (lambda folder: edit(folder / LM_FILE, "n_q: 4", f"n_q: {'[' * 3000}"), LM_FILE),
        (lambda folder: edit(folder / LM_FILE, "segment_duration: 2.0", f"segment_duration: {10**400}"), LM_FILE),
        (lambda folder: edit(folder / LM_FILE, "model: t5", "model: [t5]"), LM_FILE),
        (lambda folder: edit(folder / LM_FILE, "name: t5-base", "name: ../../secret"), LM_FILE),
        (lambda folder: edit(folder / LM_FILE, "name: t5-base", "name: someone/any-repository"), LM_FILE),
        (lambda folder: edit(folder / CODEC_FILE, "n_q: 4", "n_q: {n_q: 4}"), CODEC_FILE),
        (lambda folder: write_broken_codec(folder, target_bandwidths=[float("inf")]), "encodec_32khz"),
        (lambda folder: write_broken_codec(folder, target_bandwidths=[float("nan")]), "encodec_32khz"),
        (lambda folder: write_broken_codec(folder, target_bandwidths=[]), "encodec_32khz"),
        (lambda folder: write_broken_codec(folder, upsampling_ratios=[1 << 20] * 4000), "encodec_32khz"),
        (lambda folder: write_broken_codec(folder, sampling_rate=10**400), "encodec_32khz"),
        (lambda folder: write_broken_codec(folder, chunk_length_s=1.0, overlap=0.01), "encodec_32khz"),
    ],
)
def test_a_missing_broken_or_mismatching_part_is_named_before_anything_is_loaded(
    checkpoint: Path, breakage: Callable[[Path], Any], part: str
) -> None:
    breakage(checkpoint)
    family = family_of(WeightLocations(explicit=checkpoint.parent))
    with pytest.raises(ModelError) as refused:
        family.resolve("tiny")
    assert refused.value.details["part"] == part and part in refused.value.message
    assert str(checkpoint.parent) not in refused.value.message
    assert row(family, "tiny")["available"] == refused.value.message


def write_broken_codec(folder: Path, **changes: Any) -> None:
    """Replaces the checkpoint's codec by one in transformers' format with `changes` in its config.json."""
    write_codec_pointer(folder)
    path = write_hub_codec(folder / "encodec_32khz") / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit(path: Path, old: str, new: str) -> None:
    package = torch.load(path, weights_only=True)
    assert old in package["xp.cfg"]
    torch.save(package | {"xp.cfg": package["xp.cfg"].replace(old, new)}, path)


@pytest.mark.parametrize(
    ("file", "old", "new", "reason"),
    [
        (LM_FILE, "num_heads: 4", "num_heads: many", "transformer_lm.num_heads"),
        (LM_FILE, "num_heads: 4", "num_heads: 5", "5 heads"),
        (LM_FILE, "causal: true", "causal: false", "causal"),
        (CODEC_FILE, "n_filters: 2", "n_filters: -1", "n_filters"),
        (CODEC_FILE, "n_filters: 2", "n_filters: 3", "and not"),
        (LM_FILE, "num_heads: 4", "num_heads: '${oc.env:HEADS}'", r"\$\{oc.env:HEADS\}"),
    ],
)
def test_a_setting_that_cannot_be_is_named_when_the_engine_is_loaded(
    checkpoint: Path, file: str, old: str, new: str, reason: str
) -> None:
    edit(checkpoint / file, old, new)
    with pytest.raises(ModelError, match=reason) as refused:
        load_engine(inspect_checkpoint(checkpoint, WeightLocations()), device="cpu")
    assert refused.value.error_code == "broken_checkpoint" and refused.value.details["part"] == file


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("t5/model.safetensors", b"no tensors"),
        ("t5/tokenizer.json", b"{}"),
        ("t5/tokenizer.json", b"[" * 100_000),
        ("encodec_32khz/model.safetensors", b"no tensors"),
    ],
)
def test_a_broken_file_of_a_part_is_named_when_the_engine_is_loaded(
    checkpoint: Path, file: str, content: bytes
) -> None:
    write_codec_pointer(checkpoint)
    write_hub_codec(checkpoint / "encodec_32khz")
    (checkpoint / file).write_bytes(content)
    with pytest.raises(ModelError) as refused:
        load_engine(inspect_checkpoint(checkpoint, WeightLocations()), device="cpu")
    part, _, name = file.partition("/")
    assert refused.value.error_code == "broken_checkpoint" and refused.value.details["part"] == part
    assert f"The part {part} of the checkpoint 'tiny'" in refused.value.message and name in refused.value.message


def test_a_file_with_an_index_of_implausible_size_is_refused(checkpoint: Path) -> None:
    """Inspecting it would take minutes, at every list_models."""
    limit = AUDIOCRAFT_LIMITS.max_index_bytes
    for size, reason in ((limit + 1, "implausibly long"), (limit, "damaged|never writes")):
        with zipfile.ZipFile(checkpoint / LM_FILE, "w") as archive:
            archive.writestr("archive/data.pkl", bytes(size))
        with pytest.raises(ModelError, match=reason):
            inspect_checkpoint(checkpoint, WeightLocations())


@pytest.mark.parametrize("bug", [AttributeError, TypeError, KeyError, IndexError, AssertionError, RuntimeError])
def test_a_bug_while_loading_is_not_reported_as_a_broken_checkpoint(bug: type[Exception], tmp_path: Path) -> None:
    with pytest.raises(bug), report_part(tmp_path, LM_FILE):
        raise bug


class Payload:
    """Pickled, it asks for a call when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch pwned",)


def test_a_pickle_with_code_is_refused_and_not_run(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkpoint)
    torch.save({"best_state": {}, "xp.cfg": "a: 1", "extra": Payload()}, checkpoint / LM_FILE)
    with pytest.raises(ModelError, match="carries code") as refused:
        family_of(WeightLocations(explicit=checkpoint.parent)).resolve("tiny")
    assert refused.value.error_code == "unsafe_checkpoint"
    assert not (checkpoint / "pwned").exists()


def test_any_bytes_are_a_checkpoint_or_refused(tmp_path: Path, original: Path) -> None:
    """Every byte of the index flipped in turn: either it still reads, or it is one of the two refusals."""
    with zipfile.ZipFile(original / CODEC_FILE) as archive:
        index = next(archive.read(name) for name in archive.namelist() if name.endswith("/data.pkl"))
    for position in range(0, len(index), max(len(index) // 300, 1)):
        broken = bytearray(index)
        broken[position] ^= 0xFF
        with zipfile.ZipFile(tmp_path / "broken.bin", "w") as archive:
            archive.writestr("archive/data.pkl", bytes(broken))
        with contextlib.suppress(CheckpointError):
            read_package(tmp_path / "broken.bin")


def test_a_pickle_that_is_no_torch_file_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "plain.bin").write_bytes(pickle.dumps({"best_state": {}}))
    with pytest.raises(CheckpointError):
        read_package(tmp_path / "plain.bin")


def test_inspecting_a_file_reads_shapes_and_sizes_of_its_tensors(original: Path) -> None:
    tensor = read_package(original / LM_FILE).state["emb.0.weight"]
    assert (tensor.shape, tensor.nbytes) == ((33, 32), 33 * 32 * 2)


def test_describing_checkpoints_imports_no_torch(original: Path) -> None:
    code = (
        "import sys, pathlib\n"
        "from models.registry import build\n"
        f"family = build(models_dir=pathlib.Path({str(original.parent)!r})).families.music\n"
        "family.list_models(), family.readiness(), family.memory_bytes('tiny')\n"
        "assert family.resolve('tiny').name == 'tiny'\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_the_estimate_is_near_what_the_engine_takes(checkpoint: Path) -> None:
    family = family_of(WeightLocations(explicit=checkpoint.parent))
    engine = family.load("tiny", device="cpu")
    assert family.memory_bytes("tiny") == pytest.approx(engine.memory_bytes, rel=0.1)


def test_the_estimate_counts_a_text_encoder_that_is_not_here_yet(checkpoint: Path) -> None:
    """AudioGen's is t5-large, whose encoder takes 1.34 GB."""
    edit(checkpoint / LM_FILE, "name: t5-base", "name: t5-large")
    here = inspect_checkpoint(checkpoint, WeightLocations()).memory_bytes(weight_bytes=2)
    shutil.rmtree(checkpoint / "t5")
    there = inspect_checkpoint(checkpoint, WeightLocations()).memory_bytes(weight_bytes=2)
    assert here < 1e6 and there == pytest.approx(1.34e9, rel=0.01)
    of_large, of_base = (BY_NAME[name].memory_bytes(weight_bytes=2) for name in ("audiogen-medium", "medium"))
    assert of_large - of_base == pytest.approx((335 - 110) * 4e6)


def test_parts_that_are_not_here_are_fetched_and_the_engine_is_complete(checkpoint: Path, tmp_path: Path) -> None:
    shutil.move(checkpoint / "t5", tmp_path / "t5-base")
    cache = tmp_path / "hub"
    hub = FolderHub({"t5-base": tmp_path / "t5-base", "facebook/musicgen-small": checkpoint}, cache)
    family = family_of(WeightLocations(hub_caches=(cache,), hub=hub))
    assert row(family, "small")["available"] == "download"
    engine = family.load(family.resolve("small").name, device="cpu")
    assert hub.fetched == ["facebook/musicgen-small", "t5-base"]
    assert engine.generate(GenerationRequest(["slow piano"], [1], 0.5, 1.2)).clips[0].duration == 0.5
    assert row(family, "small")["available"] == "local"


def test_a_checkpoint_that_is_replaced_is_described_anew(checkpoint: Path, tmp_path: Path) -> None:
    """What was seen of a file is kept only while it stays as it is."""
    assert inspect_checkpoint(checkpoint, WeightLocations()).channels == 1
    other = write_checkpoint(tmp_path / "other", Shape(stereo=True))
    (other / LM_FILE).replace(checkpoint / LM_FILE)
    assert inspect_checkpoint(checkpoint, WeightLocations()).channels == 2
    (checkpoint / LM_FILE).write_bytes(b"no checkpoint")
    with pytest.raises(ModelError, match="cut short"):
        inspect_checkpoint(checkpoint, WeightLocations())


def test_a_part_that_cannot_be_fetched_is_named_before_loading(checkpoint: Path) -> None:
    shutil.rmtree(checkpoint / "t5")
    with pytest.raises(ModelError, match="t5-base") as refused:
        family_of(WeightLocations(explicit=checkpoint.parent)).resolve("tiny")
    assert refused.value.error_code == "model_incomplete"


def test_a_pointer_to_the_published_codec_takes_transformers_codec_beside_the_checkpoint(checkpoint: Path) -> None:
    write_codec_pointer(checkpoint)
    family = family_of(WeightLocations(explicit=checkpoint.parent))
    with pytest.raises(ModelError, match="4 streams of 2048"):  # as the published codec makes, which is not here
        family.resolve("tiny")
    write_hub_codec(checkpoint / "encodec_32khz")
    assert inspect_checkpoint(checkpoint, WeightLocations()).codec.codebooks == 4
    engine = family.load(family.resolve("tiny").name, device="cpu")
    made = engine.generate(GenerationRequest(["slow piano"], [1], 0.5, 1.2)).clips[0]
    assert made.num_samples == 8000 and made.peak > 0


def test_a_codec_of_another_shape_than_the_pointers_model_is_refused(checkpoint: Path) -> None:
    write_codec_pointer(checkpoint)
    write_hub_codec(checkpoint / "encodec_32khz", cardinality=64)
    with pytest.raises(ModelError, match="streams"):
        family_of(WeightLocations(explicit=checkpoint.parent)).resolve("tiny")


def test_a_published_model_is_downloaded_from_the_hub_with_its_parts(checkpoint: Path, tmp_path: Path) -> None:
    shutil.move(checkpoint / "t5", tmp_path / "t5-base")
    parts = [checkpoint / LM_FILE, checkpoint / CODEC_FILE, *(tmp_path / "t5-base").iterdir()]
    with start_fake_hub({path.name: path.read_bytes() for path in parts}) as server:
        hub = HuggingFaceHub(cache=tmp_path / "cache", endpoint=server.endpoint)
        family = family_of(WeightLocations(hub_caches=(tmp_path / "cache",), hub=hub))
        family.download("small")
    assert row(family, "small")["available"] == "local"
    assert len(server.sent) == len(set(server.sent)) and {LM_FILE, CODEC_FILE, "config.json"} <= set(server.sent)


def test_every_refusal_is_a_request_error(checkpoint: Path) -> None:
    (checkpoint / CODEC_FILE).unlink()
    with pytest.raises(RequestError):
        family_of(WeightLocations(explicit=checkpoint.parent)).load("tiny", device="cpu")


SECRET = "sk-SECRET-123"
SECRET_REFERENCE = "${oc.env:SUNO_API_TOKEN}"


def list_settings(values: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every setting that is no section."""
    for name, value in values.items():
        yield from list_settings(value, (*path, name)) if isinstance(value, dict) else [(*path, name)]


def write_setting(path: Path, setting: tuple[str, ...], value: Any) -> None:
    package = torch.load(path, weights_only=True)
    values = yaml.safe_load(package["xp.cfg"])
    section = values
    for name in setting[:-1]:
        section = section[name]
    section[setting[-1]] = value
    torch.save(package | {"xp.cfg": yaml.safe_dump(values)}, path)


def test_an_export_loads_although_its_settings_name_the_user(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every export of audiocraft has `dora.dir: /checkpoint/${oc.env:USER}/...`; a container has no USER."""
    monkeypatch.delenv("USER", raising=False)
    assert "${oc.env:USER}" in torch.load(checkpoint / LM_FILE, weights_only=True)["xp.cfg"]
    family = family_of(WeightLocations(explicit=checkpoint.parent))
    assert row(family, "tiny")["available"] == "local"
    engine = family.load(family.resolve(None).name, device="cpu")
    assert engine.generate(GenerationRequest(["slow piano"], [1], 0.5, 1.2)).clips[0].peak > 0


@pytest.mark.parametrize("file", [LM_FILE, CODEC_FILE])
def test_no_setting_of_a_checkpoint_reveals_the_environment(
    checkpoint: Path, file: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever setting refers to a secret, it is in no reply, no log and no request to the hub."""
    monkeypatch.setenv("SUNO_API_TOKEN", SECRET)
    caplog.set_level(0)
    original_file = (checkpoint / file).read_bytes()
    hub = FolderHub({"t5-base": checkpoint / "t5"}, checkpoint.parent / "cache")
    families = [family_of(WeightLocations(explicit=checkpoint.parent, hub=online)) for online in (None, hub)]
    refused = 0
    for setting in list_settings(yaml.safe_load(torch.load(checkpoint / file, weights_only=True)["xp.cfg"])):
        (checkpoint / file).write_bytes(original_file)
        write_setting(checkpoint / file, setting, SECRET_REFERENCE)
        for family in families:
            replies: list[Any] = [row(family, "tiny")]
            try:
                family.load(family.resolve("tiny").name, device="cpu")
            except RequestError as error:
                refused += 1
                replies.append(error.to_reply())
            assert SECRET not in json.dumps(replies), setting
    assert refused > 20 and SECRET not in caplog.text and not hub.fetched


def test_a_part_that_is_named_by_the_environment_is_asked_of_nobody(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The names of the text encoder and of the codec would go to the hub."""
    monkeypatch.setenv("SUNO_API_TOKEN", SECRET)
    caplog.set_level(0)
    shutil.rmtree(checkpoint / "t5")
    hub = FolderHub({}, checkpoint.parent / "cache")
    models = make_models(music=family_of(WeightLocations(explicit=checkpoint.parent, hub=hub)))
    lm, codec = (checkpoint / LM_FILE).read_bytes(), (checkpoint / CODEC_FILE).read_bytes()
    name = ("conditioners", "description", "t5", "name")
    breakages: tuple[tuple[Callable[[], None], str], ...] = (
        (lambda: write_setting(checkpoint / LM_FILE, name, SECRET_REFERENCE), "text encoder"),
        (lambda: write_setting(checkpoint / LM_FILE, name, "someone/" + SECRET_REFERENCE), "text encoder"),
        (lambda: write_codec_pointer(checkpoint, SECRET_REFERENCE), "points to a codec other than"),
        (lambda: write_codec_pointer(checkpoint, "someone/else"), "points to a codec other than"),
    )
    for break_part, reason in breakages:
        (checkpoint / LM_FILE).write_bytes(lm)
        (checkpoint / CODEC_FILE).write_bytes(codec)
        break_part()
        listed = answer({"id": "a", "input": {"operation": "list_models"}}, settings=Settings(), models=models)
        with pytest.raises(ModelError, match=reason) as refused:
            answer(
                {"id": "b", "input": {"operation": "generate_music", "model": "tiny", "prompt": "slow piano"}},
                settings=Settings(),
                models=models,
            )
        assert refused.value.error_code == "broken_checkpoint"
        assert SECRET not in json.dumps([listed, refused.value.to_reply()])
    assert SECRET not in caplog.text and not hub.fetched


@pytest.mark.parametrize("name", ["t5-large", "google-t5/t5-base", "google/flan-t5-small"])
def test_the_text_encoders_that_audiocraft_knows_are_asked_of_the_hub(checkpoint: Path, name: str) -> None:
    edit(checkpoint / LM_FILE, "name: t5-base", f"name: {name}")
    shutil.rmtree(checkpoint / "t5")
    assert inspect_checkpoint(checkpoint, WeightLocations()).to_fetch == (name.removeprefix("google-t5/"),)
