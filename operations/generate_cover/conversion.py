"""Converts a vocal to another voice: its f0, its content features, then the voice's own network."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from audio.disk import materialize_one
from audio.dsp.mix import Silence, fit_length
from audio.dsp.resample import resampled_length
from audio.types import AudioSource
from errors import sanitize
from models import Models
from models.checkpoints.errors import damaged_weights
from models.family import ModelHandle
from models.runtime.progress import sub_progress
from worker.job import Job

if TYPE_CHECKING:
    from models.f0 import F0Estimator
    from models.f0.estimator import F0Contour, Waveform
    from models.hubert.encoder import ContentEncoder
    from models.runtime.progress import Progress
    from models.rvc.converter import ConversionSettings, VoiceConverter
    from models.rvc.retrieval import RetrievalMode

MEMORY_BYTES = 128 << 20  # of a converted vocal; beyond, it is stored on disk
MAX_OFFSET = 4  # semitones from its usual median at which a voice still sounds as usual
MAX_AUTO_SEMITONES = 24
PITCH_SHARE = 0.3  # of the progress
PREPROCESS_SHARE = 0.2  # of the progress of the stage `pitch`


@dataclass(frozen=True, slots=True)
class F0Plan:
    """How the f0 of a vocal is estimated and changed.

    Args:
        method: from `models.families.f0.resolve`.
        hop_length: samples at 16 kHz, for mangio-crepe.
        filter_radius: for harvest.
        pitch_adjust: semitones by which the vocal is transposed; None: from the vocal's f0 to `voice_f0`.
        key_change: semitones by which the whole song is transposed.
        voice_f0: usual f0 of the voice in Hz, for a `pitch_adjust` of None.
        autotune: 0..1, applied after the transposition, so that the converted vocal is in `autotune_key`.
        autotune_key: None: chromatic; `auto` is replaced by the song's key before it is used.
    """

    method: ModelHandle[F0Estimator]
    hop_length: int
    filter_radius: int
    pitch_adjust: float | None
    key_change: float
    voice_f0: float | None
    autotune: float
    autotune_key: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversionPlan:
    """The models and settings of voice conversion; `f0` is None for a voice that takes no pitch.

    The other fields are those of `ConversionSettings`.
    """

    voice: ModelHandle[VoiceConverter]
    encoder: ModelHandle[ContentEncoder]
    f0: F0Plan | None
    index_rate: float
    protect: float
    rms_mix_rate: float
    fill_gaps: bool
    formant_shift: float
    seed: int
    retrieval: RetrievalMode

    def settings(self) -> ConversionSettings:
        from models.rvc.converter import ConversionSettings

        return ConversionSettings(
            semitones=0.0,  # f0 is transposed before, so that autotune can follow
            index_rate=self.index_rate,
            protect=self.protect,
            rms_mix_rate=self.rms_mix_rate,
            fill_gaps=self.fill_gaps,
            formant_shift=self.formant_shift,
            seed=self.seed,
            retrieval=self.retrieval,
        )


@dataclass(frozen=True, slots=True)
class ConvertedVocal:
    """A vocal in the new voice.

    Args:
        audio: mono, at the voice's sample rate, as long as the vocal, without reverb; silent when the vocal is silent.
        pitch_adjust: semitones by which the vocal was transposed, without the change of the song's key; 0 for a voice
            that takes no pitch.
    """

    audio: AudioSource
    pitch_adjust: float


def convert_vocal(
    vocal: AudioSource, plan: ConversionPlan, *, progress_range: tuple[float, float], job: Job, models: Models
) -> ConvertedVocal:
    """Converts a vocal.

    Args:
        vocal: of any sample rate, length and number of channels.
        progress_range: of the job's progress.
    """
    from models.rvc.preprocess import preprocess

    start, end = progress_range
    middle = start + PITCH_SHARE * (end - start)
    with job.stage("pitch", (start, middle)):
        preprocessed = preprocess(vocal, sub_progress(job.progress, 0.0, PREPROCESS_SHARE))
        f0, pitch_adjust = None, 0.0
        if plan.f0 is not None:
            progress = sub_progress(job.progress, PREPROCESS_SHARE, 1.0)
            f0, pitch_adjust = _estimate_f0(preprocessed.waveform, plan.f0, progress=progress, job=job, models=models)

    def convert(encoder: ContentEncoder, voice: VoiceConverter) -> AudioSource:
        length = max(resampled_length(vocal.num_samples, vocal.sample_rate, voice.sample_rate), 1)
        converted = voice.convert(preprocessed, f0, encoder, settings=plan.settings(), progress=job.progress)
        blocks = _require_finite(converted, plan.voice.name)
        return materialize_one(
            fit_length(blocks, num_samples=length),
            like=Silence(voice.sample_rate, 1, length),
            memory_bytes=MEMORY_BYTES,
            stack=job.exit_stack,
        )

    with job.stage("convert", (middle, end)):
        return ConvertedVocal(models.run_pair(plan.encoder, plan.voice, convert, observer=job), pitch_adjust)


def _require_finite(blocks: Iterable[Waveform], voice: str) -> Iterator[Waveform]:
    """The blocks as they are; raises `ModelError` for samples that only damaged weights give."""
    for block in blocks:
        if not np.isfinite(block).all():
            raise damaged_weights(f"The voice '{sanitize(voice)}'", "the vocals that it converts have", voice)
        yield block


def _estimate_f0(
    waveform: Waveform, plan: F0Plan, *, progress: Progress, job: Job, models: Models
) -> tuple[F0Contour, float]:
    """`[T]` mono at 16 kHz -> `[T // 160]` in Hz, transposed and tuned, 0 = unvoiced; and the `pitch_adjust` used."""
    from models.f0.contour import autotune, transpose

    def estimate(estimator: F0Estimator) -> F0Contour:
        return estimator.estimate(
            waveform, hop_length=plan.hop_length, filter_radius=plan.filter_radius, progress=progress
        )

    f0 = models.run(plan.method, estimate, observer=job)
    pitch_adjust = plan.pitch_adjust
    if pitch_adjust is None:
        assert plan.voice_f0 is not None, "the plan refuses an automatic pitch without the voice's f0"
        pitch_adjust = choose_pitch_adjust(f0, plan.voice_f0)
    f0 = transpose(f0, pitch_adjust + plan.key_change)
    return (autotune(f0, strength=plan.autotune, key=plan.autotune_key) if plan.autotune else f0), pitch_adjust


def choose_pitch_adjust(f0: F0Contour, voice_f0: float) -> float:
    """Whole semitones, -24 to 24, that bring a vocal to a voice's usual pitch; 0 for a vocal without pitch.

    Whole octaves come first, because they keep the song's key: other semitones are added only if the octaves leave the
    vocal's median more than `MAX_OFFSET` semitones away from the voice's.

    Args:
        f0: of the vocal, in Hz; 0 = unvoiced.
        voice_f0: median f0 of what the voice usually sings, in Hz.
    """
    voiced = f0[f0 > 0]
    if not len(voiced):
        return 0.0
    distance = 12 * math.log2(voice_f0 / float(np.median(voiced)))
    octaves = 12 * round(distance / 12)
    semitones = octaves if abs(distance - octaves) <= MAX_OFFSET else round(distance)
    return float(min(max(semitones, -MAX_AUTO_SEMITONES), MAX_AUTO_SEMITONES))
