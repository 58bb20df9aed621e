"""The operations of the ACE-Step API: every spelling of a parameter, what each becomes, and the keys of the results."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from audio import Audio
from audio.types import AudioSource
from errors import InvalidRequestError
from models import Models
from models.acestep.metas import Metas
from operations import create_random_sample, format_input, release_task
from operations.operation import Operation
from testing.dispatch import answer
from testing.fake_songs import BASE, PLANNER, TURBO, Calls, make_song_models
from worker.job import Job
from worker.reply import Reply
from worker.settings import Settings


def release(models: Models, audio: dict[str, AudioSource] | None = None, **fields: Any) -> tuple[Reply, Job]:
    return run(release_task.OPERATION, models, audio, **fields)


def run(
    operation: Operation[Any, Any], models: Models, audio: dict[str, AudioSource] | None = None, **fields: Any
) -> tuple[Reply, Job]:
    values = {**dict.fromkeys(audio or {}, "placeholder"), **fields}
    plan = operation.plan(operation.params.parse(values), models)
    job = Job(id="test", audio=dict(audio or {}))
    return operation.run(plan, job, models), job


def tone(seconds: float = 12.0) -> Audio:
    return Audio(np.full((2, round(seconds * 8000)), 0.3, np.float32), 8000)


def test_a_request_of_the_api_document_becomes_a_song() -> None:
    calls = Calls()
    reply, job = release(
        make_song_models(calls), prompt="upbeat pop song", lyrics="Hello world", thinking=True, inference_steps=8,
        audio_duration=20, lm_temperature=0.7, lm_cfg_scale=2.0, vocal_language="fr", batch_size=2, seed=12,
    )  # fmt: skip
    request = calls.songs[0]
    assert [song.seed for song in request.songs] == [12, 13] and request.duration == 20.0
    assert request.songs[0].lyrics == "Hello world" and request.songs[0].language == "fr"
    assert calls.codes[0].sampling.temperature == 0.7 and calls.codes[0].sampling.cfg_coef == 2.0
    fields = reply.fields
    assert (fields["seed_value"], fields["lm_model"], fields["dit_model"]) == ("12,13", PLANNER, TURBO)
    assert fields["metas"]["timesignature"] == "3" and fields["metas"]["keyscale"] == "D minor"
    assert fields["metas"]["bpm"] == 97 and fields["generation_info"].startswith("8 steps")
    assert [output.extra["seed_value"] for output in reply.outputs] == ["12", "13"]
    assert reply.always_list and not job.warnings


CODES = "<|audio_code_1|><|audio_code_2|>"

SPELLINGS: dict[str, dict[str, Any]] = {
    "snake": {"key_scale": "Am", "time_signature": "3", "audio_duration": 20, "vocal_language": "de", "bpm": 90},
    "camel": {"keyScale": "Am", "timeSignature": "3", "audioDuration": 20, "vocalLanguage": "de", "bpm": 90},
    "short": {"keyscale": "Am", "timesignature": "3", "duration": 20, "language": "de", "bpm": 90},
    "others": {"key": "A Minor", "timesignature": 3, "target_duration": 20, "language": "de", "bpm": 90.0},
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize(
    "place", ["", "metas", "meta", "metadata", "user_metadata", "userMetadata", "param_obj", "json"]
)
def test_metas_may_be_spelled_and_nested_in_every_way(spelling: str, place: str) -> None:
    calls = Calls()
    metas = SPELLINGS[spelling]
    values = {"": metas, "json": {"param_obj": json.dumps(metas)}}.get(place, {place: metas})
    release(make_song_models(calls), caption="pop", **values)
    song = calls.songs[0].songs[0]
    assert song.metas == Metas(bpm=90, key="A minor", time_signature=3, duration=20.0)
    assert (song.caption, song.language) == ("pop", "de")


@pytest.mark.parametrize(
    ("fields", "field", "value"),
    [
        ({"inferenceSteps": 4}, "num_steps", 4),
        ({"guidanceScale": 4, "dit_model": BASE}, "cfg_coef", 4.0),
        ({"guidance_scale": 4, "modelName": BASE}, "cfg_coef", 4.0),
        ({"shift": 2}, "shift", 2.0),
        ({"inferMethod": "sde"}, "method", "sde"),
        ({"timesteps": "0.9,0.5,0.1,0"}, "timesteps", (0.9, 0.5, 0.1)),
        ({"useAdg": True, "model": BASE}, "use_adg", True),
        ({"cfgIntervalStart": 0.1, "cfg_interval_end": 0.9, "model": BASE}, "cfg_interval", (0.1, 0.9)),
        ({"inference_steps": None}, "num_steps", 8),
        ({"model": BASE}, "num_steps", 50),
        ({"model": BASE}, "shift", 1.0),
    ],
)
def test_sampling_has_its_spellings_and_the_models_own_defaults(fields: dict[str, Any], field: str, value: Any) -> None:
    calls = Calls()
    release(make_song_models(calls), prompt="pop", **fields)
    assert getattr(calls.songs[0].sampling, field) == value


@pytest.mark.parametrize(
    ("fields", "is_used"),
    [
        ({"seed": 5}, True),
        ({"seed": 5, "use_random_seed": False}, True),
        ({"seed": 5, "useRandomSeed": True}, False),
        ({"seed": -1}, False),
        ({}, False),
    ],
)
def test_a_seed_is_used_unless_a_random_one_is_asked_for(fields: dict[str, Any], is_used: bool) -> None:
    seeds = {release(make_song_models(Calls()), prompt="pop", **fields)[0].fields["seed"] for _ in range(3)}
    assert (seeds == {5}) == is_used


@pytest.mark.parametrize(
    "fields",
    [{"sample_query": "soft jazz"}, {"description": "soft jazz"}, {"desc": "soft jazz"}, {"sampleQuery": "soft jazz"}],
)
def test_a_sample_is_written_from_a_query(fields: dict[str, Any]) -> None:
    calls = Calls()
    reply, job = release(make_song_models(calls), prompt="left", vocal_language="en", use_format=True, **fields)
    assert (calls.plans[0].mode, calls.plans[0].caption) == ("inspire", "soft jazz")
    assert reply.fields["prompt"] == "An invented song" and reply.fields["metas"]["vocal_language"] == "ja"
    assert job.warnings == ["These were left out, because the planner writes the song: prompt, use_format."]


def test_sample_mode_invents_a_song() -> None:
    calls = Calls()
    release(make_song_models(calls), sampleMode=True)
    assert (calls.plans[0].mode, calls.plans[0].caption) == ("inspire", "")


@pytest.mark.parametrize(
    "codes", ["<|audio_code_1|><|audio_code_2|>", ["<|audio_code_1|><|audio_code_2|>"] * 2, [1, 2]]
)
def test_audio_codes_are_a_string_or_a_list(codes: Any) -> None:
    calls = Calls()
    release(make_song_models(calls), prompt="pop", audioCodeString=codes)
    assert calls.songs[0].songs[0].codes == (1, 2)


def test_reference_audio_is_the_style_and_source_audio_is_edited() -> None:
    calls = Calls()
    style, source = tone(5.0), tone(12.0)
    models = make_song_models(calls)
    release(models, {"reference_audio": style}, prompt="pop")
    assert calls.songs[0].reference is style and calls.songs[0].source is None
    reply, _ = release(models, {"src_audio": source}, task_type="cover", audio_cover_strength=0.3, prompt="jazz")
    assert (calls.songs[1].task, calls.songs[1].source, calls.songs[1].cover_strength) == ("cover", source, 0.3)
    assert "cfg_coef" not in reply.parameters and reply.parameters["guidance_scale"] == 1.0
    assert reply.fields["dit_model"] == TURBO


# The spellings that the server's parser takes, by what they are called there.
SERVER_SPELLINGS = {
    "prompt": "prompt caption",
    "lyrics": "lyrics",
    "thinking": "thinking",
    "sample_mode": "sample_mode sampleMode",
    "sample_query": "sample_query sampleQuery description desc",
    "use_format": "use_format useFormat format",
    "model": "model model_name modelName dit_model ditModel",
    "key_scale": "key_scale keyscale keyScale key",
    "time_signature": "time_signature timesignature timeSignature",
    "audio_duration": "audio_duration duration audioDuration target_duration targetDuration",
    "vocal_language": "vocal_language vocalLanguage language",
    "bpm": "bpm",
    "inference_steps": "inference_steps inferenceSteps",
    "guidance_scale": "guidance_scale guidanceScale",
    "use_random_seed": "use_random_seed useRandomSeed",
    "seed": "seed",
    "audio_cover_strength": "audio_cover_strength audioCoverStrength",
    "reference_audio": "reference_audio_path ref_audio_path referenceAudioPath refAudioPath reference_audio ref_audio",
    "src_audio": "src_audio_path ctx_audio_path sourceAudioPath srcAudioPath ctxAudioPath src_audio ctx_audio",
    "task_type": "task_type taskType",
    "infer_method": "infer_method inferMethod",
    "use_tiled_decode": "use_tiled_decode useTiledDecode",
    "constrained_decoding": "constrained_decoding constrainedDecoding constrained",
    "constrained_decoding_debug": "constrained_decoding_debug constrainedDecodingDebug",
    "use_cot_caption": "use_cot_caption cot_caption cot-caption",
    "use_cot_language": "use_cot_language cot_language cot-language",
    "is_format_caption": "is_format_caption isFormatCaption",
    "allow_lm_batch": "allow_lm_batch allowLmBatch parallel_thinking",
    "audio_code_string": "audio_code_string audioCodeString audio_codes",
    "output_format": "audio_format",
}


@pytest.mark.parametrize(("own", "spellings"), SERVER_SPELLINGS.items())
def test_every_spelling_of_the_server_is_known(own: str, spellings: str) -> None:
    known = release_task.Params.spellings()
    assert {spelling: known.get(spelling) for spelling in spellings.split()} == dict.fromkeys(spellings.split(), own)


def test_no_two_parameters_share_a_spelling() -> None:
    from operations.acestep_api.parameters import list_spellings

    for params in (release_task.Params, format_input.Params, create_random_sample.Params):
        spellings = [spelling for name in params.model_fields for spelling in list_spellings(name)]
        assert len(spellings) == len(set(spellings))


def test_every_task_is_routed_with_what_belongs_to_it() -> None:
    calls = Calls()
    models = make_song_models(calls)
    everything: dict[str, Any] = {
        "prompt": "x", "repainting_start": 0.0, "repainting_end": -1, "audio_cover_strength": 1.0, "thinking": False,
    }  # fmt: skip
    tasks: dict[str, dict[str, Any]] = {
        "cover": {}, "repaint": {"repainting_start": 2}, "lego": {"track_name": "drums"},
        "extract": {"trackName": "vocals"}, "complete": {"track_classes": ["bass"]},
    }  # fmt: skip
    for task, fields in tasks.items():
        reply, job = release(models, {"src_audio": tone()}, task_type=task, **(everything | fields))
        assert calls.songs[-1].task == task and job.warnings == []
        assert ("vocals" in reply.stems) == (task == "extract")


def test_what_does_not_belong_to_the_task_is_left_out_with_a_warning() -> None:
    _, job = release(
        make_song_models(Calls()), {"src_audio": tone()}, task_type="cover", thinking=True, audio_duration=30,
        repainting_end=5, lm_backend="pt", constrained_decoding_debug=True, instruction="Do it:",
    )  # fmt: skip
    assert any("'the task 'cover'" in warning or "the task 'cover'" in warning for warning in job.warnings)
    belongs = next(warning for warning in job.warnings if "do not belong" in warning)
    assert all(name in belongs for name in ("thinking", "audio_duration", "repainting_end"))
    assert sum("'lm_backend'" in warning for warning in job.warnings) == 1
    assert sum("'instruction'" in warning for warning in job.warnings) == 1
    _, job = release(make_song_models(Calls()), {"src_audio": tone()}, prompt="pop", audio_duration=12)
    assert "src_audio" in job.warnings[0]


def test_empty_strings_and_signs_for_unknown_values_count_as_absent() -> None:
    calls = Calls()
    _, job = release(
        make_song_models(calls), prompt="pop", key_scale="", time_signature="", audio_code_string="", timesteps="",
        reference_audio_path="", metas={"bpm": "N/A", "genres": "pop", "keyscale": "N/A"}, audio_duration=-1,
        lm_negative_prompt="NO USER INPUT", ai_token="secret",
    )  # fmt: skip
    assert calls.songs[0].songs[0].metas == Metas(duration=60.0) and not job.warnings


def test_a_key_of_the_other_server_is_never_repeated() -> None:
    params = {"prompt": "pop", "ai_token": "secret-token", "duration": 10}
    reply = answer(
        {"input": {"operation": "release_task", "params": params}},
        settings=Settings(volume_dirs=()),
        models=make_song_models(Calls()),
    )
    assert "secret-token" not in json.dumps(reply)
    assert reply["format"] == "mp3" and reply["outputs"][0]["seed_value"] == reply["seed_value"]
    assert reply["parameters"]["audio_duration"] == 10 and reply["parameters"]["inference_steps"] == 8


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"bpm": 90, "metas": {"bpm": 100}}, "'bpm' has different values in 'bpm' and 'metas.bpm'"),
        ({"caption": "a", "prompt": "b"}, "'prompt' has different values"),
        ({"metas": [1]}, "'metas' must be an object"),
        ({"param_obj": "{bpm"}, "'param_obj' must be an object"),
        ({"param_obj": "[" * 100_000}, "'param_obj' must be an object"),
        ({"metas": {"mood": "x"}}, "'mood' is unknown"),
        ({"bpm": 10, "batch_size": 9}, "'batch_size' .*8.*'bpm'|'bpm'.*'batch_size' .*8"),
        ({"guidance_scale": 99}, "'guidance_scale' must be less"),
        ({"key_scale": "H"}, "'key_scale' must be a note"),
        ({"audio_duration": 601}, "'audio_duration' must be less"),
        ({"audio_code_string": ["<|audio_code_1|>", "<|audio_code_2|>"]}, "'audio_code_string' has different codes"),
        ({"audio_code_string": "<|audio_code_99999|>"}, "'audio_code_string' "),
        ({"vocal_language": "klingon"}, "'vocal_language' names"),
        ({"task_type": "cover"}, "'src_audio' is required"),
        ({"task_type": "extract", "src_audio": "x"}, "'track_name' is required"),
        ({"model": "acestep-v99"}, "acestep-v99"),
        ({"lm_model_path": "/models/other-lm", "thinking": True}, "other-lm"),
        ({"bpm": "120"}, "'bpm' must be a valid integer"),
        ({"inference_steps": 21}, "at most 20"),
    ],
)
def test_faults_are_told_in_the_words_of_the_request(fields: dict[str, Any], message: str) -> None:
    calls = Calls()
    with pytest.raises(InvalidRequestError, match=message):
        release(make_song_models(calls), prompt="pop", **fields) if "prompt" not in fields else release(
            make_song_models(calls), **fields
        )
    assert calls.loaded == []


def test_format_input_takes_param_obj_and_returns_the_apis_keys() -> None:
    calls = Calls()
    reply, _ = run(
        format_input.OPERATION, make_song_models(calls), prompt="pop rock", lyrics="Walking", temperature=0.5,
        param_obj='{"duration": 180, "language": "en", "key": "Am", "time_signature": "3"}',
    )  # fmt: skip
    request = calls.plans[0]
    assert (request.mode, request.language, request.sampling.temperature) == ("format", "en", 0.5)
    assert request.metas == Metas(key="A minor", time_signature=3, duration=180.0)
    fields = reply.fields
    assert (fields["caption"], fields["lyrics"]) == ("A formatted caption", "[Verse]\nFormatted words")
    assert (fields["bpm"], fields["key_scale"], fields["time_signature"]) == (140, "A minor", "3")
    assert (fields["duration"], fields["vocal_language"]) == (180.0, "en")


@pytest.mark.parametrize(
    ("fields", "message"), [({}, "'prompt' is required"), ({"prompt": "x", "temperature": 9}, "'temperature' must be")]
)
def test_format_input_names_its_own_fields(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        run(format_input.OPERATION, make_song_models(Calls()), **fields)


@pytest.mark.parametrize("kind", ["simple_mode", "custom_mode", None])
def test_create_random_sample_needs_no_model(kind: str | None) -> None:
    reply, _ = run(create_random_sample.OPERATION, make_song_models(Calls(), names=(), planner=False), sampleType=kind)
    keys = {"caption", "lyrics", "bpm", "key_scale", "time_signature", "duration", "vocal_language", "description"}
    assert keys <= set(reply.fields) and reply.fields["time_signature"] in ("2", "3", "4", "6")


def test_the_schema_says_what_each_parameter_becomes() -> None:
    properties = release_task.Params.model_json_schema()["properties"]
    assert properties["guidance_scale"]["becomes"] == "cfg_coef" and "left_out" in properties["lm_backend"]
