"""Malformed model files: listing and inspecting them raises the documented error alone, and harms no other model."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from errors import ModelError
from models import Models
from models.checkpoints.errors import CheckpointError
from models.checkpoints.hf_folder import read_config
from models.checkpoints.locations import WeightLocations
from models.checkpoints.safetensors_header import read_metadata
from models.demucs import DemucsFamily
from models.f0 import PitchFamily
from models.hubert.encoder import load_encoder
from models.hubert.family import HubertFamily
from models.musicgen import MusicGenFamily
from models.musicgen.catalog import DIFFUSION_FILE
from models.musicgen.inspect import CODEC_FILE, LM_FILE, inspect_checkpoint, inspect_diffusion
from models.rvc import RvcFamily, Voices
from testing import tiny_demucs
from testing.dispatch import answer
from testing.models import list_as_json, make_models
from testing.property_tests import examples
from testing.rvc_files import make_content
from testing.tiny_musicgen import write_checkpoint, write_codec_pointer, write_diffusion, write_hub_codec
from worker.settings import Settings


def nest(levels: int) -> Any:
    """A list in a list, `levels` deep."""
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


NUMBERS = st.sampled_from(
    [True, -1, 0, 3, 1 << 40, 10**400, -(10**400), 1.5, float("inf"), float("nan"), 1e300, 5e-324]
)
TEXTS = st.sampled_from(["", "..", "3", "${a.b}", "${oc.env:HOME}", "???", "é" * 300, "\0"])
ODD = NUMBERS | TEXTS | st.none() | st.sampled_from([[], {}, [[1]], {"a": 1}, [float("nan")], nest(50)])
ODD_VALUES = ODD | st.lists(ODD, max_size=3) | st.dictionaries(TEXTS, ODD, max_size=2)


def list_paths(values: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value and of every section."""
    items = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for name, value in items:
        yield (*path, name)
        yield from list_paths(value, (*path, name))


@st.composite
def break_values(draw: st.DrawFn, values: Any) -> Any:
    """`values` with one to three of its parts replaced by odd ones, or left out."""
    result = json.loads(json.dumps(values))
    for path in draw(st.lists(st.sampled_from(list(list_paths(values))), min_size=1, max_size=3)):
        section = result
        for name in path[:-1]:
            section = section[name] if isinstance(section, dict | list) and name in list_names(section) else None
        if isinstance(section, dict | list) and path[-1] in list_names(section):
            if isinstance(section, dict) and draw(st.booleans()):
                del section[path[-1]]
            else:
                section[path[-1]] = draw(ODD_VALUES)
    return result


