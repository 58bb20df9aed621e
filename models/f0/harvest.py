"""f0 by WORLD's Harvest, refined by StoneMask, in overlapping windows, several at once. On the CPU."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyworld

from models.f0.catalog import F0_MAX, F0_MIN, HOP_LENGTH, SAMPLE_RATE
from models.f0.tracker import Curve, Progress, Waveform, num_frames, windows

WINDOW = 3000  # frames
CONTEXT = 200
_MAX_THREADS = 8
_FRAME_PERIOD_MS = 1000 * HOP_LENGTH / SAMPLE_RATE
_SMOOTHING_FROM = 3  # RVC's filter_radius: from here on a median of three, whatever the number


class Harvest:
    """WORLD's Harvest (Interspeech 2017).

    Args:
        window: frames that are looked at together.
    """

    memory_bytes = 0

    def __init__(self, *, window: int = WINDOW) -> None:
        self._window = window

    def track(self, waveform: Waveform, *, hop_length: int, filter_radius: int, progress: Progress) -> Curve:
        """As `Tracker.track`; `hop_length` does not count here."""
        count = num_frames(waveform)
        f0 = np.zeros(count, np.float32)
        if count == 0:
            return f0
        plan = list(windows(count, longest=self._window, context=CONTEXT))
        pool = ThreadPoolExecutor(min(len(plan), os.cpu_count() or 1, _MAX_THREADS))  # WORLD works without the GIL
        try:
            pieces = (waveform[window.start * HOP_LENGTH : window.stop * HOP_LENGTH] for window in plan)
            for window, found in zip(plan, pool.map(_harvest, pieces), strict=True):
                f0[window.kept] = found[window.inside]
                progress(window.keep_stop / count)
        finally:
            pool.shutdown(cancel_futures=True)
        return median_of_three(f0) if filter_radius >= _SMOOTHING_FROM else f0


def _harvest(samples: Waveform) -> Curve:
    if not samples.any():  # it would look for a pitch in rounding errors
        return np.zeros(num_frames(samples), np.float32)
    exact = samples.astype(np.float64)
    f0, times = pyworld.harvest(exact, fs=SAMPLE_RATE, f0_floor=F0_MIN, f0_ceil=F0_MAX, frame_period=_FRAME_PERIOD_MS)
    return np.asarray(pyworld.stonemask(exact, f0, times, SAMPLE_RATE), np.float32)


def median_of_three(curve: Curve) -> Curve:
    """Each value's median with its neighbours, zeros beyond the ends."""
    padded = np.pad(curve, 1)
    return np.median(np.stack((padded[:-2], curve, padded[2:])), axis=0).astype(np.float32)
