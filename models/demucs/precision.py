"""Where reduced precision is worth it, and how a Demucs network takes it. Knows no audio and no files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from demucs.demucs import BLSTM, LocalState
from torch import Tensor, nn

from models.device import cpu_multiplies_bfloat16

Precision = Literal["auto", "float32", "bfloat16"]


def choose_precision(asked: Precision, device: torch.device) -> Literal["float32", "bfloat16"]:
    """`auto` becomes bfloat16 where the processor multiplies in it; by its flags alone, so the same at every start."""
    if asked != "auto":
        return asked
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.get_device_capability(device) >= (8, 0) else "float32"
    return "bfloat16" if device.type == "cpu" and cpu_multiplies_bfloat16() else "float32"


def reduce_precision(network: nn.Module) -> None:
    """Puts the network's inner layers into bfloat16, in place.

    The outermost layer of each branch stays in float32: its rounding would stand in the result as it is. So do layers
    with LSTMs or local attention (positions above 256 have no exact bfloat16), the spectrogram, all normalisation of
    the input, and the sums of segments. Each layer casts what it is given, so the layers between need not know.
    """
    for layer, is_inner in _layers(network):
        inner = is_inner and not any(isinstance(part, BLSTM | LocalState) for part in layer.modules())
        _run_in(layer, torch.bfloat16 if inner else torch.float32)


def _layers(network: nn.Module) -> Iterator[tuple[nn.Module, bool]]:
    """Every layer that has weights, and whether it is an inner one."""
    for name in ("encoder", "tencoder"):
        for index, layer in enumerate(getattr(network, name, ())):
            yield layer, index > 0
    for name in ("decoder", "tdecoder"):
        layers = getattr(network, name, ())
        for index, layer in enumerate(layers):
            yield layer, index < len(layers) - 1
    for name in ("channel_upsampler", "channel_downsampler", "channel_upsampler_t", "channel_downsampler_t"):
        if (layer := getattr(network, name, None)) is not None:
            yield layer, True
    if (transformer := getattr(network, "crosstransformer", None)) is not None:
        for layer in (*transformer.layers, *transformer.layers_t):
            yield layer, True
        yield transformer.norm_in, False
        yield transformer.norm_in_t, False
    if (lstm := getattr(network, "lstm", None)) is not None:
        yield lstm, False


def _run_in(layer: nn.Module, dtype: torch.dtype) -> None:
    def cast(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(arg.to(dtype) if isinstance(arg, Tensor) else arg for arg in args)

    layer.to(dtype)
    layer.register_forward_pre_hook(cast)
