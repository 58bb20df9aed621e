"""Which RoFormer models are found, what is told of them, and that one is loaded and runs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from errors import ErrorCode, ModelError, UnknownNameError
from models.bake import bake
from models.checkpoints.hub import HuggingFaceHub
from models.checkpoints.locations import WeightLocations
from models.checkpoints.releases import GitHubReleases, Release
from models.checkpoints.settings import Settings
from models.demucs.family import DemucsFamily
from models.family import DOWNLOAD, LOCAL, READY
from models.roformer.catalog import CATALOG, DEFAULT_MODEL, NONE_PUBLISHED, ModelCard
from models.roformer.checkpoint import read_settings
from models.roformer.config import read_config
from models.roformer.family import RoformerFamily
from models.separation import Role, SeparationModelInfo
from testing import tiny_demucs
from testing.fake_hub import start_fake_hub
from testing.loopback import Request, Write, respond_with, serve
from testing.models import make_models
from testing.tiny_roformer import Shape, make_state, write_roformer
from tests.models.roformer.test_checkpoint import SMALL

KARAOKE = "model_mel_band_roformer_karaoke_aufr33_viperx_sdr_10.1956"


def test_models_are_found_below_the_folders_of_models_and_of_separators(tmp_path: Path) -> None:
    _write(tmp_path / "first")
    _write(tmp_path / "separators" / "second", name="any name", suffix=".safetensors")
    _write(tmp_path / "third", name="another", suffix=".safetensors")
    family = _family(tmp_path)
    assert [model.name for model in family.list_models()] == [*CATALOG, "first", "second", "third"]
    for name in ("first", "second", "third"):
        assert family.describe(name).availability == LOCAL
        assert family.resolve(name).name == name
        assert family.knows(name)
    assert family.readiness() == READY


def test_the_first_folder_of_models_that_has_it_counts(tmp_path: Path) -> None:
    _write(tmp_path / "a" / "one", stems=("vocals", "other"))
    _write(tmp_path / "b" / "separators" / "one", stems=("drums", "bass"))
    family = RoformerFamily(WeightLocations(explicit=tmp_path / "a", folders=(tmp_path / "b",)))
    assert family.describe("one").stems == ("vocals", "other")


def test_a_model_of_the_catalogue_is_found_under_its_name_and_its_alias(tmp_path: Path) -> None:
    for folder in (KARAOKE, "separators/karaoke"):
        root = tmp_path / folder.replace("/", "-")
        _write(root / folder, stems=("karaoke", "other"), target="karaoke")
        family = _family(root)
        assert family.resolve("karaoke").name == family.resolve(KARAOKE).name == KARAOKE
        info = family.describe("karaoke")
        assert (info.role, info.licence, info.availability) == ("karaoke", NONE_PUBLISHED, LOCAL)
        assert info.stems == ("karaoke", "other")
        assert [model.name for model in family.list_models()] == list(CATALOG)


def test_a_file_of_another_size_under_a_published_name_does_not_get_its_licence(tmp_path: Path) -> None:
    _write(tmp_path / "mega53")
    info = _family(tmp_path).describe("mega53")
    assert info.name == DEFAULT_MODEL
    assert info.licence == "unknown"


def test_what_is_on_record_about_licences_is_shown_of_models_that_are_not_here(tmp_path: Path) -> None:
    family = _family(tmp_path)
    rows = {model.name: model.to_json() for model in family.list_models()}
    assert rows[DEFAULT_MODEL]["licence"] == "MIT"
    assert "2026-09-25" in rows[DEFAULT_MODEL]["licence_note"]
    assert rows["kim"]["licence"] == "GPL-3.0"
    assert rows["kim"]["available"].startswith("not here, and downloads are off: put its .ckpt")
    assert not family.readiness().is_ready
    assert [name for name, card in CATALOG.items() if card.has_clear_licence] == [DEFAULT_MODEL]


def test_a_request_without_a_name_never_gets_a_model_without_a_clear_licence(tmp_path: Path) -> None:
    _write(tmp_path / "kim")
    family = _family(tmp_path)
    with pytest.raises(ModelError, match="not here") as caught:
        family.resolve(None)
    assert caught.value.error_code == ErrorCode.MODEL_UNAVAILABLE
    _write(tmp_path / "separators" / "mega53")
    assert family.resolve(None).name == DEFAULT_MODEL


@pytest.mark.parametrize("name", ["nothing", "../kim", "", "separators"])
def test_other_names_are_unknown(tmp_path: Path, name: str) -> None:
    _write(tmp_path / "separators" / "one")
    with pytest.raises(UnknownNameError):
        _family(tmp_path).resolve(name)


@pytest.mark.parametrize(
    ("stems", "target", "folder", "role"),
    [
        (("vocals", "other"), "vocals", "a", "vocals"),
        (("Vocals", "Instrumental"), None, "a", "vocals"),
        (("vocals", "instrumental"), "instrumental", "a", "stems"),
        (("karaoke", "other"), "karaoke", "a", "karaoke"),
        (("Vocals", "Instrumental"), None, "becruily_Karaoke", "karaoke"),
        (("lead", "back"), None, "a", "karaoke"),
        (("lead-vocal", "back-vocal"), "lead-vocal", "a", "karaoke"),
        (("noreverb", "reverb"), "noreverb", "a", "dereverb"),
        (("dry", "reverb"), "dry", "a", "dereverb"),
        (("dry", "other"), "dry", "a", "denoise"),
        (("drums", "bass", "other", "vocals"), None, "a", "stems"),
        (("back-vocal", "bass", "lead-vocal", "vocal"), None, "a", "stems"),
        (("bass", "other"), "bass", "a", "stems"),
    ],
)
def test_the_role_follows_from_the_stems_and_the_name(
    tmp_path: Path, stems: tuple[str, ...], target: str | None, folder: str, role: Role
) -> None:
    _write(tmp_path / folder, stems=stems, target=target)
    assert _family(tmp_path).describe(folder).role == role


def test_a_file_beside_the_weights_states_the_role(tmp_path: Path) -> None:
    folder = _write(tmp_path / "a", stems=("vocals", "instrumental")).parent
    (folder / "role.json").write_text('{"role": "karaoke"}')
    assert _family(tmp_path).describe("a").role == "karaoke"
    for content in ('{"role": "singer"}', "[]", "{", "[" * 5000):
        (folder / "role.json").write_text(content)
        with pytest.raises(ModelError, match=r"'role\.json'"):
            _family(tmp_path).describe("a")


def test_a_broken_model_is_listed_with_the_reason_beside_intact_ones(tmp_path: Path) -> None:
    _write(tmp_path / "good")
    _write(tmp_path / "bad").write_bytes(b"PK\x03\x04")
    _write(tmp_path / "separators" / "alone").with_suffix(".yaml").unlink()
    _write(tmp_path / "other", state={"encoder.weight": torch.zeros(2)})
    rows = {model.name: model for model in _family(tmp_path).list_models()}
    assert rows["good"].availability == LOCAL
    assert "'bad.ckpt'" in rows["bad"].availability.reason
    assert "one .yaml file beside the weights, and has 0" in rows["alone"].availability.reason
    assert "another network" in rows["other"].availability.reason


def test_of_several_weights_those_with_the_folders_name_count(tmp_path: Path) -> None:
    _write(tmp_path / "a", stems=("drums", "bass"))
    _write(tmp_path / "a", name="old")
    assert _family(tmp_path).describe("a").stems == ("drums", "bass")
    (tmp_path / "a" / "a.ckpt").rename(tmp_path / "a" / "new.ckpt")
    with pytest.raises(ModelError, match=r"one \.ckpt or \.safetensors file, and has 2"):
        _family(tmp_path).describe("a")


def test_folders_of_demucs_are_left_to_demucs_and_the_other_way_round(tmp_path: Path) -> None:
    _write(tmp_path / "mel", suffix=".safetensors")
    tiny_demucs.save_bag(tmp_path / "bag", {"0": tiny_demucs.htdemucs()})
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "model.safetensors").write_bytes(b"")
    roformer, demucs = _family(tmp_path), DemucsFamily(WeightLocations(explicit=tmp_path))
    aliases = {alias for card in CATALOG.values() for alias in card.aliases}
    assert set(roformer.names()) - set(CATALOG) - aliases == {"mel"}
    assert "mel" not in demucs.names()
    assert "bag" in demucs.names()


def test_the_estimate_of_memory_counts_the_stems_that_a_request_computes(tmp_path: Path) -> None:
    few = _write(tmp_path / "few")
    many = _write(tmp_path / "many", stems=[f"stem {index}" for index in range(40)])
    family = _family(tmp_path)
    assert family.memory_bytes("few") == few.stat().st_size
    assert family.memory_bytes("many") == many.stat().st_size // 10


def test_another_version_of_the_files_has_another_key(tmp_path: Path) -> None:
    weights = _write(tmp_path / "a")
    family = _family(tmp_path)
    before = family.version_key("a")
    assert family.version_key("a") == before
    weights.with_suffix(".yaml").write_text(weights.with_suffix(".yaml").read_text() + "\n")
    assert family.version_key("a") != before


def test_a_loaded_model_has_the_stems_that_its_description_names(tmp_path: Path) -> None:
    _write(tmp_path / "a", target="vocals")
    family = _family(tmp_path)
    separator = family.load("a", device="cpu")
    assert separator.stems == family.describe("a").stems == ("vocals", "other")
    assert separator.memory_bytes > 0
    family.warm_up(separator)


def test_a_model_whose_weights_are_no_numbers_is_not_loaded(tmp_path: Path) -> None:
    state = make_state(Shape(num_stems=2, **SMALL))
    state["layers.0.0.norm.gamma"][2] = float("inf")
    _write(tmp_path / "a", state=state)
    with pytest.raises(ModelError, match=r"'a\.ckpt' .* not finite"):
        _family(tmp_path).load("a", device="cpu")


def test_descriptions_are_plain_json(tmp_path: Path) -> None:
    _write(tmp_path / "a", target="vocals")
    rows: list[SeparationModelInfo] = _family(tmp_path).list_models()
    assert json.loads(json.dumps([row.to_json() for row in rows]))[-1]["role"] == "vocals"


HUB_ID = "org/tiny"


def _make_card(weights: Path, **more: Any) -> ModelCard:
    data = weights.read_bytes()
    return replace(
        ModelCard(role="vocals", about="Tiny.", licence="MIT", licence_note="On record.", stems=("vocals", "other")),
        weights_file=weights.name,
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        **more,
    )


def _make_tiny(folder: Path) -> tuple[Path, dict[str, Any]]:
    """A model's weights, and what its yaml states."""
    weights = _write(folder, target="vocals")
    yaml = weights.with_suffix(".yaml")
    settings = dict(read_settings(yaml).values)
    return weights, settings


