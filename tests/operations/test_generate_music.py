"""generate_music from parameters to reply, on tiny checkpoints of the real format; what it refuses costs no loading."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audio import Audio
from audio.types import in_memory
from errors import AudioError, CancelledError, DeadlineError, InvalidRequestError, ModelError, RequestError
from models import Models
from models.checkpoints.locations import WeightLocations
from models.musicgen import MusicGenFamily
from models.musicgen.catalog import DIFFUSION_FILE
from operations import generate_music
from operations.generate_music import Params
from testing.dispatch import answer
from testing.models import make_models
from testing.tiny_demucs import htdemucs, save_bag
from testing.tiny_musicgen import Shape, write_checkpoint, write_diffusion
from worker.job import Job, compute_deadline
from worker.reply import Reply
from worker.settings import Settings

RATE = 16_000


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MODELS_DIR with a text, a melody and a stereo model, and a demo beside it."""
    root = tmp_path_factory.mktemp("weights")
    write_checkpoint(root / "shelf" / "small", Shape())
    write_checkpoint(root / "shelf" / "melody", Shape(melody=True))
    write_checkpoint(root / "shelf" / "stereo-small", Shape(stereo=True))
    shutil.copytree(root / "shelf" / "small", root / "demo")
    return root / "shelf"


@pytest.fixture(scope="module")
def models(shelf: Path) -> Models:
    family = MusicGenFamily(WeightLocations(explicit=shelf), demo=shelf.parent / "demo")
    return make_models(music=family)


def tone(seconds: float, sample_rate: int = RATE) -> Audio:
    time = np.arange(int(seconds * sample_rate)) / sample_rate
    return Audio((0.3 * np.sin(2 * np.pi * 330 * time))[None].astype(np.float32), sample_rate)


def made(models: Models, audio: dict[str, Audio] | None = None, **fields: Any) -> tuple[Reply, Job]:
    job = Job(id="test", audio=audio or {})
    sources = dict.fromkeys(audio or {}, "placeholder")
    values = {"prompt": "slow piano", "model": "small", "duration": 0.5, **sources, **fields}
    params = Params.parse({key: value for key, value in values.items() if value is not ...})
    return generate_music.run(generate_music.plan(params, models), job, models), job


def sounds(reply: Reply) -> list[np.ndarray[Any, Any]]:
    return [in_memory(output.audio).waveform for output in reply.outputs]


def test_a_reply_tells_model_seed_speed_and_licence(models: Models) -> None:
    reply, job = made(models, seed=7)
    assert reply.fields["model_used"] == "small" and reply.fields["seed"] == 7
    assert reply.fields["steps_per_s"] > 0 and reply.fields["licence"] == "CC-BY-NC 4.0"
    assert reply.parameters == {"model": "small", "seed": 7, "extend_stride": 1.2}
    assert set(job.timings) >= {"load_s", "condition_s", "decode_s", "codec_s"}
    assert reply.outputs[0].audio.num_samples == RATE // 2 and not job.warnings


def test_a_drawn_seed_is_returned_and_makes_the_same_piece_again(models: Models) -> None:
    first, _ = made(models)
    again, _ = made(models, seed=first.fields["seed"])
    other, _ = made(models)
    np.testing.assert_array_equal(sounds(first)[0], sounds(again)[0])
    assert other.fields["seed"] != first.fields["seed"]


def test_each_prompt_and_each_sample_is_a_piece_with_its_own_seed(models: Models) -> None:
    reply, _ = made(models, prompt=["slow piano", "fast drums"], n_samples=2, seed=5)
    assert [output.extra["prompt"] for output in reply.outputs] == ["slow piano"] * 2 + ["fast drums"] * 2
    assert reply.fields["seeds"] == [5, 6, 7, 8] == [output.extra["seed"] for output in reply.outputs]
    assert [output.name for output in reply.outputs] == ["music_1", "music_2", "music_3", "music_4"]
    alone, _ = made(models, prompt="fast drums", seed=8)
    np.testing.assert_array_equal(sounds(reply)[3], sounds(alone)[0])


def test_a_list_of_seeds_is_taken_as_it_is(models: Models) -> None:
    reply, _ = made(models, n_samples=2, seed=[9, 3])
    alone, _ = made(models, seed=3)
    assert reply.fields["seeds"] == [9, 3] and reply.fields["seed"] == 9
    np.testing.assert_array_equal(sounds(reply)[1], sounds(alone)[0])


