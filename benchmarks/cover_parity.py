"""How far our networks are from rvc-python's on the same full-size weights: in float32, and as they run by default."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.cover_sides import VOICE, Case
from benchmarks.figures import print_figures
from models.f0.estimator import F0Contour, Waveform
from models.f0.rmvpe import Rmvpe, RmvpeNetwork
from models.hubert.encoder import ContentEncoder, read_fairseq
from models.runtime.dtype import Precision
from models.rvc.checkpoint import read_checkpoint
from models.rvc.excitation import accumulate_phase, generate_sine
from models.rvc.synthesizer import Synthesizer
from testing.rvc_reference import Noise, RvcPython, rvc_python
from testing.vocals import make_vocal

SECONDS = 4.0
LIMITS = {"hubert_max_error": 1e-4, "f0_max_cents": 0.1, "synthesizer_max_error": 1e-3}


def parity(case: Case) -> dict[str, float]:
    """The reference in float32 on the CPU; ours on the case's device, in float32 and in its own choice of precision."""
    with rvc_python(case.models / "hubert_base.pt", case.models / "rmvpe.pt") as reference:
        pass
    vocal = make_vocal(SECONDS)
    figures = _hubert(reference, vocal, case) | _f0(reference, vocal, case) | _synthesizer(reference, vocal, case)
    print_figures(figures, LIMITS)
    return figures


def _hubert(reference: RvcPython, vocal: Waveform, case: Case) -> dict[str, float]:
    """Largest error of either version's features, whose standard deviation is 1."""
    state = read_fairseq(case.models / "hubert_base.pt")
    exact = ContentEncoder(state, device=case.device, precision=torch.float32)
    usual = ContentEncoder(state, device=case.device)
    errors, relative = [], 0.0
    for version in ("v1", "v2"):
        wanted = reference.extract_features(vocal, version)
        found = [
            encoder.extract_features(torch.from_numpy(vocal), version=version).cpu().numpy()
            for encoder in (exact, usual)
        ]
        errors.append(float(np.abs(found[0] - wanted).max()))
        relative = max(relative, float(np.sqrt(np.mean((found[1] - wanted) ** 2) / np.mean(wanted**2))))
    return {"hubert_max_error": max(errors), "hubert_default_relative_error": relative}


def _f0(reference: RvcPython, vocal: Waveform, case: Case) -> dict[str, float]:
    """A random network's salience has second peaks nearly as high as the first: some frames flip in half precision."""
    wanted = reference.f0(vocal, "rmvpe")[1]
    state = torch.load(case.models / "rmvpe.pt", map_location="cpu", weights_only=True)
    exact = Rmvpe(RmvpeNetwork(state, device=torch.device(case.device), dtype=torch.float32))
    usual = Rmvpe.load(weights=case.models / "rmvpe.pt", device=case.device)
    how: dict[str, Any] = {"hop_length": 160, "filter_radius": 3, "progress": lambda fraction: None}
    cents, default = (_cents(tracker.estimate(vocal, **how), wanted) for tracker in (exact, usual))
    return {"f0_max_cents": float(cents.max()), "f0_default_within_5_cents": float((default < 5).mean())}


def _cents(found: F0Contour, wanted: F0Contour) -> F0Contour:
    """Distance of each frame that either side holds for voiced; infinite where only one does."""
    wanted = wanted[: len(found)]
    voiced = (found > 0) | (wanted > 0)
    with np.errstate(divide="ignore"):
        return np.asarray(np.abs(1200 * np.log2(found[voiced] / wanted[voiced])), np.float32)


@torch.inference_mode()
def _synthesizer(reference: RvcPython, vocal: Waveform, case: Case) -> dict[str, float]:
    """With the same features, pitch and noise; a waveform of full scale 1."""
    folder: Path = case.voices / VOICE
    reference.load(folder)
    coarse, f0 = reference.f0(vocal, "pm")
    features = torch.from_numpy(np.repeat(reference.extract_features(vocal, "v2"), 2, axis=0))[None]
    frames = features.shape[1]
    pitch, curve = torch.from_numpy(coarse[None, :frames]).long(), f0[:frames]
    noise = Noise(1)
    given = (features, torch.tensor([frames]), pitch, torch.from_numpy(curve)[None], torch.tensor([0]))
    wanted = reference.synthesize(*given, noise=noise)[0, 0]
    checkpoint = read_checkpoint(next(folder.glob("*.pth")))
    found = {}
    precisions: tuple[Precision, ...] = ("float32", "auto")
    for precision in precisions:
        network = Synthesizer(checkpoint, device=case.device, precision=precision)
        here = [value.to(case.device) for value in (features, pitch, *noise.drawn)]
        found[precision] = _ours(network, here, curve).cpu()
    error = (found["auto"] - wanted).square().sum()
    return {
        "synthesizer_max_error": float((found["float32"] - wanted).abs().max()),
        "synthesizer_default_max_error": float((found["auto"] - wanted).abs().max()),
        "synthesizer_default_snr_db": 10 * math.log10(float(wanted.square().sum() / error)),
    }


def _ours(network: Synthesizer, given: list[Any], curve: F0Contour) -> torch.Tensor:
    features, pitch, latent_noise, source_noise = given
    f0, phase = (torch.from_numpy(part)[None].to(network.device) for part in (curve, accumulate_phase(curve, 100)))
    excitation = generate_sine(f0, phase, source_noise.view(1, f0.shape[1], -1), sample_rate=network.sample_rate)
    return network.decode(
        network.sample_latents(features, pitch, latent_noise), network.project_excitation(excitation)
    )[0]
