"""What is measured of a clip: tempo, onsets, level, flatness; and how far the spectra of two sets of clips differ."""

from collections.abc import Sequence

import librosa
import numpy as np
from numpy.typing import NDArray

from audio import Audio
from audio.analysis.music import analyze_music
from demo.training.render import SAMPLE_RATE

Clip = NDArray[np.float32]

TEMPO_TOLERANCE = 0.04
PART_S = 10.0
_HOP = 256
_BANDS = 64
_QUANTILES = (10, 50, 90)
_FLOOR = 1e-7


def estimate_tempo(clip: Clip) -> float:
    """Beats a minute of a clip `[T]` as `analyze` hears it; 0 if nothing repeats."""
    tempo = analyze_music(Audio(clip[None], SAMPLE_RATE), lambda _: None).tempo
    return tempo.bpm if tempo else 0.0


def follows_tempo(tempo: float, bpm: float) -> bool:
    """Within 4 % of the asked tempo, its half or its double; no other ratio counts."""
    return any(abs(tempo * octave / bpm - 1) <= TEMPO_TOLERANCE for octave in (0.5, 1, 2))


def estimate_tempo_of_parts(clip: Clip) -> list[float]:
    """The tempo of every 10 s of a clip, each heard alone."""
    length = round(PART_S * SAMPLE_RATE)
    return [estimate_tempo(clip[start : start + length]) for start in range(0, len(clip) - length + 1, length)]


def measure_beat_coherence(clip: Clip, bpm: float) -> float:
    """How well the beats of all parts of 10 s lie on one grid: 1 if they do, about 0.5 for four unrelated parts.

    The onset strength at the frequency of the beat is a complex number for each part; the length of their sum is
    compared with the sum of their lengths, at the tempo within 2 % of the asked one where the former is greatest.
    """
    strength = librosa.onset.onset_strength(y=clip, sr=SAMPLE_RATE, hop_length=_HOP)
    strength = strength - strength.mean()
    rate, part = SAMPLE_RATE / _HOP, round(PART_S * SAMPLE_RATE / _HOP)
    count = max(1, len(strength) // part)
    strength, times = strength[: count * part], np.arange(min(len(strength), count * part)) / rate
    frequencies = bpm / 60 * np.linspace(0.98, 1.02, 161)
    waves = np.exp(-2j * np.pi * frequencies[:, None] * times)
    sums = (waves * strength).reshape(len(frequencies), count, -1).sum(2)
    best = np.abs(sums.sum(1)).argmax()
    return float(np.abs(sums[best].sum()) / np.abs(sums).max(0).sum())


def measure_onset_rate(clip: Clip) -> float:
    """Onsets a second by librosa's default detector, which scales each clip by its own strongest onset."""
    envelope = librosa.onset.onset_strength(y=clip, sr=SAMPLE_RATE, hop_length=_HOP)
    onsets = librosa.onset.onset_detect(onset_envelope=envelope, sr=SAMPLE_RATE, hop_length=_HOP)
    return len(onsets) * SAMPLE_RATE / len(clip)


def measure_flatness(clip: Clip) -> float:
    """Mean of librosa's spectral flatness (power, 2048 points, hop 512) over frames above -40 dB of the loudest."""
    flatness = librosa.feature.spectral_flatness(y=clip)[0]
    level = librosa.feature.rms(y=clip)[0]
    return float(flatness[level > 0.01 * level.max()].mean())


def measure_si_sdr_db(estimate: Clip, reference: Clip) -> float:
    """The scale-invariant signal-to-distortion ratio of `[T]` or `[C, T]`, all channels as one signal.

    Le Roux et al., SDR - half-baked or well done? (arXiv 1811.02508).
    """
    a, b = estimate.astype(np.float64).ravel(), reference.astype(np.float64).ravel()
    target = b * (a @ b / (b @ b))
    return float(10 * np.log10((target @ target) / max(float((a - target) @ (a - target)), 1e-20)))


def compare_spectra(clips: Sequence[Clip], others: Sequence[Clip]) -> float:
    """Log-spectral distance of two sets of clips, dB: root mean square over 64 mel bands and three quantiles.

    The quantiles over time tell hits (90 %) from what is between them (10 %): a smeared drum fills the gaps. Each clip
    has the same power first; levels below -70 dB of that are taken as -70 dB.
    """
    difference = np.mean([_describe_spectrum(clip) for clip in clips], 0)
    difference = difference - np.mean([_describe_spectrum(clip) for clip in others], 0)
    return float(np.sqrt(np.mean(difference**2)))


def _describe_spectrum(clip: Clip) -> NDArray[np.float64]:
    """Quantiles over time of mel bands, `[3, 64]` dB."""
    level = clip / max(float(np.sqrt(np.mean(clip**2))), _FLOOR)
    mel = librosa.feature.melspectrogram(y=level, sr=SAMPLE_RATE, n_fft=1024, hop_length=_HOP, n_mels=_BANDS)
    return np.asarray(np.percentile(10 * np.log10(mel / 1024 + _FLOOR), _QUANTILES, axis=1))
