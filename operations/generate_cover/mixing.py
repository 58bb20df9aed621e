"""The mix of a cover: every part in the cover's key, processed, at its level, in one shape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from audio.disk import materialize_one
from audio.dsp.effects import VocalChain, apply_vocal_chain
from audio.dsp.gain import GainView, to_db
from audio.dsp.mix import Silence, match_shapes, mix
from audio.dsp.pitch_shift import shift_pitch
from audio.dsp.resample import resample_blocks, resample_source, resampled_length
from audio.types import AudioSource, Waveform, iter_blocks
from worker.job import Job

MEMORY_BYTES = 128 << 20  # of each source that is computed; beyond, it is stored on disk
MIN_SAMPLE_RATE = 44_100
LEAD_DB, BACKUP_DB, INSTRUMENTAL_DB = -4.0, -6.0, -7.0
"""Levels before the request's gains, as AICoverGen mixes its covers."""


@dataclass(frozen=True, slots=True)
class MixPlan:
    """How the parts are mixed.

    Args:
        semitones: by which the parts that are not converted are transposed; converted ones are transposed already.
        chain: effects on the lead vocals.
        lead_gain_db, backup_gain_db, instrumental_gain_db: added to the usual levels.
        reverb_return: factor of the removed reverb, 0..1, at the lead's level.
    """

    semitones: float
    chain: VocalChain
    lead_gain_db: float
    backup_gain_db: float
    instrumental_gain_db: float
    reverb_return: float = 0.0


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a song, each from the song's first sample on.

    Args:
        backup_is_converted: whether `backup` is in the new voice, and so in the cover's key.
        reverb: that was removed from the vocals.
        vocals_semitones: by which the vocals were transposed in addition to the song's key.
    """

    vocals: AudioSource
    instrumental: AudioSource
    backup: AudioSource | None = None
    backup_is_converted: bool = False
    reverb: AudioSource | None = None
    vocals_semitones: float = 0.0


def process_parts(original: Parts, parts: Parts, plan: MixPlan, job: Job) -> dict[str, AudioSource]:
    """The stems of the mix by name: one sample rate, number of channels and length, each at its level.

    Args:
        original: before the conversion; its longest part sets the length, its widest the number of channels.
        parts: with the converted vocals.
    """
    rate = max(original.instrumental.sample_rate, MIN_SAMPLE_RATE)
    sources = [part for part in (original.vocals, original.instrumental, original.backup) if part is not None]
    shape = Silence(
        rate,
        max(part.channels for part in sources),
        max(resampled_length(part.num_samples, part.sample_rate, rate) for part in sources),
    )
    with job.stage("key", (0.8, 0.85)):
        instrumental = _transpose(resample_source(parts.instrumental, rate, job.exit_stack), plan.semitones, job)
    backup = None
    if parts.backup is not None:
        with job.stage("key", (0.85, 0.9)):
            backup = resample_source(parts.backup, rate, job.exit_stack)
            backup = backup if parts.backup_is_converted else _transpose(backup, plan.semitones, job)
    reverb = None
    if parts.reverb is not None and plan.reverb_return > 0:
        semitones = plan.semitones + parts.vocals_semitones
        with job.stage("key", (0.85, 0.9)):
            reverb = _transpose(resample_source(parts.reverb, rate, job.exit_stack), semitones, job)
    with job.stage("mix", (0.9, 0.95)):
        lead = _apply_chain(parts.vocals, plan.chain, shape, job)
    stems: dict[str, AudioSource] = {"vocals": GainView(lead, LEAD_DB + plan.lead_gain_db)}
    if backup is not None:
        stems["backup"] = GainView(backup, BACKUP_DB + plan.backup_gain_db)
    if reverb is not None:
        gain_db = LEAD_DB + plan.lead_gain_db + to_db(plan.reverb_return)
        stems["reverb_return"] = GainView(reverb, gain_db)
    stems["instrumental"] = GainView(instrumental, INSTRUMENTAL_DB + plan.instrumental_gain_db)
    return dict(zip(stems, match_shapes(list(stems.values())), strict=True))


def mix_stems(stems: Mapping[str, AudioSource], job: Job) -> AudioSource:
    """The sum of the stems."""
    total = mix(list(stems.values()))
    with job.stage("mix", (0.95, 1.0)):
        return _materialize(iter_blocks(total), total, job)


def _transpose(source: AudioSource, semitones: float, job: Job) -> AudioSource:
    return _materialize(shift_pitch(source, semitones, job.progress), source, job) if semitones else source


def _apply_chain(vocals: AudioSource, chain: VocalChain, shape: AudioSource, job: Job) -> AudioSource:
    """The vocals with effects, in the shape of the mix: the reverb goes on after the vocals end."""
    rate = shape.sample_rate
    length = resampled_length(vocals.num_samples, vocals.sample_rate, rate)
    blocks = resample_blocks(
        iter_blocks(vocals), vocals.sample_rate, rate, num_samples=vocals.num_samples, length=length
    )
    processed = apply_vocal_chain(
        blocks, chain, sample_rate=rate, channels=shape.channels, num_samples=shape.num_samples
    )
    return _materialize(processed, shape, job)


def _materialize(blocks: Iterable[Waveform], like: AudioSource, job: Job) -> AudioSource:
    def check_each() -> Iterable[Waveform]:
        for block in blocks:
            job.check()
            yield block

    return materialize_one(check_each(), like=like, memory_bytes=MEMORY_BYTES, stack=job.exit_stack)
