"""The loaded planner: plans, audio codes, seeds, limits, and that it can be stopped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from errors import CancelledError, InvalidRequestError
from models.acestep.metas import INSTRUMENTAL, LANGUAGES, Metas
from models.acestep.planner.checkpoint import read_checkpoint
from models.acestep.planner.decode import PREFILL_CHUNK, STEPS_PER_REPLAY, CudaGraphBackend, EagerBackend
from models.acestep.planner.engine import PlannerEngine
from models.acestep.planner.load import load_engine
from models.acestep.planner.request import CodesRequest, LmSampling, PlanMode, PlannedSong, PlanRequest
from testing.graph_recorder import EagerRecorder
from testing.tiny_planner import NUM_CODES, write_tiny_planner

SONG = PlannedSong(caption="a slow song", lyrics=None, metas=Metas(bpm=80, key="A minor"), language="en")


def ask_codes(duration: float = 10, seeds: tuple[int, ...] = (1,), **sampling: Any) -> CodesRequest:
    return CodesRequest(
        caption="piano", lyrics="la la", song=SONG, duration=duration, seeds=seeds, sampling=LmSampling(**sampling)
    )


@pytest.mark.parametrize("mode", ["metas", "inspire", "format", "understand"])
def test_every_mode_plans_a_song(engine: PlannerEngine, mode: PlanMode) -> None:
    song = engine.plan(PlanRequest(mode=mode, seed=1, caption="a slow song", lyrics="la", codes=(1, 2, 3)))
    assert song.caption and song.language in LANGUAGES
    metas = song.metas
    assert metas.bpm and metas.key and metas.time_signature and metas.duration
    assert bool(song.lyrics) == (mode != "metas") and bool(song.genres) == (mode != "metas")
    assert song.warnings == ()


def test_what_is_given_is_kept(engine: PlannerEngine) -> None:
    given = Metas(bpm=99, key="Eb minor", time_signature=3, duration=33.5)
    for mode in ("metas", "format", "inspire"):
        song = engine.plan(PlanRequest(mode=mode, seed=1, caption="x", metas=given, language="no"))
        assert (song.metas, song.language) == (given, "no")


def test_what_is_given_is_what_the_rest_follows(engine: PlannerEngine) -> None:
    """The planner reads the values that are given: another tempo leads to another plan."""
    plans = {
        engine.plan(PlanRequest(mode="metas", seed=1, caption="x", metas=Metas(bpm=bpm))).caption
        for bpm in (60, 90, 120, 150)
    }
    assert len(plans) > 1


def test_caption_and_language_are_left_out_if_they_are_not_wanted(engine: PlannerEngine) -> None:
    song = engine.plan(PlanRequest(mode="metas", seed=1, caption="x", write_caption=False, write_language=False))
    assert (song.caption, song.language) == (None, None)
    assert song.metas.bpm


def test_the_same_seed_plans_the_same_song_and_another_one_another(engine: PlannerEngine) -> None:
    request = PlanRequest(mode="inspire", seed=5, caption="a song")
    assert engine.plan(request) == engine.plan(request) != engine.plan(replace(request, seed=6))


def test_an_instrumental_song_has_lyrics_that_say_so(engine: PlannerEngine) -> None:
    request = PlanRequest(mode="inspire", seed=5, caption="a song", instrumental=True)
    assert engine.plan(request).lyrics


@pytest.mark.parametrize(("duration", "count"), [(10, 50), (10.2, 51), (12.39, 61)])
def test_there_are_five_codes_a_second(engine: PlannerEngine, duration: float, count: int) -> None:
    (codes,) = engine.generate_codes(ask_codes(duration))
    assert len(codes) == count and all(0 <= code < NUM_CODES for code in codes)


def test_each_clip_depends_on_its_own_seed_alone(engine: PlannerEngine) -> None:
    together = engine.generate_codes(ask_codes(seeds=(1, 2, 3)))
    assert together == [engine.generate_codes(ask_codes(seeds=(seed,)))[0] for seed in (1, 2, 3)]
    assert len(set(together)) == 3


def test_clips_that_are_drawn_together_are_those_that_are_drawn_alone(engine: PlannerEngine) -> None:
    batched = replace(engine, max_clips=3)
    assert batched.generate_codes(ask_codes(seeds=(1, 2, 3))) == engine.generate_codes(ask_codes(seeds=(1, 2, 3)))


SETTINGS: list[dict[str, float]] = [
    {},
    {"top_k": 5},
    {"temperature": 0.0},
    {"cfg_coef": 1.0},
    {"repetition_penalty": 1.2},
    {"top_k": 9, "top_p": 0.5},
]


@pytest.mark.parametrize("sampling", SETTINGS)
def test_captured_steps_draw_what_eager_steps_draw(engine: PlannerEngine, sampling: dict[str, float]) -> None:
    recorder = EagerRecorder()
    captured = replace(engine, backend=CudaGraphBackend(engine.lm, recorder), max_clips=2)
    eager = replace(engine, backend=EagerBackend(engine.lm, static_shapes=True), max_clips=2)
    request = ask_codes(14, seeds=(1, 2), **sampling)
    assert captured.generate_codes(request) == eager.generate_codes(request)
    captures = recorder.captures
    assert recorder.captures and captured.backend.memory_bytes
    assert captured.generate_codes(request) == eager.generate_codes(request)
    assert recorder.captures == captures
    captured.backend.free_memory()
    assert captured.backend.memory_bytes == 0 and recorder.num_graphs == 0


def test_a_captured_plan_is_the_eager_one(engine: PlannerEngine) -> None:
    recorder = EagerRecorder()
    captured = replace(engine, backend=CudaGraphBackend(engine.lm, recorder))
    for seed in range(2):
        request = PlanRequest(mode="inspire", seed=seed, caption="a song", sampling=LmSampling(repetition_penalty=1.1))
        assert captured.plan(request) == engine.plan(request)
    assert recorder.captures


def test_shorter_and_longer_songs_share_what_was_captured(engine: PlannerEngine) -> None:
    captured = replace(engine, backend=CudaGraphBackend(engine.lm, EagerRecorder()))
    for duration in (12, 10, 16):
        assert captured.generate_codes(ask_codes(duration)) == engine.generate_codes(ask_codes(duration))


def test_a_guided_song_is_another_one(engine: PlannerEngine) -> None:
    songs = {engine.generate_codes(ask_codes(cfg_coef=value))[0] for value in (1.0, 2.5)}
    negative = replace(ask_codes(), sampling=LmSampling(negative_prompt="noise and drums"))
    assert len({*songs, engine.generate_codes(negative)[0]}) == 3


def test_progress_rises_and_can_end_the_work(engine: PlannerEngine) -> None:
    for run in (
        lambda progress: engine.generate_codes(ask_codes(seeds=(1, 2)), progress=progress),
        lambda progress: engine.plan(PlanRequest(mode="inspire", seed=1, caption="a song"), progress=progress),
    ):
        seen: list[float] = []
        run(seen.append)
        assert len(seen) > 20 and seen == sorted(seen) and seen[0] >= 0 and seen[-1] <= 1

        def cancel(fraction: float) -> None:
            if fraction > 0.2:
                raise CancelledError("stop")

        with pytest.raises(CancelledError):
            run(cancel)
    assert engine.generate_codes(ask_codes()) == engine.generate_codes(ask_codes())


def test_reading_many_codes_can_be_ended(engine: PlannerEngine) -> None:
    calls = 0

    def cancel(fraction: float) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise CancelledError("stop")

    with pytest.raises(CancelledError):
        engine.plan(PlanRequest(mode="understand", seed=0, codes=(1,) * 3 * PREFILL_CHUNK), progress=cancel)
    assert calls == 3


def test_captured_work_can_be_ended_too(engine: PlannerEngine) -> None:
    captured = replace(engine, backend=CudaGraphBackend(engine.lm, EagerRecorder()))
    calls = 0

    def cancel(fraction: float) -> None:
        nonlocal calls
        calls += 1
        if fraction > 0.5:
            raise CancelledError("stop")

    with pytest.raises(CancelledError):
        captured.generate_codes(ask_codes(16), progress=cancel)
    assert calls > 3 * STEPS_PER_REPLAY
    assert captured.generate_codes(ask_codes()) == engine.generate_codes(ask_codes())


def test_a_song_that_does_not_fit_into_the_context_is_refused(tmp_path: Path) -> None:
    small = load_engine(read_checkpoint(write_tiny_planner(tmp_path, context=3100)), device="cpu", dtype=torch.float32)
    request = ask_codes(600)
    with pytest.raises(InvalidRequestError, match="3100 tokens of the planner's context.*shorter lyrics"):
        small.generate_codes(replace(request, lyrics="la " * 200))
    with pytest.raises(InvalidRequestError, match="shorter text or fewer codes"):
        small.plan(PlanRequest(mode="format", seed=0, caption="x", lyrics="la " * 3000))
    with pytest.raises(InvalidRequestError, match="fewer codes"):
        small.plan(PlanRequest(mode="understand", seed=0, codes=(1,) * 2500))


def test_lyrics_that_reach_the_limit_are_said_to_be_cut(tmp_path: Path, folder: Path) -> None:
    engine = load_engine(read_checkpoint(write_tiny_planner(tmp_path, context=1900)), device="cpu", dtype=torch.float32)
    end = engine.vocabulary.special.turn_end
    blocked = engine.lm.text_head
    endless = replace(engine, lm=replace(engine.lm, text_head=_WithoutEnd(blocked, end)))
    endless = replace(endless, backend=EagerBackend(endless.lm))
    song = endless.plan(PlanRequest(mode="format", seed=0, caption="x", lyrics=INSTRUMENTAL))
    assert song.lyrics and "were cut" in song.warnings[0]


class _WithoutEnd:
    """A head that never ends a turn."""

    def __init__(self, head: object, end: int) -> None:
        self._head, self._end = head, end
        self.nbytes = 0

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self._head(x).clone()  # type: ignore[operator]
        logits[:, self._end] = -1e4
        return logits

    def add_to(self, residual: torch.Tensor, x: torch.Tensor) -> None:
        raise AssertionError("a head adds to nothing")


def test_codes_that_there_are_not_are_refused(engine: PlannerEngine) -> None:
    with pytest.raises(InvalidRequestError, match=f"0..{NUM_CODES - 1}"):
        engine.plan(PlanRequest(mode="understand", seed=0, codes=(3, NUM_CODES)))


def test_warming_up_changes_no_result(engine: PlannerEngine) -> None:
    before = engine.generate_codes(ask_codes())
    engine.warm_up()
    assert engine.generate_codes(ask_codes()) == before
    assert engine.memory_bytes >= engine.lm.embedding.nbytes
