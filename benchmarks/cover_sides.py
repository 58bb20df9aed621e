"""Both sides of the conversion benchmark, loaded and watched: rvc-python's own pipeline, and ours."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import soundfile

from audio import Audio
from benchmarks.machine import Clock
from benchmarks.stopwatch import Stopwatch
from models.registry import build
from models.rvc.converter import ConversionSettings
from models.rvc.preprocess import preprocess
from testing.rvc_reference import rvc_python

VOICE = "bench"
SETTINGS: Mapping[str, Any] = {"index_rate": 0.5, "rms_mix_rate": 0.25, "protect": 0.33}
Side = Callable[[], dict[str, float]]


@dataclass(frozen=True)
class Case:
    """What both sides are to do.

    Args:
        models: folder with `hubert_base.pt` and `rmvpe.pt`.
        voices: folder with the voice `VOICE` and its index.
        vocal: wav file.
        device: `cpu` or `cuda`.
        retrieval: ours, `exact` or `ivf`; rvc-python's is always the latter.
    """

    models: Path
    voices: Path
    vocal: Path
    device: str
    retrieval: Literal["exact", "ivf"] = "ivf"


def reference_side(case: Case, clock: Clock) -> Side:
    """rvc-python warm: networks loaded; its index is read from disk at each call, as it always does."""
    with rvc_python(case.models / "hubert_base.pt", case.models / "rmvpe.pt", device=case.device) as reference:
        pass
    watch = Stopwatch(clock, case.device)
    voice = reference.load(case.voices / VOICE)
    pipeline, module = voice.pipeline, reference.modules["pipeline"]
    reference.hubert.extract_features = watch.watched("hubert", reference.hubert.extract_features)
    pipeline.get_f0 = watch.watched("f0", pipeline.get_f0)
    pipeline.vc = watch.watched("chunks", pipeline.vc)
    voice.net_g.infer = watch.watched("synth", voice.net_g.infer)
    module.change_rms = watch.watched("rms", module.change_rms)
    module.faiss = types.SimpleNamespace(read_index=watch.watched("read index", _Index.reader(module.faiss, watch)))
    hear = watch.watched("hear", reference.modules["modules"].load_audio)

    def run() -> dict[str, float]:
        watch.reset()
        started = watch.now()
        reference.convert(None, hear(str(case.vocal), 16_000), f0_method="rmvpe", **SETTINGS)
        return _stages(watch.seconds, watch.now() - started)

    return run


def our_side(case: Case, clock: Clock) -> Side:
    """Ours warm: the engines as the worker loads them, asked directly."""
    models = build(device=case.device, models_dir=case.models, voices_dir=case.voices)
    families = models.families
    encoder = families.content_encoders.load(families.content_encoders.resolve(None).name, device=case.device)
    tracker = families.f0.load("rmvpe", device=case.device)
    singer = families.voices.load(VOICE, device=case.device)
    watch = Stopwatch(clock, case.device)
    watch_singer(singer, encoder, watch)
    heard_by = watch.watched("hear", preprocess)
    track = watch.watched("f0", tracker.estimate)
    settings = ConversionSettings(**SETTINGS, retrieval=case.retrieval)

    def run() -> dict[str, float]:
        watch.reset()
        started = watch.now()
        samples, sample_rate = soundfile.read(case.vocal, dtype="float32")
        heard = heard_by(Audio(samples[None], sample_rate), _ignore)
        f0 = track(heard.waveform, hop_length=160, filter_radius=3, progress=_ignore)
        for _ in singer.convert(heard, f0, encoder, settings=settings, progress=_ignore):
            pass
        return _ordered(watch.seconds, watch.now() - started)

    return run


def watch_singer(singer: Any, encoder: Any, watch: Stopwatch) -> None:
    """Lets every network of a loaded voice, and its index, be timed."""
    encoder.extract_features = watch.watched("hubert", encoder.extract_features)
    network, retrieval = singer._network, singer._retrieval
    for step in ("sample_latents", "project_excitation", "decode"):
        setattr(network, step, watch.watched("synth", getattr(network, step)))
    if retrieval is not None:
        retrieval.blend_nearest = watch.watched("retrieval", retrieval.blend_nearest)


def _ignore(fraction: float) -> None:
    """Progress that nobody looks at."""


class _Index:
    """A faiss index whose every use is timed."""

    def __init__(self, index: Any, watch: Stopwatch) -> None:
        self.ntotal = index.ntotal
        self.reconstruct_n = watch.watched("read index", index.reconstruct_n)
        self.search = index.search

    @classmethod
    def reader(cls, faiss: Any, watch: Stopwatch) -> Callable[[str], _Index]:
        return lambda path: cls(faiss.read_index(path), watch)


def _stages(seconds: Mapping[str, float], total: float) -> dict[str, float]:
    """What rvc-python's `vc` does beside its two networks is retrieval."""
    named = dict(seconds)
    chunks = named.pop("chunks")
    named["retrieval"] = chunks - named["hubert"] - named["synth"] + named.pop("read index", 0.0)
    return _ordered(named, total)


def _ordered(named: Mapping[str, float], total: float) -> dict[str, float]:
    order = ("preprocess", "f0", "hubert", "retrieval", "synth", "rms")
    ordered = {stage: named[stage] for stage in order if stage in named}
    return ordered | {"rest": total - sum(ordered.values()), "total": total}
