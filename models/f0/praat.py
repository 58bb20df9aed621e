"""f0 by Praat's autocorrelation method, in overlapping chunks on the CPU."""

from __future__ import annotations

import numpy as np
import parselmouth

from models.f0.catalog import F0_MAX, F0_MIN, HOP_LENGTH, SAMPLE_RATE
from models.f0.estimator import F0Contour, F0Estimator, Waveform, count_frames, zero_pad
from models.runtime.chunks import plan_equal_chunks
from models.runtime.progress import Progress

CHUNK_LENGTH = 3000  # frames
CONTEXT = 200
VOICING_THRESHOLD = 0.6

# Praat analyses three periods of the lowest pitch (60 ms) per frame and centres its frames in the audio. With this many
# samples before the first and after the last frame's centre, exactly our frames fit.
_MARGIN = int(1.5 * SAMPLE_RATE / F0_MIN) + HOP_LENGTH // 4
_GUARD = 2 * _MARGIN


class Praat(F0Estimator):
    """Praat's `To Pitch (ac)` (Boersma 1993).

    Args:
        chunk_length: frames that are computed together.
    """

    def __init__(self, *, chunk_length: int = CHUNK_LENGTH) -> None:
        self._chunk_length = chunk_length

    def estimate(self, waveform: Waveform, *, hop_length: int, filter_radius: int, progress: Progress) -> F0Contour:
        """See `F0Estimator.estimate`; `hop_length` and `filter_radius` have no effect."""
        num_frames = count_frames(waveform)
        f0 = np.zeros(num_frames, np.float32)
        peak = float(np.abs(waveform).max(initial=0.0))
        if num_frames == 0 or peak == 0.0:
            return f0
        for chunk in plan_equal_chunks(num_frames, longest=self._chunk_length, context=CONTEXT):
            f0[chunk.kept] = _run_praat(waveform, chunk.start, chunk.stop, peak)[chunk.inside]
            progress(chunk.keep_stop / num_frames)
        return f0


def _run_praat(waveform: Waveform, start: int, stop: int, peak: float) -> F0Contour:
    """f0 of the frames `start` to `stop`.

    Praat's silence threshold is relative to the loudest sample, so the whole file's `peak` is appended after silence.
    """
    samples = zero_pad(waveform, start * HOP_LENGTH - _MARGIN, (stop - 1) * HOP_LENGTH + _MARGIN)
    guard = np.zeros(_GUARD + -_GUARD % HOP_LENGTH, np.float32)
    guard[-1] = peak
    sound = parselmouth.Sound(np.concatenate((samples, guard)).astype(np.float64), SAMPLE_RATE)
    pitch = sound.to_pitch_ac(
        time_step=HOP_LENGTH / SAMPLE_RATE,
        voicing_threshold=VOICING_THRESHOLD,
        pitch_floor=F0_MIN,
        pitch_ceiling=F0_MAX,
    )
    return np.asarray(pitch.selected_array["frequency"][: stop - start], np.float32)