def test_tempo_key_and_meter_join_the_text_unless_they_stand_in_it(models: Models) -> None:
    reply, _ = made(models, prompt="slow piano.", bpm=92, key="F# minor", time_signature="3/4")
    assert reply.outputs[0].extra["prompt"] == "slow piano, 92 bpm, F# minor, 3/4 time"
    reply, _ = made(models, prompt="slow piano, 92 BPM", bpm=92.0)
    assert reply.outputs[0].extra["prompt"] == "slow piano, 92 BPM"


def test_the_default_is_the_best_model_that_takes_what_was_sent(models: Models) -> None:
    assert made(models, model=...)[0].fields["model_used"] == "melody"
    reply, _ = made(models, {"melody_audio": tone(1.0)}, model=...)
    assert reply.fields["model_used"] == "melody"


def test_the_demo_says_that_it_is_one_and_how_to_get_a_real_model(models: Models) -> None:
    _, job = made(models, model="demo")
    assert len(job.warnings) == 1
    assert "demo" in job.warnings[0] and "MODELS_DIR" in job.warnings[0]


def test_a_melody_steers_and_the_whole_mix_is_named_where_it_cannot_be_separated(models: Models) -> None:
    plain, _ = made(models, model="melody", seed=1)
    steered, job = made(models, {"melody_audio": tone(1.0)}, model="melody", seed=1)
    assert not np.allclose(sounds(plain)[0], sounds(steered)[0])
    assert any("melody" in warning for warning in job.warnings)


def test_a_melody_is_freed_of_drums_and_bass_where_demucs_is_here(shelf: Path, tmp_path: Path) -> None:
    from models.demucs import DemucsFamily

    save_bag(tmp_path / "htdemucs", {"955717e8": htdemucs()}, "htdemucs")
    family = MusicGenFamily(WeightLocations(explicit=shelf), demo=shelf.parent / "demo")
    both = make_models(music=family, separation=DemucsFamily(WeightLocations(explicit=tmp_path)))
    reply, job = made(both, {"melody_audio": tone(1.0, 44_100)}, model="melody", seed=1)
    whole, _ = made(make_models(music=family), {"melody_audio": tone(1.0, 44_100)}, model="melody", seed=1)
    assert (
        not job.warnings and "melody_s" in job.timings and set(both.loaded()) == {"musicgen/melody", "demucs/htdemucs"}
    )
    assert not np.allclose(sounds(reply)[0], sounds(whole)[0])


def test_a_continuation_begins_with_its_part_unless_that_is_left_out(models: Models) -> None:
    recording = {"continuation_audio": tone(3.0, 44_100)}
    span = {"continuation_start": 1.0, "continuation_end": 1.8, "seed": 1}
    whole, _ = made(models, recording, **span)
    new, _ = made(models, recording, include_prompt=False, **span)
    assert abs(whole.outputs[0].audio.duration - 1.3) < 0.03
    assert new.outputs[0].audio.duration == 0.5
    np.testing.assert_array_equal(sounds(whole)[0][:, -8000:], sounds(new)[0])
    without_text, _ = made(models, recording, prompt=..., **span)
    assert without_text.outputs[0].audio.peak > 0


def test_a_piece_longer_than_the_window_slides(models: Models) -> None:
    reply, _ = made(models, duration=4.5, extend_stride=0.9)
    assert reply.outputs[0].audio.duration == 4.5 and reply.parameters["extend_stride"] == 0.9


def test_a_stereo_model_makes_stereo(models: Models) -> None:
    assert made(models, model="stereo-small")[0].outputs[0].audio.channels == 2


