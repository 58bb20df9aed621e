"""The convolutions of Oobleck, the VAE of Stable Audio (arXiv 2407.14358) that ACE-Step's latents come from.

They run on the weights of diffusers' `AutoencoderOobleck`, in three quarters of the time on a CPU: the channels lie
last in memory, so that no convolution reorders its input, weight norm is folded once, and the snake works in place.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import remove_weight_norm

from models.checkpoints.weight_norm import fold_weight_norm
from models.device import is_out_of_memory

logger = logging.getLogger(__name__)

Layer = Callable[[torch.Tensor], torch.Tensor]
SnakeFunction = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, bool], torch.Tensor]
"""Takes x `[B, C, 1, T]`, alpha and 1 / beta, each `[1, C, 1, 1]`, and whether x may be overwritten."""
Kernel = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""An elementwise kernel with broadcasting."""

_CHANNELS_LAST = torch.channels_last  # of [B, C, 1, T]: the channels of one sample lie side by side
_SNAKE_CODE = """
template <typename T> T snake(T x, T alpha, T scale) {
    float value = x;
    float sine = ::sinf(static_cast<float>(alpha) * value);
    return static_cast<T>(value + static_cast<float>(scale) * sine * sine);
}
"""
_UNIT_REACH = 3 * (1 + 3 + 9)  # samples on either side: kernels of 7 with the dilations of a block's three units


def fold_weights(vae: nn.Module) -> None:
    """Replaces the weight norm of every convolution by its weight, computed in float32, for channels that lie last.

    The module computes what it did before. A second call does nothing.
    """
    for module in vae.modules():
        parameters = {f"conv.{name}": tensor for name, tensor in module.named_parameters(recurse=False)}
        if "conv.weight_g" in parameters:
            weight = fold_weight_norm(parameters)["conv.weight"].to(parameters["conv.weight_v"].dtype)
            remove_weight_norm(module)
            weight = weight[:, :, None].contiguous(memory_format=_CHANNELS_LAST)[:, :, 0]
            module.weight = nn.Parameter(weight, requires_grad=False)


def choose_snake(device: torch.device) -> SnakeFunction:
    """Returns one kernel on a GPU, which torch compiles at its first use, and torch's operations elsewhere."""
    if device.type != "cuda":
        return compute_snake
    return FusedSnake(torch.cuda.jiterator._create_jit_fn(_SNAKE_CODE))


def compute_snake(x: torch.Tensor, alpha: torch.Tensor, scale: torch.Tensor, overwrite: bool) -> torch.Tensor:
    """Computes the snake with torch's operations, in place as far as that goes."""
    squared = (x * alpha).sin_().square_()
    return torch.addcmul(x, squared, scale, out=x if overwrite else squared)


class FusedSnake:
    """Computes the snake with one kernel, or with torch's operations if it cannot be compiled.

    The snake reads and writes the widest tensors of the VAE: nine times with torch's operations, twice with a kernel.

    Args:
        kernel: of x, alpha and scale; compiled at its first call.
    """

    def __init__(self, kernel: Kernel) -> None:
        self._kernel: Kernel | None = kernel

    def __call__(self, x: torch.Tensor, alpha: torch.Tensor, scale: torch.Tensor, overwrite: bool) -> torch.Tensor:
        """See `SnakeFunction`."""
        if self._kernel is not None:
            try:
                return self._kernel(x, alpha, scale)
            except RuntimeError as error:
                if is_out_of_memory(error):
                    raise
                self._kernel = None
                logger.warning("The VAE's activation cannot be compiled to one kernel: decoding is slower")
                logger.debug("The reason", exc_info=error)
        return compute_snake(x, alpha, scale, overwrite)


def count_decoder_context(ratios: Sequence[int]) -> int:
    """Counts the latents on either side that the decoder's samples of one latent depend on.

    Args:
        ratios: of the upsampling blocks, from the latents to the samples.
    """
    reach = 3
    for ratio in reversed(ratios):
        reach = math.ceil((reach + _UNIT_REACH) / ratio) + 1
    return reach + 3


