"""Sources that play together from their first sample on: the same width and length for all, and their sum."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from audio.types import AudioSource, Waveform, iter_blocks


class Silence(AudioSource):
    """Zeros of a given shape."""

    def read(self, start: int, count: int) -> Waveform:
        return np.zeros((self.channels, max(min(count, self.num_samples - start), 0)), np.float32)


class PaddedView(AudioSource):
    """A source made wider and longer, computed on reading.

    Args:
        source: mono, or with `channels` channels.
        channels: of the result; mono is copied to each.
        num_samples: of the result, at least those of the source; silence follows the source.
    """

    def __init__(self, source: AudioSource, channels: int, num_samples: int) -> None:
        assert source.channels in (1, channels), f"{source.channels} channels do not fit into {channels}"
        assert source.num_samples <= num_samples, f"{source.num_samples} samples do not fit into {num_samples}"
        super().__init__(source.sample_rate, channels, num_samples)
        self._source = source

    @property
    def peak(self) -> float:
        return self._source.peak

    def read(self, start: int, count: int) -> Waveform:
        padded = np.zeros((self.channels, max(min(count, self.num_samples - start), 0)), np.float32)
        block = self._source.read(start, count)
        padded[:, : block.shape[1]] = block
        return padded


class MixView(AudioSource):
    """The sum of sources of one shape, computed on reading in float32; may exceed full scale."""

    def __init__(self, sources: Sequence[AudioSource]) -> None:
        shapes = {(source.sample_rate, source.channels, source.num_samples) for source in sources}
        assert len(shapes) == 1, "sources that are mixed have one sample rate, width and length"
        super().__init__(*shapes.pop())
        self._sources = sources

    def read(self, start: int, count: int) -> Waveform:
        total = self._sources[0].read(start, count).copy()
        for source in self._sources[1:]:
            total += source.read(start, count)
        return total


def match_shapes(sources: Sequence[AudioSource]) -> list[AudioSource]:
    """Sources of one sample rate, each made as wide as the widest and as long as the longest of them."""
    channels = max(source.channels for source in sources)
    num_samples = max(source.num_samples for source in sources)
    return [
        source
        if (source.channels, source.num_samples) == (channels, num_samples)
        else PaddedView(source, channels, num_samples)
        for source in sources
    ]


def mix(sources: Sequence[AudioSource]) -> AudioSource:
    """The sum of sources of one sample rate; the longest sets the length, the widest the number of channels."""
    return sources[0] if len(sources) == 1 else MixView(match_shapes(sources))


def fit_length(blocks: Iterable[Waveform], *, num_samples: int) -> Iterator[Waveform]:
    """Cuts `[C, n]` blocks, or adds silence after them, so that they have `num_samples` samples in total."""
    missing, channels = num_samples, 1
    for block in blocks:
        part, channels = block[:, :missing], block.shape[0]
        missing -= part.shape[1]
        if part.shape[1]:
            yield part
    yield from iter_blocks(Silence(1, channels, missing))
