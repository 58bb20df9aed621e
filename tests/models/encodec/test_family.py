"""The family `encodec`: which codecs there are, where they come from, and which are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audio import Audio
from errors import ModelError, UnknownNameError
from models.checkpoints.locations import WeightLocations
from models.encodec.catalog import CATALOG
from models.encodec.family import EncodecFamily
from models.musicgen import MusicGenFamily
from testing.fake_hub import FolderHub, into_cache
from testing.models import list_as_json, make_models
from testing.signals import make_noise
from testing.tiny_musicgen import SEGMENTED, Shape, write_checkpoint, write_codec_pointer, write_hub_codec

RATE = 16_000


def make_family(weights: WeightLocations, demo: Path = Path("no demo")) -> EncodecFamily:
    return EncodecFamily(weights, MusicGenFamily(weights, demo=demo))


def find_row(family: EncodecFamily, name: str) -> dict[str, Any]:
    return next(row for row in list_as_json(family) if row["name"] == name)


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_every_published_codec_has_a_row(tmp_path: Path) -> None:
    rows = list_as_json(make_family(WeightLocations(hub=FolderHub({}, tmp_path))))
    assert [row["name"] for row in rows] == ["encodec_32khz", "encodec_24khz", "encodec_48khz"]
    assert {row["available"] for row in rows} == {"download"}
    assert rows[0]["licence"] == "CC-BY-NC 4.0" and "unknown" in rows[1]["licence"]
    assert rows[2] == {
        "name": "encodec_48khz",
        "sample_rate": 48_000,
        "channels": 2,
        "frame_rate": 150.0,
        "num_codebooks": 16,
        "codebook_size": 1024,
        "bandwidths": [3.0, 6.0, 12.0, 24.0],
        "licence": "unknown: see its author's terms",
        "available": "download",
        "hub_id": "facebook/encodec_48khz",
    }
    assert "offline" in find_row(make_family(WeightLocations()), "encodec_24khz")["available"]


def test_the_published_numbers_of_codebooks_belong_to_the_published_bandwidths() -> None:
    """Checked against transformers' own arithmetic."""
    from transformers import EncodecConfig

    for card in CATALOG.values():
        spec = card.spec
        ratios = {640: [8, 5, 4, 4], 320: [8, 5, 4, 2]}[spec.hop_length]
        config = EncodecConfig(
            sampling_rate=spec.sample_rate,
            upsampling_ratios=ratios,
            codebook_size=spec.cardinality,
            target_bandwidths=list(spec.bandwidths),
        )
        assert config.num_quantizers == spec.codebooks == spec.codebooks_at(spec.bandwidths[-1])
        assert spec.bandwidth(spec.codebooks) == spec.bandwidths[-1]
    assert [CATALOG["encodec_24khz"].spec.codebooks_at(kbits) for kbits in (1.5, 3, 6, 12, 24)] == [2, 4, 8, 16, 32]
    assert [CATALOG["encodec_48khz"].spec.codebooks_at(kbits) for kbits in (3, 6, 12, 24)] == [2, 4, 8, 16]


@pytest.mark.parametrize("name", ["encodec_24khz", "facebook/encodec_24khz"])
@pytest.mark.parametrize("place", ["encodec_24khz", "facebook/encodec_24khz", "hub cache"])
def test_a_published_codec_is_found_under_each_of_its_names(tmp_path: Path, name: str, place: str) -> None:
    if place == "hub cache":
        into_cache(write_hub_codec(tmp_path / "made"), tmp_path / "cache", "facebook/encodec_24khz")
        family = make_family(WeightLocations(hub_caches=(tmp_path / "cache",)))
    else:
        write_hub_codec(tmp_path / place)
        family = make_family(WeightLocations(tmp_path))
    handle = family.resolve(name)
    assert handle.name == "encodec_24khz" and find_row(family, handle.name)["available"] == "local"
    codec = family.load(handle.name, device="cpu")
    encoded = codec.encode_audio(Audio(make_noise(1, RATE), RATE), codebooks=4)
    assert encoded.codes.shape == (4, 50)
    assert family.engine_bytes(codec) > 0 and family.memory_bytes(handle.name) > 0
    codec.warm_up()


