"""The steps of a cover: its parts, the new voice, the mix. See generate_cover."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from audio.disk import materialize
from audio.dsp.effects import VocalChain, apply_vocal_chain
from audio.dsp.gain import GainView
from audio.dsp.mix import Silence, fit_length, match_shapes, mix
from audio.dsp.pitch_shift import shift_pitch
from audio.dsp.resample import resample_blocks, resample_source, resampled_length
from audio.types import AudioSource, Waveform, iter_blocks
from models import Models
from models.demucs.segments import InferenceOptions
from models.demucs.stems import plan_two_stems, separate
from models.family import ModelHandle
from operations._cover_plan import VOCALS, Plan
from worker.job import Job

if TYPE_CHECKING:
    from models.demucs.engine import Separator
    from models.f0 import F0Estimator
    from models.hubert.encoder import ContentEncoder
    from models.rvc.converter import ConversionSettings, VoiceConverter
    from operations.generate_cover import Params

PART_FIELDS: Final = ("voice_audio", "instrument_audio", "backup_audio")
MEMORY_BYTES: Final = 128 << 20  # of each sound that is made; beyond, it goes to disk
LEAST_SAMPLE_RATE: Final = 44_100
LEAD_DB, BACKUP_DB, INSTRUMENTAL_DB = -4.0, -6.0, -7.0
"""Levels of the parts before the request's gains, as AICoverGen's covers are mixed."""
_HEARING: Final = 0.2  # of the stage `pitch`

Progress = Callable[[float], None]
Curve = NDArray[np.float32]
Span = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Parts:
    """The song's parts, each from the song's first sample on."""

    vocal: AudioSource
    instrumental: AudioSource
    backup: AudioSource | None = None

    @property
    def all(self) -> tuple[AudioSource, ...]:
        return (self.vocal, self.instrumental, *((self.backup,) if self.backup else ()))


@dataclass(frozen=True, slots=True)
class Sung:
    """The vocals in the new voice, dry; `backup` None where it stays as it is."""

    lead: AudioSource
    backup: AudioSource | None = None


@dataclass(frozen=True, slots=True)
class Cover:
    """One cover in the making."""

    params: Params
    plan: Plan
    job: Job
    models: Models

    def parts(self) -> Parts:
        """As the request brought them, or taken from the song, which they then sum to."""
        if self.plan.separator is None:
            return Parts(*(self.job.long_audio.get(field) for field in PART_FIELDS))  # type: ignore[arg-type]
        song = self.job.long_audio["audio"]

        def separated(engine: Separator) -> Mapping[str, AudioSource]:
            two = plan_two_stems(engine.stems, VOCALS, residual=True)
            coming = separate(engine, song, two, InferenceOptions(), self.job.progress)
            return materialize(coming, two.outputs, like=song, memory_bytes=2 * MEMORY_BYTES, stack=self.job.exit_stack)

        with self.job.stage("separate", (0.0, 0.3)):
            stems = self.models.run(self.plan.separator, separated, check=self.job.check)
        return Parts(stems[VOCALS], stems[f"no_{VOCALS}"])

    def sung(self, parts: Parts) -> Sung:
        """The vocal, and the backing vocals where that is asked for, in the new voice."""
        start = 0.3 if self.plan.separator else 0.0
        if parts.backup is None or not self.params.convert_backup:
            return Sung(self._converted(parts.vocal, (start, 0.8)))
        return Sung(self._converted(parts.vocal, (start, 0.4)), self._converted(parts.backup, (0.4, 0.8)))

    def stems(self, parts: Parts, sung: Sung) -> dict[str, AudioSource]:
        """Every part as it stands in the mix, by name: processed, at its level, all of one rate, width and length."""
        params, rate = self.params, max(parts.instrumental.sample_rate, LEAST_SAMPLE_RATE)
        with self.job.stage("key", (0.8, 0.85)):
            band = self._in_key(resample_source(parts.instrumental, rate, self.job.exit_stack))
        with self.job.stage("key", (0.85, 0.9)):
            choir = self._choir(parts, sung, rate)
        length = max(resampled_length(part.num_samples, part.sample_rate, rate) for part in parts.all)
        shape = Silence(rate, max(part.channels for part in parts.all), length)
        with self.job.stage("mix", (0.9, 0.95)):
            levels = {"vocals": GainView(self._lead(sung.lead, shape), LEAD_DB + params.main_gain)}
        if choir is not None:
            levels["backup"] = GainView(choir, BACKUP_DB + params.backup_gain)
        levels["instrumental"] = GainView(band, INSTRUMENTAL_DB + params.inst_gain)
        return dict(zip(levels, match_shapes(list(levels.values())), strict=True))

    def mix(self, stems: Mapping[str, AudioSource]) -> AudioSource:
        """The sum of the stems."""
        whole = mix(list(stems.values()))
        with self.job.stage("mix", (0.95, 1.0)):
            return self._kept(iter_blocks(whole), whole)

    def _converted(self, vocal: AudioSource, span: Span) -> AudioSource:
        """A vocal in the new voice: mono, at the voice's rate, dry, silent where the vocal is."""
        from models.rvc.preprocess import preprocess

        job, middle = self.job, span[0] + 0.3 * (span[1] - span[0])
        with job.stage("pitch", (span[0], middle)):
            heard = preprocess(vocal, _share(job.progress, 0.0, _HEARING))
            f0 = self._f0(heard.waveform, self.plan.tracker) if self.plan.tracker else None

        def sing(encoder: ContentEncoder, singer: VoiceConverter) -> AudioSource:
            length = max(resampled_length(vocal.num_samples, vocal.sample_rate, singer.sample_rate), 1)
            coming = singer.convert(heard, f0, encoder, settings=self._settings(), progress=job.progress)
            return self._kept(fit_length(coming, num_samples=length), Silence(singer.sample_rate, 1, length))

        with job.stage("convert", (middle, span[1])):
            return self.models.run(
                self.plan.encoder,
                lambda encoder: self.models.run(self.plan.voice, partial(sing, encoder), check=job.check),
                check=job.check,
            )

    def _settings(self) -> ConversionSettings:
        from models.rvc.converter import ConversionSettings

        params = self.params
        return ConversionSettings(
            semitones=0.0,  # the curve is transposed already, so that autotune finds the notes that are sung
            index_rate=params.index_rate if self.plan.has_index else 0.0,
            protect=params.protect,
            rms_mix_rate=params.rms_mix_rate,
            fill_gaps=params.f0_fill_gaps,
            formant_shift=params.formant_shift,
            seed=params.seed,
            retrieval=params.retrieval,
        )

    def _f0(self, waveform: Curve, method: ModelHandle[F0Estimator]) -> Curve:
        """The pitch to sing, in Hz at 100 frames a second."""
        from models.f0.contour import autotune, transpose

        params, progress = self.params, _share(self.job.progress, _HEARING, 1.0)
        hop_length, filter_radius = params.crepe_hop_length, params.filter_radius

        def track(tracker: F0Estimator) -> Curve:
            return tracker.estimate(waveform, hop_length=hop_length, filter_radius=filter_radius, progress=progress)

        f0 = self.models.run(method, track, check=self.job.check)
        f0 = transpose(f0, params.pitch_adjust + params.pitch_change_all)
        return autotune(f0, strength=params.autotune, key=params.autotune_key) if params.autotune else f0

    def _choir(self, parts: Parts, sung: Sung, rate: int) -> AudioSource | None:
        """The backing vocals in the cover's key, which they are in already where they were converted."""
        if sung.backup is not None:
            return resample_source(sung.backup, rate, self.job.exit_stack)
        return None if parts.backup is None else self._in_key(resample_source(parts.backup, rate, self.job.exit_stack))

    def _in_key(self, sound: AudioSource) -> AudioSource:
        semitones = self.params.pitch_change_all
        return self._kept(shift_pitch(sound, semitones, self.job.progress), sound) if semitones else sound

    def _lead(self, dry: AudioSource, shape: AudioSource) -> AudioSource:
        """The converted vocal through the chain, as wide and as long as the mix."""
        params, rate = self.params, shape.sample_rate
        length = resampled_length(dry.num_samples, dry.sample_rate, rate)
        coming = resample_blocks(iter_blocks(dry), dry.sample_rate, rate, num_samples=dry.num_samples, length=length)
        chain = VocalChain(params.reverb_rm_size, params.reverb_damping, params.reverb_wet, params.reverb_dry)
        made = apply_vocal_chain(
            coming, chain, sample_rate=rate, channels=shape.channels, num_samples=shape.num_samples
        )
        return self._kept(made, shape)

    def _kept(self, coming: Iterable[Waveform], like: AudioSource) -> AudioSource:
        parts = ({"sound": block} for block in self._checked(coming))
        return materialize(parts, ("sound",), like=like, memory_bytes=MEMORY_BYTES, stack=self.job.exit_stack)["sound"]

    def _checked(self, coming: Iterable[Waveform]) -> Iterable[Waveform]:
        for block in coming:
            self.job.check()
            yield block


def _share(progress: Progress, start: float, end: float) -> Progress:
    """A part of a stage's progress."""
    return lambda fraction: progress(start + (end - start) * fraction)
