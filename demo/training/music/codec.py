"""Trains the EnCodec: 32 kHz mono to 50 frames a second of 4 codes and back. Built by audiocraft from `CONFIG`."""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import OmegaConf
from torch import nn

from demo.training.loss import SpectralLoss, compare_halves
from demo.training.music.pieces import BUILD, load_audio
from demo.training.render import SAMPLE_RATE
from models.musicgen.audiocraft_import import import_audiocraft

CHECKPOINT = BUILD / "codec.pt"
CODES = BUILD / "codes.npy"
CLIP = SAMPLE_RATE
WARM_UP = 250
RISE_WEIGHT = 4.0
FFT_SIZES = (2048, 512, 128)

# The keys and meanings of audiocraft's own encodec solver config; only the sizes are small.
CONFIG = """
compression_model: encodec
sample_rate: 32000
channels: 1
encodec:
  autoencoder: seanet
  quantizer: rvq
  sample_rate: ${sample_rate}
  channels: ${channels}
  causal: false
  renormalize: false
seanet:
  dimension: 64
  channels: ${channels}
  causal: false
  n_filters: 16
  n_residual_layers: 1
  ratios: [8, 5, 4, 4]
  activation: ELU
  activation_params: {alpha: 1.0}
  norm: weight_norm
  norm_params: {}
  kernel_size: 7
  residual_kernel_size: 3
  last_kernel_size: 7
  dilation_base: 2
  pad_mode: constant
  true_skip: true
  compress: 2
  lstm: 0
  disable_norm_outer_blocks: 0
  encoder: {}
  decoder: {trim_right_ratio: 1.0, final_activation: Tanh, final_activation_params: null}
rvq:
  n_q: 4
  q_dropout: false
  bins: 512
  decay: 0.99
  kmeans_init: true
  kmeans_iters: 20
  threshold_ema_dead_code: 2
  orthogonal_reg_weight: 0.0
  orthogonal_reg_active_codes_only: false
"""


def build() -> Any:
    """A new EncodecModel with random weights (audiocraft is untyped, hence Any)."""
    import_audiocraft()
    from audiocraft.models import builders

    return builders.get_compression_model(OmegaConf.create({**OmegaConf.create(CONFIG), "device": "cpu"}))


def scale_weights(model: Any, clips: torch.Tensor) -> None:
    """Give every convolution outputs of unit variance on real clips (LSUV, Mishkin and Matas 2016).

    With torch's own initialisation the signal fades over the thirty layers and the first thousand steps go to waste.
    """

    def rescale(conv: Any, _: Any, output: torch.Tensor) -> torch.Tensor:
        factor = output.std() / (0.12 if conv.out_channels == 1 else 1.0)
        conv.weight_g.data /= factor
        return output / factor

    convs: list[Any] = [module for module in model.modules() if isinstance(module, nn.Conv1d | nn.ConvTranspose1d)]
    with torch.no_grad():
        for conv in convs:
            nn.init.zeros_(conv.bias)
        handles = [conv.register_forward_hook(rescale) for conv in convs]
        model.decoder(model.encoder(clips))
    for handle in handles:
        handle.remove()


def load(path: Path = CHECKPOINT) -> Any:
    """The trained codec in eval mode."""
    model = build()
    model.load_state_dict(torch.load(path, weights_only=True))
    return model.eval()


@torch.inference_mode()
def encode(model: Any, clip: torch.Tensor) -> torch.Tensor:
    """The codes of a clip `[T]`, `[K, frames]`.

    In float32: in bfloat16 oneDNN computes the encoder's convolutions wrong on processors with AMX.
    """
    codes: torch.Tensor = model.quantizer.encode(model.encoder(clip[None, None]))[0]
    return codes


