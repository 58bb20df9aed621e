"""The part of HuBERT that processors are slow at as it is published: the same weights, the same result."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class FrontEnd(nn.Module):
    """transformers' `HubertFeatureEncoder` (group norm): waveform to 50 frames/s.

    The first layer's norm over time follows from the covariance of the 10 samples that its kernel sees, so it goes into
    the kernel, and its large output is written once. The others are convolutions over `[B, C, 1, T]`, channels last.

    Args:
        reference: transformers' module.
        dtype: of all but the first layer.
    """

    kernel: Tensor

    def __init__(self, reference: Any, dtype: torch.dtype) -> None:
        super().__init__()
        first, *others = reference.conv_layers
        self.dtype = dtype
        self.norm = first.layer_norm
        self.register_buffer("kernel", first.conv.weight[:, 0].detach().float())
        self.first_stride = int(first.conv.stride[0])
        self.strides = [int(layer.conv.stride[0]) for layer in others]
        for number, layer in enumerate(others):
            weight = layer.conv.weight.detach()[:, :, None].to(dtype)
            self.register_buffer(f"weight_{number}", weight.contiguous(memory_format=torch.channels_last))

    def forward(self, waveform: Tensor) -> Tensor:
        """`[B, T]` -> `[B, T', C]`."""
        windows = waveform.unfold(-1, self.kernel.shape[1], self.first_stride)
        weight, bias = self._normed(windows)
        x = functional.gelu(torch.baddbmm(bias, windows, weight.transpose(1, 2)).to(self.dtype))
        x = x[:, None].permute(0, 3, 1, 2)
        for number, stride in enumerate(self.strides):
            x = functional.gelu(functional.conv2d(x, self.get_buffer(f"weight_{number}"), stride=(1, stride)))
        return x[:, :, 0].transpose(1, 2)

    def _normed(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Kernel `[B, C, K]` and bias `[B, 1, C]` that give the normed output of the first layer at once."""
        # In float64: neighbouring samples are nearly equal, and kernels take their differences.
        exact = torch.float32 if windows.device.type == "mps" else torch.float64
        kernel, samples = self.kernel.to(exact), windows.to(exact)
        centre = samples.mean(1, keepdim=True)
        apart = samples - centre
        covariance = apart.transpose(1, 2) @ apart / windows.shape[1]
        variance = ((kernel @ covariance) * kernel).sum(-1)
        scale = (self.norm.weight / torch.sqrt(variance + self.norm.eps)).float()
        bias = self.norm.bias - (centre @ kernel.T)[:, 0].float() * scale
        return self.kernel * scale[..., None], bias[:, None]