def test_fades_begin_and_end_in_silence(models: Models) -> None:
    reply, _ = made(models, seed=1, fade_in=0.1, fade_out=0.2)
    plain, _ = made(models, seed=1)
    waveform, untouched = sounds(reply)[0], sounds(plain)[0]
    assert waveform[0, 0] == 0 and abs(waveform[0, -1]) < 1e-6
    middle = slice(RATE // 10, RATE // 10 * 3)
    np.testing.assert_array_equal(waveform[:, middle], untouched[:, middle])


def test_trimming_is_passed_on(models: Models) -> None:
    reply, _ = made(models, seed=1, trim_silence=True)
    assert 0 < reply.outputs[0].audio.num_samples <= RATE // 2


def test_guidance_scale_and_description_are_other_names(models: Models) -> None:
    params = Params.parse({"description": "piano", "guidance_scale": 2})
    assert (params.prompt, params.cfg_coef) == ("piano", 2.0)


def test_an_empty_prompt_is_made_and_warned_of(models: Models) -> None:
    _, job = made(models, prompt="")
    assert "without a prompt" in job.warnings[0]


def test_cancelling_stops_within_a_step_and_the_next_job_is_clean(models: Models) -> None:
    clean, _ = made(models, seed=1)
    job = Job(id="test")
    reports: list[Any] = []

    def report(update: Any) -> None:
        reports.append(update)
        if len(reports) == 10:
            job.cancel.set()

    job.report = report
    with pytest.raises(CancelledError):
        params = Params.parse({"prompt": "slow piano", "model": "small"})
        generate_music.run(generate_music.plan(params, models), job, models)
    assert len(reports) == 10 and reports[-1]["percent"] < 10
    np.testing.assert_array_equal(sounds(made(models, seed=1)[0])[0], sounds(clean)[0])


def in_time(models: Models, policy: Any = None, job_timeout_s: float = 0.0, **fields: Any) -> dict[str, Any]:
    """The reply to a whole job, or its error, where the platform or the worker limits its time."""
    params = {"prompt": "slow piano", "model": "small", "delivery": "inline", **fields}
    job = {"id": "t", "input": {"operation": "generate_music", "params": params}, "policy": policy}
    return answer(job, settings=Settings(job_timeout_s=job_timeout_s, volume_dirs=()), models=models)


def test_where_the_platforms_time_runs_out_what_is_done_is_returned_if_asked_for(models: Models) -> None:
    in_time(models, duration=0.5)  # so that loading takes none of the time
    reply = in_time(models, {"executionTimeout": 2000}, duration=600, partial=True)
    assert 0 < reply["duration"] < 600
    assert any(sentence.startswith("Time ran out: 1 of 1 clips") for sentence in reply["warnings"])


def test_where_time_runs_out_the_job_ends_with_a_sentence_unless_the_part_is_asked_for(models: Models) -> None:
    with pytest.raises(DeadlineError, match="time is up"):
        in_time(models, duration=600, job_timeout_s=0.5)
    assert in_time(models, duration=0.5)["duration"] == 0.5


@pytest.mark.parametrize("policy", [None, [], "x", {}, {"executionTimeout": None}, {"executionTimeout": -1}])
def test_a_policy_without_a_time_sets_no_deadline(policy: Any) -> None:
    assert compute_deadline(policy, timeout_s=0.0, now=100.0) is None
    assert compute_deadline(policy, timeout_s=300.0, now=100.0) == 390.0


@pytest.mark.parametrize(("asked_ms", "timeout_s", "left_s"), [(5000, 0.0, 4.5), (5000, 2.0, 1.8), (1e6, 600.0, 590.0)])
def test_the_shorter_time_counts_and_some_of_it_is_left_for_handing_over(
    asked_ms: float, timeout_s: float, left_s: float
) -> None:
    left = compute_deadline({"executionTimeout": asked_ms}, timeout_s=timeout_s, now=0.0)
    assert left == pytest.approx(left_s)


def test_diffusion_decodes_where_its_weights_are(models: Models, shelf: Path) -> None:
    path = shelf / "multiband-diffusion" / DIFFUSION_FILE
    write_diffusion(path, sample_rate=RATE)
    try:
        for model, channels in (("small", 1), ("stereo-small", 2)):
            plain, _ = made(models, model=model, seed=1)
            diffused, _ = made(models, model=model, seed=1, mbd=True)
            again, _ = made(models, model=model, seed=1, mbd=True)
            assert sounds(diffused)[0].shape == (channels, RATE // 2)
            assert not np.allclose(sounds(plain)[0], sounds(diffused)[0])
            np.testing.assert_array_equal(sounds(diffused)[0], sounds(again)[0])
    finally:
        models.evict_idle()
        path.unlink()


REFUSED: list[tuple[dict[str, Any], dict[str, Audio], type[RequestError], str]] = [
    ({}, {"melody_audio": tone(1.0)}, InvalidRequestError, "takes no melody"),
    ({}, {"style_audio": tone(1.0)}, InvalidRequestError, "no model that runs here takes a style"),
    ({"mbd": True}, {}, ModelError, "Multi-Band Diffusion"),
    ({"model": "demo", "mbd": True}, {}, ModelError, "Multi-Band Diffusion"),
    ({"model": "large"}, {}, ModelError, "offline"),
    ({"model": "style"}, {}, ModelError, "cannot be run"),
    ({"model": "smal"}, {}, InvalidRequestError, "Did you mean 'small'"),
    ({"model": "../small"}, {}, InvalidRequestError, "cannot be a model"),
    ({"extend_stride": 2.0}, {}, InvalidRequestError, "below the window"),
    ({"continuation_start": 2.0}, {"continuation_audio": tone(1.0)}, AudioError, "within it"),
    ({"continuation_end": 1.5}, {"continuation_audio": tone(1.0)}, AudioError, "within it"),
    ({}, {"continuation_audio": tone(2.5)}, AudioError, "'continuation_start' to 1.3"),
]


@pytest.mark.parametrize(("fields", "audio", "error", "message"), REFUSED)
def test_what_a_model_cannot_do_is_refused_before_loading(
    shelf: Path, fields: dict[str, Any], audio: dict[str, Audio], error: type[RequestError], message: str
) -> None:
    family = MusicGenFamily(WeightLocations(explicit=shelf), demo=shelf.parent / "demo")
    fresh = make_models(music=family)
    with pytest.raises(error, match=message):
        made(fresh, audio, **fields)
    assert fresh.loaded() == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": ...}, "'prompt' is required unless"),
        ({"prompt": []}, "'prompt' .*at least 1"),
        ({"prompt": 3}, "'prompt' must be a valid string or must be a valid list"),
        ({"prompt": "x" * 5000}, "'prompt' .*at most 4000"),
        ({"prompt": ["a"] * 8, "n_samples": 8}, "'n_samples' makes 64 clips"),
        ({"seed": [1, 2]}, "'seed' has 2 numbers for 1 clips"),
        ({"seed": -1}, "'seed' .*greater than or equal to 0"),
        ({"seed": 1.5}, "'seed'"),
        ({"duration": 0.1}, "'duration' .*0.5"),
        ({"duration": 601}, "'duration' .*600"),
        ({"duration": "3"}, "'duration' must be a valid number"),
        ({"duration": float("nan")}, "'duration' must be a finite number"),
        ({"n_samples": True}, "'n_samples'"),
        ({"top_k": 2049}, "'top_k' .*2048"),
        ({"continuation_start": 1}, "'continuation_audio' is required"),
        ({"key": "H minor"}, "'key' must be a note"),
        ({"time_signature": "4:4"}, "'time_signature' must be"),
        ({"gidance_scale": 3}, "'gidance_scale' is unknown. Did you mean 'guidance_scale'"),
        ({"description": "x"}, "'prompt' was given twice"),
        ({"top_k": -1, "top_p": 2, "mood": "x"}, "'top_k' .*'top_p' .*'mood'"),
    ],
)
def test_bad_fields_are_told_all_together(fields: dict[str, Any], message: str) -> None:
    values = {key: value for key, value in ({"prompt": "piano"} | fields).items() if value is not ...}
    with pytest.raises(InvalidRequestError, match=message):
        Params.parse(values)


def test_style_audio_is_not_offered_but_a_request_with_it_is_told_why_it_cannot_be_used(models: Models) -> None:
    assert "style_audio" not in Params.model_json_schema()["properties"] and "style_audio" not in Params.names()
    params = Params.parse({"prompt": "slow piano", "style_audio": "placeholder"})
    with pytest.raises(InvalidRequestError, match="no model that runs here takes a style") as refused:
        generate_music.plan(params, models)
    assert refused.value.error_code == "option_unsupported"


def test_the_schema_names_every_field_and_its_range() -> None:
    schema = Params.model_json_schema()["properties"]
    assert schema["duration"]["maximum"] == 600 and schema["n_samples"]["minimum"] == 1
    assert all("description" in field for name, field in schema.items() if name not in {"normalize"})
