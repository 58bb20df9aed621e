"""The pipeline of a cover: separate the song, convert the vocals, mix."""

from __future__ import annotations

from dataclasses import replace

from models import Models
from operations.generate_cover.conversion import convert_vocal
from operations.generate_cover.mixing import Parts, mix_stems, process_parts
from operations.generate_cover.params import PART_FIELDS
from operations.generate_cover.plan import VOCALS, Plan
from operations.separation import SeparationPlan, separate_stems
from worker.job import Job
from worker.reply import Output, Reply

SEPARATED = 0.3  # of the progress, if the song is separated
CONVERTED = 0.8
MEMORY_BYTES = 256 << 20  # of both separated parts; beyond, they are stored on disk


def run(plan: Plan, job: Job, models: Models) -> Reply:
    for warning in plan.warnings:
        job.warn(warning)
    start = 0.0
    if plan.separation is None:
        vocals, instrumental, backup = (job.audio.get(field) for field in PART_FIELDS)
        assert vocals is not None and instrumental is not None, "the parameters require both"
        parts = Parts(vocals, instrumental, backup)
    else:
        parts, start = _separate_song(plan.separation, job, models), SEPARATED
    stems = process_parts(parts, _convert_parts(parts, plan, start, job, models), plan.mix, job)
    voice = plan.conversion.voice.name
    return Reply(
        fields={"model_used": voice},
        outputs=[Output(mix_stems(stems, job), f"cover_{voice}")],
        stems={name: Output(stem, name) for name, stem in stems.items()} if plan.return_stems else {},
        parameters=plan.parameters,
    )


def _separate_song(plan: SeparationPlan, job: Job, models: Models) -> Parts:
    with job.stage("separate", (0.0, SEPARATED)):
        stems = separate_stems(plan, job.audio["audio"], job=job, models=models, memory_bytes=MEMORY_BYTES)
    return Parts(stems[VOCALS], stems[f"no_{VOCALS}"])


def _convert_parts(parts: Parts, plan: Plan, start: float, job: Job, models: Models) -> Parts:
    """The parts with the vocals, and the backing vocals if the plan says so, in the new voice."""
    if parts.backup is None or not plan.convert_backup:
        lead = convert_vocal(parts.vocals, plan.conversion, progress_range=(start, CONVERTED), job=job, models=models)
        return replace(parts, vocals=lead)
    middle = (start + CONVERTED) / 2
    lead = convert_vocal(parts.vocals, plan.conversion, progress_range=(start, middle), job=job, models=models)
    backup = convert_vocal(parts.backup, plan.conversion, progress_range=(middle, CONVERTED), job=job, models=models)
    return replace(parts, vocals=lead, backup=backup, backup_is_converted=True)
