"""Trains the synthesizer of the demo voices: RVC's network for version v2 with f0, smaller, both voices at once.

RVC learns a variational autoencoder against a discriminator. Our lines are synthetic and clean, and content, f0 and
singer determine them, so here the path of inference is trained directly. The latents between its two halves are a
log-mel spectrum, so that each can be trained alone: the decoder on the lines, the prior (text encoder and flow) to
predict their latents from content features. Then both are trained together. A voice hears its own lines, and more often
other singers' lines of the same words, as in a conversion.

The excitation that the decoder gets in training has its pulses and its noise where the line has them, so that complex
spectra can be compared.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from demo.training.singing import TARGETS
from demo.training.voices.data import BUILD, F0_RATE, NAMES, VOICE_RATE, Lines, load_lines
from demo.training.voices.encoder import WIDTH
from demo.training.voices.features import load_features
from demo.training.voices.listener import Listener, compare, load_listener
from demo.training.voices.mel import log_mel
from models.demo import CONTENT_ENCODER
from models.f0.contour import quantize_f0
from models.rvc.excitation import SINE_AMPLITUDE, UNVOICED_NOISE, VOICED_NOISE
from models.rvc.synthesizer import NOISE_SCALE, import_network_module

CHECKPOINT = BUILD / "synthesizer.pt"
HOP_LENGTH = VOICE_RATE // F0_RATE
_NOISE_SIZE = 256
INTER, HIDDEN, FILTER, HEADS, LAYERS, CONDITIONING = 64, 64, 192, 2, 3, 32
KERNELS, DILATIONS = [7], [[1, 3, 5]]
RATES, RATE_KERNELS, INITIAL = [5, 4, 4, 4], [11, 8, 8, 8], 256
CONFIG: list[Any] = [
    513, 32, INTER, HIDDEN, FILTER, HEADS, LAYERS, 3, 0, "1", KERNELS, DILATIONS, RATES, INITIAL, RATE_KERNELS,
    len(TARGETS), CONDITIONING, VOICE_RATE,
]  # fmt: skip
"""RVC's list of 18; the published shapes are wider."""
_SPEAKERS = 15  # where the list has their number
SEGMENT_FRAMES = 40  # that the decoder sees of a crop
MEL_BANDS = 80
DECODER, PRIOR, JOINT = "decoder", "prior", "joint"
PHASES = (DECODER, PRIOR, JOINT)
_CROPS = {DECODER: (4, 100), PRIOR: (8, 200), JOINT: (4, 100)}  # number and frames
_RESOLUTIONS = ((512, 128), (1024, 256), (2048, 512))
_COMPRESSION = 0.25
_WEIGHTS = {"latents": 1.0, "listener": 0.3, "magnitude": 0.4, "complex": 0.5, "mel": 0.8, "heard": 0.4}
_PEAK_LR = {DECODER: 1.5e-3, PRIOR: 1.5e-3, JOINT: 5e-4}
_SAVE_EVERY = 100
_DROPOUT = 0.05  # of the text encoder in training
_OWN_SHARE = 0.2
_BLOCK_PIECES = 20  # whose latents are computed at once
_PULSE_WEIGHT, _PULSE_BIAS = 80.0, 2.0


