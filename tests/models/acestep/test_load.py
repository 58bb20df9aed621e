"""Loading ACE-Step: both layouts give the published networks exactly, without second copies and without code."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from errors import ErrorCode, ModelError
from models.acestep.catalog import BY_NAME, GUIDED, TEXT_ENCODER_PARAMETERS, TURBO, VAE_PARAMETERS
from models.acestep.checkpoint import NETWORKS, ModelFolders, read_model, read_text_encoder, read_vae
from models.acestep.config import NetworkConfig, TextEncoderConfig, VaeConfig, Widths, read_network_config
from models.acestep.load import load_components
from models.acestep.network import Components, build_networks, build_text_encoder, build_vae
from models.acestep.repository import AceStepRepository
from models.checkpoints.locations import WeightLocations
from models.checkpoints.settings import Settings
from testing.tensors import count_tensor_bytes
from testing.tiny_acestep import (
    Layout,
    build_tiny_components,
    make_original_config,
    make_original_state,
    write_tiny_acestep,
    write_weights,
)

NAME = "acestep-v15-turbo"
_WIDE = Widths(hidden_size=2048, intermediate_size=6144, num_heads=16, num_kv_heads=8)
PUBLISHED = NetworkConfig(
    transformer=_WIDE,
    encoder=_WIDE,
    num_layers=24,
    num_lyric_layers=8,
    num_timbre_layers=4,
    num_pooler_layers=2,
    head_dim=128,
    latent_channels=64,
    text_hidden_size=1024,
)
PUBLISHED_XL = replace(
    PUBLISHED,
    transformer=Widths(hidden_size=2560, intermediate_size=9728, num_heads=32, num_kv_heads=8),
    num_layers=32,
)


def load(
    root: Path, name: str = NAME, *, dtype: torch.dtype = torch.float32, vae_dtype: torch.dtype = torch.float32
) -> Components:
    """Loads a model that is below `root`."""
    folders = AceStepRepository(WeightLocations(explicit=root)).find(name)
    assert folders is not None
    model = read_model(folders)
    return load_components(
        model,
        read_vae(folders, model.config),
        read_text_encoder(folders, model.config),
        defaults=TURBO if model.config.is_turbo else GUIDED,
        device="cpu",
        dtype=dtype,
        vae_dtype=vae_dtype,
    )


def compare(ours: Components, expected: Components) -> None:
    """Every tensor of every network is the same, the silence included."""
    assert ours.networks.keys() == expected.networks.keys()
    for name, network in expected.networks.items():
        state, found = network.state_dict(), ours.networks[name].state_dict()
        assert state.keys() == found.keys()
        differences = {key: float((found[key] - value).abs().max()) for key, value in state.items()}
        assert max(differences.values()) == 0.0, name
    assert torch.equal(ours.silence_latent, expected.silence_latent)
    assert ours.config == expected.config


@pytest.mark.parametrize("xl", [False, True])
@pytest.mark.parametrize(("layout", "shards"), [("original", 1), ("original", 3), ("diffusers", 1), ("diffusers", 2)])
def test_both_layouts_give_the_tensors_that_were_written(tmp_path: Path, layout: Layout, shards: int, xl: bool) -> None:
    written = write_tiny_acestep(tmp_path, layout=layout, shards=shards, xl=xl, is_turbo=not xl)
    compare(load(tmp_path), written)


@pytest.mark.parametrize("xl", [False, True])
def test_the_original_layout_gives_what_diffusers_loads_from_its_own(tmp_path: Path, xl: bool) -> None:
    """diffusers reads its layout with its own code; only the timbre of an XL model is computed otherwise by ours."""
    from diffusers import AceStepPipeline

    write_tiny_acestep(tmp_path / "original", xl=xl)
    write_tiny_acestep(tmp_path, layout="diffusers", name="converted", xl=xl)
    ours = load(tmp_path / "original")
    parts = _make_tokenizer_class_known(tmp_path / "converted")
    pipeline: Any = AceStepPipeline.from_pretrained(tmp_path / "converted", **parts)
    for name, network in ours.networks.items():
        reference, loaded = getattr(pipeline, name).state_dict(), network.state_dict()
        assert reference.keys() == loaded.keys()
        assert max(float((reference[key] - loaded[key]).abs().max()) for key in reference) == 0.0
        # diffusers leaves weights in the mapped file, where they may not be aligned: sums come out in another order.
        aligned = {key: tensor.clone() for key, tensor in reference.items()}
        getattr(pipeline, name).load_state_dict(aligned, assign=True)
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    time, latents = torch.tensor([0.7]), draw(1, 51, 4)
    transformer = (latents, time, time, draw(1, 9, 32), draw(1, 51, 8))
    ids = torch.tensor([ours.tokenizer.encode("# Caption\nslow piano").ids])
    calls: dict[str, tuple[Any, ...]] = {
        "transformer": transformer,
        "audio_tokenizer": (latents[:, :50].reshape(1, 10, 5, 4),),
        "audio_token_detokenizer": (draw(1, 10, 32),),
        "vae": (draw(1, 2, 1920 * 4),),
        "text_encoder": (ids,),
    }
    if not xl:
        embedded, mask = draw(1, 7, 32), torch.ones(1, 7)
        order = torch.zeros(1, dtype=torch.long)
        calls["condition_encoder"] = (embedded, mask, draw(1, 7, 32), mask, ours.silence_latent[:, :750], order)
    difference = _measure_difference(pipeline.transformer, ours.transformer, transformer)
    print(f"transformer behind patches that are not contiguous: difference {difference}")
    assert difference < 2e-6  # the same sums in another order
    pipeline.transformer.proj_in_conv = ours.transformer.get_submodule("proj_in_conv")
    for name, arguments in calls.items():
        difference = _measure_difference(getattr(pipeline, name), ours.networks[name], arguments)
        print(f"{name}: difference {difference}")
        assert difference == 0.0


def _measure_difference(reference: nn.Module, network: nn.Module, arguments: tuple[Any, ...]) -> float:
    """The largest difference between the first results of two networks; the VAE's draws are the same for both."""
    results = []
    for called in (reference, network):
        with torch.inference_mode(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            result = called(*arguments)
        values = result.values() if isinstance(result, Mapping) else result
        results.append(result if isinstance(result, torch.Tensor) else next(iter(values)))
    return float((results[0] - results[1]).abs().max())


def _make_tokenizer_class_known(folder: Path) -> dict[str, Any]:
    """transformers' class for the tokenizer, which needs files beside `tokenizer.json` that we never read."""
    from transformers import PreTrainedTokenizerFast

    file = str(folder / "tokenizer" / "tokenizer.json")
    tokenizer: Any = PreTrainedTokenizerFast
    return {"tokenizer": tokenizer(tokenizer_file=file, pad_token="<|endoftext|>")}


def test_the_names_of_the_original_layout_are_those_that_were_published() -> None:
    """Written out by hand, because a test that renames back and forth proves nothing about the names."""
    names = make_original_state(build_tiny_components()).keys()
    assert {
        "decoder.proj_in.1.weight",
        "decoder.proj_out.1.bias",
        "decoder.condition_embedder.weight",
        "decoder.time_embed.linear_1.weight",
        "decoder.time_embed_r.time_proj.bias",
        "decoder.scale_shift_table",
        "decoder.norm_out.weight",
        "decoder.layers.1.self_attn.q_proj.weight",
        "decoder.layers.1.self_attn.o_proj.weight",
        "decoder.layers.1.self_attn.q_norm.weight",
        "decoder.layers.1.cross_attn.k_norm.weight",
        "decoder.layers.1.mlp.gate_proj.weight",
        "decoder.layers.1.scale_shift_table",
        "encoder.text_projector.weight",
        "encoder.lyric_encoder.embed_tokens.weight",
        "encoder.lyric_encoder.layers.0.self_attn.v_proj.weight",
        "encoder.timbre_encoder.special_token",
        "encoder.timbre_encoder.layers.0.input_layernorm.weight",
        "tokenizer.audio_acoustic_proj.weight",
        "tokenizer.attention_pooler.special_token",
        "tokenizer.quantizer.project_in.weight",
        "tokenizer.quantizer.project_out.bias",
        "detokenizer.special_tokens",
        "detokenizer.proj_out.weight",
        "null_condition_emb",
    } <= names
    assert not [name for name in names if "to_q" in name or "norm_k" in name or "_conv" in name]


@pytest.mark.parametrize(
    ("config", "tensors"), [(PUBLISHED, (476, 142, 32, 28)), (PUBLISHED_XL, (628, 142, 32, 28))], ids=["2B", "XL"]
)
def test_published_settings_make_networks_of_the_published_sizes(config: NetworkConfig, tensors: Sequence[int]) -> None:
    """The file of turbo has 4,787,825,604 bytes: these parameters in bfloat16, and a header."""
    settings = make_original_config(config)
    assert read_network_config(Settings(settings)) == config
    with torch.device("meta"):
        networks = build_networks(config)
    assert tuple(len(networks[name].state_dict()) for name in NETWORKS) == tuple(tensors)
    parameters = sum(parameter.numel() for network in networks.values() for parameter in network.parameters())
    card = BY_NAME["acestep-v15-xl-base" if config.is_xl else NAME]
    assert parameters == card.parameters
    if not config.is_xl:
        assert 0 < 4_787_825_604 - 2 * parameters < 100_000


def test_the_parts_that_all_models_share_have_the_published_sizes() -> None:
    with torch.device("meta"):
        vae = build_vae(
            VaeConfig(
                encoder_hidden_size=128,
                decoder_channels=128,
                latent_channels=64,
                downsampling_ratios=(2, 4, 4, 6, 10),
                channel_multiples=(1, 2, 4, 8, 16),
            )
        )
        text_encoder = build_text_encoder(
            TextEncoderConfig(
                widths=Widths(hidden_size=1024, intermediate_size=3072, num_heads=16, num_kv_heads=8),
                num_layers=28,
                head_dim=128,
                vocab_size=151_669,
                rope_theta=1e6,
                rms_norm_eps=1e-6,
            )
        )
    assert sum(parameter.numel() for parameter in vae.parameters()) == VAE_PARAMETERS
    assert sum(parameter.numel() for parameter in text_encoder.parameters()) == TEXT_ENCODER_PARAMETERS


def test_the_timbre_of_an_xl_model_is_the_output_at_its_learned_token(tmp_path: Path) -> None:
    """Against the encoder built by hand from its layers: embed, put the token first, run, take position 0."""
    from diffusers.models.embeddings import get_1d_rotary_pos_embed

    write_tiny_acestep(tmp_path, xl=True)
    encoder: Any = cast("Any", load(tmp_path).condition_encoder).timbre_encoder
    reference = torch.randn(1, 60, 4, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        ours, mask = encoder(reference, torch.zeros(1, dtype=torch.long))
        embedded = nn.functional.linear(reference, encoder.embed_tokens.weight, encoder.embed_tokens.bias)
        hidden = torch.cat([encoder.special_token, embedded], dim=1)
        cos, sin = get_1d_rotary_pos_embed(
            8, torch.arange(61.0), theta=1e6, use_real=True, repeat_interleave_real=False
        )
        distance = (torch.arange(61)[:, None] - torch.arange(61)).abs()
        band = torch.where(distance <= 16, 0.0, torch.finfo(torch.float32).min)[None, None]
        for layer, allowed in zip(encoder.layers, (band, None), strict=True):
            hidden = layer(hidden, (cos, sin), allowed)
        expected = encoder.norm(hidden)[:, :1]
    assert ours.shape == (1, 1, 32)
    assert mask.tolist() == [[1]]
    difference = float((ours - expected).abs().max())
    print(f"timbre of an XL model: difference {difference}")
    assert difference == 0.0
    encoder.special_token.data += 1.0
    assert not torch.equal(encoder(reference, torch.zeros(1, dtype=torch.long))[0], expected)


def test_the_timbre_of_a_smaller_model_ignores_the_token(tmp_path: Path) -> None:
    write_tiny_acestep(tmp_path)
    encoder: Any = cast("Any", load(tmp_path).condition_encoder).timbre_encoder
    reference, order = torch.randn(1, 60, 4), torch.zeros(1, dtype=torch.long)
    before, _ = encoder(reference, order)
    encoder.special_token.data += 1.0
    assert torch.equal(encoder(reference, order)[0], before)


def test_patches_are_contiguous_so_that_linear_layers_do_not_copy_their_weights(tmp_path: Path) -> None:
    write_tiny_acestep(tmp_path)
    transformer: Any = load(tmp_path).transformer
    patches = transformer.proj_in_conv(torch.randn(1, 12, 40)).transpose(1, 2)
    assert patches.is_contiguous()
    plain = nn.functional.conv1d(
        torch.ones(1, 12, 4), transformer.proj_in_conv.weight, transformer.proj_in_conv.bias, stride=2
    )
    assert torch.equal(transformer.proj_in_conv(torch.ones(1, 12, 4)), plain)


def test_weights_in_float32_are_held_in_the_type_they_run_in_alone(tmp_path: Path) -> None:
    write_tiny_acestep(tmp_path, xl=True, shards=4, dtype=torch.float32)
    whole = load(tmp_path)
    half = load(tmp_path, dtype=torch.bfloat16)
    for name, network in half.networks.items():
        expected = torch.float32 if name == "vae" else torch.bfloat16
        assert {tensor.dtype for tensor in network.state_dict().values()} == {expected}
    vae = sum(parameter.nbytes for parameter in whole.vae.parameters())
    assert count_tensor_bytes(list(half.networks.values())) <= (whole.memory_bytes - vae) // 2 + vae + 4096
    assert not any(tensor.requires_grad for network in half.networks.values() for tensor in network.parameters())
    assert not any(network.training for network in half.networks.values())
    assert half.silence_latent.dtype == torch.bfloat16


def test_no_tensor_is_made_in_the_type_that_weights_are_stored_in(tmp_path: Path) -> None:
    """XL models are published in float32, 20 GB, and run in bfloat16: each weight is cast as it is copied."""
    written = write_tiny_acestep(tmp_path, xl=True, shards=4, dtype=torch.float32)
    weights = {tuple(tensor.shape) for tensor in make_original_state(written).values() if tensor.dim() > 1}
    with _NewTensors() as made:
        load(tmp_path, dtype=torch.bfloat16)
    assert {shape for shape, dtype in made.tensors if dtype == torch.bfloat16} >= weights
    assert not {shape for shape, dtype in made.tensors if dtype == torch.float32} & weights


class _NewTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the shape and the dtype of every tensor with memory of its own: views of a mapped file have none."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tensors: set[tuple[tuple[int, ...], torch.dtype]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and not result.is_meta and not func.is_view:
            self.tensors.add((tuple(result.shape), result.dtype))
        return result


def test_a_model_without_an_audio_tokenizer_is_loaded_without_one(tmp_path: Path) -> None:
    """As acestep-v15-xl-turbo-diffusers is published."""
    write_tiny_acestep(tmp_path, layout="diffusers", name=NAME, xl=True)
    for part in ("audio_tokenizer", "audio_token_detokenizer"):
        shutil.rmtree(tmp_path / NAME / part)
    components = load(tmp_path)
    assert components.audio_tokenizer is None
    assert components.audio_token_detokenizer is None
    assert "audio_tokenizer" not in components.networks


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("part", ["model", "vae", "text encoder"])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path: Path, part: str, value: float) -> None:
    written = write_tiny_acestep(tmp_path)
    folder, stem, state = {
        "model": (tmp_path / NAME, "model", make_original_state(written)),
        "vae": (tmp_path / "vae", "diffusion_pytorch_model", written.vae.state_dict()),
        "text encoder": (tmp_path / "Qwen3-Embedding-0.6B", "model", written.text_encoder.state_dict()),
    }[part]
    name = sorted(state)[-1]
    state[name] = torch.full_like(state[name], value)
    write_weights(folder, state, stem=stem)
    with pytest.raises(ModelError, match="not finite") as caught:
        load(tmp_path)
    assert caught.value.error_code == ErrorCode.BROKEN_CHECKPOINT
    assert name.rpartition(".")[0].removeprefix("tokenizer.").removeprefix("decoder.")[:8] in caught.value.message


def test_a_tensor_that_is_missing_left_over_or_of_another_shape_is_named(tmp_path: Path) -> None:
    state = make_original_state(write_tiny_acestep(tmp_path))

    def refuse(changed: dict[str, torch.Tensor]) -> str:
        write_weights(tmp_path / NAME, changed, stem="model")
        with pytest.raises(ModelError) as caught:
            load(tmp_path)
        assert caught.value.error_code == ErrorCode.BROKEN_CHECKPOINT
        return caught.value.message

    name = "decoder.layers.1.cross_attn.v_proj.weight"
    assert "'layers.1.cross_attn.to_v.weight' of its AceStepTransformer1DModel is missing" in refuse(
        {key: value for key, value in state.items() if key != name}
    )
    assert "is [16, 31] and not [16, 32]" in refuse(state | {name: state[name][:, :31]})
    assert "left over" in refuse(state | {"decoder.layers.1.lora.weight": torch.ones(2)})
    assert "'optimizer.state', which no network" in refuse(state | {"optimizer.state": torch.ones(2)})
    packed = {key: tensor.to(torch.int8) if key == name else tensor for key, tensor in state.items()}
    save_file(packed, tmp_path / NAME / "model.safetensors")
    with pytest.raises(ModelError, match="holds no floating-point numbers"):
        load(tmp_path)


def test_the_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    write_tiny_acestep(tmp_path)
    file = tmp_path / "Qwen3-Embedding-0.6B" / "tokenizer.json"
    file.write_text(file.read_text().replace("<|endoftext|>", "</s>"))
    with pytest.raises(ModelError, match="is not that of its text encoder"):
        load(tmp_path)
    file.write_text("{}")
    with pytest.raises(ModelError, match="cannot be read"):
        load(tmp_path)


def test_no_code_of_a_checkpoint_is_run(tmp_path: Path) -> None:
    """Its Python files end the process if they are imported; its settings ask transformers to import them."""
    write_tiny_acestep(tmp_path)
    assert list((tmp_path / NAME).glob("*.py"))
    before = set(sys.modules)
    load(tmp_path)
    assert not [name for name in set(sys.modules) - before if "acestep_v15" in name or "must_never" in name]


def test_a_folder_that_is_a_snapshot_is_called_by_its_repository() -> None:
    snapshot = Path("/cache/models--ACE-Step--Ace-Step1.5/snapshots/0123")
    for model in (snapshot, snapshot / NAME):
        assert ModelFolders(model, "original", None, None).label == "ACE-Step/Ace-Step1.5"
    assert ModelFolders(Path("/models/mine"), "original", None, None).label == "mine"
