"""The network of Beat This!: from a log-mel spectrogram to the logits of a beat and of a downbeat in each frame.

Convolutions reduce the mel bands; between them, transformers attend along frequency and along time. Six layers along
time follow. The layers are those of BS RoFormer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from models.checkpoints.errors import CheckpointError
from models.checkpoints.tensor_loader import TensorLoader
from models.roformer.network import TransformerLayer, freeze, normalize

NUM_MELS = 128
_STAGES = 3
_STEM_STRIDE = 4
_PREFIX = "model."  # before every name, from the training module
_COMPILED = "_orig_mod."  # within names, if the network was compiled when it was saved


@dataclass(frozen=True, slots=True)
class LayerSizes:
    """Sizes of the attention of a layer."""

    dim: int
    num_attention_heads: int
    head_dim: int


class BeatThisNetwork(nn.Module):
    """The network, ready to run.

    Args:
        state: its tensors, as `read_tensors` gives them. Their shapes tell the network's sizes.
        device: where it runs.

    Raises:
        CheckpointError: a tensor is missing, is left over or has another shape than the others ask for.
    """

    def __init__(self, state: Mapping[str, torch.Tensor], device: str) -> None:
        super().__init__()
        load = TensorLoader(_rename(state), device)
        self.input_norm = BatchNorm(load, "stem.bn1d", NUM_MELS)
        self.stem_weight = freeze(load("stem.conv2d.weight", -1, 1, _STEM_STRIDE, 3))
        channels = len(self.stem_weight)
        self.stem_norm = BatchNorm(load, "stem.bn2d", channels)
        bands = NUM_MELS // _STEM_STRIDE
        self.stages = nn.ModuleList()
        for index in range(_STAGES):
            self.stages.append(Stage(load, f"blocks.{index}", channels))
            channels, bands = 2 * channels, bands // 2
        self.linear_weight = freeze(load("linear.weight", -1, channels * bands))
        dim = len(self.linear_weight)
        self.linear_bias = freeze(load("linear.bias", dim))
        depth = sum(name.endswith(".0.to_qkv.weight") and name.startswith("layers.") for name in _rename(state))
        self.layers = nn.ModuleList(_load_layer(load, f"layers.{index}", dim) for index in range(depth))
        self.gamma = freeze(load("norm.gamma", dim))
        self.head_weight = freeze(load("beat_downbeat_lin.weight", 2, dim))
        self.head_bias = freeze(load("beat_downbeat_lin.bias", 2))
        load.check_all_used()

    @torch.inference_mode()
    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        """Logits of one excerpt.

        Args:
            mel: `[B, T, 128]` log-mel spectrograms.

        Returns:
            `[B, T, 2]`: beat, downbeat. A downbeat is a beat, too, so the first is the sum of both outputs.
        """
        x = self.input_norm(mel.transpose(1, 2)).unsqueeze(1)
        x = F.gelu(self.stem_norm(F.conv2d(x, self.stem_weight, stride=(_STEM_STRIDE, 1), padding=(0, 1))))
        for stage in self.stages:
            x = stage(x)
        x = F.linear(x.permute(0, 3, 1, 2).flatten(2), self.linear_weight, self.linear_bias)
        for layer in self.layers:
            layer(x)
        beat, downbeat = F.linear(normalize(x) * self.gamma, self.head_weight, self.head_bias).unbind(-1)
        return torch.stack((beat + downbeat, downbeat), dim=-1)


class Stage(nn.Module):
    """Attention along frequency and along time, then a convolution that halves the bands and doubles the channels."""

    def __init__(self, load: TensorLoader, name: str, channels: int) -> None:
        super().__init__()
        self.along_frequency = _load_layer(load, f"{name}.partial.F", channels)
        self.along_time = _load_layer(load, f"{name}.partial.T", channels)
        self.weight = freeze(load(f"{name}.conv2d.weight", 2 * channels, channels, 2, 3))
        self.norm = BatchNorm(load, f"{name}.norm", 2 * channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[B, C, F, T]` to `[B, 2 C, F / 2, T]`."""
        batch, channels, bands, frames = x.shape
        rows = x.permute(0, 3, 2, 1).reshape(batch * frames, bands, channels).contiguous()
        self.along_frequency(rows)
        rows = rows.view(batch, frames, bands, channels).transpose(1, 2).reshape(batch * bands, frames, channels)
        rows = rows.contiguous()
        self.along_time(rows)
        x = rows.view(batch, bands, frames, channels).permute(0, 3, 1, 2)
        return F.gelu(self.norm(F.conv2d(x, self.weight, stride=(2, 1), padding=(0, 1))))


class BatchNorm(nn.Module):
    """Batch normalization by the statistics of the training, as one factor and one offset for each channel."""

    def __init__(self, load: TensorLoader, name: str, channels: int) -> None:
        super().__init__()
        weight, bias, mean, variance = (
            load(f"{name}.{part}", channels) for part in ("weight", "bias", "running_mean", "running_var")
        )
        if f"{name}.num_batches_tracked" in load:
            load(f"{name}.num_batches_tracked")
        factor = weight / torch.sqrt(variance + 1e-5)
        self.factor, self.offset = freeze(factor), freeze(bias - mean * factor)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[B, C, ...]` to the same shape."""
        shape = (-1, *[1] * (x.ndim - 2))
        return x * self.factor.view(shape) + self.offset.view(shape)


def _load_layer(load: TensorLoader, name: str, dim: int) -> TransformerLayer:
    """A layer whose number of heads its tensors tell."""
    heads = len(load(f"{name}.0.to_gates.bias", -1))
    if heads == 0 or dim % heads:
        raise CheckpointError(f"'{name}' has {heads} attention heads for {dim} channels")
    return TransformerLayer(LayerSizes(dim, heads, dim // heads), load, name, torch.float32)


def _rename(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors under short names, those of all layers alike: `0` is the attention, `1` the feed-forward network."""
    renamed = {}
    for name, tensor in state.items():
        short = name.removeprefix(_PREFIX).replace(_COMPILED, "")
        for part in ("frontend.", "transformer_blocks.", "task_heads."):
            short = short.removeprefix(part)
        for axis in "FT":
            short = short.replace(f"partial.attn{axis}.", f"partial.{axis}.0.")
            short = short.replace(f"partial.ff{axis}.", f"partial.{axis}.1.")
        renamed[short] = tensor
    return renamed
