"""SEANet, EnCodec's encoder and decoder (arXiv 2210.13438), from a checkpoint's tensors; weight norm is folded in.

transformers' own would do, but importing it costs 2 s of every cold start, and it cannot be cut into chunks (tests hold
ours to audiocraft's). Layers are numbered as in audiocraft and in transformers, whose names for tensors are used.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from models.checkpoints.tensor_loader import TensorLoader

Layer = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Plan:
    """Sizes and ways of an encoder and its decoder.

    Args:
        filters: of the layer at the sound's rate; doubled at each of `ratios`, which are the decoder's, in order.
        dilation: of the n-th residual layer: this to the power n.
        compress: by how much a residual layer's inside is narrower.
        lstm: layers; 0: none.
        trim_right: how much of what a causal layer makes too much is cut at the end, 0..1.
        shortcut: whether residual layers convolve what they add to.
        final: what comes after the decoder.
    """

    channels: int
    filters: int
    dimension: int
    ratios: tuple[int, ...]
    residual_layers: int
    kernel: int
    last_kernel: int
    residual_kernel: int
    dilation: int
    compress: int
    lstm: int
    causal: bool
    pad_mode: str
    trim_right: float
    shortcut: bool
    final: Layer | None = None

    @property
    def hop_length(self) -> int:
        """Samples a frame."""
        return math.prod(self.ratios)


@dataclass(frozen=True, eq=False)
class _Conv:
    """A convolution padded so that the length is divided by the stride, rounded up."""

    weight: torch.Tensor
    bias: torch.Tensor
    stride: int
    dilation: int
    causal: bool
    pad_mode: str

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        span = (self.weight.shape[2] - 1) * self.dilation + 1
        total, length = span - self.stride, x.shape[-1]
        missing = -length % self.stride  # to a whole number of frames
        right = 0 if self.causal else total // 2
        padded = _padded(x, total - right, right + missing, self.pad_mode)
        return F.conv1d(padded, self.weight, self.bias, stride=self.stride, dilation=self.dilation)


@dataclass(frozen=True, eq=False)
class _Up:
    """A transposed convolution cut to the length times the stride."""

    weight: torch.Tensor
    bias: torch.Tensor
    stride: int
    right: int

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        made = F.conv_transpose1d(x, self.weight, self.bias, stride=self.stride)
        left = self.weight.shape[2] - self.stride - self.right
        return made[..., left : made.shape[-1] - self.right]


@dataclass(frozen=True, eq=False)
class _Residual:
    wide: _Conv
    narrow: _Conv
    shortcut: _Conv | None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        made = self.narrow(F.elu(self.wide(F.elu(x))))
        return made + (x if self.shortcut is None else self.shortcut(x))


class _Lstm:
    """An LSTM over time, added to what it hears."""

    def __init__(self, take: TensorLoader, name: str, width: int, layers: int) -> None:
        self._lstm = torch.nn.LSTM(width, width, layers, device="meta")
        like = self._lstm.state_dict()
        state = {part: take(f"{name}.{part}", *tensor.shape) for part, tensor in like.items()}
        self._lstm.load_state_dict(state, assign=True)
        self._lstm.requires_grad_(False).eval().flatten_parameters()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        sequence = x.permute(2, 0, 1)
        made: torch.Tensor = self._lstm(sequence)[0] + sequence
        return made.permute(1, 2, 0)


def encoder(plan: Plan, take: TensorLoader) -> list[Layer]:
    """From sound `[B, channels, samples]` to `[B, dimension, frames]`; `take` gives its tensors.

    Raises:
        KeyError, ValueError: a tensor is missing, of another shape or left over.
    """
    build = _Builder(plan, take)
    width = plan.filters
    build.conv(plan.channels, width, plan.kernel)
    for ratio in reversed(plan.ratios):
        build.residuals(width)
        build.elu()
        build.conv(width, 2 * width, 2 * ratio, stride=ratio)
        width *= 2
    build.lstm(width)
    build.elu()
    build.conv(width, plan.dimension, plan.last_kernel)
    return build.layers()


def decoder(plan: Plan, take: TensorLoader) -> tuple[list[Layer], list[Layer]]:
    """From `[B, dimension, frames]` to sound: the layers at the frames' rate, LSTM included, and those after them."""
    build = _Builder(plan, take)
    width = plan.filters * 2 ** len(plan.ratios)
    build.conv(plan.dimension, width, plan.kernel)
    build.lstm(width)
    first = build.count
    for ratio in plan.ratios:
        build.elu()
        build.up(width, ratio)
        width //= 2
        build.residuals(width)
    build.elu()
    build.conv(width, plan.channels, plan.last_kernel)
    layers = build.layers() + ([plan.final] if plan.final else [])
    return layers[:first], layers[first:]


