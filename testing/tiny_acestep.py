"""Random ACE-Step models of the real classes: loaded components, and checkpoints in both layouts on disk.

They have 4 latent channels, at the real rates: 48 kHz stereo, 25 latents and 5 codes of 64,000 a second. The same seed
makes the same weights. Weights are scaled so that every part affects the output, which is audible.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import tokenizers
import torch
from safetensors.torch import save_file
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors
from torch import nn

from models.acestep.catalog import GUIDED, TURBO
from models.acestep.config import NetworkConfig, TextEncoderConfig, VaeConfig, Widths
from models.acestep.network import AceStepConfig, Components, build_networks, build_text_encoder, build_vae

Layout = Literal["original", "diffusers"]

SILENCE_FRAMES = 15_000  # 600 s
_MARKER = "must_never_be_imported"

TINY = NetworkConfig(
    transformer=Widths(hidden_size=32, intermediate_size=64, num_heads=4, num_kv_heads=2),
    encoder=Widths(hidden_size=32, intermediate_size=64, num_heads=4, num_kv_heads=2),
    num_layers=2,
    num_lyric_layers=2,
    num_timbre_layers=2,
    num_pooler_layers=2,
    head_dim=8,
    latent_channels=4,
    text_hidden_size=32,
    sliding_window=16,
    fsq_dim=32,
)
TINY_VAE = VaeConfig(
    encoder_hidden_size=8,
    decoder_channels=4,
    latent_channels=4,
    downsampling_ratios=(2, 4, 4, 6, 10),
    channel_multiples=(1, 1, 2, 2, 2),
)
_XL_WIDTHS = Widths(hidden_size=48, intermediate_size=96, num_heads=8, num_kv_heads=2)
_SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")

_ORIGINAL_PREFIXES = {
    "transformer": "decoder.",
    "condition_encoder": "encoder.",
    "audio_tokenizer": "tokenizer.",
    "audio_token_detokenizer": "detokenizer.",
}
_ORIGINAL_NAMES = {
    ".to_q.": ".q_proj.",
    ".to_k.": ".k_proj.",
    ".to_v.": ".v_proj.",
    ".to_out.0.": ".o_proj.",
    ".norm_q.": ".q_norm.",
    ".norm_k.": ".k_norm.",
    "proj_in_conv.": "proj_in.1.",
    "proj_out_conv.": "proj_out.1.",
}
"""diffusers' names of tensors, and ACE-Step's own."""


def build_tiny_components(seed: int = 0, *, xl: bool = False, is_turbo: bool = True) -> Components:
    """Builds a loaded model with random weights, in float32 on the CPU.

    Args:
        xl: the transformer is wider than its conditions, and the timbre encoder has a token of its own.
        is_turbo: with the defaults of a turbo model, 8 steps without guidance; else those of base and sft.
    """
    sizes = replace(
        TINY,
        is_turbo=is_turbo,
        version="turbo" if is_turbo else "base",
        transformer=_XL_WIDTHS if xl else TINY.transformer,
    )
    tokenizer = make_tokenizer()
    text = TextEncoderConfig(
        widths=TINY.encoder,
        num_layers=2,
        head_dim=8,
        vocab_size=tokenizer.get_vocab_size(),
        rope_theta=1e6,
        rms_norm_eps=1e-6,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        networks = build_networks(sizes) | {"vae": build_vae(TINY_VAE), "text_encoder": build_text_encoder(text)}
        for network in networks.values():
            _randomize(network)
            network.eval().requires_grad_(False)
        silence = 0.1 * torch.randn(1, SILENCE_FRAMES, sizes.latent_channels)
    encoder = networks["condition_encoder"]
    encoder.register_buffer("silence_latent", silence)
    return Components(
        **networks,
        tokenizer=tokenizer,
        silence_latent=silence,
        config=AceStepConfig(
            sizes=sizes,
            defaults=TURBO if is_turbo else GUIDED,
            device=torch.device("cpu"),
            dtype=torch.float32,
        ),
    )


def make_tokenizer() -> tokenizers.Tokenizer:
    """Makes a byte-level BPE tokenizer as Qwen3-Embedding's: it ends every text with `<|endoftext|>`."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: index for index, letter in enumerate(letters)}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(_SPECIAL_TOKENS))
    end = _SPECIAL_TOKENS[0]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, tokenizer.token_to_id(end))]
    )
    return tokenizer