def list_names(section: Any) -> list[Any]:
    return list(section) if isinstance(section, dict) else list(range(len(section)))


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MODELS_DIR with a checkpoint that is intact, and one that each example breaks."""
    root = tmp_path_factory.mktemp("music")
    write_checkpoint(root / "intact")
    shutil.copytree(root / "intact", root / "odd")
    write_hub_codec(root / "odd" / "encodec_32khz")
    return root


def restore(root: Path) -> None:
    for file in (LM_FILE, CODEC_FILE):
        shutil.copy(root / "intact" / file, root / "odd" / file)


def check_music(root: Path) -> None:
    """`odd` is usable, or its row and the error say why not; `intact` is not affected."""
    family = MusicGenFamily(WeightLocations(explicit=root), demo=Path("no demo"))
    rows = {row["name"]: row for row in list_as_json(family)}
    assert rows["intact"]["available"] == "local"
    json.dumps(rows, allow_nan=False)
    try:
        inspect_checkpoint(root / "odd", WeightLocations())
    except ModelError as error:
        assert error.error_code in ("broken_checkpoint", "unsafe_checkpoint") and len(error.message) < 1000
        assert rows["odd"]["available"] == error.message and "odd" in error.message and str(root) not in error.message
    else:
        assert family.memory_bytes("odd") >= 0


def read_package(path: Path) -> dict[str, Any]:
    package: dict[str, Any] = torch.load(path, weights_only=True)
    return package | {"settings": yaml.safe_load(package.pop("xp.cfg"))}


@given(data=st.data())
@examples(40)
def test_any_settings_of_a_music_checkpoint_are_read_or_refused(music: Path, data: st.DataObject) -> None:
    file = data.draw(st.sampled_from([LM_FILE, CODEC_FILE]))
    intact = read_package(music / "intact" / file)
    values = data.draw(break_values(intact.pop("settings")))
    config = yaml.safe_dump(values) if data.draw(st.booleans()) else values
    restore(music)
    torch.save(intact | {"xp.cfg": config}, music / "odd" / file)
    check_music(music)


@pytest.mark.parametrize("part", ["t5", "encodec_32khz"])
@given(data=st.data())
@examples(20)
def test_any_config_of_a_part_is_read_or_refused(music: Path, part: str, data: st.DataObject) -> None:
    restore(music)
    write_codec_pointer(music / "odd")
    path = music / "odd" / part / "config.json"
    intact = path.read_text()
    try:
        path.write_text(json.dumps(data.draw(break_values(json.loads(intact)))))
        check_music(music)
    finally:
        path.write_text(intact)


@given(data=st.data())
@examples(40)
def test_any_index_of_a_music_checkpoint_is_read_or_refused(music: Path, data: st.DataObject) -> None:
    restore(music)
    with zipfile.ZipFile(music / "intact" / LM_FILE) as archive:
        contents = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    index = bytearray(contents["data.pkl"])
    for position in data.draw(st.lists(st.integers(0, len(index) - 1), min_size=1, max_size=4)):
        index[position] = data.draw(st.integers(0, 255))
    with zipfile.ZipFile(music / "odd" / LM_FILE, "w") as archive:
        for name, content in (contents | {"data.pkl": bytes(index)}).items():
            archive.writestr(f"archive/{name}", content)
    check_music(music)


@given(content=st.binary(max_size=200) | st.sampled_from([b"[" * 100_000, b'{"d_model": NaN}', b"\xff\xfe{}", b"null"]))
def test_any_bytes_are_a_config_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / "config.json").write_bytes(content)
    try:
        config = read_config(folder)
    except CheckpointError as error:
        assert "config.json" in str(error)
    else:
        for read in (config.integer, config.number, config.numbers, config.text, config.section, config.integers):
            try:
                read("d_model")
            except CheckpointError as error:
                assert "'d_model'" in str(error) and len(str(error)) < 300


HEADERS = st.dictionaries(st.sampled_from(["__metadata__", "klass", "a"]), ODD_VALUES, max_size=3) | ODD_VALUES


@given(header=HEADERS, length=st.none() | st.integers(0, (1 << 64) - 1))
def test_any_header_of_safetensors_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, header: Any, length: int | None
) -> None:
    path = tmp_path_factory.getbasetemp() / "odd.safetensors"
    text = json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text)
    try:
        assert all(isinstance(value, str) for value in read_metadata(path).values())
    except CheckpointError as error:
        assert "not a safetensors file" in str(error)


@given(data=st.data())
@examples(40)
def test_any_settings_of_a_diffusion_file_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp()
    settings = {"diffusion_unet": {"codec_dim": 128, "hidden": 48}, "schedule": {"num_steps": 1000}}
    package = data.draw(break_values({"sample_rate": 32_000, "n_bands": 1, "cfg": settings}))
    torch.save({**package, 0: {"cfg": package.get("cfg")}}, folder / DIFFUSION_FILE)
    try:
        inspect_diffusion(folder / DIFFUSION_FILE)
    except ModelError as error:
        assert DIFFUSION_FILE in error.message


@given(data=st.data())
@examples(40)
def test_any_config_of_the_content_encoder_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp() / "contentvec"
    folder.mkdir(exist_ok=True)
    intact = {"do_stable_layer_norm": False, "feat_extract_norm": "group", "hidden_size": 768}
    (folder / "config.json").write_text(json.dumps(data.draw(break_values(intact))))
    torch.save({"a": torch.ones(1)}, folder / "pytorch_model.bin")
    assert list_as_json(HubertFamily(WeightLocations(explicit=folder.parent)))[0]["available"] == "local"
    with pytest.raises(ModelError, match="HuBERT"):
        load_encoder(folder, device="cpu")


@pytest.fixture(scope="module")
def separation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MODELS_DIR with a separation model."""
    root = tmp_path_factory.mktemp("separation")
    tiny_demucs.save_bag(root / "intact", {"one": tiny_demucs.htdemucs()})
    shutil.copytree(root / "intact", root / "odd")
    (root / "odd" / "intact.yaml").rename(root / "odd" / "odd.yaml")
    return root


def check_separation(root: Path) -> None:
    rows = {row["name"]: row for row in list_as_json(DemucsFamily(WeightLocations(explicit=root)))}
    assert rows["intact"]["available"] == "local"
    json.dumps(rows, allow_nan=False)


@given(data=st.data())
@examples(30)
def test_any_header_of_a_separation_model_is_read_or_refused(separation: Path, data: st.DataObject) -> None:
    from safetensors.torch import load_file, save_file

    intact = dict(read_metadata(separation / "intact" / "one.safetensors"))
    stated = {name: json.loads(intact[name]) for name in ("args", "kwargs")}
    stated["kwargs"] |= {"samplerate": 44_100, "use_train_segment": True}
    metadata = {name: json.dumps(data.draw(break_values(values))) for name, values in stated.items()}
    tensors = load_file(separation / "intact" / "one.safetensors")
    save_file({"a": next(iter(tensors.values()))}, separation / "odd" / "one.safetensors", metadata=intact | metadata)
    check_separation(separation)


