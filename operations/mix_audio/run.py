"""Mixes the tracks: each at its tempo and key, all at one sample rate, placed, summed, and through the master chain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from audio.dsp.master import PRESETS, Effect, read_effects
from errors import AudioError, ErrorCode
from models import Models
from operations.mix_audio.params import Params, Track
from worker.job import Job
from worker.reply import Output, Reply

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from audio.dsp.track import Placement
    from audio.types import AudioSource, Waveform

MEMORY_BYTES = 256 << 20  # of the mix, and of all stretched tracks together; beyond, they are on disk
SAMPLE_BYTES = 4
STRETCHED = 0.6  # of the progress


@dataclass(frozen=True, slots=True)
class Plan:
    """What to mix."""

    params: Params
    master: Sequence[Effect]


def plan(params: Params, models: Models) -> Plan:
    """The effects of the request."""
    if params.master is None:
        return Plan(params, ())
    return Plan(params, PRESETS[params.master] if isinstance(params.master, str) else read_effects(params.master))


def run(plan: Plan, job: Job, models: Models) -> Reply:
    params, tracks = plan.params, plan.params.tracks
    sources = _prepare_sources(tracks, [job.audio[f"tracks.{index}.audio"] for index in range(len(tracks))], job)
    rate = sources[0].sample_rate
    placements = [_place(track, rate) for track in tracks]
    ends = [placement.start + source.num_samples for placement, source in zip(placements, sources, strict=True)]
    num_samples = max(ends) + round(params.tail * rate)
    channels = 2 if any(source.channels == 2 for source in sources) or any(track.pan for track in tracks) else 1
    _check_length(num_samples, rate, channels, job)
    with job.stage("mix", (STRETCHED, 0.95)):
        mixed = _mix(plan, sources, placements, channels=channels, num_samples=num_samples, job=job)
    listed = [
        {"name": name, "start": round(placement.start / rate, 6), "end": round(end / rate, 6)}
        for name, placement, end in zip(params.track_names(), placements, ends, strict=True)
    ]
    return Reply(fields={"tracks": listed}, outputs=[Output(mixed, "mix")])


def _prepare_sources(tracks: Sequence[Track], sources: Sequence[AudioSource], job: Job) -> list[AudioSource]:
    """Every track at its tempo and key, all at the highest sample rate among them."""
    from audio.disk import materialize_one
    from audio.dsp.mix import Silence
    from audio.dsp.pitch_shift import stretch_time, stretched_length
    from audio.dsp.resample import resample_source

    rate = max(source.sample_rate for source in sources)
    prepared = []
    for index, (track, source) in enumerate(zip(tracks, sources, strict=True)):
        progress_range = (STRETCHED * index / len(tracks), STRETCHED * (index + 1) / len(tracks))
        with job.stage("stretch", progress_range):
            if track.semitones or track.time_stretch != 1.0:
                length = stretched_length(source.num_samples, track.time_stretch)
                source = materialize_one(
                    stretch_time(source, track.time_stretch, track.semitones, job.progress),
                    like=Silence(source.sample_rate, source.channels, length),
                    memory_bytes=MEMORY_BYTES // len(tracks),
                    stack=job.exit_stack,
                )
            job.check()
            prepared.append(resample_source(source, rate, job.exit_stack))
    return prepared


def _place(track: Track, rate: int) -> Placement:
    from audio.dsp.track import Placement

    return Placement(
        start=round(track.start_s * rate),
        gain_db=track.gain_db,
        pan=track.pan,
        fade_in=round(track.fade_in * rate),
        fade_out=round(track.fade_out * rate),
    )


def _check_length(num_samples: int, rate: int, channels: int, job: Job) -> None:
    """Refuses a mix that is longer than audio may be on this worker."""
    seconds, settings = num_samples / rate, job.settings
    if seconds > settings.max_input_seconds or num_samples * channels * SAMPLE_BYTES > settings.max_decoded_bytes:
        raise AudioError(
            f"The mix would be {seconds:.0f} s long, and at most {settings.max_input_seconds:g} s and "
            f"{settings.max_decoded_bytes} bytes are mixed. Start the tracks earlier, or send shorter ones.",
            code=ErrorCode.AUDIO_TOO_LONG,
            details={"seconds": round(seconds, 3), "max_seconds": settings.max_input_seconds},
        )


def _mix(  # noqa: PLR0913  (options by keyword)
    plan: Plan,
    sources: Sequence[AudioSource],
    placements: Sequence[Placement],
    *,
    channels: int,
    num_samples: int,
    job: Job,
) -> AudioSource:
    from audio.disk import materialize_one
    from audio.dsp.master import apply_master
    from audio.dsp.mix import MixView, Silence
    from audio.dsp.track import TrackView, follow_level

    def view(index: int, ducking: NDArray[np.float32] | None = None) -> AudioSource:
        return TrackView(sources[index], placements[index], channels=channels, num_samples=num_samples, ducking=ducking)

    views = []
    for index, track in enumerate(plan.params.tracks):
        ducking = None
        if (key := plan.params.find_duck_source(index)) is not None:
            ducking = follow_level(
                view(key),  # before its own ducking
                depth_db=track.duck_db,
                threshold_db=track.duck_threshold_db,
                attack_s=track.duck_attack,
                release_s=track.duck_release,
                check=job.check,
            )
        views.append(view(index, ducking))
    rate = sources[0].sample_rate
    blocks = apply_master(_report(MixView(views), job), plan.master, sample_rate=rate, num_samples=num_samples)
    shape = Silence(rate, channels, num_samples)
    return materialize_one(blocks, like=shape, memory_bytes=MEMORY_BYTES, stack=job.exit_stack)


def _report(source: AudioSource, job: Job) -> Iterator[Waveform]:
    """The blocks of `source`, with the progress of the job's stage."""
    from audio.types import iter_blocks

    done = 0
    for block in iter_blocks(source):
        job.progress(done / source.num_samples)
        yield block
        done += block.shape[1]
    job.progress(1.0)