def write_tiny_acestep(  # noqa: PLR0913  (the axes along which checkpoints differ)
    folder: Path,
    *,
    layout: Layout = "original",
    name: str = "acestep-v15-turbo",
    seed: int = 0,
    xl: bool = False,
    is_turbo: bool = True,
    shards: int = 1,
    dtype: torch.dtype = torch.float32,
    with_shared: bool = True,
) -> Components:
    """Writes a checkpoint as it is published and returns the components that were written.

    Args:
        folder: of model folders, such as MODELS_DIR.
        layout: `original`: `<name>/`, `vae/` and `Qwen3-Embedding-0.6B/` below `folder`, as in the repository
            Ace-Step1.5; `diffusers`: all of it below `<name>/`.
        name: of the model's folder.
        shards: number of files that hold the weights.
        dtype: of the stored weights.
        with_shared: whether the original layout gets its VAE and its text encoder, which all models share.
    """
    components = build_tiny_components(seed, xl=xl, is_turbo=is_turbo)
    save = partial(write_weights, shards=shards, dtype=dtype)
    if layout == "diffusers":
        _write_diffusers(components, folder / name, save)
        return components
    _write_original(components, folder / name, save)
    if with_shared:
        _write_vae(components, folder / "vae")
        _write_text_encoder(components, folder / "Qwen3-Embedding-0.6B", tokenizer_in=".")
    return components


def make_original_state(components: Components) -> dict[str, torch.Tensor]:
    """Returns the tensors of the DiT folder under their original names."""
    state = {}
    for network, prefix in _ORIGINAL_PREFIXES.items():
        for name, tensor in components.networks[network].state_dict().items():
            if name in ("silence_latent", "null_condition_emb"):
                continue
            for new, old in _ORIGINAL_NAMES.items():
                name = name.replace(new, old)
            state[prefix + name] = tensor
    return state | {"null_condition_emb": components.condition_encoder.state_dict()["null_condition_emb"]}


def make_original_config(sizes: NetworkConfig) -> dict[str, Any]:
    """Returns the settings of the DiT folder."""
    config = {
        "architectures": ["AceStepConditionGenerationModel"],
        "auto_map": {"AutoModel": f"{_MARKER}.Model"},
        "model_type": "acestep",
        "model_version": sizes.version,
        "dtype": "bfloat16",
        **_name_widths(sizes.transformer),
        "num_hidden_layers": sizes.num_layers,
        "head_dim": sizes.head_dim,
        "in_channels": 3 * sizes.latent_channels,
        "patch_size": sizes.patch_size,
        "use_sliding_window": True,
        "sliding_window": sizes.sliding_window,
        "layer_types": [("sliding_attention", "full_attention")[layer % 2] for layer in range(sizes.num_layers)],
        "rope_theta": int(sizes.rope_theta),
        "rms_norm_eps": sizes.rms_norm_eps,
        "attention_bias": sizes.attention_bias,
        "attention_dropout": 0.0,
        "text_hidden_dim": sizes.text_hidden_size,
        "timbre_hidden_dim": sizes.latent_channels,
        "timbre_fix_frame": sizes.timbre_frames,
        "audio_acoustic_hidden_dim": sizes.latent_channels,
        "pool_window_size": sizes.pool_window_size,
        "fsq_dim": sizes.fsq_dim,
        "fsq_input_levels": list(sizes.fsq_levels),
        "fsq_input_num_quantizers": 1,
        "num_lyric_encoder_hidden_layers": sizes.num_lyric_layers,
        "num_timbre_encoder_hidden_layers": sizes.num_timbre_layers,
        "num_attention_pooler_hidden_layers": sizes.num_pooler_layers,
        "is_turbo": sizes.is_turbo,
    }
    if sizes.is_xl:
        config |= {f"encoder_{key}": value for key, value in _name_widths(sizes.encoder).items()}
    return config


def write_weights(
    folder: Path, state: Mapping[str, torch.Tensor], *, stem: str, shards: int = 1, dtype: torch.dtype = torch.float32
) -> None:
    """Writes `<stem>.safetensors`, or its shards with their index."""
    folder.mkdir(parents=True, exist_ok=True)
    stored = {name: tensor.to(dtype).contiguous().clone() for name, tensor in state.items()}
    if shards == 1:
        save_file(stored, folder / f"{stem}.safetensors", metadata={"format": "pt"})
        return
    files = {name: f"{stem}-{index % shards + 1:05}-of-{shards:05}.safetensors" for index, name in enumerate(stored)}
    for file in sorted(set(files.values())):
        part = {name: tensor for name, tensor in stored.items() if files[name] == file}
        save_file(part, folder / file, metadata={"format": "pt"})
    total = sum(tensor.nbytes for tensor in stored.values())
    _write_json(folder / f"{stem}.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": files})


