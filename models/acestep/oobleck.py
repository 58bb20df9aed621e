"""The convolutions of Oobleck, the VAE of Stable Audio (arXiv 2407.14358) that ACE-Step's latents come from.

They run on the weights of diffusers' `AutoencoderOobleck`, in three quarters of the time on a CPU: the channels lie
last in memory, so that no convolution reorders its input, weight norm is folded once, and the snake works in place.
"""

from __future__ import annotations

import logging
import math
import operator
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, chain
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import remove_weight_norm

from models.checkpoints.weight_norm import fold_weight_norm
from models.device import is_out_of_memory
from models.runtime.chunks import plan_chunks

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
_CHUNKED_RATIO = 32  # samples in one position of chunks, at most
_CHUNK_POSITIONS = 1024
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
    return _count_upsampling_context(ratios) + 3


def count_encoder_context(ratios: Sequence[int]) -> int:
    """Counts the latents on either side whose samples the encoder's result for one latent depends on.

    Args:
        ratios: of the downsampling blocks, from the samples to the latents.
    """
    return _count_downsampling_context(ratios, reach=1)


def build_decoder(decoder: Any, snake: SnakeFunction, *, in_chunks: bool = False) -> list[Layer]:
    """Returns the layers of diffusers' `OobleckDecoder`: `[B, C, 1, frames]` to `[B, channels, 1, samples]`.

    Args:
        in_chunks: whether the widest tensors are made in chunks. The results are the same. A CPU then gets their memory
            from the allocator and not from the kernel, page by page; a GPU would only have more kernels to launch.
    """
    blocks: list[list[Layer]] = [
        [_Snake(block.snake1, snake), _TransposedConv(block.conv_t1), *_build_units(block, snake)]
        for block in decoder.block
    ]
    first: list[Layer] = [_Conv(decoder.conv1)]
    last: list[Layer] = [_Snake(decoder.snake1, snake), _Conv(decoder.conv2)]
    if not in_chunks:
        return [*first, *chain(*blocks), *last]
    ratios = [block.conv_t1.stride[0] for block in decoder.block]
    count = _count_wide_blocks(ratios[::-1])
    wide = ratios[-count:]
    chunked = _InChunks(
        [*chain(*blocks[-count:]), *last], _count_upsampling_context(wide), output_ratio=math.prod(wide)
    )
    return [*first, *chain(*blocks[:-count]), chunked]


def build_encoder(encoder: Any, snake: SnakeFunction, *, in_chunks: bool = False) -> list[Layer]:
    """Returns the layers of diffusers' `OobleckEncoder`: `[B, channels, 1, samples]` to `[B, C, 1, frames]`.

    Args:
        in_chunks: see `build_decoder`.
    """
    blocks: list[list[Layer]] = [
        [*_build_units(block, snake), _Snake(block.snake1, snake), _Conv(block.conv1)] for block in encoder.block
    ]
    first: list[Layer] = [_Conv(encoder.conv1)]
    last: list[Layer] = [_Snake(encoder.snake1, snake), _Conv(encoder.conv2)]
    if not in_chunks:
        return [*first, *chain(*blocks), *last]
    ratios = [block.conv1.stride[0] for block in encoder.block]
    count = _count_wide_blocks(ratios)
    wide = ratios[:count]
    chunked = _InChunks(
        [*first, *chain(*blocks[:count])], _count_downsampling_context(wide), input_ratio=math.prod(wide)
    )
    return [chunked, *chain(*blocks[count:]), *last]


def _count_upsampling_context(ratios: Sequence[int]) -> int:
    """Counts the inputs of the last blocks and layers on either side that the samples of one input depend on."""
    reach = 3
    for ratio in reversed(ratios):
        reach = math.ceil((reach + _UNIT_REACH) / ratio) + 1
    return reach


def _count_downsampling_context(ratios: Sequence[int], *, reach: int = 0) -> int:
    """Counts the outputs of the first layers and blocks on either side whose samples one output depends on."""
    for ratio in reversed(ratios):
        reach = (reach + 1) * ratio + ratio // 2 + _UNIT_REACH
    return math.ceil((reach + 3) / math.prod(ratios))


def _count_wide_blocks(ratios: Sequence[int]) -> int:
    """Counts the blocks next to the samples whose tensors are wide. `ratios` begin at the samples."""
    products: list[int] = list(accumulate(ratios, operator.mul))
    return max(sum(product <= _CHUNKED_RATIO for product in products), 1)


def run_layers(layers: Iterable[Layer], x: torch.Tensor) -> torch.Tensor:
    """Runs `[B, C, T]` through layers to `[B, C', T']`."""
    x = x[:, :, None].contiguous(memory_format=_CHANNELS_LAST)
    for layer in layers:
        x = layer(x)
    return x[:, :, 0]


def _build_units(block: Any, snake: SnakeFunction) -> list[Layer]:
    return [_ResidualUnit(unit, snake) for unit in (block.res_unit1, block.res_unit2, block.res_unit3)]


class _InChunks:
    """Runs layers in chunks of time, each with its context, as if they ran over the whole.

    Args:
        context: positions on either side of a chunk.
        input_ratio: samples of the input in one position.
        output_ratio: samples of the output in one position.
    """

    def __init__(self, layers: Sequence[Layer], context: int, *, input_ratio: int = 1, output_ratio: int = 1) -> None:
        self._layers, self._context = layers, context
        self._input_ratio, self._output_ratio = input_ratio, output_ratio

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        parts = []
        for chunk in plan_chunks(x.shape[-1] // self._input_ratio, size=_CHUNK_POSITIONS, context=self._context):
            part = x[..., chunk.start * self._input_ratio : chunk.stop * self._input_ratio]
            for layer in self._layers:
                part = layer(part)
            parts.append(part[..., chunk.scale_inside(self._output_ratio)])
        return torch.cat(parts, dim=-1)


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
