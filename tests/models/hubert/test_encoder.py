"""HuBERT's features compared with torchaudio's, from fairseq's file and from Hugging Face folders."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from errors import ModelError, UnknownNameError
from models.checkpoints.locations import WeightLocations
from models.demo import CONTENT_ENCODER
from models.hubert.encoder import ContentEncoder, load_encoder, read_fairseq, read_folder
from models.hubert.family import HubertFamily
from models.runtime.progress import UNATTENDED, Observer
from testing.models import list_as_json
from testing.rvc_reference import load_fairseq_model
from testing.tensors import TensorSizes, count_tensor_bytes
from testing.tiny_rvc import write_hubert_file, write_hubert_folder, write_small_hubert_folder

WIDTHS = {"v1": 256, "v2": 768}
LAYERS = {"v1": 9, "v2": 12}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hubert_file(tmp_path_factory.mktemp("hubert") / "hubert_base.pt")


@pytest.fixture(scope="module")
def state(file: Path) -> dict[str, torch.Tensor]:
    return read_fairseq(file)


@pytest.fixture(scope="module")
def encoder(state: dict[str, torch.Tensor]) -> ContentEncoder:
    return ContentEncoder(state, precision=torch.float32)


def make_waveform(samples: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    tone = 0.3 * torch.sin(2 * torch.pi * 200 / 16_000 * torch.arange(samples))
    return tone + 0.02 * torch.randn(samples, generator=generator)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_features_are_those_of_torchaudio(version: str, file: Path, encoder: ContentEncoder) -> None:
    reference, waveform = load_fairseq_model(file), make_waveform(24_000)
    with torch.inference_mode():
        hidden, _ = reference.extract_features(waveform[None], torch.zeros(1), LAYERS[version])
        expected = (reference.final_proj(hidden) if version == "v1" else hidden)[0]
    got = encoder.extract_features(waveform, version=version)
    assert got.shape == (74, WIDTHS[version])
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("samples", "frames"), [(400, 1), (719, 1), (720, 2), (16_080, 50)])
def test_there_is_a_frame_for_every_320_samples_after_the_first_400(
    samples: int, frames: int, encoder: ContentEncoder
) -> None:
    assert encoder.extract_features(make_waveform(samples), version="v2").shape == (frames, 768)


def test_a_batch_gives_the_features_of_its_items(encoder: ContentEncoder) -> None:
    batch = torch.stack([make_waveform(4000, 1), make_waveform(4000, 2)])
    together = encoder.extract_features(batch, version="v1")
    torch.testing.assert_close(together[1], encoder.extract_features(batch[1], version="v1"), atol=1e-5, rtol=0)


def test_v1_does_not_run_layers_after_the_ninth(state: dict[str, torch.Tensor]) -> None:
    later = {f"encoder.layers.{layer}.final_layer_norm.bias" for layer in (9, 10, 11)}
    broken = {name: tensor + torch.nan if name in later else tensor for name, tensor in state.items()}
    encoder = ContentEncoder(broken)
    assert encoder.extract_features(make_waveform(2000), version="v1").isfinite().all()
    assert encoder.extract_features(make_waveform(2000), version="v2").isnan().all()


def test_features_in_bfloat16_have_an_snr_above_25_db(state: dict[str, torch.Tensor], encoder: ContentEncoder) -> None:
    reduced = ContentEncoder(state, precision=torch.bfloat16)
    wanted, got = (
        one.extract_features(make_waveform(140_000), version="v2") for one in (encoder, reduced)
    )  # several rows of queries
    assert 10 * torch.log10(wanted.square().sum() / (wanted - got).square().sum()) > 25
    assert reduced.memory_bytes < encoder.memory_bytes


def test_in_reduced_precision_the_first_layer_never_exists_in_float32_as_a_whole(
    state: dict[str, torch.Tensor], encoder: ContentEncoder
) -> None:
    reduced, exact = ContentEncoder(state, precision=torch.bfloat16), encoder._model.feature_extractor
    first: Any = reduced._model.feature_extractor
    windows = make_waveform(150_000)[None].unfold(-1, first.kernel.shape[1], first.first_stride)
    with torch.inference_mode(), TensorSizes() as sizes:
        got = first._run_first_layer(windows)
    wanted = exact._run_first_layer(windows)
    assert got.dtype == torch.bfloat16
    assert 10 * torch.log10(wanted.square().sum() / (wanted - got).square().sum()) > 45
    largest = max(math.prod(shape) for shape, dtype in sizes.tensors if dtype == torch.float32)
    assert largest < wanted.numel() / 3


@pytest.mark.parametrize("as_safetensors", [False, True])
def test_a_hugging_face_folder_gives_the_same_features(
    as_safetensors: bool, tmp_path: Path, encoder: ContentEncoder
) -> None:
    folder = write_hubert_folder(tmp_path / "contentvec")
    if as_safetensors:
        save_file(torch.load(folder / "pytorch_model.bin", weights_only=True), folder / "model.safetensors")
        (folder / "pytorch_model.bin").unlink()
    other = ContentEncoder(read_folder(folder)[0], precision=torch.float32)
    for version in WIDTHS:
        torch.testing.assert_close(
            other.extract_features(make_waveform(3000), version=version),
            encoder.extract_features(make_waveform(3000), version=version),
        )


def test_files_in_torchs_format_from_before_2020_give_the_same_features(
    tmp_path: Path, encoder: ContentEncoder
) -> None:
    """fairseq's own file too, with the objects of its classes beside the weights."""
    file = write_hubert_file(tmp_path / "hubert_base.pt", zipped=False)
    folder = write_hubert_folder(tmp_path / "contentvec", zipped=False)
    assert file.read_bytes()[:2] != b"PK" and (folder / "pytorch_model.bin").read_bytes()[:2] != b"PK"
    for path in (file, folder):
        state = read_folder(path)[0] if path.is_dir() else read_fairseq(path)
        other = ContentEncoder(state, precision=torch.float32)
        for version in WIDTHS:
            torch.testing.assert_close(
                other.extract_features(make_waveform(3000), version=version),
                encoder.extract_features(make_waveform(3000), version=version),
            )


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    folder = write_hubert_folder(tmp_path / "contentvec")
    (folder / "pytorch_model.bin").write_bytes(b"no weights")
    (tmp_path / "hubert_base.pt").write_bytes(b"no weights")
    for path, name in ((folder, "pytorch_model.bin"), (tmp_path / "hubert_base.pt", "hubert_base.pt")):
        with pytest.raises(ModelError, match=name) as refused:
            load_encoder(path, device="cpu")
        assert refused.value.error_code == "broken_checkpoint" and str(tmp_path) not in refused.value.message
    (folder / "config.json").write_text("[" * 100_000)
    with pytest.raises(ModelError, match=r"config\.json"):
        load_encoder(folder, device="cpu")


