"""generate_music from parameters to reply, on tiny checkpoints of the real format; what it refuses costs no loading."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audio import Audio
from audio.types import AudioSource, DiskAudio, in_memory
from errors import (
    AudioError,
    CancelledError,
    DeadlineError,
    DiskFullError,
    InvalidRequestError,
    ModelError,
    RequestError,
)
from models import Models
from models.checkpoints.locations import WeightLocations
from models.musicgen import MusicGenFamily
from models.musicgen.catalog import DIFFUSION_FILE
from operations import generate_music
from operations.generate_music import Params
from operations.generate_music.musicgen import MusicPlan, prepare_melody, run_musicgen
from testing.dispatch import answer
from testing.models import make_models
from testing.signals import copy_to_disk
from testing.songs import make_song
from testing.tiny_demucs import htdemucs, save_bag
from testing.tiny_musicgen import Shape, write_checkpoint, write_diffusion
from worker.job import Job, compute_deadline
from worker.reply import Reply
from worker.settings import Settings

RATE = 16_000


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MODELS_DIR with a text, a melody and a stereo model, and a demo beside it."""
    root = tmp_path_factory.mktemp("weights")
    write_checkpoint(root / "models" / "small", Shape())
    write_checkpoint(root / "models" / "melody", Shape(melody=True))
    write_checkpoint(root / "models" / "stereo-small", Shape(stereo=True))
    shutil.copytree(root / "models" / "small", root / "demo")
    return root / "models"


@pytest.fixture(scope="module")
def models(models_dir: Path) -> Models:
    family = MusicGenFamily(WeightLocations(explicit=models_dir), demo=models_dir.parent / "demo")
    return make_models(music=family)


def make_tone(seconds: float, sample_rate: int = RATE) -> Audio:
    time = np.arange(int(seconds * sample_rate)) / sample_rate
    return Audio((0.3 * np.sin(2 * np.pi * 330 * time))[None].astype(np.float32), sample_rate)


def generate(models: Models, audio: Mapping[str, AudioSource] | None = None, **fields: Any) -> tuple[Reply, Job]:
    job = Job(id="test", audio=dict(audio or {}))
    plan = make_plan(models, **dict.fromkeys(audio or {}, "placeholder"), **fields)
    return generate_music.run(plan, job, models), job


def make_plan(models: Models, **fields: Any) -> MusicPlan:
    values = {"prompt": "slow piano", "model": "small", "duration": 0.5, **fields}
    plan = generate_music.plan(Params.parse({key: value for key, value in values.items() if value is not ...}), models)
    assert isinstance(plan, MusicPlan)
    return plan


def waveforms(reply: Reply) -> list[np.ndarray[Any, Any]]:
    return [in_memory(output.audio).waveform for output in reply.outputs]


def test_the_reply_has_model_seed_speed_and_licence(models: Models) -> None:
    reply, job = generate(models, seed=7)
    assert reply.fields["model_used"] == "small" and reply.fields["seed"] == 7
    assert reply.fields["steps_per_s"] > 0 and reply.fields["licence"] == "CC-BY-NC 4.0"
    assert reply.parameters == {
        "model": "small", "seed": 7, "extend_stride": 1.2, "duration": 0.5, "cfg_coef": 3.0
    }  # fmt: skip
    assert set(job.timings) >= {"load_s", "condition_s", "decode_s", "codec_s"}
    assert reply.outputs[0].audio.num_samples == RATE // 2 and not job.warnings


def test_a_random_seed_is_returned_and_reproduces_the_clip(models: Models) -> None:
    first, _ = generate(models)
    again, _ = generate(models, seed=first.fields["seed"])
    other, _ = generate(models)
    np.testing.assert_array_equal(waveforms(first)[0], waveforms(again)[0])
    assert other.fields["seed"] != first.fields["seed"]


def test_every_prompt_and_sample_is_a_clip_with_its_own_seed(models: Models) -> None:
    reply, _ = generate(models, prompt=["slow piano", "fast drums"], n_samples=2, seed=5)
    assert [output.extra["prompt"] for output in reply.outputs] == ["slow piano"] * 2 + ["fast drums"] * 2
    assert reply.fields["seeds"] == [5, 6, 7, 8] == [output.extra["seed"] for output in reply.outputs]
    assert [output.name for output in reply.outputs] == ["music_1", "music_2", "music_3", "music_4"]
    alone, _ = generate(models, prompt="fast drums", seed=8)
    np.testing.assert_array_equal(waveforms(reply)[3], waveforms(alone)[0])