def test_a_codec_is_downloaded_when_it_is_first_used(tmp_path: Path) -> None:
    made = write_hub_codec(tmp_path / "made", **SEGMENTED)
    hub = FolderHub({"facebook/encodec_48khz": made}, tmp_path / "cache")
    models = make_models(codecs=make_family(WeightLocations(hub_caches=(tmp_path / "cache",), hub=hub)))
    family = models.families.codecs
    assert models.run(family.resolve("encodec_48khz"), lambda codec: codec.channels) == 2
    assert hub.fetched == ["facebook/encodec_48khz"]
    models.run(family.resolve("encodec_48khz"), lambda codec: codec.channels)
    assert hub.fetched == ["facebook/encodec_48khz"]
    with pytest.raises(ModelError, match="offline"):
        make_family(WeightLocations()).resolve("encodec_48khz")


def test_the_default_is_the_first_published_codec_that_is_here_else_the_demo(tmp_path: Path) -> None:
    demo = write_checkpoint(tmp_path / "demo")
    weights = WeightLocations(tmp_path / "models", hub=FolderHub({}, tmp_path))
    family = make_family(weights, demo)
    assert family.resolve(None).name == "demo"
    write_hub_codec(tmp_path / "models" / "encodec_48khz", **SEGMENTED)
    assert family.resolve(None).name == "encodec_48khz"
    write_hub_codec(tmp_path / "models" / "encodec_32khz")
    assert family.resolve(None).name == "encodec_32khz"
    change_config(tmp_path / "models" / "encodec_32khz", audio_channels=7)
    handle = family.resolve(None)
    assert handle.name == "encodec_48khz" and "7 channels" in handle.warnings[0]
    with pytest.raises(ModelError, match="No codec is here"):
        make_family(WeightLocations()).resolve(None)
    assert not make_family(WeightLocations()).readiness().is_ready and family.readiness().is_ready


def test_the_codec_of_a_checkpoint_has_its_name_and_its_channels(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "mono")
    write_checkpoint(tmp_path / "two", Shape(stereo=True))
    family = make_family(WeightLocations(tmp_path))
    rows = {row["name"]: row for row in list_as_json(family)}
    assert (rows["mono"]["channels"], rows["mono"]["num_codebooks"], rows["mono"]["codebook_size"]) == (1, 4, 32)
    assert (rows["two"]["channels"], rows["two"]["num_codebooks"], rows["two"]["bandwidths"]) == (2, 8, [2.0])
    codec = family.load(family.resolve("two").name, device="cpu")
    encoded = codec.encode_audio(Audio(make_noise(2, RATE), RATE), codebooks=8)
    assert encoded.codes.shape == (8, 50)
    assert np.concatenate(list(codec.decode_audio(encoded)), axis=1).shape == (2, RATE)


def test_the_codec_that_a_checkpoint_points_to_is_found_in_the_hub_cache(tmp_path: Path) -> None:
    write_codec_pointer(write_checkpoint(tmp_path / "models" / "mine", Shape(stereo=True)))
    hub = FolderHub({"facebook/encodec_32khz": write_hub_codec(tmp_path / "made")}, tmp_path / "cache")
    weights = WeightLocations(tmp_path / "models", hub_caches=(tmp_path / "cache",), hub=hub)
    family = make_family(weights)
    with pytest.raises(ModelError, match="makes 8 streams of 2048"):  # the published one does not fit the tiny model
        family.resolve("mine")
    into_cache(hub.repositories["facebook/encodec_32khz"], tmp_path / "cache", "facebook/encodec_32khz")
    assert family.load(family.resolve("mine").name, device="cpu").codebooks == 8


def test_a_local_codec_is_listed_under_its_folders_name_and_other_folders_are_not(tmp_path: Path) -> None:
    write_hub_codec(tmp_path / "mine")
    write_hub_codec(tmp_path / "nested" / "codec")
    write_checkpoint(tmp_path / "music")  # has a folder t5 with a config.json
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "config.json").write_text("[]")
    (tmp_path / "odd" / "model.safetensors").write_text("")
    family = make_family(WeightLocations(tmp_path))
    names = [row["name"] for row in list_as_json(family)]
    assert names == [*CATALOG, "mine", "nested/codec", "music"]
    assert family.load(family.resolve("nested/codec").name, device="cpu").codebooks == 4
    assert family.resolve("mine").name == "mine"


