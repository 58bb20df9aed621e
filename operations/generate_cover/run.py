"""The pipeline of a cover: separate the song, split its vocals, convert the lead, mix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from audio.types import AudioSource
from models import Models
from operations.generate_cover.conversion import F0Plan, convert_vocal
from operations.generate_cover.mixing import Parts, mix_stems, process_parts
from operations.generate_cover.params import PART_FIELDS
from operations.generate_cover.plan import Plan
from operations.generate_cover.split import SplitVocals, separate_song, split_vocals
from operations.listening import AUTO, listen
from worker.job import Job
from worker.reply import Output, Reply

CONVERTED = 0.8  # of the progress
ALIASES = {"lead": "vocals", "backing": "backup"}


def run(plan: Plan, job: Job, models: Models) -> Reply:
    for warning in plan.warnings:
        job.warn(warning)
    chosen: dict[str, Any] = {}
    if plan.conversion.f0 is not None and plan.conversion.f0.autotune_key == AUTO and plan.conversion.f0.autotune:
        chosen["autotune_key"] = _find_key(plan.conversion.f0, job)
        plan = plan.with_autotune_key(chosen["autotune_key"])
    parts, split, start = _prepare_parts(plan, job, models)
    converted = _convert_parts(parts, plan, start, job, models)
    stems = process_parts(parts, converted, plan.mix, job)
    voice = plan.conversion.voice.name
    if plan.conversion.f0 is not None and plan.conversion.f0.pitch_adjust is None:
        chosen["pitch_adjust"] = round(converted.vocals_semitones)
        if chosen["pitch_adjust"] % 12:
            job.warn(
                f"'pitch_adjust' was chosen as {chosen['pitch_adjust']} semitones, which is no whole octave, so the"
                " vocals are in another key than the instrumental. 'pitch_change_all' transposes both."
            )
    outputs: dict[str, AudioSource] = {**stems, **_list_sources(split)} if plan.return_stems else {}
    return Reply(
        fields={"model_used": voice, "split": split.report.to_json() if split.report else None},
        outputs=[Output(mix_stems(stems, job), f"cover_{voice}")],
        stems={name: Output(stem, name) for name, stem in outputs.items()},
        parameters={**plan.parameters, **chosen},
        aliases={alias: name for alias, name in ALIASES.items() if split.report and name in outputs},
    )


def _find_key(f0: F0Plan, job: Job) -> str:
    """The key of the cover, from the song or the instrumental; `chromatic`, with a warning, if none is heard."""
    field = "audio" if "audio" in job.audio else "instrument_audio"
    keys = listen(job.audio[field], job).keys
    if keys is None:
        job.warn(f"No key was heard in '{field}', so 'autotune_key' is chromatic.")
        return "chromatic"
    return replace(keys[0], tonic=(keys[0].tonic + round(f0.key_change)) % 12).name


def _prepare_parts(plan: Plan, job: Job, models: Models) -> tuple[Parts, SplitVocals, float]:
    """The parts before the conversion, how the vocals were split, and how much of the job's progress that took."""
    route = plan.route
    steps = [route.song is not None, route.lead is not None, route.dry is not None]
    share = {0: 0.0, 1: 0.3, 2: 0.4, 3: 0.5}[sum(steps)]
    separated = share / sum(steps) if route.song else 0.0
    if route.song is None:
        vocals, instrumental, backup = (job.audio.get(field) for field in PART_FIELDS)
        assert vocals is not None and instrumental is not None, "the parameters require both"
        lead = None
    else:
        vocals, instrumental, lead = separate_song(
            route.song, job.audio["audio"], progress_range=(0.0, separated), job=job, models=models
        )
        backup = None
    split = split_vocals(route, vocals, lead_estimate=lead, progress_range=(separated, share), job=job, models=models)
    if plan.backup is not None and backup is None and split.backing is None:
        job.warn("'convert_backup' has no effect because the song seems to have no backing vocals.")
    return Parts(split.lead, instrumental, backup or split.backing, reverb=split.reverb), split, share


def _convert_parts(parts: Parts, plan: Plan, start: float, job: Job, models: Models) -> Parts:
    """The parts with the vocals, and the backing vocals if the plan says so, in the new voice."""
    converts_backup = parts.backup is not None and plan.backup is not None
    middle = (start + CONVERTED) / 2 if converts_backup else CONVERTED
    lead = convert_vocal(parts.vocals, plan.conversion, progress_range=(start, middle), job=job, models=models)
    result = replace(parts, vocals=lead.audio, vocals_semitones=lead.pitch_adjust)
    if parts.backup is None or plan.backup is None:
        return result
    conversion = plan.backup
    if conversion.f0 is not None and conversion.f0.pitch_adjust is None:  # as the lead, which was measured
        conversion = replace(conversion, f0=replace(conversion.f0, pitch_adjust=lead.pitch_adjust))
    backup = convert_vocal(parts.backup, conversion, progress_range=(middle, CONVERTED), job=job, models=models)
    return replace(result, backup=backup.audio, backup_is_converted=True)


def _list_sources(split: SplitVocals) -> Mapping[str, AudioSource]:
    """What the vocals were made of, as it is in the song."""
    if split.report is None:
        return {}
    sources = {"lead_source": split.lead_source, "lead_dry": split.lead, "reverb": split.reverb}
    return {name: source for name, source in sources.items() if source is not None}
