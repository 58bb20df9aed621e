"""Weight norm (arXiv 1602.07868) in checkpoints: a weight stored as its length `g` and its direction `v`.

torch has two name schemes for the pair: `x.weight_g` and `x.weight_v`, and, since 2.0,
`x.parametrizations.weight.original0` and `original1`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

from errors import sanitize
from models.checkpoints.errors import CheckpointError

if TYPE_CHECKING:
    import torch

_NEW_ENDINGS = {
    ".parametrizations.weight.original0": ".weight_g",
    ".parametrizations.weight.original1": ".weight_v",
}

T = TypeVar("T")


def use_old_names(state: Mapping[str, T]) -> dict[str, T]:
    """Returns the state dict with weight norm under `weight_g` and `weight_v`, whichever scheme it was saved in.

    Raises:
        CheckpointError: it holds a tensor under both names.
    """
    renamed: dict[str, T] = {}
    for key, value in state.items():
        name = key
        for new, old in _NEW_ENDINGS.items():
            if key.endswith(new):
                name = key.removesuffix(new) + old
        if name in renamed:
            raise CheckpointError(f"it holds '{sanitize(name)}' twice")
        renamed[name] = value
    return renamed


def fold_weight_norm(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Returns the state dict with every `g` and `v`, in either scheme, as the one weight `x.weight`, in float32.

    The other tensors are as they were.

    Raises:
        CheckpointError: a `v` has no `g` of a fitting shape, or a tensor is there under both names.
    """
    import torch

    folded: dict[str, torch.Tensor] = {}
    state = use_old_names(state)
    for name, tensor in state.items():
        if name.endswith(".weight_v"):
            base = name.removesuffix("_v")
            length = state.get(f"{base}_g")
            dim = None if length is None else _find_dim(length.shape, tensor.shape)
            if length is None or dim is None:
                raise CheckpointError(f"'{sanitize(base)}' has no length (weight_g) that fits its direction (weight_v)")
            folded[base] = torch._weight_norm(tensor.float(), length.float(), dim)
        elif not (name.endswith(".weight_g") and f"{name[:-1]}v" in state):
            folded[name] = tensor
    return folded


def _find_dim(length: tuple[int, ...], direction: tuple[int, ...]) -> int | None:
    """Returns the dimension that the lengths run along; None if the two shapes do not fit."""
    dims = range(len(direction))
    fitting = (dim for dim in dims if tuple(length) == tuple(direction[i] if i == dim else 1 for i in dims))
    return next(fitting, None)