def test_a_list_of_seeds_is_used_unchanged(models: Models) -> None:
    reply, _ = generate(models, n_samples=2, seed=[9, 3])
    alone, _ = generate(models, seed=3)
    assert reply.fields["seeds"] == [9, 3] and reply.fields["seed"] == 9
    np.testing.assert_array_equal(waveforms(reply)[1], waveforms(alone)[0])


def test_tempo_key_and_time_signature_are_added_unless_the_prompt_has_them(models: Models) -> None:
    reply, _ = generate(models, prompt="slow piano.", bpm=92, key="F# minor", time_signature="3/4")
    assert reply.outputs[0].extra["prompt"] == "slow piano, 92 bpm, F# minor, 3/4 time"
    reply, _ = generate(models, prompt="slow piano, 92 BPM", bpm=92.0)
    assert reply.outputs[0].extra["prompt"] == "slow piano, 92 BPM"


@pytest.mark.parametrize("field", ["melody_audio", "continuation_audio"])
def test_tempo_and_key_can_be_heard_in_the_recording(models: Models, field: str) -> None:
    song = make_song(["Am", "F", "C", "G"], bpm=96)
    part = {"continuation_start": 0.0, "continuation_end": 0.5} if field == "continuation_audio" else {}
    model = "melody" if field == "melody_audio" else "small"
    reply, job = generate(models, {field: song}, model=model, prompt="slow piano", bpm="auto", key="auto", **part)
    assert reply.outputs[0].extra["prompt"] == "slow piano, 96 bpm, A minor"
    assert (reply.parameters["bpm"], reply.parameters["key"]) == (96, "A minor") and job.timings["listen_s"] > 0


def test_what_is_not_heard_in_the_recording_is_left_out_with_a_warning(models: Models) -> None:
    reply, job = generate(models, {"melody_audio": make_tone(1.5)}, model="melody", bpm="auto", key="E minor")
    assert reply.outputs[0].extra["prompt"] == "slow piano, E minor" and reply.parameters["bpm"] is None
    assert "key" not in reply.parameters
    assert any("No tempo was heard in 'melody_audio'" in warning for warning in job.warnings)


@pytest.mark.parametrize("field", ["bpm", "key"])
def test_tempo_and_key_can_only_be_heard_in_a_recording(field: str) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        Params.parse({"prompt": "slow piano", field: "auto"})
    assert [error["field"] for error in raised.value.details["errors"]] == [field]


def test_the_default_is_the_best_model_for_the_inputs(models: Models) -> None:
    assert generate(models, model=...)[0].fields["model_used"] == "melody"
    reply, _ = generate(models, {"melody_audio": make_tone(1.0)}, model=...)
    assert reply.fields["model_used"] == "melody"


def test_the_demo_model_warns_and_says_how_to_get_a_real_model(models: Models) -> None:
    _, job = generate(models, model="demo")
    assert len(job.warnings) == 1
    assert "demo" in job.warnings[0] and "MODELS_DIR" in job.warnings[0]


def test_clips_that_are_too_large_together_are_on_disk_until_the_job_ends(models: Models) -> None:
    fields: dict[str, Any] = {"model": "stereo-small", "n_samples": 3, "seed": 1, "fade_in": 0.1}
    needed_bytes = 3 * RATE // 2 * 2 * 4
    job = Job(id="j")
    in_memory_clips, on_disk = (
        run_musicgen(make_plan(models, **fields), job, models, memory_bytes=size).outputs
        for size in (needed_bytes, needed_bytes - 3)
    )
    for clip, stored in zip(in_memory_clips, on_disk, strict=True):
        assert isinstance(clip.audio, Audio) and isinstance(stored.audio, DiskAudio)
        np.testing.assert_array_equal(stored.audio.read(0, RATE), clip.audio.waveform)
    job.exit_stack.close()
    with pytest.raises(ValueError, match="closed"):
        on_disk[0].audio.read(0, 1)