def count_encoder_context(ratios: Sequence[int]) -> int:
    """Counts the latents on either side whose samples the encoder's result for one latent depends on.

    Args:
        ratios: of the downsampling blocks, from the samples to the latents.
    """
    reach = 1
    for ratio in reversed(ratios):
        reach = (reach + 1) * ratio + ratio // 2 + _UNIT_REACH
    return math.ceil((reach + 3) / math.prod(ratios))


def build_decoder(decoder: Any, snake: SnakeFunction) -> list[Layer]:
    """Returns the layers of diffusers' `OobleckDecoder`: `[B, C, 1, frames]` to `[B, channels, 1, samples]`."""
    layers: list[Layer] = [_Conv(decoder.conv1)]
    for block in decoder.block:
        layers += [_Snake(block.snake1, snake), _TransposedConv(block.conv_t1), *_build_units(block, snake)]
    return [*layers, _Snake(decoder.snake1, snake), _Conv(decoder.conv2)]


def build_encoder(encoder: Any, snake: SnakeFunction) -> list[Layer]:
    """Returns the layers of diffusers' `OobleckEncoder`: `[B, channels, 1, samples]` to `[B, C, 1, frames]`."""
    layers: list[Layer] = [_Conv(encoder.conv1)]
    for block in encoder.block:
        layers += [*_build_units(block, snake), _Snake(block.snake1, snake), _Conv(block.conv1)]
    return [*layers, _Snake(encoder.snake1, snake), _Conv(encoder.conv2)]


def run_layers(layers: Iterable[Layer], x: torch.Tensor) -> torch.Tensor:
    """Runs `[B, C, T]` through layers to `[B, C', T']`."""
    x = x[:, :, None].contiguous(memory_format=_CHANNELS_LAST)
    for layer in layers:
        x = layer(x)
    return x[:, :, 0]


def _build_units(block: Any, snake: SnakeFunction) -> list[Layer]:
    return [_ResidualUnit(unit, snake) for unit in (block.res_unit1, block.res_unit2, block.res_unit3)]


class _Conv:
    def __init__(self, conv: Any) -> None:
        self._weight, self._bias = conv.weight[:, :, None], conv.bias
        self._options: dict[str, Any] = {
            "stride": (1, conv.stride[0]),
            "padding": (0, conv.padding[0]),
            "dilation": (1, conv.dilation[0]),
        }

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, self._weight, self._bias, **self._options)


class _TransposedConv:
    def __init__(self, conv: Any) -> None:
        self._weight, self._bias = conv.weight[:, :, None], conv.bias
        self._options: dict[str, Any] = {"stride": (1, conv.stride[0]), "padding": (0, conv.padding[0])}

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv_transpose2d(x, self._weight, self._bias, **self._options)


class _Snake:
    """The periodic activation `x + sin(alpha x)^2 / beta` (arXiv 2006.08195), with values of each channel."""

    def __init__(self, snake: Any, function: SnakeFunction) -> None:
        alpha, beta = snake.alpha.float().exp(), snake.beta.float().exp()
        dtype = snake.alpha.dtype
        self._alpha = alpha[..., None].to(dtype)
        self._scale = (beta + 1e-9).reciprocal()[..., None].to(dtype)
        self._function = function

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self._function(x, self._alpha, self._scale, False)

    def overwrite(self, x: torch.Tensor) -> torch.Tensor:
        """As `__call__`, for an input that nothing else needs."""
        return self._function(x, self._alpha, self._scale, True)


class _ResidualUnit:
    def __init__(self, unit: Any, snake: SnakeFunction) -> None:
        self._snake1, self._conv1 = _Snake(unit.snake1, snake), _Conv(unit.conv1)
        self._snake2, self._conv2 = _Snake(unit.snake2, snake), _Conv(unit.conv2)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self._conv1(self._snake1(x))
        return x.add_(self._conv2(self._snake2.overwrite(hidden)))
