"""edit_music on fake engines: what each task asks of the model, how its result is named, and what is refused early."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest

from audio import Audio
from audio.files.formats import Encoding
from audio.types import AudioSource
from errors import AudioError, InvalidRequestError, ModelError
from models import Models
from models.acestep.metas import Metas
from models.acestep.request import Repainting
from operations.edit_music import OPERATION, Params
from testing.dispatch import answer
from testing.fake_songs import BASE, PLANNER, TURBO, Calls, make_song_models
from testing.signals import encode_file
from worker.job import Job
from worker.reply import Reply
from worker.settings import Settings

RATE = 8000


class LongAudio(AudioSource):
    """Audio of any length that must not be read."""

    def __init__(self, seconds: float) -> None:
        super().__init__(RATE, 1, round(seconds * RATE))

    def read(self, start: int, count: int) -> Any:
        raise AssertionError("the audio was read")


def tone(seconds: float = 12.0) -> Audio:
    return Audio(np.full((1, round(seconds * RATE)), 0.3, np.float32), RATE)


def edit(models: Models, source: AudioSource | None = None, **fields: Any) -> tuple[Reply, Job]:
    params = Params.parse({"audio": "placeholder", **fields})
    plan = OPERATION.plan(params, models)
    job = Job(id="test", audio={"audio": source or tone()})
    return OPERATION.run(plan, job, models), job


def test_a_cover_follows_the_recording_with_the_given_strength() -> None:
    calls = Calls()
    reply, _ = edit(
        make_song_models(calls), task="cover", prompt="bossa nova", lyrics="la", audio_cover_strength=0.6,
        n_samples=2, seed=3, bpm=120, key="Am", time_signature="3", vocal_language="pt",
    )  # fmt: skip
    request = calls.songs[0]
    assert (request.task, request.cover_strength, request.duration) == ("cover", 0.6, 12.0)
    assert request.source is not None and request.source.duration == 12.0 and request.repainting is None
    song = request.songs[0]
    assert (song.caption, song.lyrics, song.language) == ("bossa nova", "la", "pt")
    assert song.metas == Metas(bpm=120, key="A minor", time_signature=3, duration=12.0)
    assert [output.name for output in reply.outputs] == ["cover_1", "cover_2"]
    assert reply.fields["seeds"] == [3, 4] and reply.fields["model_used"] == TURBO
    assert set(reply.parameters) <= set(Params.model_fields)


@pytest.mark.parametrize(
    ("fields", "window", "duration"),
    [
        ({"repainting_start": 3, "repainting_end": 7}, Repainting(start=3, end=7), 12.0),
        ({"repainting_start": -4, "repainting_end": 2}, Repainting(start=-4, end=2), 16.0),
        ({"repainting_start": 10, "repainting_end": 20}, Repainting(start=10, end=20), 20.0),
        ({"repainting_start": 6, "repaint_strength": 1}, Repainting(start=6, strength=1), 12.0),
        ({"repainting_end": 6}, Repainting(start=0, end=6), 12.0),
    ],
)
def test_a_repaint_has_a_window_which_may_reach_beyond_the_recording(
    fields: dict[str, Any], window: Repainting, duration: float
) -> None:
    calls = Calls()
    _, job = edit(make_song_models(calls), task="repaint", **fields)
    assert calls.songs[0].repainting == window and calls.songs[0].duration == duration
    assert calls.songs[0].songs[0].metas.duration == duration and not job.warnings


def test_a_repaint_without_a_window_says_that_it_replaces_everything() -> None:
    _, job = edit(make_song_models(Calls()), task="repaint")
    assert "whole recording was generated anew" in job.warnings[0]


def test_extract_names_its_result_as_separate_does() -> None:
    calls = Calls()
    models = make_song_models(calls)
    params = {
        "audio": base64.b64encode(encode_file(tone(2.0), Encoding("wav"))).decode(),
        "task": "extract",
        "track": "Backing Vocals",
        "output_format": "wav",
    }
    reply = answer(
        {"input": {"operation": "edit_music", "params": params}}, settings=Settings(volume_dirs=()), models=models
    )
    assert (calls.songs[0].task, calls.songs[0].tracks) == ("extract", ("backing_vocals",))
    assert set(reply["stems"]) == {"backing_vocals"} and reply["model_used"] == BASE
    assert reply["stems"]["backing_vocals"]["filename"] == "backing_vocals.wav"
    assert reply["parameters"]["track"] == "backing_vocals" and "audio" not in reply["parameters"]


def test_lego_and_complete_name_their_tracks() -> None:
    calls = Calls()
    models = make_song_models(calls)
    edit(models, task="lego", track="drums", repainting_start=2, repainting_end=6)
    edit(models, task="complete", track="bass", tracks=["drums", "bass", "guitar"])
    assert calls.songs[0].tracks == ("drums",) and calls.songs[0].repainting == Repainting(start=2, end=6)
    assert calls.songs[1].tracks == ("bass", "drums", "guitar")


def test_the_default_model_is_one_that_does_the_task() -> None:
    for task, model in (("cover", TURBO), ("extract", BASE)):
        fields: dict[str, Any] = {"track": "drums"} if task == "extract" else {}
        assert edit(make_song_models(Calls()), task=task, **fields)[0].fields["model_used"] == model


def test_the_planner_rewrites_the_text_of_any_edit_and_completes_new_tracks() -> None:
    calls = Calls()
    models = make_song_models(calls)
    reply, _ = edit(models, task="cover", prompt="jazz", use_format=True, planner=PLANNER)
    assert [plan.mode for plan in calls.plans] == ["format"] and calls.plans[0].metas.duration == 12.0
    assert calls.songs[0].songs[0].caption == "A formatted caption" and reply.fields["planner_used"] == PLANNER
    edit(models, task="lego", track="drums", use_cot_caption=True)
    assert [plan.mode for plan in calls.plans] == ["format", "metas"] and calls.codes == []
    assert calls.songs[1].songs[0].caption == "A thoughtful caption" and calls.songs[1].duration == 12.0


def test_every_clip_takes_the_style_of_another_recording() -> None:
    calls = Calls()
    params = Params.parse({"audio": "x", "task": "cover", "reference_audio": "x"})
    models = make_song_models(calls)
    style = tone(3.0)
    OPERATION.run(OPERATION.plan(params, models), Job(id="t", audio={"audio": tone(), "style_audio": style}), models)
    assert calls.songs[0].reference is style


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"audio": None, "task": "cover"}, "'audio' is required"),
        ({"task": None}, "'task' is required"),
        ({"task": "remix"}, "'task' must be 'cover'"),
        ({"task": "extract"}, "'track' is required for the task 'extract': woodwinds, brass"),
        ({"task": "lego"}, "'track' is required for the task 'lego'"),
        ({"task": "complete"}, "'tracks' is required for the task 'complete'"),
        ({"task": "extract", "track": "drum"}, "no track of ACE-Step. Did you mean 'drums'"),
        ({"task": "complete", "tracks": ["drums", "kazoo"]}, "'kazoo', which is no track"),
        ({"task": "cover", "track": "drums"}, "'track' has no effect on the task 'cover'"),
        ({"task": "cover", "repainting_start": 1}, "'repainting_start' has no effect .*'repaint' and 'lego'"),
        ({"task": "repaint", "audio_cover_strength": 0.5}, "'audio_cover_strength' has no effect"),
        ({"task": "lego", "track": "drums", "repaint_strength": 0.5}, "'repaint_strength' has no effect"),
        ({"task": "cover", "use_cot_caption": True, "planner": "x"}, "'planner' has no effect.*'use_cot_caption'"),
        ({"task": "repaint", "repainting_start": 5, "repainting_end": 5}, "'repainting_end' must be after"),
        ({"task": "repaint", "repainting_end": -1}, "'repainting_end' must be after 'repainting_start', 0 s"),
        ({"task": "extract", "track": "bass", "n_samples": 2}, "'n_samples' must be 1"),
        ({"task": "cover", "seed": [1, 2]}, "'seed' has 2 numbers for 1 results"),
        ({"task": "cover", "use_format": True}, "'use_format' needs"),
        ({"task": "cover", "instrumental": True, "lyrics": "la"}, "'instrumental' contradicts 'lyrics'"),
        ({"task": "cover", "bpm": 20, "key": "H", "time_signature": "5/4"}, "'bpm'.*'key'.*'time_signature'"),
        ({"task": "cover", "thinking": True}, "'thinking' is unknown"),
    ],
)
def test_requests_that_make_no_sense_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        Params.parse({"audio": "x"} | fields)


@pytest.mark.parametrize(
    ("task", "fields"),
    [("extract", {"track": "drums"}), ("lego", {"track": "drums"}), ("complete", {"tracks": ["bass"]})],
)
def test_a_turbo_model_is_refused_for_tasks_of_base_models_which_are_named(task: str, fields: dict[str, Any]) -> None:
    calls = Calls()
    models = make_song_models(calls)
    with pytest.raises(InvalidRequestError, match=f"not trained for the task '{task}'.*{BASE}") as refused:
        edit(models, task=task, model=TURBO, **fields)
    assert refused.value.error_code == "option_unsupported" and calls.loaded == []
    with pytest.raises(InvalidRequestError, match="not trained"):
        edit(make_song_models(Calls(), names=[TURBO]), task=task, **fields)


def test_without_a_model_the_edit_is_refused() -> None:
    with pytest.raises(ModelError, match=r"No model of ACE-Step is here"):
        edit(make_song_models(Calls(), names=()), task="cover")


@pytest.mark.parametrize(
    ("seconds", "fields", "error", "message"),
    [
        (600.5, {"task": "cover"}, AudioError, "'audio' is 600.5 s long, and ACE-Step takes at most 600 s"),
        (12, {"task": "repaint", "repainting_start": 13}, InvalidRequestError, "after its start"),
        (
            12,
            {"task": "repaint", "repainting_start": 13, "repainting_end": 15},
            InvalidRequestError,
            "touch the source",
        ),
        (
            12,
            {"task": "repaint", "repainting_start": -9, "repainting_end": -2},
            InvalidRequestError,
            "touch the source",
        ),
        (500, {"task": "repaint", "repainting_start": -50, "repainting_end": 560}, InvalidRequestError, "610.00 s"),
    ],
)
def test_what_does_not_fit_the_recording_is_refused_before_any_work(
    seconds: float, fields: dict[str, Any], error: type[Exception], message: str
) -> None:
    calls = Calls()
    with pytest.raises(error, match=message):
        edit(make_song_models(calls), LongAudio(seconds), **fields)
    assert calls.loaded == []


def test_readiness_is_that_of_the_song_models() -> None:
    assert OPERATION.readiness(make_song_models(Calls())).is_ready
    assert not OPERATION.readiness(make_song_models(Calls(), names=())).is_ready and OPERATION.optional