def test_clips_that_the_disk_cannot_take_are_refused_before_the_model_is_loaded(models_dir: Path) -> None:
    family = MusicGenFamily(WeightLocations(explicit=models_dir), demo=models_dir.parent / "demo")
    fresh = make_models(music=family)
    plan = make_plan(fresh, prompt=["a"] * 32, duration=600, model="stereo-small")
    plan = replace(plan, request=replace(plan.request, duration=1e9))
    job = Job(id="j")
    job.cancel.set()  # the generation would take years
    with pytest.raises(DiskFullError) as caught:
        generate_music.run(plan, job, fresh)
    assert caught.value.details["needed_bytes"] == 32 * 10**9 * RATE * 2 * 4
    assert fresh.list_loaded() == []


@pytest.mark.parametrize(("rate", "used"), [(RATE, RATE), (48_000, 48_000), (192_000, 48_000)])
def test_of_a_melody_only_the_part_that_the_clip_can_follow_is_taken_at_48_khz_at_most(
    models: Models, rate: int, used: int
) -> None:
    plan = make_plan(models, model="melody", melody_audio="placeholder", duration=2.0)
    melody = prepare_melody(plan, Job(id="j", audio={"melody_audio": make_tone(40.0, rate)}), models)
    assert melody is not None and (melody.sample_rate, melody.duration) == (used, 33.0)


@pytest.mark.parametrize("rate", [RATE, 48_000, 192_000])
def test_audio_inputs_may_be_on_disk_and_of_any_rate(models: Models, rate: int) -> None:
    melody, prompt = make_tone(3.0, rate), make_tone(1.0, rate)
    fields: dict[str, Any] = {"model": "melody", "seed": 1, "continuation_start": 0.25, "continuation_end": 0.75}
    in_memory_inputs, _ = generate(models, {"melody_audio": melody, "continuation_audio": prompt}, **fields)
    with copy_to_disk(melody) as melody_on_disk, copy_to_disk(prompt) as prompt_on_disk:
        inputs = {"melody_audio": melody_on_disk, "continuation_audio": prompt_on_disk}
        on_disk, _ = generate(models, inputs, **fields)
    np.testing.assert_array_equal(waveforms(on_disk)[0], waveforms(in_memory_inputs)[0])


def test_a_melody_is_followed_with_a_warning_if_it_cannot_be_separated(models: Models) -> None:
    plain, _ = generate(models, model="melody", seed=1)
    steered, job = generate(models, {"melody_audio": make_tone(1.0)}, model="melody", seed=1)
    assert not np.allclose(waveforms(plain)[0], waveforms(steered)[0])
    assert any("melody" in warning for warning in job.warnings)


def test_a_melody_is_refused_if_demucs_is_here_and_broken(models_dir: Path, tmp_path: Path) -> None:
    """It is not taken from the whole mix, as it is if Demucs is not here."""
    from models.demucs import DemucsFamily

    (save_bag(tmp_path / "htdemucs", {"955717e8": htdemucs()}) / "955717e8.safetensors").write_bytes(b"broken")
    music = MusicGenFamily(WeightLocations(explicit=models_dir), demo=models_dir.parent / "demo")
    models = make_models(music=music, separation=DemucsFamily(WeightLocations(explicit=tmp_path)))
    with pytest.raises(ModelError, match=r"'955717e8\.safetensors' of the separation model cannot be used"):
        generate(models, {"melody_audio": make_tone(1.0, 44_100)}, model="melody", seed=1)


def test_drums_and_bass_are_removed_from_a_melody_if_demucs_is_here(models_dir: Path, tmp_path: Path) -> None:
    from models.demucs import DemucsFamily

    save_bag(tmp_path / "htdemucs", {"955717e8": htdemucs()}, "htdemucs")
    family = MusicGenFamily(WeightLocations(explicit=models_dir), demo=models_dir.parent / "demo")
    both = make_models(music=family, separation=DemucsFamily(WeightLocations(explicit=tmp_path)))
    reply, job = generate(both, {"melody_audio": make_tone(1.0, 44_100)}, model="melody", seed=1)
    whole, _ = generate(make_models(music=family), {"melody_audio": make_tone(1.0, 44_100)}, model="melody", seed=1)
    assert (
        not job.warnings
        and "melody_s" in job.timings
        and set(both.list_loaded()) == {"musicgen/melody", "demucs/htdemucs"}
    )
    assert not np.allclose(waveforms(reply)[0], waveforms(whole)[0])


