"""Runs a network's widest branches on parts of their batch, so that what lies between stays in a processor's cache."""

from __future__ import annotations

from typing import Final

import torch
from demucs.hdemucs import HDecLayer, HEncLayer
from torch import Tensor, nn

_SAMPLES_AT_ONCE: Final = 1 << 19


class InParts(nn.Module):
    """A module whose batch entries do not see each other, a few of them at a time.

    The residual branches of the spectrogram's layers take every band as a batch entry of its own, and their hidden
    results are larger than any cache: going through memory costs them more than the arithmetic does.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        """`[N, C, T]` in and out."""
        size = max(_SAMPLES_AT_ONCE // (x.shape[1] * x.shape[2]), 1)
        result = torch.empty_like(x, memory_format=torch.contiguous_format)
        for start in range(0, len(x), size):
            result[start : start + size] = self.module(x[start : start + size])
        return result


def work_in_parts(network: nn.Module) -> None:
    """Puts `InParts` around every residual branch over bands, in place."""
    for layer in network.modules():
        branch = getattr(layer, "dconv", None)
        if isinstance(layer, HEncLayer | HDecLayer) and layer.freq and branch is not None:
            setattr(layer, "dconv", InParts(branch))  # noqa: B010  (declared as another class)
