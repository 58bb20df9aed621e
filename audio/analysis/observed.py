"""An `AudioSource` that reports how far it has been read, so that any work on it can be followed and ended."""

from __future__ import annotations

from audio.analysis.frames import Progress
from audio.types import AudioSource, Waveform


class ObservedAudio(AudioSource):
    """`source`, with a call of `progress` before each block that is read.

    Args:
        progress: gets the block's start as a fraction of the whole; what it raises ends the work.
    """

    def __init__(self, source: AudioSource, progress: Progress) -> None:
        super().__init__(source.sample_rate, source.channels, source.num_samples)
        self._source, self._progress = source, progress

    @property
    def peak(self) -> float:
        return self._source.peak

    def read(self, start: int, count: int) -> Waveform:
        self._progress(min(start / max(self.num_samples, 1), 1.0))
        return self._source.read(start, count)
