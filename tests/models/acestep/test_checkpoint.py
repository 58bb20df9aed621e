"""Files of ACE-Step models: what is broken, missing or hostile is refused with its name, before any weight is read."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from errors import ErrorCode, ModelError
from models.acestep.checkpoint import (
    ModelFolders,
    find_layout,
    list_missing_files,
    read_model,
    read_text_encoder,
    read_vae,
)
from models.checkpoints.safetensors_shards import find_tensors, list_weight_files
from testing.tiny_acestep import Layout, make_original_state, write_tiny_acestep, write_weights

NAME = "acestep-v15-turbo"
INDEX = "model.safetensors.index.json"


def locate(root: Path, layout: Layout = "original") -> ModelFolders:
    if layout == "diffusers":
        return ModelFolders(root / NAME, layout, root / NAME / "vae", root / NAME / "text_encoder")
    return ModelFolders(root / NAME, layout, root / "vae", root / "Qwen3-Embedding-0.6B")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One model in each layout, and one of three shards; tests change copies of them."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("original", "diffusers", "shards")}
    write_tiny_acestep(folders["original"])
    write_tiny_acestep(folders["diffusers"], layout="diffusers", name=NAME)
    write_tiny_acestep(folders["shards"], shards=3)
    return folders


@pytest.fixture
def original(tmp_path: Path, written: dict[str, Path]) -> Path:
    """A root with a model in the original layout."""
    return shutil.copytree(written["original"], tmp_path / "original")


@pytest.fixture
def converted(tmp_path: Path, written: dict[str, Path]) -> Path:
    """A root with a model in diffusers' layout."""
    return shutil.copytree(written["diffusers"], tmp_path / "diffusers")


@pytest.fixture
def sharded(tmp_path: Path, written: dict[str, Path]) -> Path:
    """A root with a model in the original layout, its weights in three files."""
    return shutil.copytree(written["shards"], tmp_path / "shards")


