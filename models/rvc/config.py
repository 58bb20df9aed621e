"""The numbers that an RVC network is built from, each of them bounded, and the shapes of its tensors.

Sizes and names: the modules of rvc-python 0.1.5 (lib/infer_pack/models.py), which are those that RVC trains. No torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from models.checkpoints.errors import CheckpointError

FEATURE_WIDTHS: Mapping[str, int] = MappingProxyType({"v1": 256, "v2": 768})
"""Width of the content features that each version takes."""

FRAMES_PER_SECOND = 100
MAX_PARAMETERS = 150_000_000  # the published ones have 28 million
_MAX_SAMPLE_RATE = 192_000
_PITCHES = 256
_WINDOW = 10  # of relative attention, to either side
_FLOWS = (0, 2, 4, 6)  # those between them only reverse the channels
_FLOW_LAYERS, _FLOW_KERNEL = 3, 5
_EDGE_KERNEL = 7
_FIELDS = 18

Shape = tuple[int, ...]


class ConfigError(CheckpointError):
    """The list is not one that RVC writes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthesizerConfig:
    """A checkpoint's `config`: its 18 elements by name, in the file's order."""

    spec_channels: int
    segment_frames: int
    inter_channels: int
    hidden_channels: int
    filter_channels: int
    n_heads: int
    n_layers: int
    kernel_size: int
    p_dropout: float
    resblock: str
    resblock_kernel_sizes: tuple[int, ...]
    resblock_dilation_sizes: tuple[tuple[int, ...], ...]
    upsample_rates: tuple[int, ...]
    upsample_initial_channel: int
    upsample_kernel_sizes: tuple[int, ...]
    n_speakers: int
    gin_channels: int
    sample_rate: int

    @property
    def hop_length(self) -> int:
        """Samples of output for each frame of features."""
        return math.prod(self.upsample_rates)


def parse_config(values: Any) -> SynthesizerConfig:
    """Parses the list that a checkpoint holds.

    Raises:
        ConfigError: not 18 elements, one of them out of bounds, or they do not fit each other.
    """
    if not isinstance(values, list | tuple) or len(values) != _FIELDS:
        raise ConfigError(f"its 'config' is no list of {_FIELDS} elements")
    names = list(SynthesizerConfig.__dataclass_fields__)
    stated = dict(zip(names, values, strict=True))
    config = SynthesizerConfig(**{name: _check_field(name, value) for name, value in stated.items()})
    if contradiction := next(_find_contradictions(config), None):
        raise ConfigError(f"its 'config' is contradictory: {contradiction}")
    return config


# The largest of each; the smallest is 1. Published: 1025, 32, 192, 192, 768, 2, 6, 3, ..., 512, ..., 109, 256.
_BOUNDS: Mapping[str, int] = MappingProxyType(
    {
        "spec_channels": 8193,
        "segment_frames": 100_000,
        "inter_channels": 1024,
        "hidden_channels": 1024,
        "filter_channels": 4096,
        "n_heads": 32,
        "n_layers": 32,
        "kernel_size": 15,
        "upsample_initial_channel": 2048,
        "n_speakers": 4096,
        "gin_channels": 2048,
    }
)
_LIST_BOUNDS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {"resblock_kernel_sizes": (6, 31), "upsample_rates": (8, 64), "upsample_kernel_sizes": (8, 128)}
)
_DILATIONS, _MAX_DILATION = 3, 64


def _check_field(name: str, value: Any) -> Any:
    if name in _BOUNDS:
        return _check_integer(name, value, _BOUNDS[name])
    if name in _LIST_BOUNDS:
        longest, largest = _LIST_BOUNDS[name]
        return _check_list(name, value, longest, largest)
    if name == "resblock_dilation_sizes":
        rows = _check_sequence(name, value, _LIST_BOUNDS["resblock_kernel_sizes"][0])
        return tuple(_check_list(name, row, _DILATIONS, _MAX_DILATION) for row in rows)
    if name == "sample_rate":
        return parse_rate(value)
    if name == "p_dropout":
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
            raise _invalid(name)
        return float(value)
    if not isinstance(value, str | int) or str(value) != "1":
        raise ConfigError("its 'config' asks for another kind of residual block than '1', which RVC does not train")
    return "1"


def parse_rate(value: Any) -> int:
    """A sample rate in Hz as RVC writes it: 40000, "40000" or "40k".

    Raises:
        ConfigError: it is none of these.
    """
    if isinstance(value, str) and len(value) <= 8:
        digits = value.lower().removesuffix("k")
        if digits.isascii() and digits.isdigit():
            value = int(digits) * (1000 if value.lower().endswith("k") else 1)
    return _check_integer("sample_rate", value, _MAX_SAMPLE_RATE)


def _check_integer(name: str, value: Any, largest: int) -> int:
    if type(value) is not int or not 1 <= value <= largest:
        raise _invalid(name)
    return value


def _check_sequence(name: str, value: Any, longest: int) -> list[Any] | tuple[Any, ...]:
    if not isinstance(value, list | tuple) or not 1 <= len(value) <= longest:
        raise _invalid(name)
    return value


def _check_list(name: str, value: Any, longest: int, largest: int) -> tuple[int, ...]:
    return tuple(_check_integer(name, item, largest) for item in _check_sequence(name, value, longest))


def _invalid(name: str) -> ConfigError:
    return ConfigError(f"'{name}' in its 'config' is missing, of the wrong kind, or out of all bounds")


