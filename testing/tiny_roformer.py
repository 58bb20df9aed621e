"""RoFormer checkpoints with random weights, in the published layout: `<name>.ckpt` or `.safetensors`, and a yaml."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml  # type: ignore[import-untyped]
from safetensors.torch import save_file

Kind = Literal["mel", "bs"]
State = dict[str, torch.Tensor]
PUBLISHED_BINS = (2,) * 24 + (4,) * 12 + (12,) * 8 + (24,) * 8 + (48,) * 8 + (128, 129)
"""Bins of each band of the published BS RoFormer models, at an `n_fft` of 2048."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The sizes of a network, under the names of the published yaml files.

    Args:
        mask_linears: linear layers in each band's mask estimator; None: as `mask_estimator_depth` implies, which is one
            more in a Mel-Band RoFormer.
        freqs_per_bands: bins of each band, of a BS RoFormer.
        num_bands: of a Mel-Band RoFormer.
        shared_bias: the attention's linear layers have biases, which all layers share.
    """

    kind: Kind = "mel"
    dim: int = 16
    depth: int = 1
    time_transformer_depth: int = 1
    freq_transformer_depth: int = 1
    heads: int = 2
    dim_head: int = 8
    num_stems: int = 1
    stereo: bool = True
    num_bands: int = 60
    freqs_per_bands: tuple[int, ...] = PUBLISHED_BINS
    sample_rate: int = 44_100
    stft_n_fft: int = 2048
    stft_hop_length: int = 441
    stft_win_length: int = 2048
    mask_estimator_depth: int = 2
    mask_linears: int | None = None
    mlp_expansion_factor: int = 4
    skip_connection: bool = False
    zero_dc: bool | None = None
    shared_bias: bool = False

    @property
    def num_mask_linears(self) -> int:
        return self.mask_linears or self.mask_estimator_depth + (self.kind == "mel")

    def describe(self) -> dict[str, Any]:
        """Returns the section `model` of a yaml file."""
        left_out = {"kind", "mask_linears", "shared_bias", "freqs_per_bands" if self.kind == "mel" else "num_bands"}
        if self.kind == "bs":
            left_out.add("sample_rate")
        stated = {name: value for name, value in asdict(self).items() if name not in left_out and value is not None}
        training = {"flash_attn": True, "ff_dropout": 0, "multi_stft_resolutions_window_sizes": (4096, 2048, 256)}
        return stated | training | ({"use_shared_bias": True} if self.shared_bias else {})


def write_roformer(  # noqa: PLR0913  (one argument a property of the files, all by keyword)
    folder: Path,
    kind: Kind = "mel",
    *,
    name: str | None = None,
    stems: Sequence[str] = ("vocals", "other"),
    target: str | None = None,
    seed: int = 0,
    suffix: Literal[".ckpt", ".safetensors"] = ".ckpt",
    wrapper: str | None = None,
    prefix: str = "",
    half: bool = False,
    chunk_size: int = 44_100,
    num_overlap: int = 2,
    normalize: bool = False,
    settings: Mapping[str, Any] | None = None,
    state: Mapping[str, torch.Tensor] | None = None,
    **shape: Any,
) -> Path:
    """Writes a model into `folder`, and returns the path of its weights.

    Args:
        name: of both files, without their endings; None: the folder's.
        stems: the yaml's `training.instruments`.
        target: the yaml's `training.target_instrument`: the network gives this stem alone.
        wrapper: the key of the file's dict below which the state dict stands; None: it is bare.
        prefix: before every key: `module.`.
        chunk_size: samples that the network gets at once.
        settings: sections that replace or complete those of the yaml.
        state: the weights; None: random ones, drawn with `seed`.
        shape: as `Shape` takes it.
    """
    network = Shape(kind=kind, num_stems=1 if target else len(stems), **shape)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name or folder.name}{suffix}"
    tensors = dict(state if state is not None else make_state(network, seed))
    tensors = {f"{prefix}{key}": (value.half() if half else value).contiguous() for key, value in tensors.items()}
    if suffix == ".ckpt":
        torch.save({wrapper: tensors, "epoch": 3} if wrapper else tensors, path)
    else:
        save_file({key: value.clone() for key, value in tensors.items()}, path)
    content = {
        "audio": {"chunk_size": chunk_size, "num_channels": 2, "sample_rate": network.sample_rate},
        "model": network.describe(),
        "training": {"instruments": list(stems), "target_instrument": target, "lr": 5e-5, "batch_size": 1},
        "inference": {"num_overlap": num_overlap, "batch_size": 1} | ({"normalize": True} if normalize else {}),
    } | dict(settings or {})
    # The training code dumps tuples with a tag of their own.
    path.with_suffix(".yaml").write_text(yaml.dump(content, sort_keys=False))
    return path


def make_state(shape: Shape, seed: int = 0) -> State:
    """Returns random weights under the published names, scaled so that every part contributes to the result."""
    return _StateMaker(shape, torch.Generator().manual_seed(seed)).make()


def list_band_bins(shape: Shape) -> tuple[int, ...]:
    """Returns how many bins each band has. librosa makes the Mel filterbank, as in the training code."""
    if shape.kind == "bs":
        return shape.freqs_per_bands
    import librosa

    bank = librosa.filters.mel(sr=shape.sample_rate, n_fft=shape.stft_n_fft, n_mels=shape.num_bands)
    bank[0, 0] = bank[-1, -1] = 1
    return tuple(int(count) for count in np.count_nonzero(bank > 0, axis=1))


@dataclass(slots=True)
class _StateMaker:
    shape: Shape
    generator: torch.Generator
    state: State = field(default_factory=dict)

    def make(self) -> State:
        shape = self.shape
        inner = shape.heads * shape.dim_head
        biases = (self._draw(3 * inner) * 0.1, self._draw(shape.dim) * 0.1) if shape.shared_bias else None
        if biases is not None:
            self.state["linear_62_bias_0"], self.state["linear_64_bias_0"] = biases
        freqs = 10_000.0 ** -(torch.arange(0, shape.dim_head, 2) / shape.dim_head)
        for layer in range(shape.depth):
            for axis, depth in enumerate((shape.time_transformer_depth, shape.freq_transformer_depth)):
                for index in range(depth):
                    self._add_block(f"layers.{layer}.{axis}.layers.{index}", biases, freqs)
                if shape.kind == "mel":
                    self._add_gamma(f"layers.{layer}.{axis}.norm", shape.dim)
        if shape.kind == "bs":
            self._add_gamma("final_norm", shape.dim)
        widths = [2 * (2 if shape.stereo else 1) * bins for bins in list_band_bins(shape)]
        for band, width in enumerate(widths):
            self._add_gamma(f"band_split.to_features.{band}.0", width)
            self._add_linear(f"band_split.to_features.{band}.1", width, shape.dim)
        hidden = (shape.dim * shape.mlp_expansion_factor,) * (shape.num_mask_linears - 1)
        for stem in range(shape.num_stems):
            for band, width in enumerate(widths):
                sizes = (shape.dim, *hidden, 2 * width)
                for index in range(len(sizes) - 1):
                    self._add_linear(
                        f"mask_estimators.{stem}.to_freqs.{band}.0.{2 * index}", sizes[index], sizes[index + 1]
                    )
        return self.state

    def _add_block(self, name: str, biases: tuple[torch.Tensor, torch.Tensor] | None, freqs: torch.Tensor) -> None:
        dim, inner = self.shape.dim, self.shape.heads * self.shape.dim_head
        self.state[f"{name}.0.rotary_embed.freqs"] = freqs
        self._add_gamma(f"{name}.0.norm", dim)
        self._add_linear(f"{name}.0.to_qkv", dim, 3 * inner, bias=False)
        self._add_linear(f"{name}.0.to_gates", dim, self.shape.heads)
        self._add_linear(f"{name}.0.to_out.0", inner, dim, bias=False)
        if biases is not None:
            self.state[f"{name}.0.to_qkv.bias"], self.state[f"{name}.0.to_out.0.bias"] = biases
        self._add_gamma(f"{name}.1.net.0", dim)
        self._add_linear(f"{name}.1.net.1", dim, 4 * dim)
        self._add_linear(f"{name}.1.net.4", 4 * dim, dim)

    def _add_linear(self, name: str, inputs: int, outputs: int, *, bias: bool = True) -> None:
        self.state[f"{name}.weight"] = self._draw(outputs, inputs) * inputs**-0.5
        if bias:
            self.state[f"{name}.bias"] = self._draw(outputs) * 0.1

    def _add_gamma(self, name: str, size: int) -> None:
        self.state[f"{name}.gamma"] = 1 + self._draw(size) * 0.1

    def _draw(self, *size: int) -> torch.Tensor:
        return torch.randn(*size, generator=self.generator)