@pytest.mark.parametrize("name", ["nothing", "../secret", "facebook/nothing", "", "encodec_44khz"])
def test_an_unknown_name_is_an_error_with_the_names_there_are(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnknownNameError if name not in ("../secret", "") else Exception) as refused:
        make_family(WeightLocations(tmp_path)).resolve(name)
    assert "encodec_24khz" in str(refused.value) or "cannot be a model name" in str(refused.value)


def test_a_published_checkpoint_that_is_not_here_names_its_codec(tmp_path: Path) -> None:
    family = make_family(WeightLocations(hub=FolderHub({}, tmp_path)))
    with pytest.raises(ModelError, match="It is 'encodec_32khz': use that one"):
        family.resolve("facebook/musicgen-small")
    with pytest.raises(ModelError, match="Download it first"):
        family.resolve("audiogen-medium")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"normalize": True}, "'normalize'"),
        ({"norm_type": "layer_norm"}, "'norm_type'"),
        ({"norm_type": "time_group_norm"}, "'norm_type'"),
        ({"audio_channels": 3}, "3 channels"),
        ({"sampling_rate": 10}, "longer than a second"),
        ({"target_bandwidths": []}, "target_bandwidths"),
        ({"codebook_size": 1 << 20}, "1048576 codes"),
        ({"upsampling_ratios": "8"}, "upsampling_ratios"),
    ],
)
def test_a_codec_with_unsupported_settings_is_refused_and_listed_with_the_reason(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    change_config(write_hub_codec(tmp_path / "encodec_24khz"), **changes)
    family = make_family(WeightLocations(tmp_path))
    with pytest.raises(ModelError, match=reason) as refused:
        family.resolve("encodec_24khz")
    assert refused.value.error_code == "broken_checkpoint" and str(tmp_path) not in refused.value.message
    assert find_row(family, "encodec_24khz")["available"] == refused.value.message


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"target_bandwidths": [2.0]}, "other codebooks than 8"),
        ({"codebook_size": 16, "target_bandwidths": [0.8]}, "other codebooks than 4 of 16"),
        ({"num_filters": 4}, "and not"),
        ({"num_lstm_layers": 1}, "left over"),
        ({"pad_mode": "circular"}, "'pad_mode'"),
        ({"chunk_length_s": 1.0, "overlap": 0.01, "norm_type": "time_group_norm"}, "missing"),
    ],
)
def test_weights_that_do_not_fit_the_settings_are_refused_when_they_are_loaded(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    change_config(write_hub_codec(tmp_path / "encodec_24khz"), **changes)
    family = make_family(WeightLocations(tmp_path))
    with pytest.raises(ModelError, match=reason):
        family.load(family.resolve("encodec_24khz").name, device="cpu")


def test_the_version_key_changes_with_the_files_of_a_codec(tmp_path: Path) -> None:
    import os

    write_hub_codec(tmp_path / "encodec_24khz")
    write_checkpoint(tmp_path / "music")
    family = make_family(WeightLocations(tmp_path))
    files = {"encodec_24khz": "encodec_24khz/model.safetensors", "music": "music/compression_state_dict.bin"}
    for name, file in files.items():
        before = family.version_key(name)
        assert before == family.version_key(name)
        os.utime(tmp_path / file, ns=(1, 1))
        assert family.version_key(name) != before


def test_describing_and_resolving_import_no_torch(tmp_path: Path) -> None:
    import subprocess
    import sys

    write_hub_codec(tmp_path / "encodec_24khz")
    code = (
        "import sys; from pathlib import Path\n"
        "from models.registry import build\n"
        f"models = build(device='cpu', models_dir=Path({str(tmp_path)!r}))\n"
        "models.families.codecs.list_models(); models.families.codecs.resolve(None)\n"
        "import operations.encode_audio, operations.decode_audio\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
