"""SEANet, the encoder and decoder of EnCodec (arXiv 2210.13438), from a checkpoint's tensors, weight norm folded.

Not transformers' own, because importing it costs 2 s of every cold start, and it cannot be run in chunks (tests compare
ours with it and with audiocraft's). Layers are numbered as in both; tensors have transformers' names. Each of the two
networks has an LSTM at the frame rate, which remembers everything before; the layers on either side of it see a few
frames, and so can be run in chunks with context.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from models.checkpoints.tensor_loader import TensorLoader

Layer = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class SEANetConfig:
    """Sizes and options of an encoder and its decoder.

    Args:
        filters: of the layer at the sample rate; doubled at each of `ratios`, which are the decoder's, in order.
        dilation: base; the n-th residual layer's dilation is this to the power n.
        compress: by which factor a residual layer is narrower inside.
        lstm: layers of the LSTM; 0 = none.
        trim_right: share of a causal transposed convolution's surplus that is cut at the end, 0..1.
        shortcut: whether a residual layer's shortcut is a convolution.
        group_norm: whether each convolution is followed by a group norm of one group, over channels and time.
        final: activation after the decoder.
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
    group_norm: bool = False
    final: Layer | None = None

    @property
    def hop_length(self) -> int:
        """Samples per frame."""
        return math.prod(self.ratios)

    @property
    def encoder_context(self) -> int:
        """Frames on either side on which a frame before the encoder's LSTM depends, at most."""
        field, stride = self.kernel - 1, 1  # in samples
        for ratio in reversed(self.ratios):
            field += (self._residual_field + 2 * ratio - 1) * stride
            stride *= ratio
        return -(-field // self.hop_length)

    @property
    def decoder_context(self) -> int:
        """Frames on either side on which a frame's samples depend, after the decoder's LSTM, at most."""
        field, rate = 0.0, 1  # in frames; positions per frame
        for ratio in self.ratios:
            field += 1 / rate  # a transposed convolution is twice as wide as its stride
            rate *= ratio
            field += self._residual_field / rate
        return math.ceil(field + (self.last_kernel - 1) / rate) + 1

    @property
    def _residual_field(self) -> int:
        return sum((self.residual_kernel - 1) * self.dilation**index for index in range(self.residual_layers))


@dataclass(frozen=True, slots=True, eq=False)
class GroupNorm:
    """A group norm of one group."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return F.group_norm(x, 1, self.weight, self.bias)


@dataclass(frozen=True, slots=True, eq=False)
class _Conv:
    """A convolution, padded so that it divides the length by the stride, rounded up."""

    weight: torch.Tensor
    bias: torch.Tensor
    stride: int
    dilation: int
    causal: bool
    pad_mode: str
    norm: GroupNorm | None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        span = (self.weight.shape[2] - 1) * self.dilation + 1
        total, length = span - self.stride, x.shape[-1]
        missing = -length % self.stride  # to a whole number of frames
        right = 0 if self.causal else total // 2
        padded = _pad(x, total - right, right + missing, self.pad_mode)
        y = F.conv1d(padded, self.weight, self.bias, stride=self.stride, dilation=self.dilation)
        return y if self.norm is None else self.norm(y)


@dataclass(frozen=True, slots=True, eq=False)
class _TransposedConv:
    """A transposed convolution, cut so that it multiplies the length by the stride."""

    weight: torch.Tensor
    bias: torch.Tensor
    stride: int
    right: int
    norm: GroupNorm | None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        y = F.conv_transpose1d(x, self.weight, self.bias, stride=self.stride)
        y = y if self.norm is None else self.norm(y)
        left = self.weight.shape[2] - self.stride - self.right
        return y[..., left : y.shape[-1] - self.right]


@dataclass(frozen=True, slots=True, eq=False)
class _Residual:
    narrow: _Conv
    widen: _Conv
    shortcut: _Conv | None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        y = self.widen(F.elu(self.narrow(F.elu(x))))
        return y + (x if self.shortcut is None else self.shortcut(x))


LSTMState = tuple[torch.Tensor, torch.Tensor]
"""Hidden state and cell state of every layer, `[layers, B, width]` each."""


class ResidualLSTM:
    """An LSTM over time, added to its input."""

    def __init__(self, take: TensorLoader, name: str, width: int, layers: int) -> None:
        self._lstm = torch.nn.LSTM(width, width, layers, device="meta")
        shapes = {part: tensor.shape for part, tensor in self._lstm.state_dict().items()}
        state = {part: take(f"{name}.{part}", *shape) for part, shape in shapes.items()}
        self._lstm.load_state_dict(state, assign=True)
        self._lstm.requires_grad_(False).eval().flatten_parameters()

    def __call__(self, x: torch.Tensor, state: LSTMState | None = None) -> tuple[torch.Tensor, LSTMState]:
        """Runs over `x`, `[B, width, T]`.

        Args:
            state: as the steps before `x` have left it; None at the beginning.

        Returns:
            `[B, width, T]`, and the state after it.
        """
        sequence = x.permute(2, 0, 1)
        y, state = self._lstm(sequence, state)
        return (y + sequence).permute(1, 2, 0), state


@dataclass(frozen=True, slots=True, eq=False)
class SEANet:
    """An encoder or a decoder: the layers before its LSTM, the LSTM if it has one, and the layers after it."""

    before: Sequence[Layer]
    lstm: ResidualLSTM | None
    after: Sequence[Layer]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Runs over the whole of `x`, `[B, C, T]`."""
        hidden = apply(self.before, x)
        return apply(self.after, hidden if self.lstm is None else self.lstm(hidden)[0])


def apply(layers: Sequence[Layer], x: torch.Tensor) -> torch.Tensor:
    """Runs the layers one after the other."""
    for layer in layers:
        x = layer(x)
    return x


def build_encoder(config: SEANetConfig, take: TensorLoader) -> SEANet:
    """The network from `[B, channels, samples]` to `[B, dimension, frames]`.

    Raises:
        CheckpointError: a tensor is missing, has another shape or is not used.
    """
    builder = _Builder(config, take)
    width = config.filters
    builder.add_conv(config.channels, width, config.kernel)
    for ratio in reversed(config.ratios):
        builder.add_residuals(width)
        builder.add_elu()
        builder.add_conv(width, 2 * width, 2 * ratio, stride=ratio)
        width *= 2
    builder.add_lstm(width)
    builder.add_elu()
    builder.add_conv(width, config.dimension, config.last_kernel)
    return builder.finish()


def build_decoder(config: SEANetConfig, take: TensorLoader) -> SEANet:
    """The network from `[B, dimension, frames]` to `[B, channels, samples]`.

    Raises:
        CheckpointError: a tensor is missing, has another shape or is not used.
    """
    builder = _Builder(config, take)
    width = config.filters * 2 ** len(config.ratios)
    builder.add_conv(config.dimension, width, config.kernel)
    builder.add_lstm(width)
    for ratio in config.ratios:
        builder.add_elu()
        builder.add_upsampling(width, ratio)
        width //= 2
        builder.add_residuals(width)
    builder.add_elu()
    builder.add_conv(width, config.channels, config.last_kernel)
    if config.final:
        builder.add_activation(config.final)
    return builder.finish()


class _Builder:
    """Builds layers one after the other. A layer's index is its number in the tensors' names."""

    def __init__(self, config: SEANetConfig, take: TensorLoader) -> None:
        self._config, self._take = config, take
        self._before: list[Layer] = []
        self._lstm: ResidualLSTM | None = None
        self._layers = self._before  # to which the next layer is added
        self._count = 0

    def finish(self) -> SEANet:
        self._take.check_all_used()
        return SEANet(self._before, self._lstm, self._layers)

    def add_activation(self, activation: Layer) -> None:
        self._add(activation)

    def add_elu(self) -> None:
        self._add(F.elu)

    def add_conv(self, inner: int, outer: int, kernel: int, *, stride: int = 1) -> None:
        self._add(self._load_conv(f"layers.{self._count}", inner, outer, kernel, stride=stride))

    def add_upsampling(self, width: int, ratio: int) -> None:
        name = f"layers.{self._count}"
        weight, bias = self._load_pair(f"{name}.conv", (width, width // 2, 2 * ratio), bias=width // 2)
        right = math.ceil(ratio * self._config.trim_right) if self._config.causal else ratio // 2
        self._add(_TransposedConv(weight, bias, ratio, right, self._load_norm(name, width // 2)))

    def add_residuals(self, width: int) -> None:
        config, inside = self._config, width // self._config.compress
        for index in range(config.residual_layers):
            name, dilation = f"layers.{self._count}", config.dilation**index
            narrow = self._load_conv(f"{name}.block.1", width, inside, config.residual_kernel, dilation=dilation)
            widen = self._load_conv(f"{name}.block.3", inside, width, 1)
            shortcut = self._load_conv(f"{name}.shortcut", width, width, 1) if config.shortcut else None
            self._add(_Residual(narrow, widen, shortcut))

    def add_lstm(self, width: int) -> None:
        """What is added after this runs after the LSTM, also if the network has none."""
        if self._config.lstm:
            self._lstm = ResidualLSTM(self._take, f"layers.{self._count}.lstm", width, self._config.lstm)
            self._count += 1
        self._layers = []

    def _add(self, layer: Layer) -> None:
        self._layers.append(layer)
        self._count += 1

    def _load_conv(  # noqa: PLR0913 - a convolution's sizes
        self, name: str, inner: int, outer: int, kernel: int, *, stride: int = 1, dilation: int = 1
    ) -> _Conv:
        weight, bias = self._load_pair(f"{name}.conv", (outer, inner, kernel), bias=outer)
        norm = self._load_norm(name, outer)
        return _Conv(weight, bias, stride, dilation, self._config.causal, self._config.pad_mode, norm)

    def _load_norm(self, name: str, width: int) -> GroupNorm | None:
        if not self._config.group_norm:
            return None
        return GroupNorm(*self._load_pair(f"{name}.norm", (width,), bias=width))

    def _load_pair(self, name: str, shape: tuple[int, ...], *, bias: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self._take(f"{name}.weight", *shape), self._take(f"{name}.bias", bias)


def _pad(x: torch.Tensor, left: int, right: int, mode: str) -> torch.Tensor:
    """As torch pads, but the input is extended by zeros if a reflection is longer than it, as in audiocraft."""
    if mode != "reflect":
        return F.pad(x, (left, right), mode)
    extra = max(max(left, right) - x.shape[-1] + 1, 0)
    padded = F.pad(F.pad(x, (0, extra)), (left, right), mode)
    return padded[..., : padded.shape[-1] - extra]
