"""What the decoder of the demo voices is trained with: an excitation in phase with the line, no tones of its own."""

from __future__ import annotations

import pytest
import torch

from demo.training.voices.synthesizer import (
    HOP_LENGTH,
    Network,
    generate_sine,
    interpolate_linearly,
    replace_noise,
)

F0_HZ, RATE, FRAMES = 200.0, 32_000, 40


def test_the_excitation_steps_up_where_the_vocoder_has_a_pulse() -> None:
    phase = (torch.arange(FRAMES * HOP_LENGTH) * (F0_HZ / RATE))[None] % 1
    excitation = torch.tanh(80 * generate_sine(torch.full((1, FRAMES), F0_HZ), phase) + 2)[0]
    pulses = torch.arange(1, 60) * round(RATE / F0_HZ)
    assert (excitation[pulses - 8] < -0.5).all() and (excitation[pulses + 8] > 0.5).all()


def test_unvoiced_parts_are_made_of_the_excitations_noise_with_the_level_of_the_line() -> None:
    generator = torch.Generator().manual_seed(0)
    f0 = torch.zeros(1, FRAMES)
    f0[:, : FRAMES // 2] = F0_HZ
    line = 0.05 * torch.randn(1, FRAMES * HOP_LENGTH, generator=generator)
    sine = generate_sine(f0, torch.zeros_like(line))
    replaced, excitation = replace_noise(line, f0, sine)[0], torch.tanh(80 * sine + 2)[0]
    middle = len(replaced) // 2
    assert torch.equal(replaced[: middle - 100], line[0, : middle - 100])
    unvoiced = slice(middle + 500, len(replaced) - 500)
    assert float(replaced[unvoiced].std() / line[0, unvoiced].std()) == pytest.approx(1, abs=0.2)
    assert torch.corrcoef(torch.stack([replaced[unvoiced], excitation[unvoiced]]))[0, 1] > 0.7


def test_the_decoder_upsamples_steady_latents_without_a_tone() -> None:
    torch.manual_seed(0)
    decoder = Network().dec
    for up in decoder.ups:
        torch.nn.init.normal_(up.weight_v)
    interpolate_linearly(decoder)
    with torch.no_grad():
        for up in decoder.ups:
            steady = up(torch.randn(1, up.in_channels, 1).expand(-1, -1, 12))[..., 20:-20]
            assert float((steady - steady.mean(-1, keepdim=True)).abs().max()) < 1e-4 * float(steady.abs().max())