class RiseLoss(nn.Module):
    """L1 between the rises of log mel bands from frame to frame: a held tone is to be steady, a beat sharp.

    The bands and frames are those of onset detection by spectral flux, quiet bands included: what ripples there counts
    as flutter, and is below what `SpectralLoss` looks at.
    """

    SIZE, HOP, BANDS, QUIETEST = 2048, 256, 128, 1e-5

    def __init__(self) -> None:
        super().__init__()
        import librosa

        mel = librosa.filters.mel(sr=SAMPLE_RATE, n_fft=self.SIZE, n_mels=self.BANDS)
        self.mel = nn.Parameter(torch.from_numpy(mel), requires_grad=False)
        self.window = nn.Parameter(torch.hann_window(self.SIZE), requires_grad=False)

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Waveforms [B, 1, T] to a scalar, in nepers a frame."""
        both = torch.cat([output, target]).squeeze(1)
        spectrum = torch.stft(both, self.SIZE, self.HOP, window=self.window, return_complex=True)
        power = self.mel @ (spectrum.real**2 + spectrum.imag**2)
        return compare_halves((0.5 * torch.log(power + self.QUIETEST)).diff(dim=-1).relu())


def _make_spectral_loss() -> SpectralLoss:
    return SpectralLoss(SAMPLE_RATE, fft_sizes=FFT_SIZES, max_bands=80)


def _draw_batch(audio: NDArray[np.int16], size: int, rng: np.random.Generator) -> torch.Tensor:
    """Random one-second clips [size, 1, CLIP] with random gain."""
    rows = rng.integers(0, len(audio), size)
    starts = rng.integers(0, audio.shape[1] - CLIP, size)
    clips = np.stack([audio[row, start : start + CLIP] for row, start in zip(rows, starts, strict=True)])
    gains = rng.uniform(0.6, 1.1, (size, 1)).astype(np.float32)
    return torch.from_numpy(clips.astype(np.float32) / 32768 * gains).unsqueeze(1)


def _start_quantizing(model: Any, clips: torch.Tensor) -> None:
    """Initialise the codebooks by k-means on the latents of a trained encoder: on untrained ones they collapse."""
    model.quantizer.eval()
    with torch.no_grad():
        model.quantizer(model.encoder(clips), model.frame_rate)
    model.quantizer.train()
    for layer in model.quantizer.vq.layers:
        # The usual 2 is for large batches; ours gives a code about one vector a step.
        layer._codebook.threshold_ema_dead_code = 0.15


def _set_lr(optimizer: torch.optim.Optimizer, step: int, steps: int) -> None:
    """A hundred steps up, then a cosine down to a fiftieth of the peak."""
    fall = 0.02 + 0.98 * math.cos(step / steps * math.pi / 2) ** 2
    for group in optimizer.param_groups:
        group["lr"] = optimizer.defaults["lr"] * min(1.0, (step + 1) / 100) * fall


def train(steps: int, batch_size: int = 8, peak_lr: float = 5e-4, seed: int = 0) -> None:
    """Train on the rendered pieces; the learning rate falls as a cosine to nearly nothing."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model, spectral = build().train(), _make_spectral_loss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak_lr, betas=(0.8, 0.99), weight_decay=0.0)
    start, audio = time.monotonic(), load_audio()
    scale_weights(model, _draw_batch(audio, 32, rng))
    for step in range(steps):
        _set_lr(optimizer, step, steps)
        clips = _draw_batch(audio, batch_size, rng)
        with torch.autocast("cpu", torch.bfloat16):
            latent = model.encoder(clips)
        latent = latent.float()
        if step == WARM_UP:
            _start_quantizing(model, _draw_batch(audio, 96, rng))
        quantized = model.quantizer(latent, model.frame_rate) if step >= WARM_UP else None
        with torch.autocast("cpu", torch.bfloat16):
            output = model.decoder(quantized.x if quantized else latent)
        output = output.float()[..., :CLIP]
        mel = spectral(output[:, 0], clips[:, 0])
        commitment = 0.5 * quantized.penalty if quantized else 1e-4 * latent.square().mean()
        loss = mel + 2 * (output - clips).abs().mean() + commitment
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0:
            used = [len(codes.unique()) for codes in quantized.codes.transpose(0, 1)] if quantized else []
            seconds = time.monotonic() - start
            print(f"{step} {seconds:.0f}s spectral {mel:.4f} l1 {(output - clips).abs().mean():.4f} "
                  f"latent {latent.std():.3f} codes {used}", flush=True)  # fmt: skip
        if step % 200 == 199:
            torch.save(model.state_dict(), CHECKPOINT)
    torch.save(model.state_dict(), CHECKPOINT)


def finish_decoder(
    steps: int, rows: Sequence[int], guesses: NDArray[np.uint16], *, seed: int, peak_lr: float = 5e-4
) -> None:
    """Train the decoder alone, half on real codes and half on `guesses`, drawn by the language model for pieces `rows`.

    The codes stay what they are, so the language model stays valid; the decoder learns to smooth what it draws badly.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model, spectral, rise = load().train(), _make_spectral_loss(), RiseLoss()
    codes, audio = np.load(CODES), load_audio()
    guessed_audio = np.stack([audio[row] for row in rows])
    optimizer = torch.optim.AdamW(model.decoder.parameters(), lr=peak_lr, betas=(0.8, 0.99), weight_decay=0.0)
    assert len(rows) == len(guesses)
    start = time.monotonic()
    for step in range(steps):
        _set_lr(optimizer, step, steps)
        real, drawn = _draw_coded_batch(codes, audio, 4, rng), _draw_coded_batch(guesses, guessed_audio, 4, rng)
        clips = torch.cat([real[1], drawn[1]])
        with torch.no_grad():
            latent = model.quantizer.decode(torch.cat([real[0], drawn[0]]))
        with torch.autocast("cpu", torch.bfloat16):
            output = model.decoder(latent)
        output = output.float()[..., :CLIP]
        mel = spectral(output[:, 0], clips[:, 0])
        optimizer.zero_grad()
        # A drawn code has no phase in common with the recording: only real ones are compared as waveforms.
        rises = rise(output, clips)
        (mel + RISE_WEIGHT * rises + 2 * (output - clips)[:4].abs().mean()).backward()
        nn.utils.clip_grad_norm_(model.decoder.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0:
            print(f"{step} {time.monotonic() - start:.0f}s spectral {mel:.4f} rises {rises:.4f}", flush=True)
    torch.save(model.state_dict(), CHECKPOINT)


def _draw_coded_batch(
    codes: NDArray[np.uint16], audio: NDArray[np.int16], size: int, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Random one-second crops: codes [size, K, 50] int64 and the waveforms [size, 1, CLIP] they stand for."""
    hop = 640
    frames = CLIP // hop
    picks = [(rng.integers(0, len(codes)), rng.integers(0, codes.shape[2] - frames)) for _ in range(size)]
    crops = np.stack([codes[row][:, at : at + frames] for row, at in picks]).astype(np.int64)
    clips = np.stack([audio[row, at * hop : at * hop + CLIP] for row, at in picks]).astype(np.float32) / 32768
    return torch.from_numpy(crops), torch.from_numpy(clips).unsqueeze(1)
