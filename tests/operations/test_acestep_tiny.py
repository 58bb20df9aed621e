"""Every task and mode of ACE-Step through handler.py, on tiny weights in the published formats."""

from __future__ import annotations

import base64
import io
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import handler
from audio.files.formats import Encoding
from testing.signals import encode_file, make_tone
from testing.tiny_acestep import write_tiny_acestep
from testing.tiny_planner import write_tiny_planner
from worker.job import build_job
from worker.settings import Settings

TURBO, BASE = "acestep-v15-turbo", "acestep-v15-base"
PLANNER = "acestep-5Hz-lm-0.6B"  # its vocabulary has few audio codes, which makes it fast
READER = "acestep-5Hz-lm-1.7B"  # knows all audio codes, and writes little
SOURCE_RATE = 22_050
NUMBERS = itertools.count()

Send = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A turbo model in the original layout, a base model in diffusers' layout, and two planners."""
    folder = tmp_path_factory.mktemp("models")
    write_tiny_acestep(folder, name=TURBO)
    write_tiny_acestep(folder, name=BASE, layout="diffusers", is_turbo=False, seed=1)
    write_tiny_planner(folder, PLANNER)
    write_tiny_planner(folder, READER, num_codes=64_000, context=1200)
    return folder


@pytest.fixture(scope="module")
def send(models_dir: Path) -> Send:
    settings = Settings(models_dir=models_dir, volume_dirs=(), device="cpu")

    def run(operation: str, **params: Any) -> dict[str, Any]:
        raw = {"input": {"operation": operation, "params": params}}
        reply = handler.run_job(build_job(raw, job_id=f"job-{next(NUMBERS)}", timeout_s=120.0), settings)
        assert reply.get("success") is True, reply
        return reply

    return run


@pytest.fixture(scope="module")
def source() -> str:
    """Six seconds of stereo at a rate that the models do not have."""
    return base64.b64encode(encode_file(make_tone(6.0, sample_rate=SOURCE_RATE), Encoding("wav", 32))).decode()


