"""Products with a weight that does not change, in each device's fastest layout: what decoding spends its time on."""

from __future__ import annotations

import functools
from typing import Literal, Protocol

import torch
from torch.nn import functional as F

Activation = Literal["none", "gelu", "relu"]


class Linear(Protocol):
    """`activation(x @ weight.T + bias)` for `x` `[rows, in]` of any float type. The result has the weight's type."""

    nbytes: int

    def __call__(self, x: torch.Tensor) -> torch.Tensor: ...

    def add_to(self, residual: torch.Tensor, x: torch.Tensor) -> None:
        """Adds `self(x)` to `residual` `[rows, out]` in place."""


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

    def add_to(self, residual: torch.Tensor, x: torch.Tensor) -> None:
        if self._bias is None and self._activation == "none" and residual.dtype == self._weight.dtype:
            residual.addmm_(x.to(self._weight.dtype), self._weight.t())
        else:
            residual += self(x)


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

    def add_to(self, residual: torch.Tensor, x: torch.Tensor) -> None:
        residual += self(x)


def build_linear(weight: torch.Tensor, bias: torch.Tensor | None = None, activation: Activation = "none") -> Linear:
    """The fastest layout of a `[out, in]` weight on its device."""
    assert weight.ndim == 2, f"a weight of {list(weight.shape)} is not a matrix"
    if weight.device.type == "cpu" and can_pack():
        return PackedLinear(weight, bias, activation)
    return PlainLinear(weight, bias, activation)


@functools.cache
def can_pack() -> bool:
    """Whether this torch has oneDNN's packed product, which is not a public interface, with the signature of 2.11."""
    if not torch._C._has_mkldnn:
        return False
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(torch.eye(16), None)
        product = torch.ops.mkldnn._linear_pointwise(torch.ones(1, 16), packed, None, "gelu", [], "none")
    except (AttributeError, RuntimeError):
        return False
    return torch.allclose(product, F.gelu(torch.ones(1, 16)))
