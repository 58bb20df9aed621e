"""Which RoFormer models are found, what is told of them, and that one is loaded and runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from errors import ErrorCode, ModelError, UnknownNameError
from models.checkpoints.locations import WeightLocations
from models.demucs.family import DemucsFamily
from models.family import LOCAL, READY
from models.roformer.catalog import ALIASES, CATALOG, DEFAULT_MODEL, NONE_PUBLISHED
from models.roformer.family import RoformerFamily
from models.separation import Role, SeparationModelInfo
from testing import tiny_demucs
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
    assert "not here: put its .ckpt" in rows["kim"]["available"]
    assert not family.readiness().is_ready
    assert set(ALIASES.values()) <= set(CATALOG)
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
    assert set(roformer.names()) - set(CATALOG) - set(ALIASES) == {"mel"}
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


def _write(folder: Path, **more: Any) -> Path:
    return write_roformer(folder, chunk_size=1000, **SMALL | more)


def _family(root: Path) -> RoformerFamily:
    return RoformerFamily(WeightLocations(explicit=root))
