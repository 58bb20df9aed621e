"""Trains the audio VAE (Oobleck): 48 kHz to 25 latents a second and back.

The widest units of both halves stay zero, and their computation is left out while training: on a CPU they would take
half of the time. Weight norm is folded while training and restored for the files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from demo.training.loss import SpectralLoss
from demo.training.songs.render import BUILD, SAMPLE_RATE, load_audio
from demo.training.songs.schedule import TrainingClock
from models.acestep.config import VaeConfig
from models.acestep.network import build_vae
from models.acestep.oobleck import fold_weights

CHECKPOINT = BUILD / "vae.pt"
LATENTS = BUILD / "latents.npy"
SCALES = BUILD / "scales.pt"
HOP_LENGTH = 1920
CONFIG = VaeConfig(
    encoder_hidden_size=32,
    decoder_channels=32,
    latent_channels=16,
    downsampling_ratios=(16, 10, 12),
    channel_multiples=(2, 4, 6),
)
HELD_OUT = 6  # of the first pieces
ENCODED_PIECES = 170
_CROP = 13 * HOP_LENGTH  # about half a second
_EDGE = 1200  # samples at the ends of a crop whose surroundings the VAE does not see
_FFT_SIZES = (4096, 2048, 512, 128)
_KL_WEIGHT = 5e-4
_TARGET_RMS = 0.12  # of the first output, as of the pieces


class _SnakeFunction(torch.autograd.Function):
    """`x + sin(x)^2`: the snake with values of 1, in two passes over memory each way."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return torch.sin(x).square_().add_(x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return torch.sin(2 * x).add_(1).mul_(gradient)


def _snake(x: torch.Tensor) -> torch.Tensor:
    return _SnakeFunction.apply(x)  # type: ignore[no-untyped-call,no-any-return]  # torch's apply is untyped


