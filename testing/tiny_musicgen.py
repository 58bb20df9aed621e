"""Writes tiny random MusicGen checkpoints in the real on-disk format: folders that the real loader takes."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml  # type: ignore[import-untyped]

from models.musicgen.audiocraft_import import import_audiocraft
from models.musicgen.xp_config import read_xp_config
from testing.audiocraft_reference import build_melody_conditioner

CARD = 32
CODEBOOKS = 4
DIM = 32
T5_DIM = 24
SEGMENTED: dict[str, Any] = {
    "audio_channels": 2,
    "num_filters": 4,
    "normalize": True,
    "chunk_length_s": 1.0,
    "overlap": 0.01,
    "norm_type": "time_group_norm",
}
"""Settings by which `write_hub_codec` writes a codec that works in segments, as EnCodec at 48 kHz."""
WORDS = ("slow", "fast", "piano", "drums", "bass", "techno", "ambient", "with", "and", "bpm", "in", "major", "minor")


@dataclass(frozen=True)
class Shape:
    """What kind of MusicGen.

    Args:
        stereo: 8 interleaved codebooks, two channels.
        melody: chroma and text prepended, no cross-attention.
        sample_rate: 16000 (as AudioGen) or 32000 Hz.
        window: s.
        biased: attention has biases, as in no published model.
    """

    stereo: bool = False
    melody: bool = False
    sample_rate: int = 16_000
    window: float = 2.0
    biased: bool = False


def write_checkpoint(
    folder: Path, shape: Shape | None = None, *, seed: int = 0, pickled_settings: bool = False
) -> Path:
    """`state_dict.bin`, `compression_state_dict.bin` and `t5/` below `folder`; 50 frames a second.

    `pickled_settings` writes `xp.cfg` as an omegaconf object instead of YAML, as older exports have it.
    """
    import_audiocraft()
    shape = shape or Shape()
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        write_t5(folder / "t5")
        _write_codec(folder / "compression_state_dict.bin", shape.sample_rate)
        _write_lm(folder, lm_settings(shape), pickled=pickled_settings)
    return folder


def training_settings() -> dict[str, Any]:
    """What the configurations of audiocraft have beside a model's own settings, and no loader reads.

    Among it are a reference, values that are missing, and one from the environment of whoever trained the model.
    """
    return {
        "seed": 2036,
        "label": None,
        "continue_from": None,
        "dora": {"dir": "/checkpoint/${oc.env:USER}/outputs", "exclude": ["device", "logging.*"], "git_save": True},
        "slurm": {"gpus": 4, "constraint": None, "setup": []},
        "datasource": {"max_channels": "???", "max_sample_rate": "???", "train": "???"},
        "generate": {"every": 25, "audio": {"format": "wav", "sample_rate": "${sample_rate}"}},
        "optim": {"updates_per_epoch": 2000, "lr": 1e-4, "ema": {"updates": "${optim.updates_per_epoch}"}},
    }


def lm_settings(shape: Shape) -> dict[str, Any]:
    """The settings that audiocraft's builders read, as its exports carry them."""
    stereo, melody, sample_rate = shape.stereo, shape.melody, shape.sample_rate
    codebooks = CODEBOOKS * (2 if stereo else 1)
    delays = [k // 2 for k in range(codebooks)] if stereo else list(range(codebooks))
    text = {"model": "t5", "t5": {"name": "t5-base", "finetune": False, "word_dropout": 0.3, "normalize_text": False}}
    chroma = {
        "sample_rate": "${sample_rate}",
        "n_chroma": 12,
        "radix2_exp": 9,
        "argmax": True,
        "match_len_on_eval": False,
    }
    wav = {"model": "chroma_stem", "chroma_stem": chroma | {"eval_wavs": None, "n_eval_wavs": 0, "cache_path": None}}
    return {
        **training_settings(),
        "device": "cuda",
        "dtype": "float16",
        "sample_rate": sample_rate,
        "channels": 2 if stereo else 1,
        "compression_model_checkpoint": "//sig/00000000",
        "interleave_stereo_codebooks": {"use": stereo, "per_timestep": False},
        "lm_model": "transformer_lm",
        "transformer_lm": {
            "n_q": codebooks,
            "card": CARD,
            "dim": DIM,
            "num_heads": 4,
            "num_layers": 2,
            "hidden_scale": 4,
            "dropout": 0.1,
            "emb_lr": None,
            "activation": "gelu",
            "norm_first": True,
            "bias_ff": False,
            "bias_attn": shape.biased,
            "bias_proj": False,
            "past_context": None,
            "causal": True,
            "custom": False,
            "memory_efficient": True,
            "attention_as_float32": False,
            "layer_scale": None,
            "positional_embedding": "sin",
            "xpos": False,
            "checkpointing": "none",
            "weight_init": "gaussian",
            "depthwise_init": "current",
            "zero_bias_init": True,
            "norm": "layer_norm",
            "cross_attention": False,
            "qk_layer_norm": False,
            "qk_layer_norm_cross": False,
            "attention_dropout": None,
            "kv_repeat": 1,
            "two_step_cfg": False,
        },
        "codebooks_pattern": {"modeling": "delay", "delay": {"delays": delays, "flatten_first": 0, "empty_initial": 0}},
        "attribute_dropout": {"args": {"active_on_eval": False}, "text": {}, "wav": {}},
        "classifier_free_guidance": {"training_dropout": 0.3, "inference_coef": 3.0},
        "fuser": {
            "cross_attention_pos_emb": False,
            "cross_attention_pos_emb_scale": 1,
            "sum": [],
            "prepend": ["self_wav", "description"] if melody else [],
            "cross": [] if melody else ["description"],
            "input_interpolate": [],
        },
        "conditioners": {
            "args": {"merge_text_conditions_p": 0.25, "drop_desc_p": 0.5},
            "description": text,
            **({"self_wav": wav} if melody else {}),
        },
        "dataset": {"segment_duration": shape.window, "batch_size": 192},
    }


def write_t5(folder: Path, *, width: int = T5_DIM) -> None:
    """A T5 encoder folder as transformers writes it: tokenizer, config, safetensors."""
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(f"▁{word}", -3.0) for word in WORDS] + [
        (letter, -6.0) for letter in "abcdefghijklmnopqrstuvwxyz0123456789"
    ]
    tokenizer = T5Tokenizer(vocab=pieces, extra_ids=0)
    tokenizer.save_pretrained(folder)
    sizes: dict[str, Any] = {"d_model": width, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    T5EncoderModel(T5Config(vocab_size=len(pieces), **sizes)).save_pretrained(folder)


def codec_settings(sample_rate: int) -> dict[str, Any]:
    """audiocraft's settings of an EnCodec at 50 frames a second."""
    ratios = {16_000: [8, 5, 4, 2], 32_000: [8, 5, 4, 4]}[sample_rate]
    return {
        **training_settings(),
        "device": "cuda",
        "dtype": "float32",
        "sample_rate": sample_rate,
        "channels": 1,
        "compression_model": "encodec",
        "encodec": {
            "autoencoder": "seanet",
            "quantizer": "rvq",
            "sample_rate": "${sample_rate}",
            "channels": "${channels}",
            "causal": False,
            "renormalize": False,
        },
        "seanet": {
            "dimension": 16,
            "channels": "${channels}",
            "n_filters": 2,
            "n_residual_layers": 1,
            "ratios": ratios,
            "activation": "ELU",
            "activation_params": {"alpha": 1.0},
            "norm": "weight_norm",
            "norm_params": {},
            "kernel_size": 7,
            "residual_kernel_size": 3,
            "last_kernel_size": 7,
            "dilation_base": 2,
            "pad_mode": "constant",
            "true_skip": True,
            "compress": 2,
            "lstm": 2,
            "disable_norm_outer_blocks": 0,
            "causal": "${encodec.causal}",
            "encoder": {},
            "decoder": {"trim_right_ratio": 1.0, "final_activation": None, "final_activation_params": None},
        },
        "rvq": {
            "n_q": CODEBOOKS,
            "bins": CARD,
            "q_dropout": False,
            "decay": 0.99,
            "kmeans_init": False,
            "kmeans_iters": 50,
            "threshold_ema_dead_code": 2,
            "orthogonal_reg_weight": 0.0,
            "orthogonal_reg_active_codes_only": False,
        },
    }


def _write_codec(path: Path, sample_rate: int) -> None:
    from omegaconf import OmegaConf

    settings = codec_settings(sample_rate)
    builders = importlib.import_module("audiocraft.models.builders")
    model = builders.get_compression_model(OmegaConf.create(settings | {"device": "cpu"}))
    for layer in model.quantizer.vq.layers:  # untrained codebooks are nearly equal: spread them, so that codes differ
        layer._codebook.embed.normal_()
    torch.save(_package(model.state_dict(), settings), path)


def _write_lm(folder: Path, settings: dict[str, Any], *, pickled: bool) -> None:
    """Random weights of the right shapes, larger than at the start of training, so that tokens depend on conditions."""
    from omegaconf import OmegaConf

    builders = importlib.import_module("audiocraft.models.builders")
    conditioners = importlib.import_module("audiocraft.modules.conditioners")
    local = read_xp_config(yaml.safe_dump(settings)) | {"device": "cpu", "dtype": "float32"}
    name = str(folder / "t5")
    conditioners.T5Conditioner.MODELS.append(name)
    conditioners.T5Conditioner.MODELS_DIMS[name] = T5_DIM
    local["conditioners"]["description"]["t5"]["name"] = name
    wav = local["conditioners"].pop("self_wav", None)
    lm = builders.get_lm_model(OmegaConf.create(local))
    if wav is not None:
        window = settings["dataset"]["segment_duration"]
        conditioner = build_melody_conditioner(wav["chroma_stem"], width=DIM, window=window, device="cpu")
        lm.condition_provider.conditioners["self_wav"] = conditioner
    for parameter in lm.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.25)
    for name, parameter in lm.named_parameters():
        if ("attn" in name or "attention" in name) and name.endswith("bias"):  # which audiocraft starts at zero
            torch.nn.init.normal_(parameter, std=0.25)
    package = _package({key: value.half() for key, value in lm.state_dict().items()}, settings)
    if pickled:
        package["xp.cfg"] = OmegaConf.create(settings)
    torch.save(package, folder / "state_dict.bin")