def decode(artefact: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    waveform, rate = soundfile.read(io.BytesIO(base64.b64decode(artefact["output_audio"])), dtype="float32")
    assert rate == artefact["sample_rate"] and np.isfinite(waveform).all() and np.abs(waveform).max() > 0
    result: np.ndarray[Any, Any] = waveform.T
    return result


FLOAT = {"output_format": "wav", "bit_depth": 32}


@pytest.mark.parametrize("model", [TURBO, BASE])
def test_a_song_is_made_and_the_seed_decides_it(send: Send, model: str) -> None:
    params = {"prompt": "slow piano", "lyrics": "[Verse]\nla la", "model": model, "duration": 6, "inference_steps": 2}
    both = send("generate_music", n_samples=2, seed=4, **params, **FLOAT)
    alone = send("generate_music", seed=5, **params, **FLOAT)
    assert (both["model_used"], both["sample_rate"], both["channels"], both["duration"]) == (model, 48_000, 2, 6.0)
    np.testing.assert_array_equal(decode(both["outputs"][1]), decode(alone))
    assert not np.array_equal(decode(both["outputs"][0]), decode(alone))
    assert {"text_s", "conditions_s", "decode_s", "codec_s"} <= set(both["timings"])


def test_turbo_is_the_default_and_all_of_its_kinds_of_sampling_work(send: Send, source: str) -> None:
    reply = send(
        "generate_music", prompt="pop", duration=6, timesteps="0.9,0.5", infer_method="sde", style_audio=source, seed=1
    )
    assert reply["model_used"] == TURBO and reply["parameters"]["inference_steps"] == 2
    guided = send("generate_music", prompt="pop", model=BASE, duration=6, inference_steps=2, use_adg=True,
                  cfg_interval_start=0.3, cfg_coef=4, shift=2)  # fmt: skip
    assert guided["parameters"]["use_adg"] is True and guided["parameters"]["cfg_coef"] == 4


def test_thinking_makes_codes_with_which_the_same_song_is_made_again(send: Send) -> None:
    params = {"prompt": "slow piano", "duration": 10, "seed": 3, "inference_steps": 2, **FLOAT}
    planned = send("generate_music", thinking=True, return_codes=True, use_cot_caption=False, **params)
    assert planned["planner_used"] == PLANNER and planned["audio_codes"].count("<|audio_code_") == 50
    metas = {name: planned["metas"][name] for name in ("bpm", "key", "time_signature", "vocal_language")}
    again = send("generate_music", audio_codes=planned["audio_codes"], **metas, **params)
    np.testing.assert_array_equal(decode(again), decode(planned))


def test_a_song_is_written_from_a_query_and_rewritten(send: Send) -> None:
    sampled = send("generate_music", sample_query="a German waltz", duration=10, seed=2, inference_steps=1)
    assert sampled["prompt"] and sampled["metas"]["vocal_language"] == "de" and sampled["duration"] == 10.0
    formatted = send("generate_music", prompt="pop", use_format=True, duration=10, bpm=99, seed=2, inference_steps=1)
    assert formatted["metas"]["bpm"] == 99 and formatted["metas"]["key"]


@pytest.mark.parametrize(
    ("task", "fields", "duration"),
    [
        ("cover", {"prompt": "jazz", "audio_cover_strength": 0.5}, 6.0),
        ("repaint", {"repainting_start": 2, "repainting_end": 4}, 6.0),
        ("repaint", {"repainting_start": -2, "repainting_end": 8}, 10.0),
        ("lego", {"track": "drums", "model": BASE}, 6.0),
        ("lego", {"track": "drums", "repainting_start": 1, "repainting_end": 3}, 6.0),
        ("complete", {"tracks": ["drums", "bass"]}, 6.0),
        ("extract", {"track": "vocals"}, 6.0),
    ],
)
def test_every_task_edits_a_recording(
    send: Send, source: str, task: str, fields: dict[str, Any], duration: float
) -> None:
    reply = send("edit_music", audio=source, task=task, seed=1, inference_steps=2, **fields, **FLOAT)
    artefact = reply["stems"]["vocals"] if task == "extract" else reply
    assert artefact["duration"] == pytest.approx(duration, abs=1e-4) and decode(artefact).shape[0] == 2
    assert reply["model_used"] == (TURBO if task in ("cover", "repaint") else BASE)
    if task == "repaint":
        assert artefact["sample_rate"] == SOURCE_RATE


def test_outside_the_window_a_repaint_returns_the_recording_bit_for_bit(send: Send, source: str) -> None:
    reply = send("edit_music", audio=source, task="repaint", repainting_start=2, repainting_end=4, seed=1, **FLOAT)
    given, result = make_tone(6.0, sample_rate=SOURCE_RATE).waveform, decode(reply)
    fade = round(0.05 * SOURCE_RATE)
    first, last = 2 * SOURCE_RATE - fade, 4 * SOURCE_RATE + fade
    np.testing.assert_array_equal(result[:, :first], given[:, :first])
    np.testing.assert_array_equal(result[:, last:], given[:, last:])
    assert not np.allclose(result[:, first:last], given[:, first:last])


def test_a_planner_completes_the_text_of_a_new_track(send: Send, source: str) -> None:
    reply = send(
        "edit_music", audio=source, task="lego", track="bass", use_cot_caption=True, bpm=90, seed=1, inference_steps=1
    )
    assert reply["planner_used"] == PLANNER and reply["metas"]["bpm"] == 90 and reply["metas"]["key"]


def test_every_mode_plans_a_song(send: Send, source: str) -> None:
    sampled = send("plan_music", mode="sample", prompt="slow piano", duration=10, seed=1, return_codes=True)
    assert sampled["duration"] == 10 and sampled["audio_codes"].count("<|audio_code_") == 50 and sampled["bpm"]
    formatted = send("plan_music", mode="format", prompt="pop", lyrics="la", bpm=90, seed=1)
    assert formatted["bpm"] == 90 and formatted["caption"]
    heard = send("plan_music", mode="understand", audio=source, planner=READER, return_codes=True, seed=1)
    assert heard["audio_codes"].count("<|audio_code_") == 30 and heard["model_used"] == TURBO
    same = send("plan_music", mode="understand", audio_codes=heard["audio_codes"], planner=READER, seed=1)
    assert (same["caption"], same["bpm"], same["lyrics"]) == (heard["caption"], heard["bpm"], heard["lyrics"])
    assert send("plan_music", mode="random", seed=1)["request"]["prompt"]


def test_clients_of_the_acestep_api_are_answered(send: Send, source: str) -> None:
    song = send(
        "release_task", prompt="pop", metas={"bpm": 100, "duration": 10}, batch_size=2, inferenceSteps=1, thinking=True
    )
    assert len(song["outputs"]) == 2 and song["format"] == "mp3" and song["lm_model"] == PLANNER
    edited = send("release_task", task_type="cover", src_audio=source, prompt="jazz", inference_steps=1)
    assert edited["dit_model"] == TURBO and edited["duration"] == pytest.approx(6.0, abs=0.1)
    assert send("format_input", prompt="pop", param_obj='{"duration": 60}')["duration"] == 60
    assert send("create_random_sample")["caption"]


def test_lyrics_beyond_the_limit_are_cut_with_a_warning_that_counts_the_tokens(send: Send) -> None:
    reply = send("generate_music", prompt="pop", lyrics="la la la " * 500, duration=10, inference_steps=1)
    assert any("lyrics were cut by" in warning and "2048 tokens" in warning for warning in reply["warnings"])


def test_the_models_are_listed_with_what_they_do(send: Send) -> None:
    lists = send("list_models")
    rows = {row["name"]: row for row in lists["music"] if row["family"] == "acestep"}
    assert rows[TURBO]["available"] == rows[BASE]["available"] == "local" and rows[TURBO]["licence"] == "MIT (card)"
    assert "extract" in rows[BASE]["tasks"] and "extract" not in rows[TURBO]["tasks"]
    assert {row["name"]: row["available"] for row in lists["planners"]}[PLANNER] == "local"
    health = send("health_check")
    ready = ("generate_music", "edit_music", "plan_music", "release_task", "format_input", "create_random_sample")
    assert {health["operations"][name] for name in ready} == {"ready"}