class TrainedVae(nn.Module):
    """diffusers' `AutoencoderOobleck` on one channel, without weight norm and without the units that stay zero."""

    def __init__(self) -> None:
        super().__init__()
        vae: Any = build_vae(CONFIG)
        fold_weights(vae)
        self.encoder, self.decoder = vae.encoder, vae.decoder
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(not name.endswith(("alpha", "beta")))
        for unit in self.list_skipped():
            for parameter in unit.parameters():
                parameter.requires_grad_(False)
            nn.init.zeros_(unit.conv2.weight)
            nn.init.zeros_(unit.conv2.bias)

    def list_skipped(self) -> list[Any]:
        """Lists the units whose result stays zero."""
        return [*_list_units(self.encoder.block[0]), *_list_units(self.decoder.block[-1])]

    def encode(self, waveform: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`[B, T]` to the mean and the standard deviation of the latents, `[B, C, frames]` each."""
        x = _convolve(self.encoder.conv1, waveform[:, None].expand(-1, 2, -1))
        for index, block in enumerate(self.encoder.block):
            if index:
                x = _run_units(block, x)
            x = _convolve(block.conv1, _snake(x))
        mean, scale = _convolve(self.encoder.conv2, _snake(x)).chunk(2, dim=1)
        return mean, F.softplus(scale) + 1e-4

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """`[B, C, frames]` to `[B, T]`."""
        x = _convolve(self.decoder.conv1, latents)
        for index, block in enumerate(self.decoder.block):
            conv = block.conv_t1
            x = F.conv_transpose1d(_snake(x), conv.weight, conv.bias, stride=conv.stride, padding=conv.padding)
            if index < len(self.decoder.block) - 1:
                x = _run_units(block, x)
        weight = self.decoder.conv2.weight.mean(0, keepdim=True)
        return F.conv1d(_snake(x), weight, padding=3)[:, 0]


def _run_units(block: Any, x: torch.Tensor) -> torch.Tensor:
    for unit in _list_units(block):
        x = x + _convolve(unit.conv2, _snake(_convolve(unit.conv1, _snake(x))))
    return x


def _convolve(conv: Any, x: torch.Tensor) -> torch.Tensor:
    return F.conv1d(x, conv.weight, conv.bias, stride=conv.stride, padding=conv.padding, dilation=conv.dilation)


def make_spectral_loss() -> SpectralLoss:
    """Makes the loss between waveforms of the VAE."""
    return SpectralLoss(SAMPLE_RATE, fft_sizes=_FFT_SIZES, max_bands=96)


def _scale_weights(vae: TrainedVae, clips: torch.Tensor) -> None:
    """Gives every convolution outputs of unit variance on real clips (LSUV, arXiv 1511.06422), and those that end a
    residual unit smaller ones: with torch's own initialisation the signal fades over the layers."""
    units = [unit for block in (*vae.encoder.block, *vae.decoder.block) for unit in _list_units(block)]
    skipped = {unit.conv2 for unit in vae.list_skipped()}
    targets = {unit.conv2: 0.3 for unit in units} | {vae.decoder.conv2: _TARGET_RMS}

    def rescale(conv: Any, _: Any, output: torch.Tensor) -> torch.Tensor:
        factor = output.std() / targets.get(conv, 1.0)
        conv.weight.data /= factor
        return output / factor

    with torch.no_grad():
        handles = []
        for conv in vae.modules():
            if isinstance(conv, nn.Conv1d | nn.ConvTranspose1d) and conv not in skipped:
                if conv.bias is not None:
                    nn.init.zeros_(conv.bias)
                handles.append(conv.register_forward_hook(rescale))
        hidden = vae.encoder(clips[:, None].expand(-1, 2, -1))
        vae.decoder(hidden.chunk(2, dim=1)[0])
        vae.encoder.conv2.bias[CONFIG.latent_channels :] = -2.0  # a standard deviation of 0.13
    for handle in handles:
        handle.remove()


def _list_units(block: Any) -> tuple[Any, ...]:
    return block.res_unit1, block.res_unit2, block.res_unit3


class _Batches:
    """Random crops with random gain, of pieces that are not held out."""

    def __init__(self, seed: int) -> None:
        self._audio, self._rng = load_audio(), np.random.default_rng(seed)

    def draw(self, size: int, crop: int = _CROP) -> torch.Tensor:
        """Draws `[size, crop]`."""
        rows = self._rng.integers(HELD_OUT, len(self._audio), size)
        starts = self._rng.integers(0, self._audio.shape[1] - crop, size)
        clips = np.stack([self._audio[row, start : start + crop] for row, start in zip(rows, starts, strict=True)])
        gains = self._rng.uniform(0.6, 1.1, (size, 1)).astype(np.float32)
        return torch.from_numpy(clips.astype(np.float32) / 32768 * gains)


def train(steps: int, *, minutes: float, batch_size: int = 4, peak_lr: float = 8e-4, seed: int = 0) -> None:
    """Trains the whole VAE, or goes on with an earlier run that has not finished.

    Args:
        minutes: the run ends after so many, whatever step it is at; the learning rate falls accordingly.
    """
    torch.manual_seed(seed)
    vae, loss_function = TrainedVae(), make_spectral_loss()
    _scale_weights(vae, _Batches(seed).draw(16))
    free = [parameter for parameter in vae.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(free, lr=peak_lr, betas=(0.8, 0.99), weight_decay=0.0)
    clock = TrainingClock(CHECKPOINT, vae, optimizer, steps=steps, minutes=minutes)
    batches = _Batches(seed + 1 + clock.step)
    for step in clock:
        clips = batches.draw(batch_size)
        with torch.autocast("cpu", torch.bfloat16):
            mean, std = vae.encode(clips)
            mean, std = mean.float(), std.float()
            output = vae.decode(mean + std * torch.randn_like(mean)).float()
        inside = slice(_EDGE, -_EDGE)
        spectral = loss_function(output[:, inside], clips[:, inside])
        waveform = (output - clips)[:, inside].abs().mean()
        divergence = (0.5 * (mean**2 + std**2 - 1) - std.log()).sum(1).mean()
        optimizer.zero_grad()
        (spectral + 2 * waveform + _KL_WEIGHT * divergence).backward()
        nn.utils.clip_grad_norm_(free, 1.0)
        optimizer.step()
        clock.report(step, spectral=spectral, waveform=waveform, kl=divergence, mean=mean.std(), std=std.mean())
    clock.save()


@torch.no_grad()
def encode_all(count: int = ENCODED_PIECES) -> None:
    """Writes the latents of the first pieces, `[N, 750, C]`, each channel with a mean of 0 and a variance of 1.

    The means and deviations are kept, so that the exported VAE makes and takes such latents itself.
    """
    vae, audio, rows = load_vae(), load_audio(), []
    for clip in audio[:count]:
        waveform = torch.from_numpy(clip.astype(np.float32) / 32768)[None]
        with torch.autocast("cpu", torch.bfloat16):
            mean, _ = vae.encode(waveform)
        rows.append(mean[0].T.float())
    latents = torch.stack(rows)
    means, deviations = latents.mean((0, 1)), latents.std((0, 1))
    torch.save({"means": means, "deviations": deviations}, SCALES)
    np.save(LATENTS, ((latents - means) / deviations).half().numpy())


def load_vae(path: Path = CHECKPOINT) -> TrainedVae:
    """Loads a trained VAE."""
    vae = TrainedVae()
    vae.load_state_dict(torch.load(path, weights_only=True)["model"])
    return vae.eval()
