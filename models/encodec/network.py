"""EnCodec's network (arXiv 2210.13438): SEANet's encoder and decoder, and the codebooks, in float32.

It runs over audio of any length in chunks whose seams are exact: the layers before the LSTM run on each chunk with
context, the LSTM goes on in the state in which it left the chunk before, and the layers after it see the last frames
before the chunk and the first after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from models.encodec.seanet import LSTMState, SEANet, SEANetConfig, apply
from models.encodec.spec import Segments
from models.runtime.chunks import plan_chunks
from models.runtime.progress import Progress

Read = Callable[[int, int], torch.Tensor]
"""Gives the input of frames `start` to `stop`, `[B, C, n]`."""


@dataclass(frozen=True, slots=True, eq=False)
class EnCodec:
    """A loaded network for one channel, or for all channels of a codec that was trained on them together.

    Args:
        sample_rate: Hz.
        codebooks: `[card, D]` each.
        encoder: `[B, C, samples]` to `[B, D, frames]`.
        decoder: `[B, D, frames]` to `[B, C, samples]`.
        nbytes: of all weights.
        segments: None: audio is encoded as a whole.
    """

    config: SEANetConfig
    sample_rate: int
    codebooks: tuple[torch.Tensor, ...]
    encoder: SEANet
    decoder: SEANet
    nbytes: int
    segments: Segments | None = None

    @property
    def device(self) -> torch.device:
        return self.codebooks[0].device

    def encode_chunks(self, read: Read, frames: int, *, size: int, progress: Progress) -> Iterator[torch.Tensor]:
        """Runs the encoder over audio of any length in bounded memory.

        Args:
            read: gives samples.
            frames: of the whole, the last of which may be incomplete.
            size: frames of a chunk.
            progress: called before each chunk.

        Yields:
            Consecutive latents `[B, D, n]`, together those of a single pass.
        """
        config = self.config
        contexts = (config.encoder_context, config.last_kernel - 1)
        return _run_chunks(self.encoder, read, frames, size=size, contexts=contexts, scale=1, progress=progress)

    def decode_chunks(self, read: Read, frames: int, *, size: int, progress: Progress) -> Iterator[torch.Tensor]:
        """Runs the decoder as `encode_chunks` runs the encoder; `read` gives latents.

        Yields:
            Consecutive samples `[B, C, n * hop_length]`.
        """
        config = self.config
        contexts = (config.kernel - 1, config.decoder_context)
        return _run_chunks(
            self.decoder, read, frames, size=size, contexts=contexts, scale=config.hop_length, progress=progress
        )

    def quantize(self, latents: torch.Tensor, codebooks: int) -> torch.Tensor:
        """Finds the codes `[B, codebooks, T]` of latents `[B, D, T]`: in each codebook, the vector that is nearest to
        what the codebooks before it have left over."""
        residual = latents.transpose(1, 2)
        codes = []
        for codebook in self.codebooks[:codebooks]:
            distances = torch.addmm(codebook.square().sum(1), residual.flatten(0, 1), codebook.T, alpha=-2)
            codes.append(distances.argmin(-1).view(residual.shape[:2]))
            residual = residual - codebook[codes[-1]]
        return torch.stack(codes, dim=1)

    def dequantize(self, codes: torch.Tensor) -> torch.Tensor:
        """`[B, K, T]` codes to latents `[B, D, T]`, the sum of their codebooks' vectors."""
        vectors = [self.codebooks[k][codes[:, k]] for k in range(codes.shape[1])]
        return torch.stack(vectors).sum(0).transpose(1, 2)


def _run_chunks(  # noqa: PLR0913  (options by keyword)
    network: SEANet,
    read: Read,
    frames: int,
    *,
    size: int,
    contexts: tuple[int, int],
    scale: int,
    progress: Progress,
) -> Iterator[torch.Tensor]:
    """Runs a network in chunks.

    Args:
        contexts: frames on either side that the layers before and after the LSTM need.
        scale: positions of the result for each frame.
    """
    context, context_after = contexts
    state: LSTMState | None = None
    window: torch.Tensor | None = None  # of what comes out of the LSTM
    done = 0  # frames at the beginning of the window whose results were yielded; they are context of the next ones
    for chunk in plan_chunks(frames, size=size, context=context):
        progress(chunk.keep_start / frames)
        hidden = apply(network.before, read(chunk.start, chunk.stop))[..., chunk.inside]
        if network.lstm is not None:
            hidden, state = network.lstm(hidden, state)
        window = hidden if window is None else torch.cat([window, hidden], dim=-1)
        stop = window.shape[-1] - (0 if chunk.keep_stop == frames else context_after)
        if stop > done:
            yield apply(network.after, window)[..., done * scale : stop * scale]
            first = max(stop - context_after, 0)
            window, done = window[..., first:], stop - first