def change(path: Path, **values: Any) -> None:
    """Changes settings in a JSON file; None removes one."""
    content = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def refuse(root: Path, layout: Layout = "original") -> ModelError:
    """The error that reading every part of a model ends with."""
    folders = locate(root, layout)
    with pytest.raises(ModelError) as caught:
        model = read_model(folders)
        read_vae(folders, model.config)
        read_text_encoder(folders, model.config)
    assert "its publisher" in caught.value.message or "copy it again" in caught.value.message
    return caught.value


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"hidden_size": 10**12}, "hidden_size"),
        ({"hidden_size": "many"}, "hidden_size"),
        ({"hidden_size": -1}, "hidden_size"),
        ({"hidden_size": None}, "lack 'hidden_size'"),
        ({"num_hidden_layers": 10**6}, "num_hidden_layers"),
        ({"num_lyric_encoder_hidden_layers": 10**6}, "num_lyric_encoder_hidden_layers"),
        ({"num_attention_heads": 0}, "num_attention_heads"),
        ({"num_attention_heads": 3}, "cannot share 2 heads"),
        ({"intermediate_size": True}, "intermediate_size"),
        ({"layer_types": ["full_attention"] * 2}, "layer_types"),
        ({"layer_types": ["sliding_attention"] * 5000}, "layer_types"),
        ({"layer_types": [{}]}, "layer_types"),
        ({"in_channels": 13}, "in_channels"),
        ({"timbre_hidden_dim": 5}, "timbre_hidden_dim"),
        ({"fsq_input_num_quantizers": 2}, "fsq_input_num_quantizers"),
        ({"fsq_input_levels": [64] * 6}, "do not fit together"),
        ({"fsq_input_levels": [1, 2]}, "fsq_input_levels"),
        ({"fsq_dim": 31}, "do not fit together"),
        ({"head_dim": 7}, "do not fit together"),
        ({"rope_theta": float("nan")}, "rope_theta"),
        ({"rms_norm_eps": 0}, "rms_norm_eps"),
        ({"sliding_window": 10**9}, "sliding_window"),
        ({"use_sliding_window": False}, "use_sliding_window"),
        ({"timbre_fix_frame": 10**9}, "timbre_fix_frame"),
        ({"is_turbo": "yes"}, "is_turbo"),
        ({"model_version": {}}, "model_version"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(original: Path, values: dict[str, Any], said: str) -> None:
    change(original / NAME / "config.json", **values)
    error = refuse(original)
    assert error.error_code == ErrorCode.BROKEN_CHECKPOINT
    assert said in error.message
    assert f"'{NAME}'" in error.message
    assert len(error.message) < 400


@pytest.mark.parametrize(
    ("values", "tensor"),
    [
        ({"hidden_size": 64, "encoder_hidden_size": 32}, "proj_in_conv.weight"),
        ({"intermediate_size": 96}, "layers.0.mlp.gate_proj.weight"),
        ({"num_hidden_layers": 3, "layer_types": None}, "layers.2.self_attn.to_q.weight"),
        ({"num_attention_heads": 8}, "layers.1.self_attn.to_q.weight"),
        ({"num_key_value_heads": 1}, "layers.1.self_attn.to_k.weight"),
        ({"encoder_hidden_size": 16, "fsq_dim": 16}, "condition_embedder.weight"),
        ({"encoder_intermediate_size": 16}, "lyric_encoder.layers.1.mlp.gate_proj.weight"),
        ({"text_hidden_dim": 16}, "text_projector.weight"),
        ({"num_timbre_encoder_hidden_layers": 9}, "timbre_encoder.layers.8.self_attn.to_q.weight"),
        ({"num_attention_pooler_hidden_layers": 9}, "attention_pooler.layers.8.self_attn.to_q.weight"),
        ({"fsq_input_levels": [8, 8]}, "quantizer.project_in.weight"),
        ({"pool_window_size": 4}, "special_tokens"),
        ({"patch_size": 4}, "proj_in_conv.weight"),
    ],
)
def test_settings_that_do_not_fit_the_tensors_name_a_tensor(
    original: Path, values: dict[str, Any], tensor: str
) -> None:
    change(original / NAME / "config.json", **values)
    assert f"'{tensor}'" in refuse(original).message


@pytest.mark.parametrize("key", ["num_hidden_layers", "num_lyric_encoder_hidden_layers"])
def test_fewer_layers_than_the_file_holds_are_not_dropped_silently(original: Path, key: str) -> None:
    change(original / NAME / "config.json", **{key: 1}, layer_types=None)
    assert "more layers than the 1" in refuse(original).message


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"sampling_rate": 44_100}, "sampling_rate"),
        ({"audio_channels": 1}, "audio_channels"),
        ({"downsampling_ratios": [2, 4, 4, 8, 8]}, "25 latents a second"),
        ({"downsampling_ratios": [10**9]}, "downsampling_ratios"),
        ({"downsampling_ratios": [2, 4, 4, 3, 20]}, "not all even"),
        ({"channel_multiples": [1, 2]}, "channel_multiples"),
        ({"channel_multiples": [1, 1, 2, 2, 10**6]}, "channel_multiples"),
        ({"decoder_channels": 8}, "decoder.conv1.weight_v"),
        ({"encoder_hidden_size": 10**9}, "encoder_hidden_size"),
        ({"decoder_input_channels": 64}, "decoder_input_channels"),
        ({"_class_name": "AutoencoderKL"}, "_class_name"),
    ],
)
def test_a_vae_that_does_not_fit_is_refused(original: Path, values: dict[str, Any], said: str) -> None:
    change(original / "vae" / "config.json", **values)
    error = refuse(original)
    assert said in error.message
    assert "part vae" in error.message


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"model_type": "llama"}, "model_type"),
        ({"hidden_size": 64}, "hidden_size"),
        ({"vocab_size": 10**12}, "vocab_size"),
        ({"vocab_size": 7}, "embed_tokens.weight"),
        ({"num_hidden_layers": 9}, "layers.8."),
        ({"rope_scaling": {"type": "yarn"}}, "rope_scaling"),
        ({"attention_bias": True}, "attention_bias"),
        ({"hidden_act": "relu"}, "hidden_act"),
        ({"rope_theta": "high"}, "rope_theta"),
    ],
)
def test_a_text_encoder_that_does_not_fit_is_refused(original: Path, values: dict[str, Any], said: str) -> None:
    change(original / "Qwen3-Embedding-0.6B" / "config.json", **values)
    assert said in refuse(original).message


