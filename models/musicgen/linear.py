"""Linear layers with fixed weights, in the layout that each device multiplies fastest."""

from __future__ import annotations

import functools
from typing import Literal, Protocol

import torch
from torch.nn import functional as F

from models.device import cpu_multiplies_bfloat16
from models.runtime.dtype import MUSICGEN_WEIGHTS, inference_dtype

Activation = Literal["none", "gelu", "relu"]


class Linear(Protocol):
    """`activation(x @ weight.T + bias)` for `x` `[rows, in]` of any float type. The result has the weight's type."""

    nbytes: int

    def __call__(self, x: torch.Tensor) -> torch.Tensor: ...

    def plus(self, residual: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """`residual + self(x)`, in the residual's type."""


class PlainLinear:
    """A weight in torch's own layout. The residual is added within the product if its type allows it."""

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

    Measured on two cores with AVX-512 BF16, 352 M weights and two rows: in bfloat16 45 ms plain and 22 ms packed; in
    float32 141 ms plain and 45 ms packed. The layout is chosen once, without a hint for the number of rows: with one,
    products with other numbers of rows took up to four times as long in float32.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, activation: Activation) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None)
        self._bias, self._activation = bias, activation
        self._dtype = weight.dtype
        self.nbytes = weight.nbytes

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        algorithm = "none" if self._activation == "gelu" else ""  # the exact gelu, not its approximation by tanh
        product = torch.ops.mkldnn._linear_pointwise
        y: torch.Tensor = product(x.to(self._dtype), self._weight, self._bias, self._activation, [], algorithm)
        return y

    def plus(self, residual: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return residual + self(x)


def build_linear(weight: torch.Tensor, bias: torch.Tensor | None = None, activation: Activation = "none") -> Linear:
    """The fastest layout of a `[out, in]` weight on its device."""
    assert weight.ndim == 2, f"a weight of {list(weight.shape)} is not a matrix"
    if weight.device.type == "cpu" and _can_pack():
        return PackedLinear(weight, bias, activation)
    return PlainLinear(weight, bias, activation)


def choose_weight_dtype(device: str) -> torch.dtype:
    """The type of the language model's weights: on a CPU, bfloat16 is worth it for packed weights alone."""
    has_bfloat16 = device == "cpu" and cpu_multiplies_bfloat16() and _can_pack()
    return inference_dtype(MUSICGEN_WEIGHTS, device, has_bfloat16=has_bfloat16)


@functools.cache
def _can_pack() -> bool:
    """Whether this torch has oneDNN's packed product, which is not a public interface, with the signature of 2.11."""
    if not torch._C._has_mkldnn:
        return False
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(torch.eye(16), None)
        product = torch.ops.mkldnn._linear_pointwise(torch.ones(1, 16), packed, None, "gelu", [], "none")
    except (AttributeError, RuntimeError):
        return False
    return torch.allclose(product, F.gelu(torch.ones(1, 16)))