def test_a_final_projection_of_another_width_is_refused(state: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ModelError, match="final projection"):
        ContentEncoder(state | {"final_proj.weight": torch.zeros(256, 512)})


def test_overwriting_the_file_does_not_change_a_loaded_encoder(tmp_path: Path) -> None:
    folder = write_hubert_folder(tmp_path / "contentvec")
    path = folder / "model.safetensors"
    save_file(torch.load(folder / "pytorch_model.bin", weights_only=True), path)
    encoder = load_encoder(folder, device="cpu")
    before = encoder.extract_features(make_waveform(3000), version="v2")
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert torch.equal(encoder.extract_features(make_waveform(3000), version="v2"), before)


def test_without_a_final_projection_only_v2_is_possible(state: dict[str, torch.Tensor]) -> None:
    encoder = ContentEncoder({name: value for name, value in state.items() if not name.startswith("final_proj")})
    assert encoder.extract_features(make_waveform(1000), version="v2").shape[1] == 768
    with pytest.raises(ModelError, match="v1"):
        encoder.extract_features(make_waveform(1000), version="v1")


@pytest.mark.parametrize("layers", [1, 3])
def test_a_small_hubert_gives_transformers_last_layer_by_its_final_projection(layers: int, tmp_path: Path) -> None:
    from transformers import HubertModel

    folder = write_small_hubert_folder(tmp_path / "small", layers=layers)
    state, num_layers = read_folder(folder)
    assert num_layers == layers
    reference: Any = HubertModel.from_pretrained(folder, dtype=torch.float32)
    waveform = make_waveform(8000)
    with torch.inference_mode():
        hidden = reference.eval()(waveform[None]).last_hidden_state[0]
        expected = hidden @ state["final_proj.weight"].float().T + state["final_proj.bias"].float()
    encoder = load_encoder(folder, device="cpu")
    got = encoder.extract_features(waveform, version="v2")
    assert got.shape == (24, 768)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
    with pytest.raises(ModelError, match="v1"):
        encoder.extract_features(waveform, version="v1")


def test_a_small_hubert_without_768_features_or_with_an_impossible_number_of_layers_is_refused(tmp_path: Path) -> None:
    folder = write_small_hubert_folder(tmp_path / "small")
    state, _ = read_folder(folder)
    narrow = {name: tensor for name, tensor in state.items() if not name.startswith("final_proj")}
    with pytest.raises(ModelError, match="gives 128 features, and voices take 768"):
        ContentEncoder(narrow, num_layers=2)
    with pytest.raises(ModelError, match="missing or of another shape"):
        ContentEncoder(state, num_layers=3)
    config = folder / "config.json"
    for layers in ("0", "1000000", "true", '"2"'):
        config.write_text(config.read_text().replace('"num_hidden_layers": 2', f'"num_hidden_layers": {layers}'))
        with pytest.raises(ModelError, match="from 1 to 48"):
            read_folder(folder)
        config.write_text(config.read_text().replace(f'"num_hidden_layers": {layers}', '"num_hidden_layers": 2'))