def _write_original(components: Components, model: Path, save: Callable[..., None]) -> None:
    save(model, make_original_state(components), stem="model")
    _write_json(model / "config.json", make_original_config(components.config.sizes))
    torch.save(components.silence_latent.transpose(1, 2).contiguous(), model / "silence_latent.pt")
    for file in (f"{_MARKER}.py", "configuration_acestep_v15.py", "modeling_acestep_v15_turbo.py"):
        (model / file).write_text('raise SystemExit("code of a checkpoint was run")\n')


def _write_diffusers(components: Components, model: Path, save: Callable[..., None]) -> None:
    index: dict[str, Any] = {"_class_name": "AceStepPipeline", "_diffusers_version": "0.38.0"}
    for part in _ORIGINAL_PREFIXES:
        network: Any = components.networks[part]
        index[part] = ["diffusers", type(network).__name__]
        save(model / part, network.state_dict(), stem="diffusion_pytorch_model")
        settings = {key: value for key, value in network.config.items() if not key.startswith("_")}
        _write_json(model / part / "config.json", {"_class_name": type(network).__name__, **settings})
    _write_vae(components, model / "vae")
    _write_text_encoder(components, model / "text_encoder", tokenizer_in="../tokenizer")
    scheduler = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1, "shift": 1.0}
    _write_json(model / "scheduler" / "scheduler_config.json", scheduler)
    index |= {
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "Qwen3Model"],
        "tokenizer": ["transformers", "Qwen2TokenizerFast"],
        "vae": ["diffusers", "AutoencoderOobleck"],
    }
    _write_json(model / "model_index.json", index)


def _write_vae(components: Components, folder: Path) -> None:
    write_weights(folder, components.vae.state_dict(), stem="diffusion_pytorch_model")
    _write_json(folder / "config.json", describe_vae(components))


def describe_vae(components: Components) -> dict[str, Any]:
    """Returns the settings of the VAE."""
    network: Any = components.vae
    settings = {key: value for key, value in network.config.items() if not key.startswith("_")}
    return {"_class_name": "AutoencoderOobleck", **settings}


def _write_text_encoder(components: Components, folder: Path, *, tokenizer_in: str) -> None:
    write_weights(folder, components.text_encoder.state_dict(), stem="model")
    _write_json(folder / "config.json", describe_text_encoder(components))
    (folder / tokenizer_in).mkdir(exist_ok=True)
    components.tokenizer.save(str(folder / tokenizer_in / "tokenizer.json"))


def describe_text_encoder(components: Components) -> dict[str, Any]:
    """Returns the settings of the text encoder."""
    network: Any = components.text_encoder
    config = network.config
    keys = (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "hidden_act",
        "rms_norm_eps",
        "attention_bias",
    )
    return {
        "architectures": ["Qwen3Model"],
        "model_type": "qwen3",
        "rope_theta": int(config.rope_parameters["rope_theta"]),
        "max_position_embeddings": 32_768,
        "tie_word_embeddings": True,
        **{key: getattr(config, key) for key in keys},
    }


def _randomize(network: nn.Module) -> None:
    """Draws what torch and diffusers initialise to constants, so that an error in any part changes the output."""
    for name, parameter in network.named_parameters():
        if name.endswith(("norm.weight", "norm_q.weight", "norm_k.weight", "layernorm.weight", "norm_out.weight")):
            nn.init.normal_(parameter, mean=1.0, std=0.2)
        elif name.endswith((".alpha", ".beta")):
            nn.init.normal_(parameter, std=0.2)
        elif name.endswith(("audio_acoustic_proj.weight", "project_in.weight")):
            nn.init.normal_(parameter, std=0.5)  # so that latents have different codes


def _name_widths(widths: Widths) -> dict[str, int]:
    return {
        "hidden_size": widths.hidden_size,
        "intermediate_size": widths.intermediate_size,
        "num_attention_heads": widths.num_heads,
        "num_key_value_heads": widths.num_kv_heads,
    }


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2))
