"""pymss-core's RoFormer networks, with weights of `testing.tiny_roformer`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pymss_core.modules.bs_roformer import BSRoformer, MelBandRoformer  # type: ignore[import-untyped]

from testing.tiny_roformer import Shape


class ReferenceNetwork:
    """A network of pymss-core in evaluation mode.

    Args:
        shape: its sizes.
        state: its weights, under the published names.
    """

    def __init__(self, shape: Shape, state: Mapping[str, torch.Tensor]) -> None:
        arguments = shape.describe()
        arguments["mask_estimator_depth"] = shape.num_mask_linears
        if shape.kind == "mel":
            # It cuts the result to whole hops otherwise.
            arguments |= {"mlp_hidden_layers": shape.num_mask_linears - 1, "match_input_audio_length": True}
        network: Any = (MelBandRoformer if shape.kind == "mel" else BSRoformer)(**arguments)
        network.load_state_dict(dict(state), strict=True)
        self.module = network.eval()
        self._stems = shape.num_stems
        self._is_stereo = shape.stereo

    @torch.inference_mode()
    def __call__(self, mix: torch.Tensor) -> torch.Tensor:
        """Separates `[B, 2, T]` into `[B, S, 2, T]`. A network for mono gets each channel as a mix of its own."""
        if not self._is_stereo:
            channels = [self._separate(mix[:, channel : channel + 1]) for channel in range(2)]
            return torch.cat(channels, dim=2)
        return self._separate(mix)

    def _separate(self, mix: torch.Tensor) -> torch.Tensor:
        stems: torch.Tensor = self.module(mix)
        return stems[:, None] if self._stems == 1 else stems


def measure_snr_db(expected: torch.Tensor, actual: torch.Tensor) -> float:
    """Returns the level of `expected` against that of the difference, in dB."""
    error = (actual.double() - expected.double()).square().sum()
    return float(10 * torch.log10(expected.double().square().sum() / error.clamp(min=1e-300)))
