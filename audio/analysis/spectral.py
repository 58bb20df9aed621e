"""What the spectrum is like on the whole: medians over frames that are not silent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from audio.analysis.frames import Floats, iter_mono, iter_spectra
from audio.types import AudioSource

_FRAME_S = 0.046
_ROLLOFF = 0.85
_SILENT = 1e-3  # RMS magnitude of a frame relative to full scale below which it does not count
_FLOOR = 1e-10  # of the power of a bin, in the flatness


@dataclass(frozen=True)
class Spectrum:
    """Medians over frames of about 46 ms.

    Args:
        centroid_hz: mean frequency, weighted by magnitude: how bright the sound is.
        rolloff_hz: frequency below which 85 % of the magnitude is.
        bandwidth_hz: standard deviation of the frequency, weighted by magnitude.
        flatness: geometric mean of the power relative to its arithmetic mean: 0 = a tone, 1 = white noise.
    """

    centroid_hz: float
    rolloff_hz: float
    bandwidth_hz: float
    flatness: float


def measure_spectrum(source: AudioSource) -> Spectrum | None:
    """The spectrum of audio at its own sample rate; None if all of it is silent (below -60 dBFS)."""
    rate = source.sample_rate
    frame_length = 1 << max(round(np.log2(_FRAME_S * rate)), 4)
    hz = np.fft.rfftfreq(frame_length, 1 / rate).astype(np.float32)
    blocks = iter_mono(source, rate, lambda _: None)
    spectra = iter_spectra(blocks, frame_length=frame_length, hop_length=frame_length // 2)
    values = np.concatenate([_describe(part, hz) for part in spectra], axis=1)
    if not values.shape[1]:
        return None
    centroid, rolloff, bandwidth, flatness = np.median(values, axis=1)
    return Spectrum(float(centroid), float(rolloff), float(bandwidth), float(flatness))


def _describe(spectra: Floats, hz: Floats) -> NDArray[np.float64]:
    """Centroid, rolloff, bandwidth and flatness of each frame of `[n, bins]` that is not silent: `[4, m]`."""
    audible = spectra[np.linalg.norm(spectra, axis=1) > _SILENT]
    totals = audible.sum(axis=1)
    centroid = audible @ hz / totals
    spread = (audible * (hz - centroid[:, None]) ** 2).sum(axis=1) / totals
    rolloff = hz[(np.cumsum(audible, axis=1) >= _ROLLOFF * totals[:, None]).argmax(axis=1)]
    power = np.maximum(audible.astype(np.float64) ** 2, _FLOOR)
    flatness = np.exp(np.log(power).mean(axis=1)) / power.mean(axis=1)
    return np.stack((centroid, rolloff, np.sqrt(spread), flatness))
