"""Splits a song into instrumental, backing vocals, dry lead vocal and reverb, which sum to the song.

Each part is what one model takes out, or what it leaves over; gates move what is a model's error back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audio.disk import materialize_one
from audio.dsp.mix import MixView
from audio.types import AudioSource
from models import Models
from operations.generate_cover.gates import (
    MIN_BACKING_DB,
    MIN_REVERB_DB,
    DifferenceView,
    apply_gains,
    compare_levels,
    find_active,
    limit_loss,
    measure_power,
)
from operations.generate_cover.lead_share import extract_lead
from operations.generate_cover.routes import RoutePlan, SongPlan, SplitStep
from operations.separation import separate_stems
from worker.job import Job

MEMORY_BYTES = 256 << 20  # of all parts that one model computes; beyond, they are stored on disk
MAX_CPU_S = 60.0
"""The longest audio that is split on a CPU unless a request demands it."""


@dataclass(frozen=True, slots=True)
class SplitReport:
    """What was done to the vocals, and what was measured.

    Args:
        route: `chain`: one model after another; `heads`: one model estimates vocals, lead and backing vocals together.
        karaoke_model, dereverb_model: that ran; None: that step was left out.
        backing_db: level of the backing vocals relative to the lead in dB; None if nothing was split.
        reverb_db: level of the reverb relative to the lead in dB; None if none was removed.
        backing_skipped: whether the backing vocals were too quiet to be any, so that the lead is all of the vocals.
        reverb_skipped: whether the reverb was too quiet to be any, so that the lead stays as it is.
    """

    route: str
    karaoke_model: str | None = None
    dereverb_model: str | None = None
    backing_db: float | None = None
    reverb_db: float | None = None
    backing_skipped: bool = False
    reverb_skipped: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "route": self.route,
            "karaoke_model": self.karaoke_model,
            "dereverb_model": self.dereverb_model,
            "backing_db": None if self.backing_db is None else round(self.backing_db, 1),
            "reverb_db": None if self.reverb_db is None else round(self.reverb_db, 1),
            "backing_skipped": self.backing_skipped,
            "reverb_skipped": self.reverb_skipped,
        }


@dataclass(frozen=True, slots=True)
class SplitVocals:
    """The parts of the vocals, of one shape. They sum to the vocals.

    Args:
        lead: what is converted: the lead vocal, dry if its reverb was removed.
        lead_source: the lead vocal with its reverb.
        backing: None if the vocals were not split, or have no backing vocals.
        reverb: None if none was removed.
        report: None if nothing was done.
    """

    lead: AudioSource
    lead_source: AudioSource
    backing: AudioSource | None = None
    reverb: AudioSource | None = None
    report: SplitReport | None = None


def separate_song(
    plan: SongPlan, song: AudioSource, *, progress_range: tuple[float, float], job: Job, models: Models
) -> tuple[AudioSource, AudioSource, AudioSource | None]:
    """The vocals, the instrumental, and with `plan.heads` the lead vocal."""
    with job.stage("separate", progress_range):
        stems = separate_stems(plan.separation, song, job=job, models=models, memory_bytes=MEMORY_BYTES)
        vocals = stems[plan.vocals]
        if plan.heads is None:
            return vocals, stems[f"no_{plan.vocals}"], None
        lead_head, backing_head = (stems[name] for name in plan.heads)
        blocks = extract_lead(vocals, lead_head, backing_head, job.check)
        lead = materialize_one(blocks, like=vocals, memory_bytes=MEMORY_BYTES, stack=job.exit_stack)
        return vocals, DifferenceView(song, vocals), lead


def split_vocals(  # noqa: PLR0913  (all but two by keyword)
    plan: RoutePlan,
    vocals: AudioSource,
    *,
    lead_estimate: AudioSource | None,
    progress_range: tuple[float, float],
    job: Job,
    models: Models,
) -> SplitVocals:
    """Splits vocals into lead, backing vocals and reverb, as far as the plan says.

    Args:
        vocals: of any sample rate and length.
        lead_estimate: the lead vocal of a model that separated the song with heads.
    """
    lead_step, dry_step = (_find_step_to_run(step, vocals, job, models) for step in (plan.lead, plan.dry))
    if lead_step is None and lead_estimate is None and dry_step is None:
        return SplitVocals(vocals, vocals)
    active = find_active(measure_power(vocals, job.check))
    split = SplitVocals(vocals, vocals, report=SplitReport("chain" if lead_estimate is None else "heads"))
    start, end = progress_range
    middle = (start + end) / 2 if lead_step is not None and dry_step is not None else end if lead_step else start
    if lead_step is not None or lead_estimate is not None:
        with job.stage("split", (start, middle)):
            if lead_step is not None:
                lead_estimate = _run_step(lead_step, vocals, active, job, models)
            assert lead_estimate is not None, "a step or a head gives the lead vocal"
            name = plan.song.separation.model.name if plan.song and lead_step is None else None
            split = _split_lead(split, lead_estimate, lead_step.model if lead_step else name, active, job)
    if dry_step is not None:
        with job.stage("dereverb", (middle, end)):
            split = _remove_reverb(split, dry_step, active, job, models)
    return split


def _find_step_to_run(step: SplitStep | None, vocals: AudioSource, job: Job, models: Models) -> SplitStep | None:
    """The step, unless it is automatic and would take long without a GPU."""
    if step is None or not step.is_automatic or not models.device.startswith("cpu") or vocals.duration <= MAX_CPU_S:
        return step
    job.warn(
        "The vocals were converted with their backing vocals or reverb, because without a GPU each step of the split"
        " takes several times the length of the song. Send 'lead_split': 'on' or 'dereverb': 'on' to have it anyway."
    )
    return None


def _run_step(step: SplitStep, source: AudioSource, active: NDArray[np.bool_], job: Job, models: Models) -> AudioSource:
    """The step's stem of `source`; of silent windows the model gets silence, of which it need not make anything."""
    gains = active.astype(np.float64)
    if not active.any():
        return apply_gains(source, gains)
    separated = separate_stems(
        step.separation, apply_gains(source, gains), job=job, models=models, memory_bytes=MEMORY_BYTES
    )
    return separated[step.stem]


