"""RVC's waveform decoder (NSF-HiFiGAN, or HiFi-GAN without f0) in a memory layout that is fast on CPUs and GPUs.

It computes what rvc-python's `GeneratorNSF` or `Generator` computes from the same weights, in another way: convolutions
see `[B, C, 1, T]` with channels last, upsampling is a convolution whose channels become time steps, and the mean over
residual blocks is folded into the next layer's weights.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from errors import ErrorCode, ModelError

_SLOPE = 0.1
_LAST_SLOPE = 0.01
_TILE_BYTES = 5 << 20  # of a stage's output: a CPU's caches hold about three tensors of this size


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
        self._margins = _compute_margins(reference)
        self.hop_length = self._hops[0]

    def forward(self, latents: torch.Tensor, speaker: torch.Tensor, excitation: torch.Tensor | None) -> torch.Tensor:
        """Decodes latents to a waveform.

        Args:
            latents: `[B, inter_channels, T]`, one column per frame.
            speaker: `[B, gin_channels, 1]`.
            excitation: `[B, T * hop_length]` float32; None for a voice without f0.

        Returns:
            `[B, T * hop_length]` float32, -1 to 1.
        """
        assert excitation is None or excitation.shape[1] == latents.shape[2] * self.hop_length, (
            f"the excitation has {self.hop_length} samples per frame: {latents.shape[2] * self.hop_length}, "
            f"not {excitation.shape[1]}"
        )
        x = latents.to(self.dtype)[:, :, None].contiguous(memory_format=torch.channels_last)
        x = self.first(x)
        if self.condition is not None:
            x = x + self.condition(speaker)[:, :, None].to(self.dtype)
        return self._run_from_stage(0, x, excitation)

    def _run_from_stage(self, number: int, x: torch.Tensor, excitation: torch.Tensor | None) -> torch.Tensor:
        """Runs the stages from `number` on: `[B, C, 1, T]` -> waveform `[B, n]`; on a CPU in tiles that fit its caches.

        A tile includes as much of its neighbours as its output depends on, so tiling changes speed only.
        """
        if number == len(self.stages):
            x = self.last(F.leaky_relu_(x, _LAST_SLOPE))
            return torch.tanh(x[:, 0, 0].float())
        stage: Any = self.stages[number]
        steps, hop, margin = x.shape[-1], self._hops[number], self._margins[number]
        tile = stage.steps_within(self.tile_bytes) if x.device.type == "cpu" else steps
        if steps <= tile + 2 * margin:
            return self._run_from_stage(number + 1, stage(x, excitation), excitation)
        out = x.new_empty(x.shape[0], steps * hop, dtype=torch.float32)
        for start in range(0, steps, tile):
            end = min(start + tile, steps)
            left, right = max(start - margin, 0), min(end + margin, steps)
            part = None if excitation is None else excitation[:, left * hop : right * hop]
            waveform = self._run_from_stage(number, x[..., left:right], part)
            out[:, start * hop : end * hop] = waveform[:, (start - left) * hop : (end - left) * hop]
        return out


class _Convolution(nn.Module):
    """A `Conv1d` of stride 1 on `[B, C, 1, T]`, whose weights, but not its bias, are multiplied by `scale`."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, reference: nn.Conv1d, dtype: torch.dtype, *, scale: float = 1.0) -> None:
        super().__init__()
        self.padding = (0, int(reference.padding[0]))
        self.dilation = (1, int(reference.dilation[0]))
        weight = (reference.weight.detach() * scale)[:, :, None].to(dtype)
        self.register_buffer("weight", weight.contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", None if reference.bias is None else reference.bias.detach().to(dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, self.weight, self.bias, padding=self.padding, dilation=self.dilation)


class _Upsampling(nn.Module):
    """A `ConvTranspose1d` of stride u, as a convolution to u times the channels, which become u times the steps.

    Output n * u + r of a transposed convolution with padding p is the sum over d of weight[r + p + d * u] * x[n - d].
    """

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, reference: nn.ConvTranspose1d, dtype: torch.dtype, *, scale: float) -> None:
        super().__init__()
        self.rate, padding = int(reference.stride[0]), int(reference.padding[0])
        transposed = reference.weight.detach().float() * scale  # [C_in, C_out, K]
        inputs, self.channels, kernel = transposed.shape
        if kernel - 2 * padding != self.rate:
            raise ModelError(
                f"This voice's decoder upsamples by {self.rate} with a kernel of {kernel} and a "
                f"padding of {padding}, which would shift the audio in time. RVC does not "
                "train such voices. Use another checkpoint.",
                code=ErrorCode.BROKEN_CHECKPOINT,
            )
        self.before = (kernel - 1 - padding) // self.rate
        self.after = (self.rate - 1 + padding) // self.rate
        weight = transposed.new_zeros(self.rate, self.channels, inputs, self.before + self.after + 1)
        for phase in range(self.rate):
            for tap in range(weight.shape[-1]):
                position = phase + padding + (self.before - tap) * self.rate
                if 0 <= position < kernel:
                    weight[phase, :, :, tap] = transposed[:, :, position].T
        weight = weight.flatten(0, 1)[:, :, None].to(dtype)
        bias = transposed.new_zeros(self.channels) if reference.bias is None else reference.bias.detach()
        self.register_buffer("weight", weight.contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", bias.repeat(self.rate).to(dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.before == self.after:
            x = F.conv2d(x, self.weight, self.bias, padding=(0, self.before))
        else:
            x = F.conv2d(F.pad(x, (self.before, self.after)), self.weight, self.bias)
        batch, _, _, steps = x.shape
        by_step = x.permute(0, 2, 3, 1).reshape(batch, 1, steps * self.rate, self.channels)
        return by_step.permute(0, 3, 1, 2)


class _Excitation(nn.Module):
    """A stage's projection of the excitation: a strided `Conv1d` from one channel, as a matrix product of windows."""

    def __init__(self, reference: nn.Conv1d) -> None:
        super().__init__()
        self.kernel, self.stride = int(reference.kernel_size[0]), int(reference.stride[0])
        self.padding = int(reference.padding[0])
        self.projection = nn.Linear(self.kernel, reference.out_channels, device="meta")
        self.projection.load_state_dict({"weight": reference.weight[:, 0], "bias": reference.bias}, assign=True)

    def forward(self, excitation: torch.Tensor) -> torch.Tensor:
        """`[B, N]` -> `[B, C, 1, N / stride]`, channels last."""
        windows = F.pad(excitation, (self.padding, self.padding)).unfold(-1, self.kernel, self.stride)
        projected: torch.Tensor = self.projection(windows)
        return projected[:, None].permute(0, 3, 1, 2)


class _Stage(nn.Module):
    """Upsampling, excitation, residual blocks. Returns the sum of the blocks; the next layer's weights divide it."""

    def __init__(self, reference: Any, stage: int, dtype: torch.dtype, *, first: bool) -> None:
        super().__init__()
        count = reference.num_kernels
        self.up = _Upsampling(reference.ups[stage], dtype, scale=1.0 if first else 1 / count)
        self.excitation = _Excitation(reference.noise_convs[stage]) if hasattr(reference, "noise_convs") else None
        blocks = reference.resblocks[stage * count : (stage + 1) * count]
        self.blocks = nn.ModuleList(_Block(block, dtype) for block in blocks)
        self._bytes_per_step = self.up.rate * self.up.channels * dtype.itemsize

    def steps_within(self, size: int) -> int:
        """How many input steps give an output of `size` bytes."""
        return max(size // self._bytes_per_step, 1)

    def forward(self, x: torch.Tensor, excitation: torch.Tensor | None) -> torch.Tensor:
        x = self.up(F.leaky_relu(x, _SLOPE))
        if self.excitation is not None:
            assert excitation is not None, "a voice with f0 needs an excitation"
            x = x.add_(self.excitation(excitation).to(x.dtype))
        active = F.leaky_relu(x, _SLOPE)
        first, *others = self.blocks
        total: torch.Tensor = first(x, active)
        for block in others:
            total = total.add_(block(x, active))
        return total


class _Block(nn.Module):
    """`ResBlock1` (pairs of convolutions) or `ResBlock2` (single ones)."""

    def __init__(self, reference: Any, dtype: torch.dtype) -> None:
        super().__init__()
        lists = (reference.convs1, reference.convs2) if hasattr(reference, "convs1") else (reference.convs,)
        chains = zip(*lists, strict=True)
        self.chains = nn.ModuleList(nn.ModuleList(_Convolution(conv, dtype) for conv in chain) for chain in chains)

    def forward(self, x: torch.Tensor, active: torch.Tensor) -> torch.Tensor:
        for index, chain in enumerate(self.chains):
            y = active if index == 0 else F.leaky_relu(x, _SLOPE)
            convolutions: Any = chain
            for position, conv in enumerate(convolutions):
                y = conv(y if position == 0 else F.leaky_relu_(y, _SLOPE))
            x = y.add_(x)
        return x


def _compute_margins(reference: Any) -> list[int]:
    """For each stage, how many input steps on each side of a step its audio depends on."""
    margins, later = [], float(_compute_reach(reference.conv_post))  # later: in steps of the stage's output
    for stage, up in reversed(list(enumerate(reference.ups))):
        blocks = reference.resblocks[stage * reference.num_kernels : (stage + 1) * reference.num_kernels]
        convolutions = ([conv for conv in block.modules() if isinstance(conv, nn.Conv1d)] for block in blocks)
        later += max(sum(map(_compute_reach, chain)) for chain in convolutions)
        later = (later + up.kernel_size[0]) / up.stride[0]
        margins.append(math.ceil(later) + 1)
    return margins[::-1]


def _compute_reach(conv: nn.Conv1d) -> int:
    return int(conv.dilation[0] * (conv.kernel_size[0] - 1) // 2)