def _find_contradictions(config: SynthesizerConfig) -> Iterator[str]:
    rates, kernels = config.upsample_rates, config.upsample_kernel_sizes
    if config.inter_channels % 2 or config.hidden_channels % config.n_heads:
        yield "channels that do not divide by two, or by the number of heads"
    if len(rates) != len(kernels):
        yield "as many upsampling kernels as rates are needed"
    if any(kernel < rate or (kernel - rate) % 2 for rate, kernel in zip(rates, kernels, strict=False)):
        yield "an upsampling kernel that does not fit its rate"
    if config.upsample_initial_channel % (1 << len(rates)):
        yield "channels that cannot be halved at every upsampling"
    if any(size % 2 == 0 for size in config.resblock_kernel_sizes):
        yield "a residual kernel of even size"
    dilations = config.resblock_dilation_sizes
    if len(dilations) != len(config.resblock_kernel_sizes) or any(len(row) != _DILATIONS for row in dilations):
        yield "three dilations for each residual kernel are needed"
    if config.hop_length * FRAMES_PER_SECOND != config.sample_rate:
        yield f"{config.hop_length} samples a frame do not make {config.sample_rate} Hz at {FRAMES_PER_SECOND} frames/s"


def expected_shapes(config: SynthesizerConfig, version: str, f0: bool) -> dict[str, Shape]:
    """Returns every tensor that inference needs, by name, with `weight_g`/`weight_v` as RVC stores them (no `enc_q`).

    Args:
        version: `v1` or `v2`.
        f0: whether the voice takes a pitch.
    """
    shapes = dict(_encoder(config, FEATURE_WIDTHS[version], f0))
    shapes.update(_decoder(config, f0))
    for flow in _FLOWS:
        shapes.update(_flow(config, f"flow.flows.{flow}"))
    shapes["emb_g.weight"] = (config.n_speakers, config.gin_channels)
    return shapes


_NamedShapes = Iterator[tuple[str, Shape]]


def _layer(name: str, *weight: int, bias: int | None = None) -> _NamedShapes:
    """A weight and its bias, by default of the weight's first length."""
    yield f"{name}.weight", weight
    yield f"{name}.bias", (weight[0] if bias is None else bias,)


def _normalized_layer(name: str, *weight: int, bias: int | None = None) -> _NamedShapes:
    """A weight split into lengths `g` and directions `v` by weight norm, and its bias."""
    yield f"{name}.weight_g", (weight[0],) + (1,) * (len(weight) - 1)
    yield f"{name}.weight_v", weight
    yield f"{name}.bias", (weight[0] if bias is None else bias,)


def _encoder(config: SynthesizerConfig, phone_width: int, f0: bool) -> _NamedShapes:
    hidden, wide, kernel = config.hidden_channels, config.filter_channels, config.kernel_size
    yield from _layer("enc_p.emb_phone", hidden, phone_width)
    if f0:
        yield "enc_p.emb_pitch.weight", (_PITCHES, hidden)
    for layer in range(config.n_layers):
        attention, feed_forward = f"enc_p.encoder.attn_layers.{layer}", f"enc_p.encoder.ffn_layers.{layer}"
        for side in ("k", "v"):
            yield f"{attention}.emb_rel_{side}", (1, 2 * _WINDOW + 1, hidden // config.n_heads)
        for part in "qkvo":
            yield from _layer(f"{attention}.conv_{part}", hidden, hidden, 1)
        yield from _layer(f"{feed_forward}.conv_1", wide, hidden, kernel)
        yield from _layer(f"{feed_forward}.conv_2", hidden, wide, kernel)
        for norm in (1, 2):
            yield f"enc_p.encoder.norm_layers_{norm}.{layer}.gamma", (hidden,)
            yield f"enc_p.encoder.norm_layers_{norm}.{layer}.beta", (hidden,)
    yield from _layer("enc_p.proj", 2 * config.inter_channels, hidden, 1)


def _decoder(config: SynthesizerConfig, f0: bool) -> _NamedShapes:
    channels = config.upsample_initial_channel
    yield from _layer("dec.conv_pre", channels, config.inter_channels, _EDGE_KERNEL)
    yield from _layer("dec.cond", channels, config.gin_channels, 1)
    if f0:
        yield from _layer("dec.m_source.l_linear", 1, 1)
    kernels = config.resblock_kernel_sizes
    for stage, kernel in enumerate(config.upsample_kernel_sizes):
        channels //= 2
        yield from _normalized_layer(f"dec.ups.{stage}", 2 * channels, channels, kernel, bias=channels)
        if f0:
            rest = math.prod(config.upsample_rates[stage + 1 :])
            last = stage + 1 == len(config.upsample_rates)
            yield from _layer(f"dec.noise_convs.{stage}", channels, 1, 1 if last else 2 * rest)
        for number, size in enumerate(kernels):
            block = f"dec.resblocks.{stage * len(kernels) + number}"
            for conv in range(_DILATIONS):
                yield from _normalized_layer(f"{block}.convs1.{conv}", channels, channels, size)
                yield from _normalized_layer(f"{block}.convs2.{conv}", channels, channels, size)
    yield "dec.conv_post.weight", (1, channels, _EDGE_KERNEL)


def _flow(config: SynthesizerConfig, name: str) -> _NamedShapes:
    half, hidden = config.inter_channels // 2, config.hidden_channels
    yield from _layer(f"{name}.pre", hidden, half, 1)
    for layer in range(_FLOW_LAYERS):
        yield from _normalized_layer(f"{name}.enc.in_layers.{layer}", 2 * hidden, hidden, _FLOW_KERNEL)
        skip = hidden if layer + 1 == _FLOW_LAYERS else 2 * hidden
        yield from _normalized_layer(f"{name}.enc.res_skip_layers.{layer}", skip, hidden, 1)
    yield from _normalized_layer(f"{name}.enc.cond_layer", 2 * hidden * _FLOW_LAYERS, config.gin_channels, 1)
    yield from _layer(f"{name}.post", half, hidden, 1)