def test_the_demo_encoder_is_found_in_the_folder_of_the_demos_and_is_never_the_default(tmp_path: Path) -> None:
    write_small_hubert_folder(tmp_path / "demo" / CONTENT_ENCODER)
    family = HubertFamily(WeightLocations(explicit=tmp_path / "models"), demo=tmp_path / "demo")
    encoder = family.load(family.resolve("Demo_Content_Encoder").name, device="cpu")
    assert encoder.extract_features(make_waveform(1000), version="v2").shape == (2, 768)
    assert encoder.memory_bytes < family.memory_bytes(CONTENT_ENCODER) * 1.1 < family.memory_bytes("contentvec") / 10
    with pytest.raises(ModelError, match="downloads are off"):
        family.resolve(None)


def test_weights_of_another_model_are_refused(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    for wrong in ({"a.weight": torch.zeros(3)}, {k: v for k, v in state.items() if "layers.11" not in k}):
        with pytest.raises(ModelError) as caught:
            ContentEncoder(wrong)
        assert caught.value.error_code == "broken_checkpoint"
    (tmp_path / "config.json").write_text('{"do_stable_layer_norm": true}')
    with pytest.raises(ModelError, match="another architecture") as refused:
        load_encoder(tmp_path, device="cpu")
    assert str(tmp_path) not in refused.value.message


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_the_reported_memory_is_that_of_all_weights(state: dict[str, torch.Tensor], precision: torch.dtype) -> None:
    encoder = ContentEncoder(state, precision=precision)
    assert encoder.memory_bytes == count_tensor_bytes(encoder)


class _Hub:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests: list[tuple[str, Sequence[str]]] = []

    def fetch(self, hub_id: str, patterns: Sequence[str], observer: Observer = UNATTENDED) -> Path:
        self.requests.append((hub_id, patterns))
        return write_hubert_folder(self.folder)


@pytest.mark.parametrize("place", ["hubert_base.pt", "rvc/hubert_base.pt", "contentvec", "content-vec-best"])
def test_the_weights_are_found_below_models_dir(place: str, tmp_path: Path, state: Any) -> None:
    make = write_hubert_file if place.endswith(".pt") else write_hubert_folder
    make(tmp_path / place)
    family = HubertFamily(WeightLocations(explicit=tmp_path))
    assert family.readiness().is_ready and list_as_json(family)[0]["available"] == "local"
    encoder = family.load(family.resolve(None).name, device="cpu")
    assert encoder.extract_features(make_waveform(800), version="v1").shape == (2, 256)


def test_weights_that_no_folder_has_are_downloaded(tmp_path: Path) -> None:
    hub = _Hub(tmp_path / "fetched")
    family = HubertFamily(WeightLocations(hub=hub))
    assert list_as_json(family)[0]["available"] == "download" and not hub.requests
    family.load(family.resolve("contentvec").name, device="cpu")
    assert [hub_id for hub_id, _ in hub.requests] == ["lengyue233/content-vec-best"]


def test_without_weights_and_downloads_the_error_says_what_to_do(tmp_path: Path) -> None:
    family = HubertFamily(WeightLocations(explicit=tmp_path))
    assert "hubert_base.pt" in family.readiness().reason
    with pytest.raises(ModelError, match="MODELS_DIR") as caught:
        family.resolve(None)
    assert caught.value.error_code == "model_unavailable"
    with pytest.raises(UnknownNameError):
        family.resolve("wav2vec")


@pytest.mark.parametrize("place", ["spin", "hubert/chinese-hubert-base", "embedders/korean-hubert-base"])
def test_other_encoders_are_found_by_name_below_models_dir(place: str, tmp_path: Path) -> None:
    write_hubert_folder(tmp_path / place, seed=5)
    name = place.rpartition("/")[2]
    family = HubertFamily(WeightLocations(explicit=tmp_path))
    rows = {row["name"]: row for row in list_as_json(family)}
    assert [name for name, row in rows.items() if row["available"] == "local"] == [name]
    loaded = family.load(family.resolve(name.upper()).name, device="cpu")
    reference = load_encoder(write_hubert_folder(tmp_path / "same", seed=5), device="cpu")
    waveform = make_waveform(1600)
    torch.testing.assert_close(
        loaded.extract_features(waveform, version="v2"), reference.extract_features(waveform, version="v2")
    )


def test_an_encoder_that_is_missing_is_refused_by_its_name_and_never_downloaded(tmp_path: Path) -> None:
    hub = _Hub(tmp_path / "fetched")
    family = HubertFamily(WeightLocations(explicit=tmp_path, hub=hub))
    with pytest.raises(ModelError, match=r"'japanese-hubert-base' is not on this worker.*config\.json") as caught:
        family.resolve("japanese-hubert-base")
    assert caught.value.error_code == "model_unavailable" and hub.requests == []
    with pytest.raises(UnknownNameError, match="spin"):
        family.resolve("spinn")
