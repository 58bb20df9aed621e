"""Converts a vocal to another voice: its f0, its content features, then the voice's own network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from audio.disk import materialize_one
from audio.dsp.mix import Silence, fit_length
from audio.dsp.resample import resampled_length
from audio.types import AudioSource
from models import Models
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
PITCH_SHARE = 0.3  # of the progress
PREPROCESS_SHARE = 0.2  # of the progress of the stage `pitch`


@dataclass(frozen=True, slots=True)
class F0Plan:
    """How the f0 of a vocal is estimated and changed.

    Args:
        method: from `models.families.f0.resolve`.
        hop_length: samples at 16 kHz, for mangio-crepe.
        filter_radius: for harvest.
        semitones: by which f0 is transposed.
        autotune: 0..1, applied after the transposition, so that the converted vocal is in `autotune_key`.
    """

    method: ModelHandle[F0Estimator]
    hop_length: int
    filter_radius: int
    semitones: float
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


def convert_vocal(
    vocal: AudioSource, plan: ConversionPlan, *, progress_range: tuple[float, float], job: Job, models: Models
) -> AudioSource:
    """Converts a vocal.

    Args:
        vocal: of any sample rate, length and number of channels.
        progress_range: of the job's progress.

    Returns:
        Mono, at the voice's sample rate, as long as the vocal, without reverb; silent when the vocal is silent.
    """
    from models.rvc.preprocess import preprocess

    start, end = progress_range
    middle = start + PITCH_SHARE * (end - start)
    with job.stage("pitch", (start, middle)):
        preprocessed = preprocess(vocal, sub_progress(job.progress, 0.0, PREPROCESS_SHARE))
        f0 = None
        if plan.f0 is not None:
            progress = sub_progress(job.progress, PREPROCESS_SHARE, 1.0)
            f0 = _estimate_f0(preprocessed.waveform, plan.f0, progress=progress, job=job, models=models)

    def convert(encoder: ContentEncoder, voice: VoiceConverter) -> AudioSource:
        length = max(resampled_length(vocal.num_samples, vocal.sample_rate, voice.sample_rate), 1)
        blocks = voice.convert(preprocessed, f0, encoder, settings=plan.settings(), progress=job.progress)
        return materialize_one(
            fit_length(blocks, num_samples=length),
            like=Silence(voice.sample_rate, 1, length),
            memory_bytes=MEMORY_BYTES,
            stack=job.exit_stack,
        )

    with job.stage("convert", (middle, end)):
        return models.run_pair(plan.encoder, plan.voice, convert, observer=job)


def _estimate_f0(waveform: Waveform, plan: F0Plan, *, progress: Progress, job: Job, models: Models) -> F0Contour:
    """`[T]` mono at 16 kHz -> `[T // 160]` in Hz, transposed and tuned; 0 = unvoiced."""
    from models.f0.contour import autotune, transpose

    def estimate(estimator: F0Estimator) -> F0Contour:
        return estimator.estimate(
            waveform, hop_length=plan.hop_length, filter_radius=plan.filter_radius, progress=progress
        )

    f0 = transpose(models.run(plan.method, estimate, observer=job), plan.semitones)
    return autotune(f0, strength=plan.autotune, key=plan.autotune_key) if plan.autotune else f0
