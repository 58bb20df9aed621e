"""Both sides of the conversion benchmark, loaded and watched: rvc-python's own pipeline, and ours."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import Clock
from benchmarks.stopwatch import Stopwatch
from tests.rvc_oracle import rvc_python

VOICE = "bench"
SETTINGS: Mapping[str, Any] = {"index_rate": 0.5, "rms_mix_rate": 0.25, "protect": 0.33, "filter_radius": 3}
Side = Callable[[], dict[str, float]]


@dataclass(frozen=True)
class Case:
    """What both sides are to do.

    Args:
        models: folder with `hubert_base.pt` and `rmvpe.pt`.
        voices: folder with the voice `VOICE` and its index.
        vocal: wav file.
        device: `cpu` or `cuda`.
    """

    models: Path
    voices: Path
    vocal: Path
    device: str


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
    """In order; what rvc-python's `vc` does beside its two networks is retrieval, and the rest goes on either side."""
    named = dict(seconds)
    chunks = named.pop("chunks")
    named["retrieval"] = chunks - named["hubert"] - named["synth"] + named.pop("read index", 0.0)
    order = ("hear", "f0", "hubert", "retrieval", "synth", "rms")
    ordered = {stage: named[stage] for stage in order if stage in named}
    return ordered | {"rest": total - sum(ordered.values()), "total": total}