class Network(nn.Module):
    """What a checkpoint holds."""

    def __init__(self) -> None:
        super().__init__()
        models = import_network_module("lib.infer_pack.models")
        self.enc_p: Any = models.TextEncoder768(INTER, HIDDEN, FILTER, HEADS, LAYERS, 3, _DROPOUT, f0=True)
        self.flow: Any = models.ResidualCouplingBlock(INTER, HIDDEN, 5, 1, 3, gin_channels=CONDITIONING)
        self.dec: Any = models.GeneratorNSF(
            INTER, "1", KERNELS, DILATIONS, RATES, INITIAL, RATE_KERNELS, gin_channels=CONDITIONING, sr=VOICE_RATE
        )
        self.emb_g = nn.Embedding(len(TARGETS), CONDITIONING)
        with torch.no_grad():
            # The excitation starts as pulses, a bent sine with all harmonics, which the layers then only filter.
            self.dec.m_source.l_linear.weight.fill_(_PULSE_WEIGHT)
            self.dec.m_source.l_linear.bias.fill_(_PULSE_BIAS)
            self.dec.m_source.l_linear.requires_grad_(False)
            self.dec.m_source.l_sin_gen = _GivenSine()
            self.enc_p.proj.bias[INTER:] = -2.0
            _initialize(self.dec)

    def sample_latents(self, features: torch.Tensor, pitch: torch.Tensor, speakers: torch.Tensor) -> torch.Tensor:
        """`[B, T, 768]`, `[B, T]`, `[B]` -> `[B, INTER, T]`, as at inference."""
        lengths = torch.full((len(features),), features.shape[1])
        mean, log_scale, mask = self.enc_p(features, pitch, lengths)
        sampled = mean + torch.exp(log_scale) * torch.randn_like(mean) * NOISE_SCALE
        latents: torch.Tensor = self.flow(sampled, mask, g=self.embed(speakers), reverse=True)
        return latents

    def embed(self, speakers: torch.Tensor) -> torch.Tensor:
        """`[B]` -> `[B, CONDITIONING, 1]`."""
        return self.emb_g(speakers)[..., None]  # type: ignore[no-any-return]


class _GivenSine(nn.Module):
    """Stands in for RVC's `SineGen` in training: the decoder is given the sine, `[B, N, 1]`, in the place of f0."""

    def forward(self, sine: torch.Tensor, upsampling: int) -> tuple[torch.Tensor, None, None]:
        return sine, None, None


def _initialize(decoder: Any) -> None:
    """Gives each layer about the level of its input, so that a few thousand steps suffice."""
    for up in decoder.ups:
        channels = torch.randn(*up.weight_v.shape[:2], 1) / math.sqrt(up.weight_v.shape[0])
        _set_weight(up, channels * _make_triangle(up))
    for block in decoder.resblocks:
        for convs, level in ((block.convs1, 0.6), (block.convs2, 0.2)):
            for conv in convs:
                deviation = level / math.sqrt(conv.weight_v.shape[1] * conv.weight_v.shape[2])
                _set_weight(conv, deviation * torch.randn_like(conv.weight_v))
    nn.init.normal_(decoder.conv_post.weight, std=0.002)


@torch.no_grad()
def interpolate_linearly(decoder: Any) -> None:
    """Makes every kernel of the transposed convolutions a multiple of a triangle, so that they interpolate.

    With free kernels they make tones at multiples of the frame rate, which spectral losses accept in the place of
    noise and of the harmonics of f0; Praat then reads f0 an octave too low.
    """
    for up in decoder.ups:
        triangle = _make_triangle(up)
        up.weight_v.copy_((up.weight_v * triangle).sum(-1, keepdim=True) / triangle.square().sum() * triangle)


def _make_triangle(up: Any) -> torch.Tensor:
    """The kernel, `[size]`, with which a transposed convolution interpolates linearly."""
    size, stride = up.kernel_size[0], up.stride[0]
    triangle: torch.Tensor = 1 - (torch.arange(size) - (size - 1) / 2).abs() / stride
    return triangle.clamp_min(0)


