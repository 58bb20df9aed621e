"""Classifier-free guidance of velocities `[B, T, C]`: adaptive projected guidance, and angle-based guidance."""

from __future__ import annotations

from typing import Final, Protocol

import torch
import torch.nn.functional as F

APG_MOMENTUM: Final = -0.75
APG_NORM_THRESHOLD: Final = 2.5
ADG_MAX_ANGLE: Final = 3.14 / 6
_ADG_LEAST_WEIGHT: Final = 1e-3
_ADG_LEAST_SINE: Final = 1e-3
_TIME = 1  # the dimension of the frames


class Guidance(Protocol):
    """Combines the velocities of the two branches; one for each clip, because it may remember earlier steps."""

    def __call__(
        self, conditional: torch.Tensor, unconditional: torch.Tensor, *, latents: torch.Tensor, timestep: float
    ) -> torch.Tensor:
        """The guided velocity.

        Args:
            conditional, unconditional: `[B, T, C]`, velocities of the two branches.
            latents: `[B, T, C]`, what the velocities were predicted for.
            timestep: of the latents, above 0.
        """


class AdaptiveProjectedGuidance:
    """Takes from the branches' difference what is parallel to the conditional velocity, which oversaturates.

    Sadat et al., Eliminating Oversaturation and Artifacts of High Guidance Scales (arXiv 2410.02416). As the original
    has it: a negative momentum over the steps, and the norm over time of each channel limited.

    Args:
        cfg_coef: guidance scale; 1 = the conditional velocity.
    """

    def __init__(self, cfg_coef: float) -> None:
        self._scale = cfg_coef - 1
        self._average: torch.Tensor | None = None

    def __call__(
        self, conditional: torch.Tensor, unconditional: torch.Tensor, *, latents: torch.Tensor, timestep: float
    ) -> torch.Tensor:
        """See `Guidance`."""
        difference = conditional - unconditional
        if self._average is not None:
            difference = difference + APG_MOMENTUM * self._average
        self._average = difference
        norm = difference.norm(p=2, dim=_TIME, keepdim=True)
        difference = difference * torch.minimum(torch.ones_like(norm), APG_NORM_THRESHOLD / norm)
        # Most of the difference may be parallel, so that what is left would have few digits in float32.
        exact = difference.double()
        direction = F.normalize(conditional.double(), dim=_TIME)
        orthogonal = exact - (exact * direction).sum(dim=_TIME, keepdim=True) * direction
        return conditional + self._scale * orthogonal.to(difference.dtype)


class AngleGuidance:
    """Turns each frame's predicted latents away from the unconditional ones, by a multiple of the angle between them.

    As `use_adg` of the original: the angle is over the channels of a frame, and limited to 30 degrees.

    Args:
        cfg_coef: guidance scale; 1 = nearly the conditional velocity.
    """

    def __init__(self, cfg_coef: float) -> None:
        self._weight = max(cfg_coef - 1, 0.0) + _ADG_LEAST_WEIGHT

    def __call__(
        self, conditional: torch.Tensor, unconditional: torch.Tensor, *, latents: torch.Tensor, timestep: float
    ) -> torch.Tensor:
        """See `Guidance`."""
        predicted = latents - timestep * conditional
        reference = latents - timestep * unconditional
        # An angle of 0 has an infinite slope in float32, and the frames of the two branches are nearly parallel.
        cosine = F.cosine_similarity(predicted.double(), reference.double(), dim=-1)[..., None]
        angle = cosine.clamp(-1.0 + 1e-6, 1.0 - 1e-6).acos().to(latents.dtype)
        turned = (self._weight * angle).clamp(max=ADG_MAX_ANGLE)
        difference = predicted - reference
        share = (difference * reference).sum(-1, keepdim=True) / (reference.square().sum(-1, keepdim=True) + 1e-8)
        sine = angle.sin()
        gain = torch.where(sine > _ADG_LEAST_SINE, turned.sin() / sine, self._weight)
        rotated = turned.cos() * predicted + gain * (difference - share * reference)
        return (latents - rotated) / timestep


def choose_guidance(cfg_coef: float, *, use_adg: bool) -> Guidance:
    """A new guidance for one clip."""
    return AngleGuidance(cfg_coef) if use_adg else AdaptiveProjectedGuidance(cfg_coef)
