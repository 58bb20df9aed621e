"""How far our networks are from rvc-python's on the same full-size weights: in float32, and as they run by default."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import print_parity
from models.f0.estimator import F0Contour, Waveform
from models.f0.rmvpe import Rmvpe, RmvpeNetwork
from models.hubert.encoder import ContentEncoder, read_fairseq
from models.runtime.dtype import Precision
from models.runtime.progress import ignore_progress
from models.rvc.checkpoint import read_checkpoint
from models.rvc.excitation import accumulate_phase, generate_sine
from models.rvc.synthesizer import Synthesizer
from testing.rvc_reference import Noise, RvcPython, rvc_python
from testing.vocals import make_vocal

SECONDS = 4.0
LIMITS = {"hubert_max_error": 1e-4, "f0_max_cents": 0.1, "synthesizer_max_error": 1e-3}


def compare_networks(models: Path, voice: Path, device: str) -> dict[str, float]:
    """Errors against the reference in float32 on the CPU, of ours on `device` in float32 and in its default precision.

    Args:
        models: folder with `hubert_base.pt` and `rmvpe.pt`.
        voice: folder of a voice.
        device: `cpu` or `cuda`.
    """
    with rvc_python(models / "hubert_base.pt", models / "rmvpe.pt") as reference:
        pass
    vocal = make_vocal(SECONDS)
    errors = (
        _compare_hubert(reference, vocal, models / "hubert_base.pt", device)
        | _compare_f0(reference, vocal, models / "rmvpe.pt", device)
        | _compare_synthesizer(reference, vocal, voice, device)
    )
    print_parity(errors, LIMITS)
    return errors


def _compare_hubert(reference: RvcPython, vocal: Waveform, weights: Path, device: str) -> dict[str, float]:
    """The larger error of the features of v1 and v2, whose standard deviation is 1."""
    state = read_fairseq(weights)
    exact = ContentEncoder(state, device=device, precision=torch.float32)
    default = ContentEncoder(state, device=device)
    errors, relative = [], 0.0
    for version in ("v1", "v2"):
        expected = reference.extract_features(vocal, version)
        exact_features, default_features = (
            encoder.extract_features(torch.from_numpy(vocal), version=version).cpu().numpy()
            for encoder in (exact, default)
        )
        errors.append(float(np.abs(exact_features - expected).max()))
        mean_square = np.mean((default_features - expected) ** 2) / np.mean(expected**2)
        relative = max(relative, float(np.sqrt(mean_square)))
    return {"hubert_max_error": max(errors), "hubert_default_relative_error": relative}


def _compare_f0(reference: RvcPython, vocal: Waveform, weights: Path, device: str) -> dict[str, float]:
    """A random network's salience has second peaks nearly as high as the first: some frames flip in half precision."""
    expected = reference.f0(vocal, "rmvpe")[1]
    state = torch.load(weights, map_location="cpu", weights_only=True)
    exact = Rmvpe(RmvpeNetwork(state, device=torch.device(device), dtype=torch.float32))
    default = Rmvpe.load(weights=weights, device=device)
    exact_error, default_error = (
        _measure_cents(estimator.estimate(vocal, hop_length=160, filter_radius=3, progress=ignore_progress), expected)
        for estimator in (exact, default)
    )
    return {"f0_max_cents": float(exact_error.max()), "f0_default_within_5_cents": float((default_error < 5).mean())}


def _measure_cents(f0: F0Contour, expected: F0Contour) -> F0Contour:
    """Distance of each frame that is voiced in either contour; infinite if it is voiced in only one."""
    expected = expected[: len(f0)]
    voiced = (f0 > 0) | (expected > 0)
    with np.errstate(divide="ignore"):
        return np.asarray(np.abs(1200 * np.log2(f0[voiced] / expected[voiced])), np.float32)


@torch.inference_mode()
def _compare_synthesizer(reference: RvcPython, vocal: Waveform, voice: Path, device: str) -> dict[str, float]:
    """With the same features, f0 and noise; errors of a waveform whose full scale is 1."""
    reference.load(voice)
    coarse, f0 = reference.f0(vocal, "pm")
    features = torch.from_numpy(np.repeat(reference.extract_features(vocal, "v2"), 2, axis=0))[None]
    frames = features.shape[1]
    pitch, f0 = torch.from_numpy(coarse[None, :frames]).long(), f0[:frames]
    noise = Noise(1)
    lengths, speaker = torch.tensor([frames]), torch.tensor([0])
    expected = reference.synthesize(features, lengths, pitch, torch.from_numpy(f0)[None], speaker, noise=noise)[0, 0]
    checkpoint = read_checkpoint(next(voice.glob("*.pth")))
    inputs = [tensor.to(device) for tensor in (features, pitch, *noise.drawn)]
    precisions: tuple[Precision, ...] = ("float32", "auto")
    exact, default = (
        _synthesize(Synthesizer(checkpoint, device=device, precision=precision), inputs, f0).cpu()
        for precision in precisions
    )
    error = (default - expected).square().sum()
    return {
        "synthesizer_max_error": float((exact - expected).abs().max()),
        "synthesizer_default_max_error": float((default - expected).abs().max()),
        "synthesizer_default_snr_db": 10 * math.log10(float(expected.square().sum() / error)),
    }


def _synthesize(network: Synthesizer, inputs: Sequence[torch.Tensor], f0: F0Contour) -> torch.Tensor:
    """`[T]` from features, coarse pitch, and the noise of latents and excitation."""
    features, pitch, latent_noise, source_noise = inputs
    hz, phase = (torch.from_numpy(curve)[None].to(network.device) for curve in (f0, accumulate_phase(f0, 100)))
    excitation = generate_sine(hz, phase, source_noise.view(1, hz.shape[1], -1), sample_rate=network.sample_rate)
    latents = network.sample_latents(features, pitch, latent_noise)
    return network.decode(latents, network.project_excitation(excitation))[0]
