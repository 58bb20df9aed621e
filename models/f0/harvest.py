"""f0 by WORLD's Harvest, refined by StoneMask, in overlapping chunks on several CPU threads."""

from __future__ import annotations

import numpy as np
import pyworld

from audio.parallel import map_parallel
from models.f0.catalog import F0_MAX, F0_MIN, HOP_LENGTH, SAMPLE_RATE
from models.f0.estimator import F0Contour, F0Estimator, Waveform, count_frames
from models.runtime.chunks import plan_equal_chunks
from models.runtime.progress import Progress

CHUNK_LENGTH = 3000  # frames
CONTEXT = 200
_MAX_THREADS = 8
_FRAME_PERIOD_MS = 1000 * HOP_LENGTH / SAMPLE_RATE
_MIN_FILTER_RADIUS = 3  # RVC takes the median of three frames for any filter_radius from this one on


class Harvest(F0Estimator):
    """WORLD's Harvest (Interspeech 2017).

    Args:
        chunk_length: frames that are computed together.
    """

    def __init__(self, *, chunk_length: int = CHUNK_LENGTH) -> None:
        self._chunk_length = chunk_length

    def estimate(self, waveform: Waveform, *, hop_length: int, filter_radius: int, progress: Progress) -> F0Contour:
        """See `F0Estimator.estimate`; `hop_length` has no effect."""
        num_frames = count_frames(waveform)
        f0 = np.zeros(num_frames, np.float32)
        if num_frames == 0:
            return f0
        chunks = list(plan_equal_chunks(num_frames, longest=self._chunk_length, context=CONTEXT))
        # WORLD releases the GIL.
        waveforms = (waveform[chunk.start * HOP_LENGTH : chunk.stop * HOP_LENGTH] for chunk in chunks)
        contours = map_parallel(_run_harvest, waveforms, max_threads=_MAX_THREADS)
        for chunk, chunk_f0 in zip(chunks, contours, strict=True):
            f0[chunk.kept] = chunk_f0[chunk.inside]
            progress(chunk.keep_stop / num_frames)
        if filter_radius < _MIN_FILTER_RADIUS:
            return f0
        padded = np.pad(f0, 1)
        return np.median(np.stack((padded[:-2], f0, padded[2:])), axis=0).astype(np.float32)


def _run_harvest(waveform: Waveform) -> F0Contour:
    if not waveform.any():  # Harvest would find a pitch in rounding errors
        return np.zeros(count_frames(waveform), np.float32)
    exact = waveform.astype(np.float64)
    f0, times = pyworld.harvest(exact, fs=SAMPLE_RATE, f0_floor=F0_MIN, f0_ceil=F0_MAX, frame_period=_FRAME_PERIOD_MS)
    return np.asarray(pyworld.stonemask(exact, f0, times, SAMPLE_RATE), np.float32)
