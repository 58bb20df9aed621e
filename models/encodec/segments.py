"""Audio in segments that are encoded by themselves and crossfaded, as EnCodec at 48 kHz works.

Each segment is divided by its level, its scale, which is kept beside its codes. Where segments overlap, their samples
are weighted with triangles as long as a segment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, groupby

import torch

from models.encodec.network import EnCodec
from models.runtime.progress import Progress

_QUIETEST = 1e-8  # added to every scale
ReadSamples = Callable[[int, int], torch.Tensor]
"""Gives samples `start` to `start + count`, `[C, n]`; fewer at the end."""


def encode_segments(  # noqa: PLR0913  (options by keyword)
    network: EnCodec, read: ReadSamples, num_samples: int, *, codebooks: int, batch: int, progress: Progress
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Encodes audio of any length.

    Args:
        batch: segments that are encoded together.
        progress: called before each batch.

    Yields:
        Codes `[n, codebooks, frames]` of consecutive segments of one length, and their scales `[n]`.
    """
    segments = network.segments
    assert segments is not None, "a codec that works in segments"
    starts = range(0, num_samples, segments.stride)
    for first in range(0, len(starts), batch):
        progress(first / len(starts))
        waveforms = [read(start, segments.length) for start in starts[first : first + batch]]
        for _, same in groupby(waveforms, key=lambda waveform: waveform.shape[-1]):
            segment = torch.stack(list(same))
            scales = torch.ones(len(segment), 1, 1, device=segment.device)
            if segments.normalize:
                mono = segment.sum(1, keepdim=True) / segment.shape[1]
                scales = mono.pow(2).mean(-1, keepdim=True).sqrt() + _QUIETEST
            codes = network.quantize(network.encoder(segment / scales), codebooks)
            yield codes, scales.flatten()


def decode_segments(  # noqa: PLR0913  (options by keyword)
    network: EnCodec,
    codes: torch.Tensor,
    scales: torch.Tensor | None,
    *,
    counts: Sequence[int],
    batch: int,
    progress: Progress,
) -> Iterator[torch.Tensor]:
    """Decodes segments and joins them.

    Args:
        codes: `[K, T]`, the segments one after the other.
        scales: one for each segment; None: 1.
        counts: frames of each segment.
        batch: segments that are decoded together.
        progress: called before each batch.

    Yields:
        Consecutive samples `[C, n]`; after the last segment's own there may be some more, to a whole frame.
    """
    assert network.segments is not None, "a codec that works in segments"
    levels = torch.ones(len(counts)) if scales is None else scales
    stops = list(accumulate(counts))

    def decode() -> Iterator[torch.Tensor]:
        for first in range(0, len(counts), batch):
            progress(first / len(counts))
            chosen = range(first, min(first + batch, len(counts)))
            for count, same in groupby(chosen, key=lambda index: counts[index]):
                indices = list(same)
                parts = torch.stack([codes[:, stops[index] - count : stops[index]] for index in indices])
                decoded = network.decoder(network.dequantize(parts.to(network.device, torch.long)))
                yield from decoded * levels[indices].to(network.device).view(-1, 1, 1)

    return overlap_add(decode(), stride=network.segments.stride)


def overlap_add(parts: Iterable[torch.Tensor], *, stride: int) -> Iterator[torch.Tensor]:
    """Adds overlapping parts, weighted with a triangle as long as the first, and divides by the sum of the weights.

    Args:
        parts: `[C, n]`, each longer than `stride` except the last.
        stride: samples from the start of a part to that of the next.

    Yields:
        `[C, n]`.
    """
    weights: torch.Tensor | None = None
    total: torch.Tensor | None = None  # of the samples and of the weights, `[C + 1, n]`
    for part in parts:
        if weights is None:
            times = torch.linspace(0, 1, part.shape[-1] + 2, device=part.device, dtype=part.dtype)[1:-1]
            weights = 0.5 - (times - 0.5).abs()
        if total is not None:
            yield total[:-1, :stride] / total[-1, :stride]
            total = total[:, stride:]
        length = part.shape[-1]
        weighted = torch.cat([part * weights[:length], weights[None, :length]])
        if total is not None:
            overlap = min(total.shape[-1], length)
            total[:, :overlap] += weighted[:, :overlap]
            weighted = torch.cat([total, weighted[:, total.shape[-1] :]], dim=-1)
        total = weighted
    if total is not None:
        yield total[:-1] / total[-1]
