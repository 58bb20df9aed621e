"""plan_music on fake engines: what each mode asks the planner, what it returns, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from audio import Audio
from audio.types import AudioSource
from errors import AudioError, InvalidRequestError, ModelError
from models import Models
from models.acestep.metas import LANGUAGES, MAX_BPM, MIN_BPM, Metas
from operations import generate_music
from operations.plan_music import OPERATION, Params
from operations.plan_music.examples import draw_example, load_examples
from operations.songs.values import parse_key, parse_time_signature
from testing.fake_songs import PLANNER, TURBO, Calls, make_song_models
from worker.job import Job

RATE = 8000


def tone(seconds: float = 4.0, level: float = 0.3) -> Audio:
    return Audio(np.full((1, round(seconds * RATE)), level, np.float32), RATE)


def plan(models: Models, audio: AudioSource | None = None, **params: Any) -> dict[str, Any]:
    """The reply's fields."""
    values = {"audio": "placeholder", **params} if audio is not None else params
    planned = OPERATION.plan(Params.parse(values), models)
    return dict(OPERATION.run(planned, Job(id="test", audio={"audio": audio} if audio else {}), models).fields)


def test_sample_writes_a_song_from_a_short_description() -> None:
    calls = Calls()
    reply = plan(make_song_models(calls), mode="sample", prompt="a sad Korean ballad", seed=5, bpm=70)
    request = calls.plans[0]
    assert (request.mode, request.caption, request.language, request.seed) == (
        "inspire",
        "a sad Korean ballad",
        "ko",
        5,
    )
    assert request.metas == Metas(bpm=70) and not request.instrumental and request.sampling.temperature == 0.85
    assert (reply["caption"], reply["lyrics"], reply["genres"]) == (
        "An invented song", "[Verse]\nInvented words", "city pop"
    )  # fmt: skip
    assert (reply["bpm"], reply["key"], reply["time_signature"], reply["duration"]) == (70, "G major", "4/4", 12.0)
    assert (reply["planner_used"], reply["model_used"], reply["seed"]) == (PLANNER, None, 5)
    assert "audio_codes" not in reply and calls.loaded == [PLANNER]


def test_what_sample_returns_can_be_sent_to_generate_music() -> None:
    request = plan(make_song_models(Calls()), mode="sample", return_codes=True)["request"]
    assert request["prompt"] == "An invented song" and request["bpm"] == 120
    assert generate_music.Params.parse(request).audio_codes is not None


def test_format_rewrites_and_keeps_the_metas() -> None:
    calls = Calls()
    reply = plan(
        make_song_models(calls), mode="format", prompt="pop", lyrics="la", duration=60, key="Am", time_signature="3"
    )
    assert (calls.plans[0].mode, calls.plans[0].caption, calls.plans[0].lyrics) == ("format", "pop", "la")
    assert calls.plans[0].metas == Metas(key="A minor", time_signature=3, duration=60)
    assert (reply["caption"], reply["duration"], reply["time_signature"]) == ("A formatted caption", 60, "3/4")
    assert reply["vocal_language"] == "de"


def test_codes_are_written_on_request() -> None:
    calls = Calls()
    reply = plan(make_song_models(calls), mode="format", prompt="pop", seed=2, return_codes=True, lm_cfg_scale=3)
    assert calls.codes[0].seeds == (2,) and calls.codes[0].duration == 15.0 and calls.codes[0].sampling.cfg_coef == 3
    assert reply["audio_codes"].startswith("<|audio_code_2|><|audio_code_3|>")


def test_understand_reads_a_recording_with_a_song_model_first() -> None:
    calls = Calls()
    reply = plan(make_song_models(calls), tone(4.0), mode="understand", return_codes=True)
    assert calls.loaded == [TURBO, PLANNER]
    assert calls.plans[0].codes == tuple(range(20)) and calls.plans[0].sampling.temperature == 0.3
    assert (reply["caption"], reply["vocal_language"], reply["model_used"]) == ("What was heard", "fr", TURBO)
    assert reply["audio_codes"].endswith("<|audio_code_19|>") and reply["time_signature"] == "2/4"


