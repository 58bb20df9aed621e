"""Writes MusicGen and HTDemucs checkpoints of the published shapes with random weights, in the real on-disk format."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
import yaml  # type: ignore[import-untyped]
from torch import nn

from models.demucs.catalog import FOUR_STEMS
from models.musicgen.audiocraft_import import import_audiocraft
from testing.tiny_demucs import save_bag
from testing.tiny_musicgen import Shape, codec_settings, lm_settings, write_t5


@dataclass(frozen=True, slots=True)
class MusicGenSize:
    """The sizes of a language model and of its codec.

    Args:
        dim, layers, heads: of the language model.
        card: number of codes in each codebook.
        filters: channels of the codec's first layer.
        latent: channels between the codec's encoder and its quantizer.
        lstm: LSTM layers of the codec's encoder and decoder.
    """

    dim: int
    layers: int
    heads: int
    card: int = 2048
    filters: int = 64
    latent: int = 128
    lstm: int = 2


# As published; `demo` is the model that comes with the worker.
MUSICGEN_SIZES = {
    "demo": MusicGenSize(256, 6, 8, card=512, filters=16, latent=64, lstm=0),
    "small": MusicGenSize(1024, 24, 16),
    "medium": MusicGenSize(1536, 48, 24),
    "large": MusicGenSize(2048, 48, 32),
}


def write_musicgen(folder: Path, size: MusicGenSize, *, stereo: bool = False) -> None:
    """Writes `state_dict.bin` (float16, as published), `compression_state_dict.bin` and `t5/` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    settings = _make_settings(size, stereo=stereo)
    write_t5(folder / "t5", width=768)
    state = {name: _make_random(shape) for name, shape in _list_shapes(size, settings).items()}
    torch.save(_make_package(state, settings), folder / "state_dict.bin")
    _write_codec(folder / "compression_state_dict.bin", size)


def write_htdemucs(folder: Path) -> None:
    """Writes the model htdemucs into `folder / "htdemucs"`, in the files that demucs 4.1 publishes."""
    save_bag(folder / "htdemucs", {"h": _make_htdemucs(0)})


def write_htdemucs_ft(folder: Path) -> None:
    """Writes the model htdemucs_ft, one network for each stem, into `folder / "htdemucs_ft"`."""
    weights = [[float(row == column) for column in range(4)] for row in range(4)]
    save_bag(folder / "htdemucs_ft", {f"f{seed}": _make_htdemucs(seed) for seed in range(4)}, weights=weights)


def _make_htdemucs(seed: int) -> nn.Module:
    """The published configuration: 41,984,456 parameters."""
    from demucs.htdemucs import HTDemucs

    torch.manual_seed(seed)
    network: nn.Module = HTDemucs(list(FOUR_STEMS), bottom_channels=512, dconv_mode=3, segment=Fraction(39, 5)).eval()
    parameters = sum(weight.numel() for weight in network.parameters())
    assert parameters == 41_984_456, f"HTDemucs has {parameters} parameters, the published model 41,984,456"
    return network


def _make_settings(size: MusicGenSize, *, stereo: bool) -> dict[str, Any]:
    settings = lm_settings(Shape(stereo=stereo, sample_rate=32_000, window=30.0))
    settings["transformer_lm"] |= {
        "dim": size.dim,
        "num_layers": size.layers,
        "num_heads": size.heads,
        "card": size.card,
    }
    return settings


def _list_shapes(size: MusicGenSize, settings: dict[str, Any]) -> dict[str, tuple[int, ...]]:
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


def _make_random(shape: tuple[int, ...]) -> torch.Tensor:
    """Weights as they are initialized for training; those of normalization layers are near one."""
    if len(shape) == 1:
        return (1 + 0.1 * torch.randn(shape)).half()
    scaled: torch.Tensor = torch.randn(shape) * shape[1] ** -0.5
    return scaled.half()


def _write_codec(path: Path, size: MusicGenSize) -> None:
    import importlib

    from omegaconf import OmegaConf

    import_audiocraft()
    settings = codec_settings(32_000)
    settings["seanet"] |= {"dimension": size.latent, "n_filters": size.filters, "lstm": size.lstm}
    settings["rvq"] |= {"bins": size.card}
    builders = importlib.import_module("audiocraft.models.builders")
    model = builders.get_compression_model(OmegaConf.create(settings | {"device": "cpu"}))
    torch.save(_make_package(model.state_dict(), settings), path)


def _make_package(state: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    return {"best_state": state, "xp.cfg": yaml.safe_dump(settings), "version": "1.3.0", "exported": True}
