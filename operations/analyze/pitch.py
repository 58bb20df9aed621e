"""The pitch of a solo voice or instrument: its median and its range."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audio.analysis.frames import iter_mono
from audio.types import AudioSource, Check
from models import Models
from models.f0.catalog import HOP_LENGTH, SAMPLE_RATE
from models.f0.estimator import F0Estimator
from models.family import ModelHandle
from models.runtime.progress import Progress, sub_progress
from worker.job import Job

_PIECE_S = 300  # estimated at once, so that memory does not grow with the audio's length
_RANGE = (5.0, 95.0)  # percentiles: single errors of the estimator do not widen the range
_NOTES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


def measure_pitch(
    source: AudioSource, method: ModelHandle[F0Estimator], *, job: Job, models: Models
) -> dict[str, Any] | None:
    """The keys of the reply's `pitch`; None if no pitch is heard."""

    def estimate(estimator: F0Estimator) -> NDArray[np.float32]:
        pieces = max(-(-source.num_samples // (_PIECE_S * source.sample_rate)), 1)
        parts = []
        for number, waveform in enumerate(_iter_pieces(source, job.check)):
            progress = sub_progress(job.progress, min(number / pieces, 1.0), min((number + 1) / pieces, 1.0))
            parts.append(_estimate(estimator, waveform, progress))
        return np.concatenate(parts)

    f0 = models.run(method, estimate, observer=job)
    voiced = f0[f0 > 0]
    if not len(voiced):
        return None
    low, median, high = np.percentile(voiced, (_RANGE[0], 50.0, _RANGE[1]))
    return {
        "median_hz": round(float(median), 2),
        "median_note": name_note(float(median)),
        "low_hz": round(float(low), 2),
        "low_note": name_note(float(low)),
        "high_hz": round(float(high), 2),
        "high_note": name_note(float(high)),
        "voiced": round(len(voiced) / len(f0), 3),
    }


def _estimate(estimator: F0Estimator, waveform: NDArray[np.float32], progress: Progress) -> NDArray[np.float32]:
    return estimator.estimate(waveform, hop_length=HOP_LENGTH, filter_radius=3, progress=progress)


def _iter_pieces(source: AudioSource, check: Check) -> Iterator[NDArray[np.float32]]:
    """The audio as mono at 16 kHz, in pieces of 5 minutes."""
    length = _PIECE_S * SAMPLE_RATE
    pending = np.zeros(0, np.float32)
    for block in iter_mono(source, SAMPLE_RATE, lambda _: check()):
        pending = np.concatenate((pending, block))
        while len(pending) > length:
            yield pending[:length]
            pending = pending[length:]
    yield pending


def name_note(hz: float) -> str:
    """The nearest note in scientific pitch notation, A4 = 440 Hz: `C#3`."""
    number = round(69 + 12 * np.log2(hz / 440))
    return f"{_NOTES[number % 12]}{number // 12 - 1}"
