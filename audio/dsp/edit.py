"""Cuts audio, trims silence, and fades in and out."""

from __future__ import annotations

import numpy as np

from audio.types import Audio, AudioSource, Waveform

_MARGIN_S = 0.01


class CutView(AudioSource):
    """Samples `start` to `stop` of a source, computed on reading; fewer if the source is shorter."""

    def __init__(self, source: AudioSource, start: int, stop: int) -> None:
        super().__init__(source.sample_rate, source.channels, max(min(stop, source.num_samples) - start, 0))
        self._source, self._start = source, start

    def read(self, start: int, count: int) -> Waveform:
        return self._source.read(self._start + start, max(min(count, self.num_samples - start), 0))


def trim_silence(audio: Audio, *, threshold_db: float = -60.0) -> Audio:
    """Removes everything before the first and after the last sample above `threshold_db` (dBFS).

    10 ms are kept on either side, so that no onset is cut. Audio that is silent throughout is returned unchanged.
    """
    loud = np.flatnonzero(np.abs(audio.waveform).max(axis=0, initial=0.0) > 10.0 ** (threshold_db / 20.0))
    if not len(loud):
        return audio
    margin = round(_MARGIN_S * audio.sample_rate)
    start, stop = max(int(loud[0]) - margin, 0), min(int(loud[-1]) + 1 + margin, audio.num_samples)
    if (start, stop) == (0, audio.num_samples):
        return audio
    return Audio(np.ascontiguousarray(audio.waveform[:, start:stop]), audio.sample_rate)


def fade_in(audio: Audio, seconds: float) -> Audio:
    """Fades in over the first `seconds` (at most the whole length) along a raised cosine."""
    return _fade(audio, seconds, at_end=False)


def fade_out(audio: Audio, seconds: float) -> Audio:
    """Fades out over the last `seconds` (at most the whole length) along a raised cosine."""
    return _fade(audio, seconds, at_end=True)


def _fade(audio: Audio, seconds: float, *, at_end: bool) -> Audio:
    length = min(round(seconds * audio.sample_rate), audio.num_samples)
    if length <= 0:
        return audio
    rise = (0.5 - 0.5 * np.cos(np.pi * np.arange(length) / length)).astype(np.float32)
    waveform = audio.waveform.copy()
    if at_end:
        waveform[:, -length:] *= rise[::-1]
    else:
        waveform[:, :length] *= rise
    return Audio(waveform, audio.sample_rate)