def test_a_model_known_by_its_hub_id_is_downloaded_checked_and_runs_without_a_yaml(tmp_path: Path) -> None:
    weights, settings = _make_tiny(tmp_path / "published")
    card = _make_card(weights, hub_id=HUB_ID, settings=settings)
    with start_fake_hub({weights.name: weights.read_bytes(), "other.ckpt": b"not asked for"}) as server:
        cache = tmp_path / "cache"
        hub = HuggingFaceHub(cache=cache, endpoint=server.endpoint)
        family = RoformerFamily(WeightLocations(hub_caches=(cache,), hub=hub), {"tiny": card})
        row = family.describe("tiny")
        assert (row.availability, row.stems, row.download_bytes) == (DOWNLOAD, ("vocals", "other"), card.size)
        assert family.memory_bytes("tiny") == card.size and server.asked == []
        handle = family.resolve("tiny")
        family.download(handle.name)
        assert server.sent == [weights.name]
        separator = family.load("tiny", device="cpu")
        assert separator.stems == family.describe("tiny").stems == row.stems
        assert family.describe("tiny").availability == LOCAL
        family.download("tiny")
        assert server.sent == [weights.name]


def test_a_download_of_another_content_is_removed_and_refused(tmp_path: Path) -> None:
    weights, settings = _make_tiny(tmp_path / "published")
    card = _make_card(weights, hub_id=HUB_ID, settings=settings)
    with start_fake_hub({weights.name: b"x" * card.size}) as server:
        cache = tmp_path / "cache"
        hub = HuggingFaceHub(cache=cache, endpoint=server.endpoint)
        family = RoformerFamily(WeightLocations(hub_caches=(cache,), hub=hub), {"tiny": card})
        with pytest.raises(ModelError, match="not the one that was published") as caught:
            family.download("tiny")
        assert caught.value.error_code == ErrorCode.BROKEN_CHECKPOINT
        assert family.describe("tiny").availability == DOWNLOAD
        assert not [path for path in cache.rglob("*") if path.is_file() and path.stat().st_size == card.size]


