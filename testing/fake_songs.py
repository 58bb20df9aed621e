"""ACE-Step without networks: a song model that returns tones, and a planner that writes what it is told to write."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np

from audio import Audio
from audio.types import AudioSource
from errors import ErrorCode, ModelError, unknown_name_error
from models import Models
from models.acestep.engine import AceStepEngine
from models.acestep.family import AceStepFamily
from models.acestep.info import SAMPLE_RATE, AceStepModelInfo
from models.acestep.metas import Metas
from models.acestep.planner.engine import PlannerEngine
from models.acestep.planner.family import PlannerFamily
from models.acestep.planner.info import PlannerModelInfo
from models.acestep.planner.request import CodesRequest, PlannedSong, PlanRequest
from models.acestep.request import SongRequest, SongResult, Task
from models.checkpoints.locations import WeightLocations
from models.family import LOCAL, READY, Availability, ModelHandle, Readiness
from models.musicgen import MusicGenFamily
from models.runtime.progress import UNATTENDED, Observer, Progress, ignore_progress
from testing.models import empty_families, make_models

TURBO, BASE = "acestep-v15-turbo", "acestep-v15-base"
PLANNER = "acestep-5Hz-lm-0.6B"
TURBO_TASKS: tuple[Task, ...] = ("text2music", "cover", "repaint")
BASE_TASKS: tuple[Task, ...] = (*TURBO_TASKS, "lego", "extract", "complete")


@dataclass
class Calls:
    """What the fakes were asked, in order."""

    loaded: list[str] = field(default_factory=list)
    songs: list[SongRequest] = field(default_factory=list)
    plans: list[PlanRequest] = field(default_factory=list)
    codes: list[CodesRequest] = field(default_factory=list)


class FakeSongEngine(AceStepEngine):
    """Every clip is a constant whose level is its seed in thousandths; an edit has the source's length.

    Args:
        warnings: what each result warns of.
        after_clip: called after each clip with the number of clips that are done.
    """

    def __init__(
        self, calls: Calls, warnings: tuple[str, ...] = (), after_clip: Callable[[int], None] = lambda count: None
    ) -> None:
        self.calls = calls
        self.warnings = warnings
        self.after_clip = after_clip

    def generate(
        self,
        request: SongRequest,
        *,
        progress: Progress = ignore_progress,
        on_clip: Callable[[Audio], None] | None = None,
    ) -> SongResult:
        self.calls.songs.append(request)
        source = request.source
        rate = SAMPLE_RATE if source is None else source.sample_rate
        count = round(request.duration * rate) if source is None else source.num_samples
        clips = []
        for index, song in enumerate(request.songs):
            progress(index / len(request.songs))
            clip = Audio(np.full((2, count), song.seed % 1000 / 1000, np.float32), rate)
            if on_clip is not None:
                on_clip(clip)
            clips.append(clip)
            self.after_clip(index + 1)
        progress(1.0)
        steps = request.sampling.num_steps * len(clips)
        timings = {"text_s": 0.1, "conditions_s": 0.1, "decode_s": 0.5, "codec_s": 0.1}
        return SongResult(() if on_clip else tuple(clips), timings, steps, self.warnings)

    def encode_codes(self, source: AudioSource, *, progress: Progress = ignore_progress) -> tuple[int, ...]:
        progress(1.0)
        return tuple(range(round(source.duration * 5)))


class FakePlanner:
    """Writes the songs that it was given, by mode."""

    def __init__(self, calls: Calls, written: Mapping[str, PlannedSong]) -> None:
        self.calls = calls
        self.written = written

    def plan(self, request: PlanRequest, *, progress: Progress = ignore_progress) -> PlannedSong:
        progress(1.0)
        self.calls.plans.append(request)
        song = self.written[request.mode]
        return replace(
            song,
            caption=song.caption if request.mode != "metas" or request.write_caption else None,
            language=song.language if request.mode != "metas" or request.write_language else None,
        )

    def generate_codes(self, request: CodesRequest, *, progress: Progress = ignore_progress) -> list[tuple[int, ...]]:
        progress(1.0)
        self.calls.codes.append(request)
        return [
            tuple((seed + index) % 64_000 for index in range(round(5 * request.duration))) for seed in request.seeds
        ]


class FakeSongs(AceStepFamily):
    """Song models by name. The first is the default. `problem` is raised if a model is asked for."""

    def __init__(self, engine: FakeSongEngine, models: dict[str, AceStepModelInfo]) -> None:
        super().__init__(WeightLocations())
        self.engine = engine
        self.models = models
        self.problem: ModelError | None = None

    def list_models(self) -> list[AceStepModelInfo]:
        return list(self.models.values())

    def describe(self, name: str) -> AceStepModelInfo:
        return self.models[name]

    def readiness(self) -> Readiness:
        return READY if self.models else Readiness("no model of ACE-Step is here")

    def search_paths(self) -> list[str]:
        return []

    def resolve(self, name: str | None) -> ModelHandle[AceStepEngine]:
        if self.problem is not None:
            raise self.problem
        if name is None and not self.models:
            raise ModelError("No model of ACE-Step is here.", code=ErrorCode.MODEL_UNAVAILABLE)
        if name is not None and name not in self.models:
            raise unknown_name_error("model", name, self.models)
        return ModelHandle(self, next(iter(self.models)) if name is None else name)

    def memory_bytes(self, name: str) -> int:
        return 1

    def engine_bytes(self, engine: AceStepEngine) -> int:
        return 1

    def needs_restart(self, engine: AceStepEngine) -> bool:
        return False

    def free_memory(self, engine: AceStepEngine) -> None:
        """There is nothing to free."""

    def warm_up(self, engine: AceStepEngine) -> None:
        """There is nothing to run."""

    def version_key(self, name: str) -> str:
        return name

    def download(self, name: str, observer: Observer = UNATTENDED) -> None:
        """Everything is here."""

    def load(self, name: str, *, device: str) -> AceStepEngine:
        self.engine.calls.loaded.append(name)
        return self.engine


class FakePlanners(PlannerFamily):
    """One planner, or none."""

    def __init__(self, engine: FakePlanner | None) -> None:
        super().__init__(WeightLocations())
        self.engine = engine

    def list_models(self) -> list[PlannerModelInfo]:
        return [] if self.engine is None else [self.describe(PLANNER)]

    def describe(self, name: str) -> PlannerModelInfo:
        return PlannerModelInfo(name=name, availability=LOCAL, licence="MIT (card)")

    def resolve(self, name: str | None) -> ModelHandle[PlannerEngine]:
        if self.engine is None:
            raise ModelError("No planner is here.", code=ErrorCode.MODEL_UNAVAILABLE)
        if name not in (None, PLANNER):
            raise unknown_name_error("model", str(name), [PLANNER])
        return ModelHandle(self, PLANNER)

    def readiness(self) -> Readiness:
        return READY if self.engine else Readiness("no planner is here")

    def search_paths(self) -> list[str]:
        return []

    def memory_bytes(self, name: str) -> int:
        return 1

    def engine_bytes(self, engine: PlannerEngine) -> int:
        return 1

    def needs_restart(self, engine: PlannerEngine) -> bool:
        return False

    def free_memory(self, engine: PlannerEngine) -> None:
        """There is nothing to free."""

    def warm_up(self, engine: PlannerEngine) -> None:
        """There is nothing to run."""

    def version_key(self, name: str) -> str:
        return name

    def download(self, name: str, observer: Observer = UNATTENDED) -> None:
        """Everything is here."""

    def load(self, name: str, *, device: str) -> PlannerEngine:
        assert self.engine is not None
        self.engine.calls.loaded.append(name)
        return cast("PlannerEngine", self.engine)


def song_info(name: str, *, is_turbo: bool, availability: Availability = LOCAL) -> AceStepModelInfo:
    """A turbo model, or one with guidance that was trained for every task."""
    if is_turbo:
        return AceStepModelInfo(name=name, availability=availability, licence="MIT (card)", tasks=TURBO_TASKS)
    return AceStepModelInfo(
        name=name,
        availability=availability,
        licence="MIT (card)",
        tasks=BASE_TASKS,
        is_turbo=False,
        num_steps=50,
        max_steps=200,
        shift=1.0,
        cfg_coef=7.0,
    )


WRITTEN: Mapping[str, PlannedSong] = {
    "metas": PlannedSong(
        caption="A thoughtful caption",
        lyrics=None,
        metas=Metas(bpm=97, key="D minor", time_signature=3, duration=20.0),
        language="pt",
    ),
    "inspire": PlannedSong(
        caption="An invented song",
        lyrics="[Verse]\nInvented words",
        metas=Metas(bpm=120, key="G major", time_signature=4, duration=12.0),
        language="ja",
        genres="city pop",
    ),
    "format": PlannedSong(
        caption="A formatted caption",
        lyrics="[Verse]\nFormatted words",
        metas=Metas(bpm=140, key="A minor", time_signature=6, duration=15.0),
        language="de",
    ),
    "understand": PlannedSong(
        caption="What was heard",
        lyrics="[Chorus]\nHeard words",
        metas=Metas(bpm=88, key="C major", time_signature=2, duration=30.0),
        language="fr",
        genres="chanson",
    ),
}


def make_song_models(
    calls: Calls,
    *,
    names: Sequence[str] = (TURBO, BASE),
    planner: bool = True,
    engine: FakeSongEngine | None = None,
    music: MusicGenFamily | None = None,
) -> Models:
    """`Models` with fake song models of those names, of which `base` ones are not turbo, and a fake planner."""
    infos = {name: song_info(name, is_turbo="base" not in name) for name in names}
    return make_models(
        songs=FakeSongs(engine or FakeSongEngine(calls), infos),
        planners=FakePlanners(FakePlanner(calls, WRITTEN) if planner else None),
        music=music or empty_families().music,
    )