def test_a_text_encoder_may_have_the_names_of_a_language_model(tmp_path: Path) -> None:
    written = write_tiny_acestep(tmp_path)
    folder = tmp_path / "Qwen3-Embedding-0.6B"
    state = {f"model.{name}": tensor for name, tensor in written.text_encoder.state_dict().items()}
    write_weights(folder, state | {"lm_head.weight": torch.ones(2, 2)}, stem="model")
    change(folder / "config.json", rope_theta=None, rope_parameters={"rope_type": "default", "rope_theta": 5e5})
    part = read_text_encoder(locate(tmp_path), read_model(locate(tmp_path)).config)
    assert part.tensors.keys() == written.text_encoder.state_dict().keys()
    assert part.config.rope_theta == 5e5


@pytest.mark.parametrize(
    "values", [{"head_dim": 16}, {"rope_theta": 1e4}, {"num_attention_heads": 2}], ids=lambda values: next(iter(values))
)
def test_networks_of_one_folder_that_state_different_sizes_are_refused(converted: Path, values: dict[str, Any]) -> None:
    change(converted / NAME / "audio_tokenizer" / "config.json", **values)
    assert "different values" in refuse(converted, "diffusers").message


class Evil:
    """Runs a command when it is unpickled by pickle itself."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch was_run",)


def test_a_silence_that_carries_code_is_refused_and_not_run(original: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(original)
    torch.save(Evil(), original / NAME / "silence_latent.pt")
    error = refuse(original)
    assert error.error_code == ErrorCode.UNSAFE_CHECKPOINT
    assert "silence_latent.pt carries code" in error.message
    assert not (original / "was_run").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (torch.zeros(1, 4, 14_999), "14999 latents of silence with 4 channels"),
        (torch.zeros(1, 64, 15_000), "with 64 channels"),
        (torch.zeros(1, 15_000, 4), "4 latents of silence with 15000 channels"),
        (torch.zeros(2, 4, 15_000), "not one tensor of three dimensions"),
        (torch.zeros(4, 15_000), "not one tensor of three dimensions"),
        ({"silence": torch.zeros(1, 4, 15_000)}, "not one tensor of three dimensions"),
        (torch.zeros(1, 15_000, 4).transpose(1, 2), "not contiguous"),
        (torch.zeros(1, 1, 1).expand(1, 4, 15_000), "not contiguous"),
        ("text", "not one tensor of three dimensions"),
    ],
)
def test_a_silence_of_another_shape_is_refused(original: Path, content: Any, said: str) -> None:
    torch.save(content, original / NAME / "silence_latent.pt")
    assert said in refuse(original).message


@pytest.mark.parametrize("content", [b"", b"\x80\x02", b"PK\x03\x04" + bytes(100), bytes(70 << 20)])
def test_a_silence_that_is_no_file_of_torch_is_refused(original: Path, content: bytes) -> None:
    (original / NAME / "silence_latent.pt").write_bytes(content)
    assert refuse(original).error_code == ErrorCode.BROKEN_CHECKPOINT


def test_a_silence_in_diffusers_layout_is_checked(tmp_path: Path) -> None:
    written = write_tiny_acestep(tmp_path, layout="diffusers", name=NAME)
    state = written.condition_encoder.state_dict()
    folder = tmp_path / NAME / "condition_encoder"
    write_weights(folder, state | {"silence_latent": torch.zeros(1, 20, 4)}, stem="diffusion_pytorch_model")
    assert "'silence_latent' of its condition encoder is [1, 20, 4]" in refuse(tmp_path, "diffusers").message
    del state["silence_latent"]
    write_weights(folder, state, stem="diffusion_pytorch_model")
    assert "'silence_latent' of its condition encoder is missing" in refuse(tmp_path, "diffusers").message


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{",
        '{"weight_map": {}}',
        '{"weight_map": {"a": 1}}',
        '{"weight_map": {"a": "../../../etc/passwd"}}',
        '{"weight_map": {"a": "/etc/passwd.safetensors"}}',
        '{"weight_map": {"a": "model.bin"}}',
        json.dumps({"weight_map": {str(index): f"model-{index}.safetensors" for index in range(1000)}}),
        "[" * 100_000,
    ],
)
def test_an_index_of_shards_that_cannot_be_is_refused(sharded: Path, content: str) -> None:
    (sharded / NAME / INDEX).write_text(content)
    assert INDEX in refuse(sharded).message
    with pytest.raises(ModelError, match="index"):
        list_missing_files(locate(sharded))


def test_missing_shards_are_named(sharded: Path) -> None:
    assert list_missing_files(locate(sharded)) == ()
    assert len(list_weight_files(sharded / NAME, "model")) == 3
    shard = "model-00002-of-00003.safetensors"
    (sharded / NAME / shard).unlink()
    assert list_missing_files(locate(sharded)) == (shard,)
    assert f"its file {shard} is missing" in refuse(sharded).message


def test_a_shard_that_is_cut_short_or_repeats_a_tensor_is_named(sharded: Path) -> None:
    first, second = (sharded / NAME / f"model-0000{number}-of-00003.safetensors" for number in (1, 2))
    whole = second.read_bytes()
    second.write_bytes(whole[:100])
    assert f"its file {second.name} is broken" in refuse(sharded).message
    shutil.copy(first, second)
    assert "two of its files hold" in refuse(sharded).message


def test_a_file_with_a_whole_header_and_half_its_data_is_refused_when_it_is_loaded(original: Path) -> None:
    from tests.models.acestep.test_load import load

    weights = original / NAME / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match=r"model\.safetensors is broken or cut short"):
        load(original)


@pytest.mark.parametrize("part", ["transformer", "condition_encoder", "audio_token_detokenizer", "vae", "text_encoder"])
@pytest.mark.parametrize("file", ["config.json", "weights"])
def test_missing_files_of_diffusers_layout_are_named(converted: Path, part: str, file: str) -> None:
    stem = "model" if part == "text_encoder" else "diffusion_pytorch_model"
    name = file if file == "config.json" else f"{stem}.safetensors"
    (converted / NAME / part / name).unlink()
    assert list_missing_files(locate(converted, "diffusers")) == (f"{part}/{name}",)
    assert part in refuse(converted, "diffusers").message


@pytest.mark.parametrize("name", ["config.json", "silence_latent.pt", "model.safetensors"])
def test_missing_files_of_the_original_layout_are_named(original: Path, name: str) -> None:
    (original / NAME / name).unlink()
    assert list_missing_files(locate(original)) == (name,)
    assert find_layout(original / NAME) == "original"
    assert refuse(original).details["part"] in (name, "weights")


def test_folders_of_other_models_have_no_layout(tmp_path: Path) -> None:
    for content in ("{}", "[]", "{", '{"model_type": "qwen3"}', '{"model_type": ["acestep"]}'):
        (tmp_path / "config.json").write_text(content)
        assert find_layout(tmp_path) is None
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    assert find_layout(tmp_path) is None
    (tmp_path / "model_index.json").write_text('{"_class_name": "AceStepPipeline"}')
    assert find_layout(tmp_path) == "diffusers"


def test_tensors_of_a_replaced_file_are_read_again(tmp_path: Path) -> None:
    state = make_original_state(write_tiny_acestep(tmp_path))
    before = find_tensors(tmp_path / NAME, "model")
    write_weights(tmp_path / NAME, state | {"more": torch.ones(3)}, stem="model")
    assert find_tensors(tmp_path / NAME, "model").keys() - before.keys() == {"more"}


def test_checks_need_no_torch(sharded: Path) -> None:
    import subprocess

    from testing.repository import ROOT

    code = f"""
import sys
from pathlib import Path
from models.acestep.checkpoint import ModelFolders, read_model, read_text_encoder, read_vae
root = Path({str(sharded)!r})
folders = ModelFolders(root / {NAME!r}, "original", root / "vae", root / "Qwen3-Embedding-0.6B")
model = read_model(folders)
read_vae(folders, model.config), read_text_encoder(folders, model.config)
print(*[name for name in ("torch", "diffusers", "transformers", "safetensors", "tokenizers") if name in sys.modules])
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""