def test_understand_takes_audio_codes_in_place_of_a_recording() -> None:
    calls = Calls()
    reply = plan(make_song_models(calls), mode="understand", audio_codes="<|audio_code_7|>", lm_temperature=0.6)
    assert calls.loaded == [PLANNER] and calls.plans[0].codes == (7,) and reply["model_used"] is None
    assert calls.plans[0].sampling.temperature == 0.6


@pytest.mark.parametrize(("audio", "message"), [(tone(level=0.0), "silent"), (tone(601.0), "at most 600 s")])
def test_a_recording_without_music_or_too_long_is_refused_before_work(audio: Audio, message: str) -> None:
    calls = Calls()
    with pytest.raises(AudioError, match=message):
        plan(make_song_models(calls), audio, mode="understand")
    assert calls.loaded == []


def test_random_needs_no_model_and_the_seed_decides() -> None:
    models = make_song_models(Calls(), names=(), planner=False)
    drawn = [plan(models, mode="random", seed=seed)["caption"] for seed in range(40)]
    assert len(set(drawn)) > 10 and plan(models, mode="random", seed=3)["caption"] == drawn[3]
    german = plan(models, mode="random", vocal_language="de")
    assert german["vocal_language"] == "de" and german["request"]["lyrics"] == german["lyrics"]
    instrumental = plan(models, mode="random", instrumental=True)
    assert instrumental["lyrics"] == "[Instrumental]" and "lyrics" not in instrumental["request"]


def test_a_language_without_examples_is_refused_with_those_that_have_some() -> None:
    with pytest.raises(InvalidRequestError, match="de, en, es"):
        plan(make_song_models(Calls()), mode="random", vocal_language="fi")


@pytest.mark.parametrize("example", load_examples(), ids=lambda example: str(example.description))
def test_every_example_is_a_valid_request(example: Any) -> None:
    assert MIN_BPM <= example.bpm <= MAX_BPM and 10 <= example.duration <= 600
    assert (
        example.vocal_language in LANGUAGES and parse_key(example.key) and parse_time_signature(example.time_signature)
    )
    assert example.description and example.caption and len(example.caption) < 512 and len(example.lyrics) < 4096
    assert example.instrumental == (example.lyrics == "[Instrumental]")


def test_the_examples_are_varied() -> None:
    examples = load_examples()
    assert len(examples) >= 24 and len({example.caption for example in examples}) == len(examples)
    assert len({example.vocal_language for example in examples}) >= 12
    assert draw_example(1, language="ja", instrumental=False).vocal_language == "ja"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "'mode' is required"),
        ({"mode": "dream"}, "'mode' must be 'sample'"),
        ({"mode": "format"}, "'prompt' is required in mode 'format'"),
        ({"mode": "understand"}, "'audio' or 'audio_codes' is required"),
        ({"mode": "understand", "audio": "x", "audio_codes": [1]}, "one of them"),
        ({"mode": "understand", "audio_codes": [1], "model": "x"}, "'model' has no effect on 'audio_codes'"),
        ({"mode": "understand", "audio": "x", "prompt": "x", "bpm": 90}, "'prompt' has no effect.*'bpm' has no effect"),
        ({"mode": "sample", "audio": "x", "lyrics": "la"}, "'lyrics' has no effect.*'audio' has no effect"),
        ({"mode": "random", "lm_temperature": 1, "return_codes": True}, "'return_codes'.*'lm_temperature'"),
        ({"mode": "sample", "duration": 5}, "'duration' must be greater than or equal to 10"),
    ],
)
def test_what_does_not_belong_to_the_mode_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        Params.parse(fields)


@pytest.mark.parametrize("mode", ["sample", "understand"])
def test_without_a_planner_only_random_works(mode: str) -> None:
    models = make_song_models(Calls(), planner=False)
    fields: dict[str, Any] = {"audio_codes": [1]} if mode == "understand" else {}
    with pytest.raises(ModelError, match="No planner is here"):
        plan(models, mode=mode, **fields)
    assert not OPERATION.readiness(models).is_ready and OPERATION.optional
