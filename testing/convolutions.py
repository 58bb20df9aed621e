"""Convolutions in bfloat16 for tests that ask for that type whatever the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from models.runtime.dtype import convolves_bfloat16


@contextmanager
def right_convolutions() -> Iterator[None]:
    """Within the block torch's own convolutions replace those of oneDNN, if these are wrong on this CPU."""
    if convolves_bfloat16(torch.device("cpu")):
        yield
        return
    with torch.backends.mkldnn.flags(enabled=False):
        yield