def test_a_model_of_a_release_is_downloaded_with_its_yaml_when_a_request_names_it(tmp_path: Path) -> None:
    weights, _ = _make_tiny(tmp_path / "published")
    yaml = weights.with_suffix(".yaml")
    checksum = hashlib.sha256(yaml.read_bytes()).hexdigest()
    card = _make_card(
        weights,
        release=Release("owner/name", "v1"),
        settings_file=yaml.name,
        settings_size=yaml.stat().st_size,
        settings_sha256=checksum,
        has_clear_licence=True,
    )
    content = {path.name: path.read_bytes() for path in (weights, yaml)}

    def respond(request: Request, write: Write) -> None:
        respond_with(content[request.path.rpartition("/")[2]])(request, write)

    with serve(respond) as server:
        cache = tmp_path / "cache"
        releases = GitHubReleases(cache=cache, endpoint=server.url(""))
        family = RoformerFamily(WeightLocations(hub_caches=(cache,), releases=releases), {"tiny": card})
        assert family.describe("tiny").to_json()["source"] == "https://github.com/owner/name/releases/tag/v1"
        models = make_models(separation=family)
        assert models.families.separation.find_role("vocals") is None, "nothing is downloaded because of a role"
        bake(["roformer/tiny"], models)
        found = models.families.separation.find_role("vocals")
        assert found is not None and found.name == "tiny"
        assert models.run(found, lambda separator: separator.stems) == ("vocals", "other")


