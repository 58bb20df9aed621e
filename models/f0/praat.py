"""f0 by Praat's autocorrelation method, in overlapping windows. On the CPU."""

from __future__ import annotations

import numpy as np
import parselmouth

from models.f0.catalog import F0_MAX, F0_MIN, HOP_LENGTH, SAMPLE_RATE
from models.f0.tracker import Curve, Progress, Waveform, num_frames, silenced, windows

WINDOW = 3000  # frames
CONTEXT = 200
VOICING_THRESHOLD = 0.6

# Praat takes three periods of the lowest pitch (60 ms) a frame and centres its frames in the sound. With so many
# samples before the first and after the last frame's centre, the frames that fit lie on our grid.
_BEFORE = int(1.5 * SAMPLE_RATE / F0_MIN) + HOP_LENGTH // 4
_GUARD = 2 * _BEFORE


class Praat:
    """Praat's `To Pitch (ac)` (Boersma 1993).

    Args:
        window: frames that are looked at together.
    """

    memory_bytes = 0

    def __init__(self, *, window: int = WINDOW) -> None:
        self._window = window

    def track(self, waveform: Waveform, *, hop_length: int, filter_radius: int, progress: Progress) -> Curve:
        """As `Tracker.track`; neither `hop_length` nor `filter_radius` counts here."""
        count = num_frames(waveform)
        f0 = np.zeros(count, np.float32)
        peak = float(np.abs(waveform).max(initial=0.0))
        if count == 0 or peak == 0.0:
            return f0
        for window in windows(count, longest=self._window, context=CONTEXT):
            f0[window.kept] = _pitch(waveform, window.start, window.stop, peak)[window.inside]
            progress(window.keep_stop / count)
        return f0


def _pitch(waveform: Waveform, start: int, stop: int, peak: float) -> Curve:
    """Frames `start` to `stop`.

    Praat judges silence by the loudest sample of the sound, so the whole file's `peak` is appended, behind silence.
    """
    samples = silenced(waveform, start * HOP_LENGTH - _BEFORE, (stop - 1) * HOP_LENGTH + _BEFORE)
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
