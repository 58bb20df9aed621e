"""Multi-Band Diffusion in place of the codec's decoder, by audiocraft's classes (arXiv 2308.02560)."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from models.checkpoints.errors import CheckpointError
from models.checkpoints.settings import Settings, check_arguments
from models.checkpoints.torch_file import TorchFile, open_torch_file
from models.device import is_out_of_memory, prepare_device
from models.encodec.codec import Codec
from models.musicgen.audiocraft_import import import_audiocraft
from models.musicgen.inspect import AUDIOCRAFT_LIMITS, DiffusionBand, check_package, read_band, report_part
from models.runtime.chunks import plan_chunks
from models.runtime.progress import Progress, sub_progress

EQ_BANDS = 32
STEPS = 20  # of audiocraft's default noise schedule
CHUNK_S = 30.0  # decoded at a time
CONTEXT_S = 1.0  # decoded on either side of a chunk and dropped, so that there is no audible seam


@dataclass(frozen=True, slots=True, eq=False)
class MultiBandDiffusion:
    """Loaded diffusion models, one for each frequency band.

    Args:
        bands: audiocraft's `DiffusionProcess` for each.
    """

    bands: tuple[Any, ...]

    @property
    def memory_bytes(self) -> int:
        """Of all weights."""
        tensors = [t for band in self.bands for t in (*band.model.parameters(), *band.model.buffers())]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    @torch.inference_mode()
    def decode(self, codec: Codec, codes: torch.Tensor, *, seed: int, progress: Progress) -> torch.Tensor:
        """`[1, K, T]` codes to `[1, C, samples]`, chunk by chunk. Chunk n draws its noise from `seed + n`."""
        assert codes.ndim == 3 and codes.shape[0] == 1, f"codes of {list(codes.shape)} are not one clip's"
        frames, rate = codes.shape[-1], codec.frame_rate
        chunks = plan_chunks(frames, size=int(CHUNK_S * rate), context=int(CONTEXT_S * rate))
        # audiocraft draws its noise from the global generators, whose state is restored.
        with torch.random.fork_rng(devices=[codes.device] if codes.is_cuda else []):
            parts = []
            for number, chunk in enumerate(chunks):
                part = sub_progress(progress, chunk.keep_start / frames, chunk.keep_stop / frames)
                waveform = self._decode_chunk(codec, codes[..., chunk.start : chunk.stop], seed + number, part)
                parts.append(waveform[..., chunk.scale_inside(codec.hop_length)])
            return torch.cat(parts, dim=-1)

    def _decode_chunk(self, codec: Codec, codes: torch.Tensor, seed: int, progress: Progress) -> torch.Tensor:
        """`[1, C, samples]`; the channels of a stereo codec one after the other, from the same noise."""
        references = torch.split(codec.decode(codes), 1, dim=1)
        channels = codec.split_channels(codes)
        waveforms = []
        for index, (channel, reference) in enumerate(zip(channels, references, strict=True)):
            torch.manual_seed(seed)
            part = sub_progress(progress, index / len(channels), (index + 1) / len(channels))
            waveforms.append(self._decode_channel(codec.decode_latents(channel), reference, codec.sample_rate, part))
        return torch.cat(waveforms, dim=1)

    def _decode_channel(
        self, latents: torch.Tensor, reference: torch.Tensor, sample_rate: int, progress: Progress
    ) -> torch.Tensor:
        """Denoises every band, then matches the sum to the codec's spectrum, as audiocraft does.

        Args:
            latents: `[1, D, T]`.
            reference: `[1, 1, samples]`, from the codec's own decoder.
        """
        waveform, count = torch.zeros_like(reference), len(self.bands)
        for index, band in enumerate(self.bands):
            with _report_steps(band.model, sub_progress(progress, index / count, (index + 1) / count)):
                waveform = waveform + band.generate(condition=latents, initial_noise=torch.randn_like(reference))
        return _match_spectrum(waveform, reference, sample_rate)


def _match_spectrum(waveform: torch.Tensor, reference: torch.Tensor, sample_rate: int) -> torch.Tensor:
    from julius.bands import SplitBands

    split = SplitBands(n_bands=EQ_BANDS, sample_rate=sample_rate).to(waveform.device)
    bands = zip(split(waveform), split(reference), strict=True)
    return torch.stack([band * (wanted.std() / band.std()) for band, wanted in bands]).sum(0)


@contextmanager
def _report_steps(model: torch.nn.Module, progress: Progress) -> Iterator[None]:
    """Calls `progress` before each denoising step, for which audiocraft has no callback."""
    steps = itertools.count()
    handle = model.register_forward_pre_hook(lambda module, inputs: progress(min(next(steps) / STEPS, 1.0)))
    try:
        yield
    finally:
        handle.remove()


def load_diffusion(path: Path, *, device: str) -> MultiBandDiffusion:
    """Loads `mbd_musicgen_32khz.th` or a file of that shape.

    Raises:
        ModelError: the file is broken, or its settings and weights do not fit each other.
    """
    prepare_device(device)
    import_audiocraft()
    with report_part(path.parent, path.name), open_torch_file(path, AUDIOCRAFT_LIMITS) as file:
        package = check_package(file.content)
        facts = Settings(package.content)
        sample_rate, bands = facts.integer("sample_rate"), facts.integer("n_bands", most=64)
        return MultiBandDiffusion(
            tuple(_load_band(file, read_band(package, index), sample_rate, device) for index in range(bands))
        )


def _load_band(file: TorchFile, band: DiffusionBand, sample_rate: int, device: str) -> Any:
    """Builds audiocraft's `DiffusionProcess` of one band."""
    unet = importlib.import_module("audiocraft.models.unet")
    process = importlib.import_module("audiocraft.models.multibanddiffusion").DiffusionProcess
    diffusion_schedule = importlib.import_module("audiocraft.modules.diffusion_schedule")
    settings = band.settings
    settings.section("schedule").require("n_bands", None)
    settings.section("schedule").require("repartition", None, "power")
    schedule = check_arguments(settings.section("schedule").values, diffusion_schedule.NoiseSchedule)
    network = check_arguments(
        settings.section("diffusion_unet").values, unet.DiffusionUnet, unet.EncoderLayer, fractional=("growth",)
    )
    sizes = {"chin": settings.integer("channels", most=64), "num_steps": settings.integer("schedule.num_steps")}
    processor = diffusion_schedule.SampleProcessor()
    if settings.flag("processor.use"):
        settings.require("processor.name", "multi_band_processor")
        arguments = check_arguments(settings.section("processor").values, diffusion_schedule.MultiBandProcessor)
        processor = diffusion_schedule.MultiBandProcessor(**arguments | {"sample_rate": sample_rate})
    try:
        model = unet.DiffusionUnet(**network | sizes)
        model.load_state_dict(file.read(band.model))
        processor.load_state_dict(file.read(band.processor))
        noise = diffusion_schedule.NoiseSchedule(**schedule, sample_processor=processor.to(device), device=device)
    except (
        RuntimeError,
        ValueError,
        ArithmeticError,
    ) as error:  # torch's for sizes that cannot be, and for tensors that do not fit
        if isinstance(error, CheckpointError) or is_out_of_memory(error):
            raise
        raise CheckpointError("its weights do not fit its settings") from error
    return process(model=model.to(device).eval(), noise_schedule=noise)
