"""EnCodec as it is used: audio to codes and back, mono or as two interleaved channels, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from audio import Audio
from audio.types import AudioSource, Waveform
from models.encodec.codes import EncodedAudio
from models.encodec.network import EnCodec, Read
from models.encodec.segments import decode_segments, encode_segments
from models.runtime.dtype import float32_convolutions
from models.runtime.progress import Progress, ignore_progress

CHUNK_S = 10.0  # the widest layer takes 8 MB a second
GPU_BATCH = 8  # segments


class Codec:
    """A codec as a language model or an operation uses it.

    Args:
        codebooks: how many of the network's are in use, for one channel.
        stereo: two mono channels with interleaved codebooks, as in MusicGen's stereo models.
        chunk_s: seconds of audio that are encoded or decoded at a time.
    """

    def __init__(self, network: EnCodec, *, codebooks: int, stereo: bool = False, chunk_s: float = CHUNK_S) -> None:
        assert len(network.codebooks) >= codebooks, f"the codec has {len(network.codebooks)} of {codebooks} codebooks"
        self._network, self._group = network, 2 if stereo else 1
        self.sample_rate = network.sample_rate
        self.hop_length = network.config.hop_length
        self.channels = network.config.channels * self._group
        self.codebooks = codebooks * self._group
        self._chunk_frames = max(int(chunk_s * self.frame_rate), 1)

    @property
    def frame_rate(self) -> float:
        """Frames of codes per second."""
        return self.sample_rate / self.hop_length

    @property
    def nbytes(self) -> int:
        """Of all weights."""
        return self._network.nbytes

    def encode(self, waveform: torch.Tensor) -> torch.Tensor:
        """Finds the codes of audio.

        Args:
            waveform: `[B, C, samples]` at `sample_rate`, full scale 1.0.

        Returns:
            `[B, K, frames]`, one frame for each `hop_length` samples, rounded up.
        """
        assert waveform.ndim == 3, f"the codec takes [B, C, samples], not {list(waveform.shape)}"
        batch, channels, samples = waveform.shape
        assert channels == self.channels, f"{channels} channels for a codec of {self.channels}"
        inputs, hop = waveform.reshape(batch * self._group, -1, samples), self.hop_length
        parts = self._encode_whole(
            lambda start, stop: inputs[..., start * hop : stop * hop], samples, self.codebooks, ignore_progress
        )
        return torch.cat(list(parts), dim=-1)

    def split_channels(self, codes: torch.Tensor) -> torch.Tensor:
        """`[B, K, T]` interleaved codes to `[channels, B, K / channels, T]`; a codec that is not stereo has one."""
        batch, codebooks, frames = codes.shape
        assert codebooks <= self.codebooks, f"codes of {codebooks} codebooks, the codec has {self.codebooks}"
        return codes.reshape(batch, codebooks // self._group, self._group, frames).permute(2, 0, 1, 3)

    def decode_latents(self, codes: torch.Tensor) -> torch.Tensor:
        """`[B, K, T]` codes of one channel to latents `[B, D, T]`, the sum of their codebooks' vectors."""
        return self._network.dequantize(codes)

    def decode(self, codes: torch.Tensor, *, progress: Progress = ignore_progress) -> torch.Tensor:
        """Turns codes into audio, in bounded memory whatever the length.

        Args:
            codes: `[B, K, T]`.
            progress: called before each chunk.

        Returns:
            `[B, C, T * hop_length]`.
        """
        return torch.cat(list(self._decode_whole(codes, progress)), dim=-1)

    @torch.inference_mode()
    def encode_audio(
        self, source: AudioSource, *, codebooks: int, progress: Progress = ignore_progress
    ) -> EncodedAudio:
        """Finds the codes of audio of any length; in memory are the codes and one chunk of the audio.

        Args:
            source: with the codec's sample rate and channels, and at least one sample.
            codebooks: of all channels; at most `self.codebooks`.
            progress: called before each chunk.
        """
        assert (source.sample_rate, source.channels) == (self.sample_rate, self.channels), "audio as the codec takes it"
        network, group, hop = self._network, self._group, self.hop_length

        def read(start: int, count: int) -> torch.Tensor:
            return torch.from_numpy(np.ascontiguousarray(source.read(start, count))).to(network.device)

        def read_frames(start: int, stop: int) -> torch.Tensor:
            return read(start * hop, (stop - start) * hop).view(group, network.config.channels, -1)

        with float32_convolutions():
            if network.segments is None:
                parts = self._encode_whole(read_frames, source.num_samples, codebooks, progress)
                codes = np.concatenate([_to_int16(part[0]) for part in parts], axis=1)
                return EncodedAudio(codes, source.num_samples)
            segments, scales = [], []
            for found, levels in encode_segments(
                network, read, source.num_samples, codebooks=codebooks, batch=self._batch, progress=progress
            ):
                segments += [_to_int16(one) for one in found]
                scales.append(levels.float().cpu().numpy())
            codes = np.concatenate(segments, axis=1)
            return EncodedAudio(
                codes, source.num_samples, np.concatenate(scales) if network.segments.normalize else None
            )

    @torch.inference_mode()
    def decode_audio(self, encoded: EncodedAudio, *, progress: Progress = ignore_progress) -> Iterator[Waveform]:
        """Turns codes into audio of any length.

        Args:
            encoded: codes of this codec, with a scale for each segment if it has scales.
            progress: called before each chunk.

        Yields:
            Consecutive samples `[C, n]`, `encoded.num_samples` in total.
        """
        network, remaining = self._network, encoded.num_samples
        with float32_convolutions():
            for part in self._decode_parts(network, encoded, progress):
                samples = part[:, :remaining].float().cpu().numpy()
                remaining -= samples.shape[1]
                yield np.ascontiguousarray(samples)

    def warm_up(self) -> None:
        """Encodes and decodes a moment, so that the first job does not wait for kernels to be loaded and chosen."""
        silence = Audio(np.zeros((self.channels, self.sample_rate), np.float32), self.sample_rate)
        for _ in self.decode_audio(self.encode_audio(silence, codebooks=self.codebooks)):
            pass

    def _decode_parts(self, network: EnCodec, encoded: EncodedAudio, progress: Progress) -> Iterator[torch.Tensor]:
        codes = torch.from_numpy(encoded.codes)
        if network.segments is None:
            for part in self._decode_whole(codes[None], progress):
                yield part[0]
            return
        yield from decode_segments(
            network,
            codes,
            None if encoded.scales is None else torch.from_numpy(encoded.scales),
            counts=network.segments.count_frames(encoded.num_samples, self.hop_length),
            batch=self._batch,
            progress=progress,
        )

    @property
    def _batch(self) -> int:
        return 1 if self._network.device.type == "cpu" else GPU_BATCH

    def _encode_whole(self, read: Read, samples: int, codebooks: int, progress: Progress) -> Iterator[torch.Tensor]:
        """Yields `[B, K, n]`. `read` gives `[B * group, C / group, n]`."""
        assert self._network.segments is None, "a codec that works in segments encodes by `encode_audio`"
        frames, group = -(-samples // self.hop_length), self._group
        for latents in self._network.encode_chunks(read, frames, size=self._chunk_frames, progress=progress):
            codes = self._network.quantize(latents, codebooks // group)
            yield codes.view(-1, group, *codes.shape[1:]).transpose(1, 2).flatten(1, 2)

    def _decode_whole(self, codes: torch.Tensor, progress: Progress) -> Iterator[torch.Tensor]:
        """Yields `[B, C, n]`."""
        network = self._network
        channels = self.split_channels(codes).flatten(0, 1)

        def read(start: int, stop: int) -> torch.Tensor:
            return network.dequantize(channels[..., start:stop].to(network.device, torch.long))

        for part in network.decode_chunks(read, codes.shape[-1], size=self._chunk_frames, progress=progress):
            yield torch.cat(part.chunk(self._group), dim=1)


def _to_int16(codes: torch.Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    converted: np.ndarray[tuple[int, ...], np.dtype[np.int16]] = codes.to(torch.int16).cpu().numpy()
    return converted