def test_a_continuation_begins_with_its_prompt_unless_include_prompt_is_false(models: Models) -> None:
    recording = {"continuation_audio": make_tone(3.0, 44_100)}
    span = {"continuation_start": 1.0, "continuation_end": 1.8, "seed": 1}
    whole, _ = generate(models, recording, **span)
    new, _ = generate(models, recording, include_prompt=False, **span)
    assert abs(whole.outputs[0].audio.duration - 1.3) < 0.03
    assert new.outputs[0].audio.duration == 0.5
    np.testing.assert_array_equal(waveforms(whole)[0][:, -8000:], waveforms(new)[0])
    without_text, _ = generate(models, recording, prompt=..., **span)
    assert without_text.outputs[0].audio.peak > 0


def test_a_clip_longer_than_the_window_is_continued(models: Models) -> None:
    reply, _ = generate(models, duration=4.5, extend_stride=0.9)
    assert reply.outputs[0].audio.duration == 4.5 and reply.parameters["extend_stride"] == 0.9


def test_a_stereo_model_generates_stereo(models: Models) -> None:
    assert generate(models, model="stereo-small")[0].outputs[0].audio.channels == 2


def test_fades_start_and_end_in_silence(models: Models) -> None:
    reply, _ = generate(models, seed=1, fade_in=0.1, fade_out=0.2)
    plain, _ = generate(models, seed=1)
    waveform, untouched = waveforms(reply)[0], waveforms(plain)[0]
    assert waveform[0, 0] == 0 and abs(waveform[0, -1]) < 1e-6
    middle = slice(RATE // 10, RATE // 10 * 3)
    np.testing.assert_array_equal(waveform[:, middle], untouched[:, middle])


def test_silence_is_trimmed_on_request(models: Models) -> None:
    reply, _ = generate(models, seed=1, trim_silence=True)
    assert 0 < reply.outputs[0].audio.num_samples <= RATE // 2


def test_guidance_scale_and_description_are_aliases(models: Models) -> None:
    params = Params.parse({"description": "piano", "guidance_scale": 2})
    assert (params.prompt, params.cfg_coef) == ("piano", 2.0)


def test_an_empty_prompt_is_generated_with_a_warning(models: Models) -> None:
    _, job = generate(models, prompt="")
    assert "without a prompt" in job.warnings[0]


def test_cancelling_stops_within_a_step_and_the_next_job_is_unaffected(models: Models) -> None:
    clean, _ = generate(models, seed=1)
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
    np.testing.assert_array_equal(waveforms(generate(models, seed=1)[0])[0], waveforms(clean)[0])


def run_with_time_limit(
    models: Models, policy: Any = None, job_timeout_s: float = 0.0, **fields: Any
) -> dict[str, Any]:
    """The reply to a whole job with a time limit of the platform or the worker; its error is raised."""
    params = {"prompt": "slow piano", "model": "small", "delivery": "inline", **fields}
    job = {"id": "t", "input": {"operation": "generate_music", "params": params}, "policy": policy}
    return answer(job, settings=Settings(job_timeout_s=job_timeout_s, volume_dirs=()), models=models)


def test_partial_returns_what_is_done_when_the_time_runs_out(models: Models) -> None:
    run_with_time_limit(models, duration=0.5)  # so that loading takes none of the time
    reply = run_with_time_limit(models, {"executionTimeout": 2000}, duration=600, partial=True)
    assert 0 < reply["duration"] < 600
    assert any(sentence.startswith("Time ran out: 1 of 1 clips") for sentence in reply["warnings"])


def test_without_partial_the_job_fails_when_the_time_runs_out(models: Models) -> None:
    with pytest.raises(DeadlineError, match="time is up"):
        run_with_time_limit(models, duration=600, job_timeout_s=0.5)
    assert run_with_time_limit(models, duration=0.5)["duration"] == 0.5


@pytest.mark.parametrize("policy", [None, [], "x", {}, {"executionTimeout": None}, {"executionTimeout": -1}])
def test_a_policy_without_a_timeout_sets_no_deadline(policy: Any) -> None:
    assert compute_deadline(policy, timeout_s=0.0, now=100.0) is None
    assert compute_deadline(policy, timeout_s=300.0, now=100.0) == 390.0


@pytest.mark.parametrize(
    ("asked_ms", "timeout_s", "left_s"),
    [(5000, 0.0, 4.5), (5000, 2.0, 1.8), (1e6, 600.0, 590.0), (10**400, 600.0, 590.0), (1e308, 600.0, 590.0)],
)
def test_the_shorter_timeout_counts_less_the_time_for_delivery(
    asked_ms: float, timeout_s: float, left_s: float
) -> None:
    left = compute_deadline({"executionTimeout": asked_ms}, timeout_s=timeout_s, now=0.0)
    assert left == pytest.approx(left_s)


@pytest.mark.parametrize("asked_ms", [10**400, 1e308, math.inf])
def test_an_absurd_timeout_counts_as_30_days(asked_ms: float) -> None:
    assert compute_deadline({"executionTimeout": asked_ms}, timeout_s=0.0, now=0.0) == 30 * 24 * 3600 - 10.0


def test_multi_band_diffusion_decodes_if_its_weights_are_here(models: Models, models_dir: Path) -> None:
    path = models_dir / "multiband-diffusion" / DIFFUSION_FILE
    write_diffusion(path, sample_rate=RATE)
    try:
        for model, channels in (("small", 1), ("stereo-small", 2)):
            plain, _ = generate(models, model=model, seed=1)
            diffused, _ = generate(models, model=model, seed=1, mbd=True)
            again, _ = generate(models, model=model, seed=1, mbd=True)
            assert waveforms(diffused)[0].shape == (channels, RATE // 2)
            assert not np.allclose(waveforms(plain)[0], waveforms(diffused)[0])
            np.testing.assert_array_equal(waveforms(diffused)[0], waveforms(again)[0])
    finally:
        models.evict_idle()
        path.unlink()


REFUSED: list[tuple[dict[str, Any], dict[str, AudioSource], type[RequestError], str]] = [
    ({}, {"melody_audio": make_tone(1.0)}, InvalidRequestError, "takes no melody"),
    ({}, {"style_audio": make_tone(1.0)}, InvalidRequestError, "'style_audio' is a parameter of ACE-Step"),
    ({"mbd": True}, {}, ModelError, "Multi-Band Diffusion"),
    ({"model": "demo", "mbd": True}, {}, ModelError, "Multi-Band Diffusion"),
    ({"model": "large"}, {}, ModelError, "offline"),
    ({"model": "style"}, {}, ModelError, "cannot be run"),
    ({"model": "smal"}, {}, InvalidRequestError, "Did you mean 'small'"),
    ({"model": "../small"}, {}, InvalidRequestError, "cannot be a model"),
    ({"extend_stride": 2.0}, {}, InvalidRequestError, "below the window"),
    ({"continuation_start": 2.0}, {"continuation_audio": make_tone(1.0)}, AudioError, "within it"),
    ({"continuation_end": 1.5}, {"continuation_audio": make_tone(1.0)}, AudioError, "within it"),
    ({}, {"continuation_audio": make_tone(2.5)}, AudioError, "'continuation_start' to 1.3"),
]


@pytest.mark.parametrize(("fields", "audio", "error", "message"), REFUSED)
def test_requests_that_a_model_cannot_fulfil_are_refused_before_loading(
    models_dir: Path, fields: dict[str, Any], audio: dict[str, AudioSource], error: type[RequestError], message: str
) -> None:
    family = MusicGenFamily(WeightLocations(explicit=models_dir), demo=models_dir.parent / "demo")
    fresh = make_models(music=family)
    with pytest.raises(error, match=message):
        generate(fresh, audio, **fields)
    assert fresh.list_loaded() == []


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
def test_all_invalid_fields_are_reported_together(fields: dict[str, Any], message: str) -> None:
    values = {key: value for key, value in ({"prompt": "piano"} | fields).items() if value is not ...}
    with pytest.raises(InvalidRequestError, match=message):
        Params.parse(values)


def test_the_schema_has_every_field_with_its_range() -> None:
    schema = Params.model_json_schema()["properties"]
    assert schema["duration"]["anyOf"][0]["maximum"] == 600 and schema["n_samples"]["minimum"] == 1
    assert all("description" in field for name, field in schema.items() if name not in {"normalize"})
