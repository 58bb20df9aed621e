"""The timesteps of the sampler: from 1 (noise) towards 0 (the latents). Needs no torch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.acestep.request import DiffusionSampling

TURBO_SHIFTS: Final = (1.0, 2.0, 3.0)  # those that the turbo models were distilled for, with eight steps
TURBO_STEPS: Final = 8
_TOLERANCE = 5e-4  # of a timestep that was rounded to three or four digits


def compute_timesteps(sampling: DiffusionSampling) -> tuple[float, ...]:
    """The timesteps at which the transformer is asked, falling; after the last one comes 0.

    They have the precision of float32, as diffusers' scheduler computes them.
    """
    if sampling.timesteps is not None:
        return tuple(float(np.float32(timestep)) for timestep in drop_last_zero(sampling.timesteps))
    return tuple(float(timestep) for timestep in _shift(_divide_interval(sampling.num_steps), sampling.shift))


def pair_timesteps(timesteps: Sequence[float]) -> Iterator[tuple[float, float]]:
    """Each timestep with the next one, the last with 0."""
    return itertools.pairwise((*timesteps, 0.0))


def drop_last_zero(timesteps: Sequence[float]) -> tuple[float, ...]:
    """The timesteps without a 0 at the end: the last step goes to 0 in any case."""
    return tuple(timesteps[:-1]) if timesteps and timesteps[-1] == 0 else tuple(timesteps)


def find_timestep_error(timesteps: Sequence[float], *, most: int) -> str | None:
    """What is wrong with a request's timesteps, as a clause, or None.

    Args:
        most: how many the model takes, apart from a 0 at the end.
    """
    kept = drop_last_zero(timesteps)
    if not 1 <= len(kept) <= most:
        return f"there are {len(kept)} above 0, and 1 to {most} are allowed"
    for number, timestep in enumerate(kept, 1):
        if not (math.isfinite(timestep) and 0 < timestep <= 1):
            return f"number {number} is {timestep:g}, and each must be above 0 and at most 1"
    for number, (timestep, following) in enumerate(itertools.pairwise(kept), 2):
        if following >= timestep:
            return f"number {number} is {following:g} after {timestep:g}, and each must be less than the one before"
    return None


def list_untrained_timesteps(timesteps: Sequence[float]) -> tuple[float, ...]:
    """Those timesteps that a turbo model has not been distilled for: its tables have 20 different values."""
    known = np.unique(np.concatenate([_shift(_divide_interval(TURBO_STEPS), shift) for shift in TURBO_SHIFTS]))
    return tuple(timestep for timestep in timesteps if np.abs(known - timestep).min() > _TOLERANCE)


def _divide_interval(steps: int) -> NDArray[np.float32]:
    """`steps` values from 1 down, each `1 / steps` below the one before, with the rounding of `torch.linspace`."""
    width = np.float64(np.float32(-1.0) / np.float32(steps))
    index = np.arange(steps)
    values = np.where(index < (steps + 1) // 2, 1.0 + width * index, -width * (steps - index))
    return values.astype(np.float32)


def _shift(timesteps: NDArray[np.float32], shift: float) -> NDArray[np.float32]:
    """`s t / (1 + (s - 1) t)`: a larger shift spends more of the steps on noise."""
    if shift == 1.0:
        return timesteps
    return np.float32(shift) * timesteps / (1 + np.float32(shift - 1) * timesteps)
