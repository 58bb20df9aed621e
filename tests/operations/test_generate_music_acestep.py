"""generate_music with ACE-Step, on fake engines: what they are asked, what the reply tells, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from audio import Audio
from audio.types import AudioSource, in_memory
from errors import AudioError, DeadlineError, ErrorCode, InvalidRequestError, ModelError
from models import Models
from models.acestep.metas import INSTRUMENTAL, Metas
from operations import generate_music
from operations.generate_music import Params
from operations.songs.run import SongPlan
from testing.dispatch import answer
from testing.fake_songs import BASE, PLANNER, TURBO, Calls, FakeSongEngine, FakeSongs, make_song_models
from worker.job import Job
from worker.reply import Reply
from worker.settings import Settings

LYRICS = "[Verse]\nLa la la"


def tone(seconds: float = 1.0, level: float = 0.3) -> Audio:
    return Audio(np.full((1, round(seconds * 8000)), level, np.float32), 8000)


def make_plan(models: Models, **fields: Any) -> SongPlan:
    plan = generate_music.plan(Params.parse({"prompt": "slow piano"} | fields), models)
    assert isinstance(plan, SongPlan)
    return plan


def generate(models: Models, audio: dict[str, AudioSource] | None = None, **fields: Any) -> tuple[Reply, Job]:
    job = Job(id="test", audio=dict(audio or {}))
    return generate_music.run(make_plan(models, **fields), job, models), job


def send(models: Models, **params: Any) -> dict[str, Any]:
    request = {"operation": "generate_music", "params": {"prompt": "slow piano", "delivery": "inline", **params}}
    return answer({"input": request}, settings=Settings(volume_dirs=()), models=models)


def test_the_models_own_defaults_are_used_and_told() -> None:
    calls = Calls()
    models = make_song_models(calls)
    reply = send(models, seed=7, duration=10)
    sampling = calls.songs[0].sampling
    assert (sampling.num_steps, sampling.shift, sampling.cfg_coef, sampling.method) == (8, 3.0, 1.0, "ode")
    assert reply["model_used"] == TURBO and reply["planner_used"] is None and reply["licence"] == "MIT (card)"
    used = reply["parameters"]
    assert (used["inference_steps"], used["shift"], used["cfg_coef"], used["duration"]) == (8, 3, 1, 10)
    assert "mbd" not in used and "top_k" not in used and "style" not in used and used["lyrics"] is None
    assert (reply["sample_rate"], reply["channels"], reply["duration"]) == (48_000, 2, 10.0)
    assert reply["steps_per_s"] == 16.0 and reply["timings"]["codec_s"] == 0.1

    send(models, model=BASE, duration=10)
    sampling = calls.songs[1].sampling
    assert (sampling.num_steps, sampling.shift, sampling.cfg_coef) == (50, 1.0, 7.0)


def test_every_parameter_of_the_sampler_reaches_the_model() -> None:
    calls = Calls()
    generate(
        make_song_models(calls), model=BASE, inference_steps=32, shift=2, infer_method="sde", guidance_scale=4,
        use_adg=True, cfg_interval_start=0.2, cfg_interval_end=0.8, duration=10,
    )  # fmt: skip
    sampling = calls.songs[0].sampling
    assert (sampling.num_steps, sampling.shift, sampling.method, sampling.cfg_coef) == (32, 2.0, "sde", 4.0)
    assert (sampling.use_adg, sampling.cfg_interval) == (True, (0.2, 0.8))


@pytest.mark.parametrize("timesteps", [[0.97, 0.5, 0.1], "0.97, 0.5,0.1", "0.97,0.5,0.1,0", [0.97, 0.5, 0.1, 0]])
def test_timesteps_are_a_list_or_a_string(timesteps: Any) -> None:
    calls = Calls()
    reply, _ = generate(make_song_models(calls), timesteps=timesteps, duration=10)
    assert calls.songs[0].sampling.timesteps == (0.97, 0.5, 0.1)
    assert reply.parameters["inference_steps"] == 3


def test_lyrics_metas_and_language_reach_the_model() -> None:
    calls = Calls()
    reply, _ = generate(
        make_song_models(calls),
        lyrics=LYRICS, vocal_language="PT", bpm=92, key="f#m", time_signature="6/8", duration=30,
    )  # fmt: skip
    song = calls.songs[0].songs[0]
    assert (song.caption, song.lyrics, song.language) == ("slow piano", LYRICS, "pt")
    assert song.metas == Metas(bpm=92, key="F# minor", time_signature=6, duration=30.0)
    assert reply.fields["metas"] == {
        "bpm": 92, "key": "F# minor", "time_signature": "6/8", "duration": 30.0, "vocal_language": "pt", "genres": None
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "key"),
    [("C Major", "C major"), ("Am", "A minor"), ("AM", "A major"), ("bb", "Bb major"), ("g♯ min", "G# minor"),
     ("e flat minor", "Eb minor"), ("D", "D major"), ("F#MINOR", "F# minor")],
)  # fmt: skip
def test_a_key_may_be_written_in_many_ways(text: str, key: str) -> None:
    calls = Calls()
    generate(make_song_models(calls), key=text, duration=10)
    assert calls.songs[0].songs[0].metas.key == key


@pytest.mark.parametrize("fields", [{}, {"lyrics": ""}, {"lyrics": "[inst]"}, {"instrumental": True}])
def test_without_words_the_music_is_instrumental(fields: dict[str, Any]) -> None:
    calls = Calls()
    reply, _ = generate(make_song_models(calls), **fields)
    assert calls.songs[0].songs[0].lyrics == INSTRUMENTAL == reply.fields["lyrics"]
    assert calls.songs[0].duration == 60.0


def test_every_prompt_and_sample_is_a_clip_with_its_own_seed() -> None:
    calls = Calls()
    reply, _ = generate(make_song_models(calls), prompt=["piano", "drums"], n_samples=2, seed=5, duration=10)
    assert [[song.seed for song in request.songs] for request in calls.songs] == [[5, 6], [7, 8]]
    assert reply.fields["seeds"] == [5, 6, 7, 8] and reply.fields["seed"] == 5
    assert [output.extra["prompt"] for output in reply.outputs] == ["piano", "piano", "drums", "drums"]
    levels = [in_memory(output.audio).waveform[0, 0] for output in reply.outputs]
    assert levels == pytest.approx([0.005, 0.006, 0.007, 0.008])
    assert [output.name for output in reply.outputs] == ["music_1", "music_2", "music_3", "music_4"]


def test_eight_samples_of_one_prompt_are_one_request() -> None:
    calls = Calls()
    generate(make_song_models(calls), n_samples=8, duration=10)
    assert [len(request.songs) for request in calls.songs] == [8]


def test_a_random_seed_is_returned() -> None:
    first, second = (generate(make_song_models(Calls()), duration=10)[0].fields["seed"] for _ in range(2))
    assert first != second


def test_style_audio_is_the_reference_and_has_an_alias() -> None:
    calls = Calls()
    reference = tone()
    generate(make_song_models(calls), {"style_audio": reference}, reference_audio="placeholder", duration=10)
    assert calls.songs[0].reference is reference


def test_silent_style_audio_is_refused_before_a_model_is_loaded() -> None:
    calls = Calls()
    with pytest.raises(AudioError, match="'style_audio' is silent"):
        generate(make_song_models(calls), {"style_audio": tone(level=0.0)}, style_audio="placeholder")
    assert calls.loaded == []


def test_fades_and_trimming_are_applied() -> None:
    reply, _ = generate(make_song_models(Calls()), seed=500, fade_in=1, fade_out=1, duration=10)
    waveform = in_memory(reply.outputs[0].audio).waveform
    assert waveform[0, 0] == 0 and waveform[0, -1] < 1e-6 and waveform[0, 240_000] == 0.5


def test_what_the_model_warns_of_is_in_the_reply() -> None:
    calls = Calls()
    sentence = "The lyrics have 2,100 tokens, 52 more than the model takes: the last 52 were cut."
    models = make_song_models(calls, engine=FakeSongEngine(calls, warnings=(sentence,)))
    assert send(models, lyrics=LYRICS, duration=10)["warnings"] == [sentence]


def test_music_shorter_than_what_the_model_was_trained_on_is_made_with_a_warning() -> None:
    _, job = generate(make_song_models(Calls()), duration=5)
    assert any("trained on music of 10 s or more" in warning for warning in job.warnings)


# Audio codes.


@pytest.mark.parametrize(
    "codes", [[1, 2, 63_999], "<|audio_code_1|><|audio_code_2|><|audio_code_63999|>", "1, 2, 63999"]
)
def test_audio_codes_are_followed_and_returned_on_request(codes: Any) -> None:
    calls = Calls()
    reply, _ = generate(
        make_song_models(calls),
        audio_codes=codes,
        return_codes=True,
        audio_cover_strength=0.4,
        n_samples=2,
        duration=10,
    )
    assert [song.codes for song in calls.songs[0].songs] == [(1, 2, 63_999)] * 2
    assert calls.songs[0].cover_strength == 0.4
    assert reply.fields["audio_codes"] == "<|audio_code_1|><|audio_code_2|><|audio_code_63999|>"


def test_audio_codes_say_the_duration_unless_the_request_does() -> None:
    calls = Calls()
    models = make_song_models(calls)
    generate(models, audio_codes=list(range(60)))
    assert calls.songs[0].duration == 12.0
    generate(models, audio_codes=list(range(60)), duration=20)
    assert calls.songs[1].duration == 20.0 and len(calls.songs[1].songs[0].codes or ()) == 60


def test_codes_are_not_in_the_reply_unless_they_are_asked_for() -> None:
    reply, _ = generate(make_song_models(Calls()), audio_codes=[1] * 50)
    assert "audio_codes" not in reply.fields and "audio_codes" not in reply.outputs[0].extra


# The planner.


def test_thinking_lets_the_planner_complete_the_metas_and_write_codes_first() -> None:
    calls = Calls()
    reply, job = generate(
        make_song_models(calls), lyrics=LYRICS, thinking=True, n_samples=2, seed=3, bpm=90, return_codes=True
    )
    assert calls.loaded == [PLANNER, TURBO]
    plan, codes, request = calls.plans[0], calls.codes[0], calls.songs[0]
    assert (plan.mode, plan.caption, plan.lyrics, plan.seed) == ("metas", "slow piano", LYRICS, 3)
    assert plan.metas == Metas(bpm=90) and plan.write_caption and plan.write_language
    assert (codes.caption, codes.song.caption) == ("slow piano", "A thoughtful caption")
    assert (codes.duration, codes.seeds) == (20.0, (3, 4))
    assert codes.song.metas == Metas(bpm=90, key="D minor", time_signature=3, duration=20.0)
    assert [song.codes for song in request.songs] == [tuple(range(3, 103)), tuple(range(4, 104))]
    song = request.songs[0]
    assert (song.caption, song.language, song.metas.bpm, request.duration) == ("A thoughtful caption", "pt", 90, 20.0)
    assert reply.fields["planner_used"] == PLANNER and reply.fields["prompt"] == "A thoughtful caption"
    assert reply.outputs[1].extra["audio_codes"].startswith("<|audio_code_4|><|audio_code_5|>")
    assert "plan_s" in job.timings


def test_what_the_request_says_wins_over_the_planner() -> None:
    calls = Calls()
    generate(
        make_song_models(calls), thinking=True, duration=12, key="E minor", time_signature="4", vocal_language="it",
        use_cot_caption=False,
    )  # fmt: skip
    song = calls.songs[0].songs[0]
    assert (song.caption, song.language) == ("slow piano", "it")
    assert song.metas == Metas(bpm=97, key="E minor", time_signature=4, duration=12.0)
    assert not calls.plans[0].write_caption and not calls.plans[0].write_language


def test_metas_that_are_all_known_are_not_written_again_unless_a_caption_is_asked_for() -> None:
    calls = Calls()
    models = make_song_models(calls)
    known: dict[str, Any] = {"thinking": True, "bpm": 90, "key": "E minor", "time_signature": "4", "duration": 12}
    generate(models, **known)
    assert calls.plans == [] and len(calls.codes) == 1
    generate(models, use_cot_caption=True, **known)
    assert [plan.mode for plan in calls.plans] == ["metas"]


def test_a_query_becomes_a_whole_song() -> None:
    calls = Calls()
    reply, _ = generate(make_song_models(calls), prompt=None, sample_query="a soft Bengali love song")
    plan, song = calls.plans[0], calls.songs[0].songs[0]
    assert (plan.mode, plan.caption) == ("inspire", "a soft Bengali love song")
    assert (plan.language, plan.instrumental) == ("bn", False)
    assert (song.caption, song.lyrics, song.metas.bpm) == ("An invented song", "[Verse]\nInvented words", 120)
    assert calls.songs[0].duration == 12.0 and song.codes is None and calls.codes == []
    assert reply.fields["metas"]["genres"] == "city pop" and len(calls.plans) == 1


@pytest.mark.parametrize(
    "query", ["calm piano solo", "instrumental funk", "pure music for yoga", "jazz without vocals"]
)
def test_a_query_may_ask_for_an_instrumental(query: str) -> None:
    calls = Calls()
    generate(make_song_models(calls), prompt=None, sample_query=query)
    assert calls.plans[0].instrumental


def test_an_empty_query_lets_the_planner_invent_a_song() -> None:
    calls = Calls()
    generate(make_song_models(calls), prompt=None, sample_query="", thinking=True)
    assert (calls.plans[0].mode, calls.plans[0].caption) == ("inspire", "")
    assert calls.codes[0].lyrics == "[Verse]\nInvented words"


def test_use_format_rewrites_prompt_and_lyrics_and_keeps_the_metas() -> None:
    calls = Calls()
    generate(make_song_models(calls), lyrics=LYRICS, use_format=True, bpm=90)
    assert (calls.plans[0].mode, calls.plans[0].lyrics, calls.plans[0].metas) == ("format", LYRICS, Metas(bpm=90))
    song = calls.songs[0].songs[0]
    assert (song.caption, song.lyrics, song.language) == ("A formatted caption", "[Verse]\nFormatted words", "de")
    assert song.metas == Metas(bpm=90, key="A minor", time_signature=6, duration=15.0)
    assert [plan.mode for plan in calls.plans] == ["format"]


def test_the_planners_sampling_is_the_requests() -> None:
    calls = Calls()
    generate(
        make_song_models(calls), thinking=True, planner=PLANNER, lm_temperature=0.5, lm_cfg_scale=3, lm_top_k=40,
        lm_top_p=0.8, lm_repetition_penalty=1.1, lm_negative_prompt="noise",
    )  # fmt: skip
    sampling = calls.codes[0].sampling
    assert (sampling.temperature, sampling.cfg_coef, sampling.top_k, sampling.top_p) == (0.5, 3.0, 40, 0.8)
    assert (sampling.repetition_penalty, sampling.negative_prompt) == (1.1, "noise")


def test_a_named_planner_completes_the_song_without_codes() -> None:
    calls = Calls()
    generate(make_song_models(calls), planner=PLANNER)
    assert [plan.mode for plan in calls.plans] == ["metas"] and calls.songs[0].songs[0].codes is None


def test_a_song_can_do_without_a_planner_that_it_would_only_like() -> None:
    reply, job = generate(make_song_models(Calls(), planner=False), use_cot_language=True, duration=10)
    assert reply.fields["planner_used"] is None
    assert job.warnings == ["'use_cot_caption' and 'use_cot_language' were left out: No planner is here."]


@pytest.mark.parametrize("fields", [{"thinking": True}, {"use_format": True}, {"prompt": None, "sample_query": "x"}])
def test_a_planner_that_is_needed_and_not_here_is_an_error(fields: dict[str, Any]) -> None:
    calls = Calls()
    with pytest.raises(ModelError, match="No planner is here"):
        generate(make_song_models(calls, planner=False), **fields)
    assert calls.loaded == []


@pytest.mark.parametrize("fields", [{"thinking": True}, {"audio_codes": [1]}])
def test_a_model_without_an_audio_tokenizer_is_refused_for_codes_before_the_planner_works(
    fields: dict[str, Any],
) -> None:
    calls = Calls()
    models = make_song_models(calls)
    songs = models.families.songs
    assert isinstance(songs, FakeSongs)
    songs.models[TURBO] = replace(songs.models[TURBO], takes_codes=False)
    with pytest.raises(InvalidRequestError, match="'acestep-v15-turbo' takes no audio codes"):
        generate(models, model=TURBO, duration=10, **fields)
    assert calls.loaded == []


# The order of the engines.


def test_without_a_name_the_engine_that_takes_the_parameters_is_used(tiny_music: Any) -> None:
    models = make_song_models(Calls(), music=tiny_music)
    assert isinstance(generate_music.plan(Params.parse({"prompt": "a"}), models), SongPlan)
    for field, value in {
        "temperature": 0.9,
        "top_k": 10,
        "key": "D dorian",
        "time_signature": "5/4",
        "bpm": 25,
    }.items():
        plan = generate_music.plan(Params.parse({"prompt": "a", field: value}), models)
        assert not isinstance(plan, SongPlan), field
    assert isinstance(generate_music.plan(Params.parse({"lyrics": "la"}), models), SongPlan)


def test_without_a_song_model_the_default_is_as_before(tiny_music: Any) -> None:
    models = make_song_models(Calls(), names=(), music=tiny_music)
    plan = generate_music.plan(Params.parse({"prompt": "a"}), models)
    assert not isinstance(plan, SongPlan) and plan.model.name == "small"  # type: ignore[union-attr]


def test_song_models_that_are_broken_are_passed_over_with_a_warning(tiny_music: Any) -> None:
    models = make_song_models(Calls(), music=tiny_music)
    songs = models.families.songs
    assert isinstance(songs, FakeSongs)
    songs.problem = ModelError("The file 'model.safetensors' is cut short.", code=ErrorCode.BROKEN_CHECKPOINT)
    plan = generate_music.plan(Params.parse({"prompt": "a"}), models)
    assert not isinstance(plan, SongPlan)
    assert plan.warnings[0] == "ACE-Step could not be used, so MusicGen was: The file 'model.safetensors' is cut short."
    plan = generate_music.plan(Params.parse({"prompt": "a", "top_k": 5}), models)
    assert not isinstance(plan, SongPlan) and "ACE-Step" not in " ".join(plan.warnings)


@pytest.fixture(scope="module")
def tiny_music(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from models.checkpoints.locations import WeightLocations
    from models.musicgen import MusicGenFamily
    from testing.tiny_musicgen import write_checkpoint

    folder = tmp_path_factory.mktemp("models")
    write_checkpoint(folder / "small")
    return MusicGenFamily(WeightLocations(explicit=folder), demo=folder / "demo")


# What is refused, before anything is loaded.


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": TURBO, "mbd": True}, "'mbd' is a parameter of MusicGen .*, and this model is one of ACE-Step"),
        ({"model": TURBO, "top_k": 10, "style": "folk"}, "'style' is a parameter of Suno.*'top_k' is .* of MusicGen"),
        ({"model": TURBO, "melody_audio": "x"}, "'melody_audio' is a parameter of MusicGen"),
        ({"model": TURBO, "negative_prompt": "x"}, "'negative_prompt' is a parameter of MusicGen .* and Suno"),
        ({"model": "small", "lyrics": "la"}, "'lyrics' is a parameter of ACE-Step .*'acestep-v15-turbo'.* and Suno"),
        ({"model": "small", "thinking": True, "shift": 2}, "'shift' is a parameter of ACE-Step.*'thinking'"),
        ({"model": "small", "style_audio": "x"}, "'style_audio' is a parameter of ACE-Step"),
        ({"model": "small", "time_signature": "4"}, "'time_signature' must be beats over note value"),
        ({"model": TURBO, "bpm": 25}, "'bpm' must be 30 to 300"),
        ({"model": TURBO, "key": "D dorian"}, "'key' must be a note .*'major' or 'minor'.* with ACE-Step"),
        ({"model": TURBO, "time_signature": "5/4"}, "'time_signature' must be '2/4', '3/4', '4/4' or '6/8'"),
        ({"model": TURBO, "lyrics": "la", "instrumental": True}, "'instrumental' contradicts 'lyrics'"),
        ({"model": TURBO, "sample_query": "x"}, "'prompt' contradicts 'sample_query'"),
        ({"model": TURBO, "prompt": None, "sample_query": "x", "lyrics": "la", "use_format": True, "audio_codes": [1]},
         "'lyrics' contradicts.*'use_format' contradicts.*'audio_codes' contradicts"),
        ({"model": TURBO, "prompt": None, "style_audio": "x", "use_format": True}, "'use_format' needs"),
        ({"model": TURBO, "inference_steps": 21}, "asks for 21 steps, .*at most 20"),
        ({"model": TURBO, "timesteps": [1 - i / 30 for i in range(25)]}, "'timesteps' asks for 25 steps"),
        ({"model": "acestep-v15-turb"}, "Did you mean 'acestep-v15-turbo'"),
        ({"model": TURBO, "planner": "nope"}, "nope"),
    ],
)  # fmt: skip
def test_what_the_engine_does_not_take_is_refused_by_name_before_loading(
    fields: dict[str, Any], message: str, tiny_music: Any
) -> None:
    calls = Calls()
    models = make_song_models(calls, music=tiny_music)
    with pytest.raises(InvalidRequestError, match=message):
        generate_music.plan(Params.parse({"prompt": "slow piano"} | fields), models)
    assert calls.loaded == [] and models.list_loaded() == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"audio_codes": "<|audio_code_1|>, huh"}, "'audio_codes' has"),
        ({"audio_codes": "1,x"}, "'audio_codes' must be a list of numbers"),
        ({"audio_codes": [64_000]}, "'audio_codes' must be less than or equal to 63999"),
        ({"audio_codes": "<|audio_code_64000|>"}, "64000"),
        ({"audio_codes": [-1]}, "'audio_codes' must be greater"),
        ({"audio_codes": []}, "'audio_codes' .*at least 1"),
        ({"audio_codes": [1] * 3001}, "'audio_codes' .*at most 3000"),
        ({"audio_codes": [True]}, "'audio_codes'"),
        ({"timesteps": [0.5, 0.5]}, "'timesteps' cannot be used.*less than the one before"),
        ({"timesteps": [1.5, 0.5]}, "'timesteps'.*at most 1"),
        ({"timesteps": "0.9;0.5"}, "'timesteps' must be a list of numbers"),
        ({"timesteps": [0]}, "'timesteps'"),
        ({"timesteps": [float("nan")]}, "'timesteps'"),
        ({"timesteps": [0.9, 0.5], "inference_steps": 8}, "'inference_steps' is 8, but 'timesteps' has 2 steps"),
        ({"timesteps": [0.9, 0.5], "shift": 2}, "'shift' has no effect on 'timesteps'"),
        ({"vocal_language": "tlh"}, "'vocal_language' names 'tlh', which is no language of ACE-Step"),
        ({"cfg_interval_start": 0.8, "cfg_interval_end": 0.2}, "'cfg_interval_start' must not be above"),
        ({"infer_method": "heun"}, "'infer_method' must be 'ode' or 'sde'"),
        ({"lyrics": "x" * 5001}, "'lyrics' .*at most 5000"),
        ({"lm_top_p": 0}, "'lm_top_p'"),
        ({"inference_steps": 0, "shift": 0, "lm_cfg_scale": 99}, "'inference_steps'.*'shift'.*'lm_cfg_scale'"),
        ({"thinkin": True}, "Did you mean 'thinking'"),
    ],
)  # fmt: skip
def test_invalid_values_are_reported_together(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        Params.parse({"prompt": "piano"} | fields)


def test_guidance_of_a_distilled_model_is_left_out_with_a_warning() -> None:
    calls = Calls()
    _, job = generate(make_song_models(calls), cfg_coef=5, use_adg=True, cfg_interval_end=0.5, duration=10)
    assert (calls.songs[0].sampling.cfg_coef, calls.songs[0].sampling.use_adg) == (1.0, False)
    assert "were left out: cfg_coef, use_adg, cfg_interval_end" in job.warnings[0]


@pytest.mark.parametrize(
    ("fields", "is_warned"),
    [
        ({}, False),
        ({"shift": 1}, False),
        ({"shift": 2}, False),
        ({"inference_steps": 4}, False),
        ({"shift": 2.5}, True),
        ({"inference_steps": 20}, True),
        ({"timesteps": "1,0.75,0.3"}, False),
        ({"timesteps": "0.97,0.5"}, True),
        ({"model": BASE, "shift": 2.5}, False),
        ({"model": "acestep-v15-turbo-continuous", "shift": 2.5}, False),
        ({"model": "acestep-v15-turbo-continuous", "shift": 2.5, "inference_steps": 12}, True),
    ],
)
def test_timesteps_that_a_turbo_model_was_not_distilled_for_are_named(fields: dict[str, Any], is_warned: bool) -> None:
    models = make_song_models(Calls(), names=[TURBO, BASE, "acestep-v15-turbo-continuous"])
    _, job = generate(models, duration=10, **fields)
    assert any("was not distilled for these timesteps" in warning for warning in job.warnings) == is_warned


def test_a_tempo_with_a_fraction_is_rounded_with_a_warning() -> None:
    calls = Calls()
    _, job = generate(make_song_models(calls), bpm=92.5, duration=10)
    assert calls.songs[0].songs[0].metas.bpm == 92 and "rounded to 92" in job.warnings[0]


def test_the_schema_says_which_engine_takes_a_parameter() -> None:
    schema = Params.model_json_schema()["properties"]
    assert schema["mbd"]["engines"] == ["musicgen"] and schema["lyrics"]["engines"] == ["acestep", "suno"]
    assert schema["thinking"]["engines"] == ["acestep"] and "engines" not in schema["prompt"]


@pytest.mark.parametrize("partial", [True, False])
def test_clips_that_are_done_when_the_time_runs_out_are_returned_if_the_request_says_so(partial: bool) -> None:
    calls = Calls()
    job = Job(id="test")

    def pass_deadline(count: int) -> None:
        job.deadline = 0.0 if count == 2 else None

    models = make_song_models(calls, engine=FakeSongEngine(calls, after_clip=pass_deadline))
    plan = make_plan(models, n_samples=3, duration=10, partial=partial)
    if not partial:
        with pytest.raises(DeadlineError):
            generate_music.run(plan, job, models)
        return
    reply = generate_music.run(plan, job, models)
    assert len(reply.outputs) == 2 and job.warnings[0].startswith("Time ran out: 2 of 3 clips")
