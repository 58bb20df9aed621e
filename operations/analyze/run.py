"""Runs `analyze`: each part of the reply in a stage of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from audio.analysis.observed import ObservedAudio
from audio.types import AudioSource
from models import Models
from models.family import ModelHandle
from operations.analyze.plan import NO_MODEL, Plan
from worker.job import Job
from worker.reply import FileOutput, Reply

if TYPE_CHECKING:
    from audio.analysis.key import Key
    from audio.analysis.music import Music
    from audio.analysis.rhythm import TrackedBeats
    from models.beat_this.tracker import BeatTracker

# Stage -> about how long it takes relative to the others.
COSTS = {"beats": 20, "music": 4, "loudness": 3, "silence": 1, "spectral": 2, "clipping": 1, "pitch": 6, "pictures": 4}


def run(plan: Plan, job: Job, models: Models) -> Reply:
    source, features = job.audio["audio"], plan.features
    wanted = ["beats"] * (plan.beats is not None) + ["music"] * plan.needs_music
    wanted += [name for name in COSTS if name in features and name != "beats"] + ["pictures"] * plan.params.picture
    ranges = _share_progress(wanted)
    fields: dict[str, Any] = {
        "duration": round(source.duration, 6),
        "sample_rate": source.sample_rate,
        "channels": source.channels,
    }
    music: Music | None = None
    if plan.needs_music:
        from audio.analysis.music import analyze_music

        tracked = _track_beats(plan.beats, source, ranges["beats"], job, models) if plan.beats is not None else None
        with job.stage("music", ranges["music"]):
            music = analyze_music(source, job.progress, tracked=tracked)
        fields |= {name: value for name, value in describe_music(music).items() if name in features}
    measurements: dict[str, Callable[[AudioSource], Any]] = {
        "loudness": measure_loudness,
        "silence": partial(
            list_silence, threshold_db=plan.params.silence_threshold_db, min_silence=plan.params.min_silence
        ),
        "spectral": measure_spectrum,
        "clipping": count_clipping,
    }
    for name, measure in measurements.items():
        if name in features:
            with job.stage(name, ranges[name]):
                fields[name] = measure(ObservedAudio(source, job.progress))
    if plan.f0 is not None:
        from operations.analyze.pitch import measure_pitch

        with job.stage("pitch", ranges["pitch"]):
            fields["pitch"] = measure_pitch(source, plan.f0, job=job, models=models)
    files = {}
    if plan.params.picture and music is not None:
        with job.stage("pictures", ranges["pictures"]):
            files = draw_pictures(ObservedAudio(source, job.progress), music)
    parameters = {
        "features": sorted(features),
        "beat_model": (plan.beats.name if plan.beats is not None else NO_MODEL) if plan.needs_music else None,
    }
    return Reply(fields=fields, files=files, parameters=parameters)


def _track_beats(
    model: ModelHandle[BeatTracker], source: AudioSource, progress_range: tuple[float, float], job: Job, models: Models
) -> TrackedBeats | None:
    """The beats that a model finds; None for audio that is too short to have any."""
    from audio.analysis.music import MIN_DURATION_S

    if source.duration < MIN_DURATION_S:
        return None
    with job.stage("beats", progress_range):
        return models.run(model, lambda tracker: tracker.track(source, job.progress), observer=job)


def _share_progress(stages: Iterable[str]) -> dict[str, tuple[float, float]]:
    """The range of each stage in the progress of the job."""
    total, done, ranges = sum(COSTS[name] for name in stages), 0, {}
    for name in stages:
        ranges[name] = (done / total, (done + COSTS[name]) / total)
        done += COSTS[name]
    return ranges


def describe_music(music: Music) -> dict[str, Any]:
    """Every feature of `MUSIC_FEATURES` as the reply has it; null for what was not found."""
    from audio.analysis.key import name_chord

    tempo, bars = music.tempo, music.bars
    key, runner_up = music.keys or (None, None)
    return {
        "tempo": None
        if tempo is None
        else {
            "bpm": round(tempo.bpm, 2),
            "confidence": round(tempo.confidence, 3),
            "alternative": {
                "bpm": round(tempo.alternative, 2),
                "confidence": round(tempo.alternative_confidence, 3),
            },
            "range": [round(tempo.lowest, 1), round(tempo.highest, 1)],
        },
        "beats": [round(float(time), 3) for time in music.beats],
        "downbeats": [round(float(time), 3) for time in music.downbeats],
        "time_signature": None if bars is None else f"{bars.beats_per_bar}/4",
        "key": None
        if key is None or runner_up is None
        else {
            **_describe_key(key),
            "runner_up": _describe_key(runner_up),
            "tuning_hz": round(440 * 2 ** (music.tuning / 12), 1),
        },
        "chords": [
            {"start": round(chord.start, 3), "end": round(chord.end, 3), "name": name_chord(chord, key)}
            for chord in music.chords
        ],
    }


def _describe_key(key: Key) -> dict[str, Any]:
    return {"name": key.name, "tonic": key.tonic_name, "mode": key.mode, "confidence": round(key.confidence, 3)}


def measure_loudness(source: AudioSource) -> dict[str, float | None]:
    """Levels of the whole audio; null for silence, whose level is minus infinity."""
    import numpy as np

    from audio.dsp.loudness import measure_loudness as measure
    from audio.dsp.loudness import true_peak_db
    from audio.types import iter_blocks

    loudness = measure(source)
    energy = sum(float(np.square(block, dtype=np.float64).sum()) for block in iter_blocks(source))
    rms = math.sqrt(energy / (source.num_samples * source.channels))
    return {
        "integrated_lufs": _round_level(loudness.integrated),
        "range_lu": round(loudness.range, 2),
        "true_peak_dbtp": _round_level(true_peak_db(source)),
        "sample_peak_dbfs": _round_level(_to_db(source.peak)),
        "rms_dbfs": _round_level(_to_db(rms)),
    }


def _to_db(amplitude: float) -> float:
    return 20 * math.log10(amplitude) if amplitude > 0 else -math.inf


def _round_level(level: float) -> float | None:
    return round(level, 2) if math.isfinite(level) else None


def list_silence(source: AudioSource, *, threshold_db: float, min_silence: float) -> list[dict[str, float]]:
    """The silent spans."""
    from audio.analysis.silence import find_silence

    spans = find_silence(source, threshold_db=threshold_db, min_silence=min_silence)
    return [{"start": round(start, 3), "end": round(end, 3)} for start, end in spans]


def measure_spectrum(source: AudioSource) -> dict[str, float] | None:
    """Medians of the spectrum; null for silence."""
    from audio.analysis.spectral import measure_spectrum as measure

    spectrum = measure(source)
    return None if spectrum is None else {name: round(value, 4) for name, value in asdict(spectrum).items()}


def count_clipping(source: AudioSource) -> dict[str, int | float]:
    """Clipped runs."""
    from audio.analysis.clipping import find_clipping

    found = find_clipping(source)
    return {
        "runs": found.runs,
        "samples": found.samples,
        "longest_ms": round(1000 * found.longest / source.sample_rate, 3),
    }


def draw_pictures(source: AudioSource, music: Music) -> dict[str, FileOutput]:
    """The pictures, by name."""
    from audio.analysis.key import name_chord
    from audio.analysis.pictures import Annotations, draw_spectrogram, draw_waveform

    key = music.keys[0] if music.keys else None
    facts = [
        f"{music.tempo.bpm:.1f} bpm" if music.tempo else "no beat",
        f"{music.bars.beats_per_bar}/4" if music.bars else "",
        key.name if key else "no key",
    ]
    annotations = Annotations(
        beats=music.beats.tolist(),
        downbeats=music.downbeats.tolist(),
        chords=[(chord.start, chord.end, name_chord(chord, key)) for chord in music.chords],
        title="   ".join(fact for fact in facts if fact),
    )
    pictures = {"waveform": draw_waveform(source), "spectrogram": draw_spectrogram(source, annotations)}
    return {name: FileOutput(file, name, "png", "image/png") for name, file in pictures.items()}
