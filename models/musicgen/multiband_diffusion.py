"""Multi-Band Diffusion in place of the codec's decoder, through audiocraft's classes (arXiv 2308.02560)."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from models.encodec.codec import Codec
from models.musicgen.audiocraft_import import import_audiocraft
from models.musicgen.load import read_package, translated
from models.musicgen.request import Progress, span

EQ_BANDS = 32
STEPS = 20  # of audiocraft's default list


@dataclass(frozen=True, eq=False)
class MultiBandDiffusion:
    """Loaded diffusion models, one for each band.

    Args:
        bands: audiocraft's `DiffusionProcess` for each.
    """

    bands: tuple[Any, ...]

    @property
    def memory_bytes(self) -> int:
        """What all weights take."""
        tensors = [t for band in self.bands for t in (*band.model.parameters(), *band.model.buffers())]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    @torch.inference_mode()
    def decode(self, codec: Codec, codes: torch.Tensor, *, seed: int, progress: Progress) -> torch.Tensor:
        """`[1, K, T]` codes to `[1, C, samples]`; the sides of a stereo codec in turn, from the same noise."""
        sides, references = codec.sides(codes), torch.split(codec.decode(codes), 1, dim=1)
        count = len(sides)
        # audiocraft draws its noise from the global generator; it is given back as it was.
        with torch.random.fork_rng(devices=[codes.device] if codes.is_cuda else []):
            made = []
            for index, (side, reference) in enumerate(zip(sides, references, strict=True)):
                torch.manual_seed(seed)
                part = span(progress, index / count, (index + 1) / count)
                made.append(self._side(codec.latent(side), reference, codec.sample_rate, part))
            return torch.cat(made, dim=1)

    def _side(
        self, condition: torch.Tensor, reference: torch.Tensor, sample_rate: int, progress: Progress
    ) -> torch.Tensor:
        """Denoises every band, then brings the whole to the codec's spectrum, band by band, as audiocraft does."""
        sound = torch.zeros_like(reference)
        for index, band in enumerate(self.bands):
            with _reporting(band.model, span(progress, index / len(self.bands), (index + 1) / len(self.bands))):
                sound = sound + band.generate(condition=condition, initial_noise=torch.randn_like(reference))
        return _equalised(sound, reference, sample_rate)


def _equalised(sound: torch.Tensor, reference: torch.Tensor, sample_rate: int) -> torch.Tensor:
    from julius.bands import SplitBands

    split = SplitBands(n_bands=EQ_BANDS, sample_rate=sample_rate).to(sound.device)
    bands = zip(split(sound), split(reference), strict=True)
    return torch.stack([band * (wanted.std() / band.std()) for band, wanted in bands]).sum(0)


@contextmanager
def _reporting(model: torch.nn.Module, progress: Progress) -> Iterator[None]:
    """Calls `progress` before each denoising step, which audiocraft has no callback for."""
    steps = itertools.count()
    handle = model.register_forward_pre_hook(lambda module, inputs: progress(min(next(steps) / STEPS, 1.0)))
    try:
        yield
    finally:
        handle.remove()


def load_diffusion(path: Path, *, device: str) -> MultiBandDiffusion:
    """Reads `mbd_musicgen_32khz.th` or a file of that shape; raises `ModelError` where it does not build."""
    import_audiocraft()
    builders = importlib.import_module("audiocraft.models.builders")
    process = importlib.import_module("audiocraft.models.multibanddiffusion").DiffusionProcess
    schedule = importlib.import_module("audiocraft.modules.diffusion_schedule").NoiseSchedule
    bands = []
    with translated(path.parent, path.name):
        package = read_package(path)
        for index in range(package["n_bands"]):
            part = package[index]
            model = builders.get_diffusion_model(part["cfg"])
            model.load_state_dict(part["model_state"])
            processor = builders.get_processor(part["cfg"].processor, sample_rate=package["sample_rate"])
            processor.load_state_dict(part["processor_state"])
            noise = schedule(**part["cfg"].schedule, sample_processor=processor.to(device), device=device)
            bands.append(process(model=model.to(device).eval(), noise_schedule=noise))
    return MultiBandDiffusion(tuple(bands))
