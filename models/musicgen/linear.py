"""Matrix products by fixed weights, in the form that each device multiplies fastest. Knows no model."""

from __future__ import annotations

import functools
from typing import Literal, Protocol

import torch
from torch.nn import functional as F

from models.device import cpu_multiplies_bfloat16

Activation = Literal["none", "gelu", "relu"]


class Linear(Protocol):
    """`activation(x @ weight.T + bias)` for `x` `[rows, in]` of any float type; the result has the weight's type."""

    nbytes: int

    def __call__(self, x: torch.Tensor) -> torch.Tensor: ...

    def plus(self, residual: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """`residual + self(x)`, in the residual's type."""


class PlainLinear:
    """A weight as it is; on CUDA the residual is added within the product."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, activation: Activation) -> None:
        self._weight, self._bias, self._activation = weight, bias, activation
        self.nbytes = weight.nbytes

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        y = F.linear(x.to(self._weight.dtype), self._weight, self._bias)
        if self._activation == "none":
            return y
        return F.gelu(y) if self._activation == "gelu" else F.relu(y)

    def plus(self, residual: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        if self._bias is None and self._activation == "none" and residual.dtype == self._weight.dtype:
            return torch.addmm(residual, x.to(self._weight.dtype), self._weight.t())
        return residual + self(x)


class PackedLinear:
    """A weight in oneDNN's blocked layout: a product with few rows then reads it at the memory's full speed.

    Measured on two cores with AVX-512 BF16, 352 M weights and two rows: 45 ms plain, 22 ms packed in bfloat16; 141 ms
    plain, 45 ms packed in float32. The layout is chosen once, without a hint for the number of rows: with one, other
    numbers of rows were slower by up to four times in float32.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, activation: Activation) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None)
        self._bias, self._activation = bias, activation
        self._dtype = weight.dtype
        self.nbytes = weight.nbytes

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        algorithm = "none" if self._activation == "gelu" else ""  # of gelu: exact, not by tanh
        product = torch.ops.mkldnn._linear_pointwise
        y: torch.Tensor = product(x.to(self._dtype), self._weight, self._bias, self._activation, [], algorithm)
        return y

    def plus(self, residual: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return residual + self(x)


def linear(weight: torch.Tensor, bias: torch.Tensor | None = None, activation: Activation = "none") -> Linear:
    """The fastest form of a `[out, in]` weight on its device."""
    if weight.device.type == "cpu" and _can_pack():
        return PackedLinear(weight, bias, activation)
    return PlainLinear(weight, bias, activation)


def weight_type(device: str) -> torch.dtype:
    """What weights are kept in: float16 on a GPU, as upstream; bfloat16 on a CPU that multiplies it, else float32.

    Where the CPU does not, oneDNN emulates it, slower than float32.
    """
    if device != "cpu":
        return torch.float16
    return torch.bfloat16 if cpu_multiplies_bfloat16() and _can_pack() else torch.float32


def stream_type(device: str) -> torch.dtype:
    """What activations are added up in."""
    return torch.float32 if device == "cpu" else torch.float16


def cache_type(device: str, weights: torch.dtype) -> torch.dtype:
    """What keys and values are kept in. float16 holds what products in bfloat16 give, but for what is next to zero."""
    return torch.float32 if device == "cpu" and weights == torch.float32 else torch.float16


@functools.cache
def _can_pack() -> bool:
    """Whether this torch has oneDNN's packed product, which is no public interface, with its signature of 2.11."""
    if not torch._C._has_mkldnn:
        return False
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(torch.eye(16), None)
        product = torch.ops.mkldnn._linear_pointwise(torch.ones(1, 16), packed, None, "gelu", [], "none")
    except (AttributeError, RuntimeError):
        return False
    return torch.allclose(product, F.gelu(torch.ones(1, 16)))