def test_a_known_file_without_a_yaml_is_run_and_another_is_refused(tmp_path: Path) -> None:
    weights, settings = _make_tiny(tmp_path / "tiny")
    weights.with_suffix(".yaml").unlink()
    for size, reason in ((0, ""), (1, "one .yaml file")):
        card = replace(_make_card(weights, hub_id=HUB_ID, settings=settings), size=weights.stat().st_size + size)
        family = RoformerFamily(WeightLocations(explicit=tmp_path), {"tiny": card})
        if reason:
            with pytest.raises(ModelError, match=reason):
                family.describe("tiny")
        else:
            assert family.describe("tiny").stems == ("vocals", "other")


def test_what_the_catalogue_states_of_a_model_without_a_yaml_fits_its_published_sizes(tmp_path: Path) -> None:
    card = CATALOG["kim"]
    assert card.settings is not None and [file.name for file in card.files] == ["MelBandRoformer.ckpt"]
    shapes = {name: tuple(tensor.shape) for name, tensor in make_state(Shape(kind="mel", num_bands=60)).items()}
    config = read_config(shapes, Settings(card.settings))
    assert config.outputs == card.stems
    assert (config.hop_length, config.n_fft, config.chunk_length, config.num_overlap) == (441, 2048, 352_800, 2)
    assert card.overlap == 1 - 1 / config.num_overlap


def test_only_models_with_checksums_on_record_are_ever_downloaded() -> None:
    assert [name for name, card in CATALOG.items() if card.files] == [DEFAULT_MODEL, "kim"]
    mega = CATALOG[DEFAULT_MODEL]
    named = {2: "back-vocal", 4: "bass", 15: "drums", 27: "lead-vocal", 36: "snare", 41: "toms", 49: "vocal"}
    assert len(mega.stems) == 53 and {index: mega.stems[index] for index in named} == named
    assert all(len(file.sha256) == 64 and file.size > 0 for card in CATALOG.values() for file in card.files)


def _write(folder: Path, **more: Any) -> Path:
    return write_roformer(folder, chunk_size=1000, **SMALL | more)


def _family(root: Path) -> RoformerFamily:
    return RoformerFamily(WeightLocations(explicit=root))