def _set_weight(layer: Any, weight: torch.Tensor) -> None:
    """Sets the weights of a layer with weight norm."""
    layer.weight_v.copy_(weight)
    layer.weight_g.copy_(weight.flatten(1).norm(dim=1).view_as(layer.weight_g))


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Crops of the target singers, with the features of anybody who sings the same.

    Args:
        features: `[B, T, 768]` at 100 frames/s.
        f0: `[B, T]` in Hz, of the target.
        pitch: `[B, T]` int64.
        speakers: `[B]`, numbers in `TARGETS`.
        waveforms: `[B, T * HOP_LENGTH]`, of the target.
        phase: `[B, T * HOP_LENGTH]`, of the target's f0 at each sample, in periods.
    """

    features: torch.Tensor
    f0: torch.Tensor
    pitch: torch.Tensor
    speakers: torch.Tensor
    waveforms: torch.Tensor
    phase: torch.Tensor


def draw_batch(lines: Lines, features: NDArray[np.float16] | None, rng: np.random.Generator, phase: str) -> Batch:
    """Draws crops of the phase's number and length; `_OWN_SHARE` have the target's features, the others anybody's.

    Args:
        features: of all lines; None: the batch has zeros.
    """
    rows: list[tuple[NDArray[Any], ...]] = []
    count, frames = _CROPS[phase]
    speakers = rng.integers(len(TARGETS), size=count)
    last = lines.f0.shape[2] - 2 - frames
    for speaker in speakers:
        piece, start = int(rng.integers(len(lines.f0))), 2 * int(rng.integers(last // 2))
        own = NAMES.index(TARGETS[speaker])
        heard = own if rng.uniform() < _OWN_SHARE else int(rng.integers(len(NAMES)))
        stop = start + frames
        f0 = np.asarray(lines.f0[piece, own, start:stop])
        samples = slice(start * HOP_LENGTH, stop * HOP_LENGTH)
        rows.append(
            (
                _repeat(features, piece, heard, start, frames),
                f0,
                quantize_f0(f0),
                np.asarray(lines.voice_audio[piece, speaker, samples], np.float32) / 32768,
                np.asarray(lines.voice_phase[piece, speaker, samples], np.float32) / 65536,
            )
        )
    stacked = [torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True)]
    return Batch(stacked[0], stacked[1], stacked[2].long(), torch.from_numpy(speakers), *stacked[3:])


def _repeat(
    features: NDArray[np.float16] | None, piece: int, singer: int, start: int, count: int
) -> NDArray[np.float32]:
    """`count` frames of content features from frame `start` on, each of the encoder's twice: `[count, 768]`."""
    if features is None:
        return np.zeros((count, WIDTH), np.float32)
    rows = np.asarray(features[piece, singer, start // 2 : (start + count) // 2], np.float32)
    return rows.repeat(2, axis=0)


def compute_latents(waveforms: torch.Tensor) -> torch.Tensor:
    """`[B, T * HOP_LENGTH]` -> `[B, INTER, T]`: a log-mel spectrum of about zero mean and unit variance."""
    mel = log_mel(waveforms, sample_rate=VOICE_RATE, size=1024, hop_length=HOP_LENGTH, bands=INTER)
    return (mel[..., :-1] + 5) / 2.5


def generate_sine(f0: torch.Tensor, phase: torch.Tensor) -> torch.Tensor:
    """The noisy sine of RVC's `SineGen`, in phase with the vocoder that sang the line.

    The worker's sine starts at any phase. Here its pulses are those of the line, so that the waveform is a function of
    latents and sine, and the decoder can be told not just which magnitudes are wanted.

    Args:
        f0: `[B, T]` in Hz, 0 = unvoiced.
        phase: `[B, T * HOP_LENGTH]`, in periods.

    Returns:
        `[B, T * HOP_LENGTH]`.
    """
    voiced = (f0 > 0).repeat_interleave(HOP_LENGTH, 1)
    # The sine crosses the excitation's threshold upwards when the vocoder has a pulse.
    threshold = math.asin(-_PULSE_BIAS / (_PULSE_WEIGHT * SINE_AMPLITUDE))
    tone = torch.where(voiced, SINE_AMPLITUDE * torch.sin(2 * math.pi * phase + threshold), 0.0)
    return tone + torch.where(voiced, VOICED_NOISE, UNVOICED_NOISE) * torch.randn_like(phase)


def filter_noise(waveforms: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Noise with the spectrum that the waveforms have, smoothed over 5 bins of 125 Hz and 3 frames of 2 ms.

    Args:
        waveforms: `[B, N]`.
        noise: `[B, N]`, white, of mean 0.
    """
    window = torch.hann_window(_NOISE_SIZE)
    spectra = [
        torch.stft(audio, _NOISE_SIZE, _NOISE_SIZE // 4, window=window, return_complex=True)
        for audio in (waveforms, noise)
    ]
    power = F.avg_pool2d(F.pad(spectra[0].abs().square()[:, None], (1, 1, 2, 2), "replicate"), (5, 3), 1)[:, 0]
    gains = (power / spectra[1].abs().square().mean((1, 2), keepdim=True)).sqrt()
    return torch.istft(spectra[1] * gains, _NOISE_SIZE, _NOISE_SIZE // 4, window=window, length=waveforms.shape[1])


def replace_noise(waveforms: torch.Tensor, f0: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """The waveforms whose unvoiced parts are made of the excitation's noise, so that they follow from it too.

    Args:
        waveforms, sine: `[B, T * HOP_LENGTH]`.
        f0: `[B, T]` in Hz, 0 = unvoiced.
    """
    voiced = (f0 > 0).float().repeat_interleave(HOP_LENGTH, 1)
    unvoiced = 1 - voiced
    excitation = torch.tanh(_PULSE_WEIGHT * sine + _PULSE_BIAS)
    mean = (excitation * unvoiced).sum(1, keepdim=True) / unvoiced.sum(1, keepdim=True).clamp_min(1)
    # Noise of about the same level stands in for the voiced parts, which the crossfades of 5 ms reach into.
    noise = (excitation - mean) * unvoiced + 0.6 * torch.randn_like(waveforms) * voiced
    share = F.avg_pool1d(F.pad(voiced, (80, 80), "replicate"), 161, 1)
    return share * waveforms + (1 - share) * filter_noise(waveforms, noise)


def compute_loss(
    network: Network, listener: Listener, batch: Batch, phase: str, rng: np.random.Generator
) -> tuple[torch.Tensor, dict[str, float]]:
    """The loss of a batch, and its parts; the decoder runs on `SEGMENT_FRAMES` of it."""
    target = compute_latents(batch.waveforms)
    latents = target + 0.1 * torch.randn_like(target)
    parts: dict[str, torch.Tensor] = {}
    if phase != DECODER:
        with torch.autocast("cpu", torch.bfloat16):
            latents = network.sample_latents(batch.features, batch.pitch, batch.speakers).float()
        parts = {"latents": F.l1_loss(latents, target), "listener": compare(listener, latents, target)}
    if phase != PRIOR:
        start = int(rng.integers(target.shape[2] - SEGMENT_FRAMES + 1))
        stop = start + SEGMENT_FRAMES
        frames, samples = slice(start, stop), slice(start * HOP_LENGTH, stop * HOP_LENGTH)
        sine = generate_sine(batch.f0[:, frames], batch.phase[:, samples])
        with torch.autocast("cpu", torch.bfloat16):
            decoded = network.dec(latents[..., frames], sine[..., None], g=network.embed(batch.speakers))
        voice = decoded.float()[:, 0]
        wanted = replace_noise(batch.waveforms[:, samples], batch.f0[:, frames], sine)
        parts |= compare_spectra(voice, wanted)
        parts["heard"] = compare(listener, compute_latents(voice), compute_latents(wanted))
    total = torch.stack([_WEIGHTS[name] * value for name, value in parts.items()]).sum()
    return total, {name: float(value) for name, value in parts.items()}


def compute_line_latents(lines: Lines) -> tuple[torch.Tensor, torch.Tensor]:
    """The latents of all lines of the target singers, `[N, INTER, F]`, and their phonemes, `[N, F]`."""
    latents = [
        compute_latents(torch.from_numpy(np.asarray(rows, np.float32) / 32768))
        for number in range(len(TARGETS))
        for rows in np.array_split(lines.voice_audio[:, number], range(_BLOCK_PIECES, len(lines.f0), _BLOCK_PIECES))
    ]
    phonemes = torch.from_numpy(np.asarray(lines.phonemes, np.int64))
    return torch.cat(latents), phonemes.repeat(len(TARGETS), 1)


def compare_spectra(waveforms: torch.Tensor, wanted: torch.Tensor) -> dict[str, torch.Tensor]:
    """The mean differences of magnitudes, and of compressed complex spectra, at three resolutions.

    Returns:
        `magnitude`, of logarithms; `complex`, of amplitudes to the power of 0.5 with their phases, as a share of what
        is wanted; `mel`, of a log-mel spectrum.
    """
    parts: dict[str, list[torch.Tensor]] = {"magnitude": [], "complex": []}
    for size, hop in _RESOLUTIONS:
        window = torch.hann_window(size)
        spectra = [
            torch.view_as_real(torch.stft(audio, size, hop, window=window, return_complex=True))
            for audio in (waveforms, wanted)
        ]
        powers = [spectrum.square().sum(-1) for spectrum in spectra]
        floor = 1e-3 * math.sqrt(size)
        ours, theirs = (0.5 * torch.log(power + floor**2) for power in powers)
        parts["magnitude"].append(F.l1_loss(ours, theirs))
        ours, theirs = (
            spectrum * ((power + floor**2) ** -_COMPRESSION)[..., None]
            for spectrum, power in zip(spectra, powers, strict=True)
        )
        parts["complex"].append((ours - theirs).abs().mean() / theirs.abs().mean())
    mels = [
        log_mel(audio, sample_rate=VOICE_RATE, size=1024, hop_length=256, bands=MEL_BANDS, floor=1e-3)
        for audio in (waveforms, wanted)
    ]
    return {name: torch.stack(values).mean() for name, values in parts.items()} | {"mel": F.l1_loss(mels[0], mels[1])}


def train(phase: str, steps: int, *, peak_lr: float | None = None, seed: int = 0, minutes: float = math.inf) -> None:
    """Trains one of `PHASES` for `steps` steps or `minutes` of wall time, whichever ends first.

    The weights are saved to `CHECKPOINT` every `_SAVE_EVERY` steps; each call goes on from them.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    peak_lr = peak_lr or _PEAK_LR[phase]
    lines, features = load_lines(), None if phase == DECODER else load_features()
    network = Network().train()
    if CHECKPOINT.exists():
        network.load_state_dict(torch.load(CHECKPOINT, weights_only=True))
    listener = load_listener(INTER)
    network.emb_g.requires_grad_(phase != PRIOR)  # the decoder relies on it
    optimizer = torch.optim.AdamW(network.parameters(), lr=peak_lr, betas=(0.8, 0.99), weight_decay=0.0)
    start, started = time.process_time(), time.monotonic()
    for step in range(1, steps + 1):
        spent = max(step / steps, (time.monotonic() - started) / 60 / minutes)
        for group in optimizer.param_groups:
            group["lr"] = peak_lr * min(1, step / 50) * min(1, max(0.02, (1 - spent) / 0.4))
        loss, parts = compute_loss(network, listener, draw_batch(lines, features, rng, phase), phase, rng)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if nn.utils.clip_grad_norm_(network.parameters(), 5.0).isfinite():  # one batch in a thousand overflows
            optimizer.step()
        interpolate_linearly(network.dec)
        if step % 20 == 0:
            shown = ", ".join(f"{name} {value:.3f}" for name, value in parts.items())
            print(f"{phase}, step {step}: {shown}, {time.process_time() - start:.0f} CPU s", flush=True)
        is_last = step == steps or spent >= 1
        if step % _SAVE_EVERY == 0 or is_last:
            torch.save(network.state_dict(), CHECKPOINT.with_suffix(".new"))
            CHECKPOINT.with_suffix(".new").replace(CHECKPOINT)
        if is_last:
            break


def make_checkpoint(state: Mapping[str, torch.Tensor], speaker: int) -> dict[str, Any]:
    """The content of a voice's `.pth`: half-precision weights with one speaker, and the keys of RVC and Applio."""
    weights = OrderedDict((name, tensor.half()) for name, tensor in state.items())
    weights["emb_g.weight"] = weights["emb_g.weight"][speaker : speaker + 1].clone()
    config = [*CONFIG]
    config[_SPEAKERS] = 1
    return {
        "weight": weights,
        "config": config,
        "info": "demo",
        "sr": "32k",
        "f0": 1,
        "version": "v2",
        "embedder_model": CONTENT_ENCODER,
    }
