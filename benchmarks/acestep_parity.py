"""ACE-Step's transformer and VAE against diffusers' at full size, in float32, on the same random weights.

    python -m benchmarks.acestep_parity                    a step of 12 s of music and a second of the VAE (8 GB)
    python -m benchmarks.acestep_parity --seconds 70       with the sliding windows by blocks

The last line is one JSON object; the exit status is 1 if a limit is exceeded.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from benchmarks.acestep_checkpoint import PUBLISHED, PUBLISHED_VAE, WeightMaker
from benchmarks.common import make_parser, name_device, print_parity, set_up
from models.acestep.codec import LatentCodec
from models.acestep.config import FRAME_RATE
from models.acestep.network import build_networks, build_vae
from models.acestep.transformer import DiffusionTransformer, StepInputs
from testing.acestep_reference import build_published_network

LIMITS = {"step_max_error": 1e-4, "decoder_max_error": 1e-4, "encoder_max_error": 1e-4}  # of the largest value
CONDITION_TOKENS = 300
TIMESTEP = 0.7
VAE_FRAMES = 25
TILE_FRAMES = 22  # so that there are two


def main(arguments: Sequence[str] | None = None) -> int:
    parser = make_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=12.0, help="of music, for the step")
    options = parser.parse_args(arguments)
    set_up(options)
    device = torch.device(options.device)
    frames = round(options.seconds * FRAME_RATE) + 1  # an odd number, which the transformer pads
    errors = compare_steps(device, frames=frames) | compare_vae(device)
    print_parity(errors, LIMITS)
    is_met = all(errors[name] <= limit for name, limit in LIMITS.items())
    print(json.dumps({"name": "acestep_parity", "device": name_device(options), "met": is_met, **errors}))
    return 0 if is_met else 1


@torch.inference_mode()
def compare_steps(device: torch.device, *, frames: int) -> dict[str, float]:
    """One step of the transformer."""
    with torch.device("meta"):
        module: Any = build_networks(PUBLISHED)["transformer"]
    _fill(module, device)
    reference = build_published_network(module)
    channels, generator = PUBLISHED.latent_channels, torch.Generator().manual_seed(1)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(device)

    latents, context = draw(1, frames, channels), draw(1, frames, 2 * channels)
    conditions, null_condition = (draw(1, count, PUBLISHED.encoder.hidden_size) for count in (CONDITION_TOKENS, 1))
    timestep = torch.full((1,), TIMESTEP, device=device)
    expected = reference(
        hidden_states=latents,
        timestep=timestep,
        timestep_r=timestep,
        encoder_hidden_states=conditions,
        context_latents=context,
        return_dict=False,
    )[0]
    transformer = DiffusionTransformer(module, null_condition)
    inputs = StepInputs(
        context, transformer.compute_cross_kv(conditions), transformer.make_positions(frames), guided=False
    )
    return {"step_max_error": _measure_error(transformer.predict(latents, timestep, inputs), expected)}


@torch.inference_mode()
def compare_vae(device: torch.device) -> dict[str, float]:
    """Two tiles of both directions, against one pass."""
    with torch.device("meta"):
        vae: Any = build_vae(PUBLISHED_VAE)
    _fill(vae, device)
    reference = build_published_network(vae)
    generator = torch.Generator().manual_seed(2)
    latents = torch.randn(1, VAE_FRAMES, PUBLISHED_VAE.latent_channels, generator=generator).to(device)
    waveform = 0.3 * torch.randn(2, VAE_FRAMES * reference.hop_length, generator=generator).to(device)
    decoded = reference.decode(latents.transpose(1, 2)).sample[0].cpu()
    encoded = reference.encode(waveform[None]).latent_dist.mean.transpose(1, 2)
    codec = LatentCodec(vae, tile_frames=TILE_FRAMES)
    errors = {
        "decoder_max_error": _measure_error(codec.decode(latents), decoded),
        "encoder_max_error": _measure_error(codec.encode(waveform), encoded),
    }
    half = LatentCodec(vae.to(torch.bfloat16))
    return errors | {
        "decoder_bfloat16_snr_db": _measure_snr_db(half.decode(latents), decoded),
        "encoder_bfloat16_snr_db": _measure_snr_db(half.encode(waveform), encoded),
    }


def _fill(network: nn.Module, device: torch.device) -> None:
    """Gives a network that was built on the device `meta` random weights in float32."""
    state: Mapping[str, torch.Tensor] = WeightMaker().make(network.state_dict())
    network.load_state_dict({name: tensor.float().to(device) for name, tensor in state.items()}, assign=True)
    network.eval().requires_grad_(False)


def _measure_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, of the largest expected value."""
    assert found.shape == expected.shape, f"{list(found.shape)}, and the reference's {list(expected.shape)}"
    return float((found - expected).abs().max() / expected.abs().max())


def _measure_snr_db(found: torch.Tensor, expected: torch.Tensor) -> float:
    error = (found - expected).square().sum() / expected.square().sum()
    return round(float(-10 * error.log10()), 1)


if __name__ == "__main__":
    sys.exit(main())
