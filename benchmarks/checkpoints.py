"""Writes MusicGen checkpoints of the published shapes with random weights, in the real on-disk format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml  # type: ignore[import-untyped]

from models.musicgen.audiocraft_import import import_audiocraft
from testing.tiny_musicgen import Shape, codec_settings, lm_settings, write_t5

CODEBOOKS = 4


@dataclass(frozen=True)
class Size:
    """Of a language model and its codec, as published (`demo`: as the one that comes with the worker)."""

    dim: int
    layers: int
    heads: int
    card: int = 2048
    filters: int = 64
    latent: int = 128
    lstm: int = 2


SIZES = {
    "demo": Size(256, 6, 8, card=512, filters=16, latent=64, lstm=0),
    "small": Size(1024, 24, 16),
    "medium": Size(1536, 48, 24),
    "large": Size(2048, 48, 32),
}


def write_checkpoint(folder: Path, size: Size, *, stereo: bool = False) -> Path:
    """`state_dict.bin` (float16, as published), `compression_state_dict.bin` and `t5/` below `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    settings = _settings(size, stereo=stereo)
    write_t5(folder / "t5", width=768)
    state = {name: _random(shape) for name, shape in _shapes(size, settings).items()}
    torch.save(_package(state, settings), folder / "state_dict.bin")
    _write_codec(folder / "compression_state_dict.bin", size)
    return folder


def _settings(size: Size, *, stereo: bool) -> dict[str, Any]:
    settings = lm_settings(Shape(stereo=stereo, sample_rate=32_000, window=30.0))
    settings["transformer_lm"] |= {
        "dim": size.dim,
        "num_layers": size.layers,
        "num_heads": size.heads,
        "card": size.card,
    }
    return settings


def _shapes(size: Size, settings: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    dim, codebooks = size.dim, settings["transformer_lm"]["n_q"]
    shapes: dict[str, tuple[int, ...]] = {f"emb.{k}.weight": (size.card + 1, dim) for k in range(codebooks)}
    shapes |= {f"linears.{k}.weight": (size.card, dim) for k in range(codebooks)}
    for index in range(size.layers):
        layer = f"transformer.layers.{index}"
        for attention in ("self_attn", "cross_attention"):
            shapes[f"{layer}.{attention}.in_proj_weight"] = (3 * dim, dim)
            shapes[f"{layer}.{attention}.out_proj.weight"] = (dim, dim)
        shapes[f"{layer}.linear1.weight"] = (4 * dim, dim)
        shapes[f"{layer}.linear2.weight"] = (dim, 4 * dim)
        for norm in ("norm1", "norm_cross", "norm2"):
            shapes |= {f"{layer}.{norm}.weight": (dim,), f"{layer}.{norm}.bias": (dim,)}
    projection = "condition_provider.conditioners.description.output_proj"
    return shapes | {
        "out_norm.weight": (dim,),
        "out_norm.bias": (dim,),
        f"{projection}.weight": (dim, 768),
        f"{projection}.bias": (dim,),
    }


def _random(shape: tuple[int, ...]) -> torch.Tensor:
    """Weights as at the start of training; norms near one."""
    if len(shape) == 1:
        return (1 + 0.1 * torch.randn(shape)).half()
    scaled: torch.Tensor = torch.randn(shape) * shape[1] ** -0.5
    return scaled.half()


def _write_codec(path: Path, size: Size) -> None:
    import importlib

    from omegaconf import OmegaConf

    import_audiocraft()
    settings = codec_settings(32_000)
    settings["seanet"] |= {"dimension": size.latent, "n_filters": size.filters, "lstm": size.lstm}
    settings["rvq"] |= {"bins": size.card}
    builders = importlib.import_module("audiocraft.models.builders")
    model = builders.get_compression_model(OmegaConf.create(settings | {"device": "cpu"}))
    torch.save(_package(model.state_dict(), settings), path)


def _package(state: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    return {"best_state": state, "xp.cfg": yaml.safe_dump(settings), "version": "1.3.0", "exported": True}