def _package(state: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    return {"best_state": state, "xp.cfg": yaml.safe_dump(settings), "version": "1.3.0", "exported": True}


def write_diffusion(path: Path, *, sample_rate: int, bands: int = 2) -> Path:
    """`mbd_musicgen_32khz.th` in small: for each band the settings (as an omegaconf object), model and processor."""
    from omegaconf import OmegaConf

    import_audiocraft()
    builders = importlib.import_module("audiocraft.models.builders")
    settings = OmegaConf.create(
        {
            "channels": 1,
            "schedule": {"num_steps": 1000, "beta_t0": 1e-4, "beta_t1": 0.02, "beta_exp": 1, "variance": "beta"},
            "diffusion_unet": {
                "hidden": 4,
                "depth": 2,
                "growth": 2.0,
                "bilstm": True,
                "codec_dim": 16,
                "norm_groups": 2,
            },
            "processor": {
                "name": "multi_band_processor",
                "use": True,
                "n_bands": 4,
                "num_samples": 10,
                "power_std": 1.0,
            },
        }
    )
    package: dict[Any, Any] = {"sample_rate": sample_rate, "n_bands": bands}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for band in range(bands):
            processor = builders.get_processor(settings.processor, sample_rate=sample_rate)
            processor.project_sample(torch.randn(10, 1, sample_rate // 4))
            state = builders.get_diffusion_model(settings).state_dict()
            package[band] = {"cfg": settings, "model_state": state, "processor_state": processor.state_dict()}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(package, path)
    return path


def write_codec_pointer(folder: Path, hub_id: str = "facebook/encodec_32khz") -> None:
    """`compression_state_dict.bin` as the published stereo models have it: the name of a codec on the hub."""
    package = {"pretrained": hub_id, "exported": True, "version": "1.3.0"}
    torch.save(package, folder / "compression_state_dict.bin")


def write_hub_codec(folder: Path, *, cardinality: int = CARD, **changes: Any) -> Path:
    """A tiny EnCodec as transformers stores it, 50 frames a second at 16 kHz, with `CODEBOOKS` codebooks.

    Its codes depend on the sound: the codebooks hold what the encoder makes of noise.

    `changes` are settings of transformers' `EncodecConfig`.
    """
    from transformers import EncodecConfig
    from transformers import EncodecModel as HubEncodec

    bits = cardinality.bit_length() - 1
    settings: dict[str, Any] = {
        "target_bandwidths": [50 * bits * CODEBOOKS / 1000],
        "sampling_rate": 16_000,
        "audio_channels": 1,
        "normalize": False,
        "hidden_size": 16,
        "num_filters": 2,
        "num_residual_layers": 1,
        "upsampling_ratios": [8, 5, 4, 2],
        "codebook_size": cardinality,
        "codebook_dim": 16,
        "use_causal_conv": False,
        "norm_type": "weight_norm",
    }
    config = EncodecConfig(**(settings | changes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = HubEncodec(config)
        model.eval()
        fit_codebooks(model, channels=config.audio_channels, hop_length=config.hop_length)
    model.save_pretrained(folder)
    return folder


@torch.no_grad()
def fit_codebooks(model: Any, *, channels: int, hop_length: int, gain: float = 1.6) -> None:
    """Makes the codes of a random EnCodec, of transformers or audiocraft, depend on the sound, as training does.

    Biases are 0 and weights larger than at the start of training: otherwise random biases outweigh the sound. Each
    codebook has the mean and half the spread of what the encoder makes of noise and the codebooks before it leave over.

    Args:
        channels: of the audio.
        hop_length: samples per frame.
        gain: of each weight.
    """
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.zero_()
        elif name.endswith(("weight.original0", "weight_g")):  # the lengths of weight norm
            parameter.mul_(gain)
    tables = [buffer for name, buffer in model.quantizer.named_buffers() if name.endswith("codebook.embed")]
    left = model.encoder(0.2 * torch.randn(1, channels, 1000 * hop_length))[0].T
    for table in tables:
        table.copy_(left.mean(0) + 0.5 * left.std(0) * torch.randn_like(table))
        left = left - table[torch.cdist(left, table).argmin(1)]