def _split_lead(
    split: SplitVocals, estimate: AudioSource, model: str | None, active: NDArray[np.bool_], job: Job
) -> SplitVocals:
    vocals, report = split.lead, split.report
    assert report is not None, "a split has a report"
    lead = apply_gains(estimate, active.astype(np.float64))
    backing = DifferenceView(vocals, lead)
    lead_power, backing_power = measure_power(lead, job.check), measure_power(backing, job.check)
    level = compare_levels(backing_power, lead_power, active)
    report = replace(report, karaoke_model=model, backing_db=level)
    if level is None or level < MIN_BACKING_DB:
        return replace(split, report=replace(report, backing_skipped=True))
    if np.mean(lead_power[active] < backing_power[active]) > 0.5:
        job.warn(
            "In most of the song the backing vocals are louder than the lead vocal that was converted: they seem to"
            " carry the lead. Send 'convert_backup': true, another 'karaoke_model', or 'lead_split': 'off'."
        )
    return replace(split, lead=lead, lead_source=lead, backing=backing, report=report)


def _remove_reverb(
    split: SplitVocals, step: SplitStep, active: NDArray[np.bool_], job: Job, models: Models
) -> SplitVocals:
    lead, report = split.lead, split.report
    assert report is not None, "a split has a report"
    dry = apply_gains(_run_step(step, lead, active, job, models), active.astype(np.float64))
    rest = DifferenceView(lead, dry)
    lead_power, dry_power, rest_power = (measure_power(one, job.check) for one in (lead, dry, rest))
    level = compare_levels(rest_power, lead_power, active)
    report = replace(report, dereverb_model=step.model, reverb_db=level)
    if level is None or level < MIN_REVERB_DB:
        return replace(split, report=replace(report, reverb_skipped=True))
    share = np.where(active, limit_loss(lead_power, dry_power, rest_power), 0.0)
    if share.any():
        dry = MixView([dry, apply_gains(rest, share)])
    return replace(split, lead=dry, reverb=DifferenceView(lead, dry), report=report)
