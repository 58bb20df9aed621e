"""The audio VAE of ACE-Step: 48 kHz stereo to latents of 25 Hz and back, in tiles, so that memory is bounded.

A tile has the context that its results depend on, so that the tiles together are what one pass over the whole gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch.nn import functional as F

from errors import ModelError
from models.acestep.oobleck import (
    Layer,
    build_decoder,
    build_encoder,
    choose_snake,
    count_decoder_context,
    count_encoder_context,
    fold_weights,
    run_layers,
)
from models.checkpoints.errors import broken_checkpoint
from models.runtime.batches import BatchRunner
from models.runtime.chunks import Chunk, plan_equal_chunks
from models.runtime.progress import Progress, ignore_progress

CHANNELS: Final = 2
CPU_TILE_FRAMES: Final = 256  # 10 s; longer ones are no faster
GPU_TILE_FRAMES: Final = 512
MIN_TILE_FRAMES: Final = 128
MAX_BATCH: Final = 4  # tiles; more of them gain nothing
_WIDE_TENSORS: Final = 5  # of the sample rate that exist at once, with what a convolution needs
_MEMORY_FRACTION: Final = 0.1  # of a GPU's memory for one batch of tiles


class LatentCodec:
    """A loaded VAE.

    Args:
        vae: diffusers' `AutoencoderOobleck`. Its weight norm is folded in place; it still computes the same.
        tile_frames: latents in a tile, with context; None: as the device's memory allows.
        batch_size: of tiles; None: as the device's memory allows.
    """

    def __init__(self, vae: Any, *, tile_frames: int | None = None, batch_size: int | None = None) -> None:
        fold_weights(vae)
        weight = next(vae.parameters())
        self.device, self.dtype = weight.device, weight.dtype
        self.sample_rate: int = vae.config.sampling_rate
        self.hop_length: int = vae.hop_length
        self.latent_channels: int = vae.config.decoder_input_channels
        ratios: Sequence[int] = vae.config.downsampling_ratios
        snake, in_chunks = choose_snake(self.device), self.device.type == "cpu"
        self._encoder = build_encoder(vae.encoder, snake, in_chunks=in_chunks)
        self._decoder = build_decoder(vae.decoder, snake, in_chunks=in_chunks)
        self._encoder_context, self._decoder_context = (
            count_encoder_context(ratios),
            count_decoder_context(ratios[::-1]),
        )
        frame_bytes = _WIDE_TENSORS * vae.config.decoder_channels * self.hop_length * weight.itemsize
        self._tile_frames = tile_frames or _choose_tile_frames(self.device, frame_bytes)
        self._batch_size = batch_size or _choose_batch_size(self.device, frame_bytes * self._tile_frames)

    @property
    def frame_rate(self) -> float:
        """Latents per second."""
        return self.sample_rate / self.hop_length

    @torch.inference_mode()
    def encode(self, waveform: torch.Tensor, *, progress: Progress = ignore_progress) -> torch.Tensor:
        """Encodes audio as the mean of its latents' distribution, so that the same audio has the same latents.

        Args:
            waveform: `[2, T]` at `sample_rate`, full scale 1.0, on any device. The last latent's samples are completed
                with zeros.
            progress: called after each tile.

        Returns:
            `[1, ceil(T / hop_length), C]` in float32 on the codec's device.
        """
        assert waveform.ndim == 2 and len(waveform) == CHANNELS, f"the VAE takes [2, T], not {list(waveform.shape)}"
        assert waveform.shape[1] > 0, "audio without samples has no latents"
        padded = F.pad(waveform, (0, -waveform.shape[1] % self.hop_length))
        frames = padded.shape[1] // self.hop_length
        latents = torch.empty(1, frames, self.latent_channels, device=self.device)

        def run(tiles: Sequence[Chunk]) -> torch.Tensor:
            parts = [padded[:, tile.start * self.hop_length : tile.stop * self.hop_length] for tile in tiles]
            return self._run(self._encoder, parts)[:, : self.latent_channels]

        def keep(tile: Chunk, part: torch.Tensor) -> None:
            latents[0, tile.kept] = part[:, tile.inside].T

        self._run_tiles(frames, self._encoder_context, run=run, keep=keep, progress=progress)
        return latents

    @torch.inference_mode()
    def decode(self, latents: torch.Tensor, *, progress: Progress = ignore_progress) -> torch.Tensor:
        """Decodes latents.

        Args:
            latents: `[1, T, C]`, on any device.
            progress: called after each tile.

        Returns:
            `[2, T * hop_length]` at `sample_rate` in float32 on the CPU; full scale is 1.0 and may be exceeded.

        Raises:
            ModelError: `broken_checkpoint`: the latents or the samples are not finite, or all latents are zero.
        """
        assert latents.ndim == 3 and len(latents) == 1 and latents.shape[2] == self.latent_channels, (
            f"the VAE takes latents [1, T, {self.latent_channels}], not {list(latents.shape)}"
        )
        if not latents.isfinite().all() or not latents.any():
            raise _report_damage("the latents that it gave are not finite, or all zero")
        frames = latents.shape[1]
        waveform = torch.empty(CHANNELS, frames * self.hop_length)

        def run(tiles: Sequence[Chunk]) -> torch.Tensor:
            return self._run(self._decoder, [latents[0, tile.start : tile.stop].T for tile in tiles]).float()

        def keep(tile: Chunk, part: torch.Tensor) -> None:
            target = slice(tile.keep_start * self.hop_length, tile.keep_stop * self.hop_length)
            waveform[:, target] = part[:, tile.scale_inside(self.hop_length)]

        self._run_tiles(frames, self._decoder_context, run=run, keep=keep, progress=progress)
        if not waveform.isfinite().all():
            raise _report_damage("the samples that its VAE gave are not finite")
        return waveform

    def _run(self, layers: Sequence[Layer], parts: Sequence[torch.Tensor]) -> torch.Tensor:
        return run_layers(layers, torch.stack([part.to(self.device, self.dtype) for part in parts]))

    def _run_tiles(
        self,
        frames: int,
        context: int,
        *,
        run: Callable[[Sequence[Chunk]], torch.Tensor],
        keep: Callable[[Chunk, torch.Tensor], None],
        progress: Progress,
    ) -> None:
        """Runs tiles of one length, so that a GPU sees one shape, in batches; keeps the result of each."""
        tiles = list(plan_equal_chunks(frames, longest=self._tile_frames, context=context))
        for batch, results in BatchRunner("tiles").run(tiles, run, size=self._batch_size):
            for tile, result in zip(batch, results, strict=True):
                keep(tile, result)
                progress(tile.keep_stop / frames)


def _choose_tile_frames(device: torch.device, frame_bytes: int) -> int:
    if device.type != "cuda":
        return CPU_TILE_FRAMES
    affordable = int(_device_bytes(device) * _MEMORY_FRACTION) // frame_bytes
    return max(min(affordable, GPU_TILE_FRAMES), MIN_TILE_FRAMES)


def _choose_batch_size(device: torch.device, tile_bytes: int) -> int:
    """On a CPU it is 1: batches gain nothing there."""
    if device.type != "cuda":
        return 1
    return max(min(int(_device_bytes(device) * _MEMORY_FRACTION) // tile_bytes, MAX_BATCH), 1)


def _device_bytes(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).total_memory


def _report_damage(reason: str) -> ModelError:
    return broken_checkpoint(
        "The ACE-Step model", reason, "Use its default settings; if that does not help, copy its files again."
    )