@given(data=st.data())
@examples(30)
def test_any_yaml_of_a_separation_model_is_read_or_refused(separation: Path, data: st.DataObject) -> None:
    intact = {"models": ["one"], "weights": [[1.0, 0.0, 1.0, 1.0]], "segment": 7.8}
    text = data.draw(
        break_values(intact).map(yaml.safe_dump) | st.sampled_from(["[" * 50_000, "a: &a [*a]", "models: \0"])
    )
    (separation / "odd" / "odd.yaml").write_text(text)
    check_separation(separation)


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder of voices, and what a voice's file holds."""
    root, content = tmp_path_factory.mktemp("voices"), make_content()
    for name in ("intact", "odd"):
        (root / name).mkdir()
        torch.save(content, root / name / "model.pth")
    return root, content


@given(data=st.data())
@examples(30)
def test_any_settings_of_a_voice_are_read_or_refused(voices: tuple[Path, dict[str, Any]], data: st.DataObject) -> None:
    root, content = voices
    settings = {name: value for name, value in content.items() if name != "weight"}
    torch.save({"weight": content["weight"], **data.draw(break_values(settings))}, root / "odd" / "model.pth")
    rows = {row["name"]: row for row in list_as_json(RvcFamily(Voices([root])))}
    assert rows["intact"]["version"] == "v2"
    json.dumps(rows, allow_nan=False)


def write_deep_yaml(root: Path) -> None:
    package = torch.load(root / "deep" / LM_FILE, weights_only=True)
    torch.save(package | {"xp.cfg": "a: " + "[" * 20_000}, root / "deep" / LM_FILE)


BREAKAGES: dict[str, Callable[[Path], object]] = {
    "deep": write_deep_yaml,
    "empty": lambda root: (root / "empty" / LM_FILE).write_bytes(b""),
    "cut": lambda root: (root / "cut" / CODEC_FILE).write_bytes(b"PK\x03\x04"),
    "deep_t5": lambda root: (root / "deep_t5" / "t5" / "config.json").write_text("[" * 100_000),
    "number_t5": lambda root: (root / "number_t5" / "t5" / "config.json").write_text('{"d_model": 1e999}'),
}


@pytest.fixture
def broken_models(music: Path, separation: Path, tmp_path: Path) -> Models:
    """A worker on whose volume one model of each kind is intact and every other one is broken in another way."""
    for name in ("intact", *BREAKAGES):
        shutil.copytree(music / "intact", tmp_path / name)
        if name in BREAKAGES:
            BREAKAGES[name](tmp_path)
    shutil.copytree(separation / "intact", tmp_path / "stems")
    for name, text in {"bag": "[" * 50_000, "list": "[]", "weights": "models: [a]\nweights: [[1e400]]"}.items():
        shutil.copytree(separation / "intact", tmp_path / name)
        (tmp_path / name / "intact.yaml").unlink()
        (tmp_path / name / f"{name}.yaml").write_text(text)
    for name in ("hubert_base.pt", "rmvpe.pt", "multiband-diffusion"):
        (tmp_path / name).write_bytes(b"broken")
    write_diffusion(tmp_path / "other" / DIFFUSION_FILE, sample_rate=16_000, bands=1)
    for name, content in {"alice": torch.ones(1), "bob": {"config": nest(50), "weight": {}, "sr": 10**400}}.items():
        (tmp_path / "voices" / name).mkdir(parents=True)
        torch.save(content, tmp_path / "voices" / name / "model.pth")
    weights = WeightLocations(explicit=tmp_path)
    return make_models(
        music=MusicGenFamily(weights, demo=Path("no demo")),
        separation=DemucsFamily(weights),
        voices=RvcFamily(Voices([tmp_path / "voices"])),
        content_encoders=HubertFamily(weights),
        f0=PitchFamily(weights),
    )


def test_broken_models_are_listed_with_their_reason_beside_intact_ones(broken_models: Models) -> None:
    reply = answer({"id": "a", "input": {"operation": "list_models"}}, settings=Settings(), models=broken_models)
    music = {row["name"]: row["available"] for row in reply["music"]}
    assert music["intact"] == "local"
    for name, part in {
        "deep": LM_FILE,
        "empty": LM_FILE,
        "cut": CODEC_FILE,
        "deep_t5": "config.json",
        "number_t5": "config.json",
    }.items():
        assert name in music[name] and part in music[name] and "cannot be used" in music[name]
    assert {row["name"]: row["available"] for row in reply["separation"]}["stems"] == "local"


def test_broken_models_do_not_stop_health_check_or_the_default(broken_models: Models) -> None:
    reply = answer({"id": "a", "input": {"operation": "health_check"}}, settings=Settings(), models=broken_models)
    assert reply["operations"]["generate_music"] == "ready"
    chosen = broken_models.families.music.resolve(None)
    assert chosen.name == "intact" and {warning.split("'")[1] for warning in chosen.warnings} == {
        "cut",
        "deep",
        "deep_t5",
        "empty",
    }