class _Builder:
    """Puts layers one after the other; a layer's place is its number in the tensors' names."""

    def __init__(self, plan: Plan, take: TensorLoader) -> None:
        self._plan, self._take = plan, take
        self._made: list[Layer] = []

    @property
    def count(self) -> int:
        return len(self._made)

    def layers(self) -> list[Layer]:
        if left := self._take.left():
            raise ValueError(f"{len(left)} tensors are left over, the first is '{left[0]}'")
        return self._made

    def elu(self) -> None:
        self._made.append(F.elu)

    def conv(self, inner: int, outer: int, kernel: int, *, stride: int = 1) -> None:
        self._made.append(self._conv(f"layers.{self.count}.conv", inner, outer, kernel, stride=stride))

    def up(self, width: int, ratio: int) -> None:
        weight, bias = self._pair(f"layers.{self.count}.conv", (width, width // 2, 2 * ratio), bias=width // 2)
        right = math.ceil(ratio * self._plan.trim_right) if self._plan.causal else ratio // 2
        self._made.append(_Up(weight, bias, ratio, right))

    def residuals(self, width: int) -> None:
        plan, narrow = self._plan, width // self._plan.compress
        for index in range(plan.residual_layers):
            name, dilation = f"layers.{self.count}", plan.dilation**index
            wide = self._conv(f"{name}.block.1.conv", width, narrow, plan.residual_kernel, dilation=dilation)
            back = self._conv(f"{name}.block.3.conv", narrow, width, 1)
            shortcut = self._conv(f"{name}.shortcut.conv", width, width, 1) if plan.shortcut else None
            self._made.append(_Residual(wide, back, shortcut))

    def lstm(self, width: int) -> None:
        if self._plan.lstm:
            self._made.append(_Lstm(self._take, f"layers.{self.count}.lstm", width, self._plan.lstm))

    def _conv(  # noqa: PLR0913 - a convolution's sizes
        self, name: str, inner: int, outer: int, kernel: int, *, stride: int = 1, dilation: int = 1
    ) -> _Conv:
        weight, bias = self._pair(name, (outer, inner, kernel), bias=outer)
        return _Conv(weight, bias, stride, dilation, self._plan.causal, self._plan.pad_mode)

    def _pair(self, name: str, shape: tuple[int, int, int], *, bias: int) -> tuple[torch.Tensor, torch.Tensor]:
        """A layer's weight, made of its norm and direction where it comes in two, and bias."""
        take = self._take
        if f"{name}.weight" in take:
            return take(f"{name}.weight", *shape), take(f"{name}.bias", bias)
        norm, direction = take(f"{name}.weight_g", shape[0], 1, 1), take(f"{name}.weight_v", *shape)
        return torch._weight_norm(direction, norm, 0), take(f"{name}.bias", bias)


def _padded(x: torch.Tensor, left: int, right: int, mode: str) -> torch.Tensor:
    """As torch pads; a reflection that is longer than the sound goes on in silence."""
    if mode != "reflect":
        return F.pad(x, (left, right), mode)
    more = max(max(left, right) - x.shape[-1] + 1, 0)
    padded = F.pad(F.pad(x, (0, more)), (left, right), mode)
    return padded[..., : padded.shape[-1] - more]
