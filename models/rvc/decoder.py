"""RVC's waveform decoder (NSF-HiFiGAN, or HiFi-GAN without f0) in the layout that processors are fastest at.

The weights are those of rvc-python's `GeneratorNSF` or `Generator`; the loop over them is ours: convolutions see
`[B, C, 1, T]` with channels last, upsampling is a convolution whose channels become time, and the mean over residual
blocks is taken by the next layer's weights. Knows no seeds and no f0: the excitation is handed in.
"""

from __future__ import annotations

import math
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from errors import ErrorCode, ModelError

_SLOPE: Final = 0.1
_LAST_SLOPE: Final = 0.01
_TILE_BYTES: Final = 5 << 20  # of a stage's result: about what a processor's caches hold of it and of two more


class Decoder(nn.Module):
    """The generator of a synthesizer.

    Args:
        reference: rvc-python's `GeneratorNSF` or `Generator`, weight norm removed, float32.
        dtype: of the convolutions; the excitation's projections stay in float32.
    """

    def __init__(self, reference: Any, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.tile_bytes = _TILE_BYTES
        self.condition = reference.cond if hasattr(reference, "cond") else None
        self.first = _Convolution(reference.conv_pre, dtype)
        self.stages = nn.ModuleList(
            _Stage(reference, stage, dtype, first=stage == 0) for stage in range(reference.num_upsamples)
        )
        self.last = _Convolution(reference.conv_post, dtype, scale=1 / reference.num_kernels)
        rates = [int(up.stride[0]) for up in reference.ups]
        self._hops = [math.prod(rates[stage:]) for stage in range(len(rates))]
        self._reaches = _reaches(reference)
        self.hop_length = self._hops[0]

    def forward(self, latent: Tensor, speaker: Tensor, source: Tensor | None) -> Tensor:
        """The waveform of a whole window.

        Args:
            latent: `[B, inter, T]`, one column a frame.
            speaker: `[B, gin, 1]`.
            source: the excitation, `[B, T * hop_length]` float32; None for a voice without f0.

        Returns:
            `[B, T * hop_length]` float32, within -1 to 1.
        """
        x = latent.to(self.dtype)[:, :, None].contiguous(memory_format=torch.channels_last)
        x = self.first(x)
        if self.condition is not None:
            x = x + self.condition(speaker)[:, :, None].to(self.dtype)
        return self._from_stage(0, x, source)

    def _from_stage(self, number: int, x: Tensor, source: Tensor | None) -> Tensor:
        """The waveform `[B, n]` of what goes into a stage, `[B, C, 1, T]`, in tiles that fit a processor's caches.

        A tile takes as much of its neighbours as its sound depends on, so that tiles make no difference but in speed.
        """
        if number == len(self.stages):
            x = self.last(functional.leaky_relu_(x, _LAST_SLOPE))
            return torch.tanh(x[:, 0, 0].float())
        stage: Any = self.stages[number]
        steps, hop, reach = x.shape[-1], self._hops[number], self._reaches[number]
        tile = stage.steps_within(self.tile_bytes) if x.device.type == "cpu" else steps
        if steps <= tile + 2 * reach:
            return self._from_stage(number + 1, stage(x, source), source)
        out = x.new_empty(x.shape[0], steps * hop, dtype=torch.float32)
        for start in range(0, steps, tile):
            end = min(start + tile, steps)
            left, right = max(start - reach, 0), min(end + reach, steps)
            part = None if source is None else source[:, left * hop : right * hop]
            made = self._from_stage(number, x[..., left:right], part)
            out[:, start * hop : end * hop] = made[:, (start - left) * hop : (end - left) * hop]
        return out


class _Convolution(nn.Module):
    """A `Conv1d` of stride 1 on `[B, C, 1, T]`, its weights (not its bias) times `scale`."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, reference: nn.Conv1d, dtype: torch.dtype, *, scale: float = 1.0) -> None:
        super().__init__()
        self.padding = (0, int(reference.padding[0]))
        self.dilation = (1, int(reference.dilation[0]))
        weight = (reference.weight.detach() * scale)[:, :, None].to(dtype)
        self.register_buffer("weight", weight.contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", None if reference.bias is None else reference.bias.detach().to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.weight, self.bias, padding=self.padding, dilation=self.dilation)


class _Upsampling(nn.Module):
    """A `ConvTranspose1d` of stride u, as a convolution to u times the channels, which then are u times the steps.

    Output n * u + r of a transposed convolution with padding p is the sum over d of weight[r + p + d * u] * x[n - d].
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, reference: nn.ConvTranspose1d, dtype: torch.dtype, *, scale: float) -> None:
        super().__init__()
        self.rate, padding = int(reference.stride[0]), int(reference.padding[0])
        given = reference.weight.detach().float() * scale  # [C_in, C_out, K]
        inputs, self.channels, kernel = given.shape
        if kernel - 2 * padding != self.rate:
            raise ModelError(
                f"This voice upsamples by {self.rate} with a kernel of {kernel}, which shifts its sound in time. "
                "It was not made by RVC: use another checkpoint.",
                code=ErrorCode.BROKEN_CHECKPOINT,
            )
        self.before = (kernel - 1 - padding) // self.rate
        self.after = (self.rate - 1 + padding) // self.rate
        weight = given.new_zeros(self.rate, self.channels, inputs, self.before + self.after + 1)
        for phase in range(self.rate):
            for tap in range(weight.shape[-1]):
                position = phase + padding + (self.before - tap) * self.rate
                if 0 <= position < kernel:
                    weight[phase, :, :, tap] = given[:, :, position].T
        weight = weight.flatten(0, 1)[:, :, None].to(dtype)
        bias = given.new_zeros(self.channels) if reference.bias is None else reference.bias.detach()
        self.register_buffer("weight", weight.contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", bias.repeat(self.rate).to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        if self.before == self.after:
            x = functional.conv2d(x, self.weight, self.bias, padding=(0, self.before))
        else:
            x = functional.conv2d(functional.pad(x, (self.before, self.after)), self.weight, self.bias)
        batch, _, _, steps = x.shape
        by_step = x.permute(0, 2, 3, 1).reshape(batch, 1, steps * self.rate, self.channels)
        return by_step.permute(0, 3, 1, 2)


class _Excitation(nn.Module):
    """A stage's projection of the excitation: a strided `Conv1d` from one channel, as a product of windows."""

    def __init__(self, reference: nn.Conv1d) -> None:
        super().__init__()
        self.kernel, self.stride = int(reference.kernel_size[0]), int(reference.stride[0])
        self.padding = int(reference.padding[0])
        self.projection = nn.Linear(self.kernel, reference.out_channels, device="meta")
        self.projection.load_state_dict({"weight": reference.weight[:, 0], "bias": reference.bias}, assign=True)

    def forward(self, source: Tensor) -> Tensor:
        """`[B, N]` -> `[B, C, 1, N / stride]`, channels last."""
        windows = functional.pad(source, (self.padding, self.padding)).unfold(-1, self.kernel, self.stride)
        projected: Tensor = self.projection(windows)
        return projected[:, None].permute(0, 3, 1, 2)


class _Stage(nn.Module):
    """Upsampling, excitation, residual blocks. Returns the blocks' sum, which the next layer's weights divide."""

    def __init__(self, reference: Any, stage: int, dtype: torch.dtype, *, first: bool) -> None:
        super().__init__()
        count = reference.num_kernels
        self.up = _Upsampling(reference.ups[stage], dtype, scale=1.0 if first else 1 / count)
        has_source = hasattr(reference, "noise_convs")
        self.excitation = _Excitation(reference.noise_convs[stage]) if has_source else None
        blocks = reference.resblocks[stage * count : (stage + 1) * count]
        self.blocks = nn.ModuleList(_Block(block, dtype) for block in blocks)
        self._bytes_per_step = self.up.rate * self.up.channels * dtype.itemsize

    def steps_within(self, size: int) -> int:
        """How many steps go in for a result of `size` bytes."""
        return max(size // self._bytes_per_step, 1)

    def forward(self, x: Tensor, source: Tensor | None) -> Tensor:
        x = self.up(functional.leaky_relu(x, _SLOPE))
        if self.excitation is not None:
            assert source is not None, "a voice with f0 has an excitation"
            x = x.add_(self.excitation(source).to(x.dtype))
        active = functional.leaky_relu(x, _SLOPE)
        first, *others = self.blocks
        total: Tensor = first(x, active)
        for block in others:
            total = total.add_(block(x, active))
        return total


class _Block(nn.Module):
    """`ResBlock1` (pairs of convolutions) or `ResBlock2` (single ones)."""

    def __init__(self, reference: Any, dtype: torch.dtype) -> None:
        super().__init__()
        steps = zip(reference.convs1, reference.convs2, strict=True) if hasattr(reference, "convs1") else None
        chains = steps if steps is not None else ((conv,) for conv in reference.convs)
        self.chains = nn.ModuleList(nn.ModuleList(_Convolution(conv, dtype) for conv in chain) for chain in chains)

    def forward(self, x: Tensor, active: Tensor) -> Tensor:
        for index, chain in enumerate(self.chains):
            y = active if index == 0 else functional.leaky_relu(x, _SLOPE)
            convolutions: Any = chain
            for position, conv in enumerate(convolutions):
                y = conv(y if position == 0 else functional.leaky_relu_(y, _SLOPE))
            x = y.add_(x)
        return x


def _reaches(reference: Any) -> list[int]:
    """Steps on each side of a step that go into a stage, of which the sound of that step depends."""
    reaches, later = [], float(_reach(reference.conv_post))  # in steps of what comes out of the stage
    for stage, up in reversed(list(enumerate(reference.ups))):
        blocks = reference.resblocks[stage * reference.num_kernels : (stage + 1) * reference.num_kernels]
        within = later + max(sum(map(_reach, _convolutions(block))) for block in blocks)
        later = (within + up.kernel_size[0]) / up.stride[0]
        reaches.append(math.ceil(later) + 1)
    return reaches[::-1]


def _convolutions(block: nn.Module) -> list[nn.Conv1d]:
    return [module for module in block.modules() if isinstance(module, nn.Conv1d)]


def _reach(conv: nn.Conv1d) -> int:
    return int(conv.dilation[0] * (conv.kernel_size[0] - 1) // 2)
