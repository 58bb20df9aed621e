"""The operation `mix_audio`, from JSON to reply."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from audio import Audio
from audio.files.formats import Encoding
from errors import AudioError, CancelledError, InvalidRequestError
from models import registry
from operations.mix_audio import Params
from testing.dispatch import answer
from testing.signals import encode_file, make_noise, make_tone
from worker.settings import Settings

MODELS = registry.build(device="cpu", models_dir=None)
RATE = 44_100


def encode_track(waveform: NDArray[np.floating], sample_rate: int = RATE) -> str:
    audio = Audio(np.atleast_2d(waveform).astype(np.float32), sample_rate)
    return base64.b64encode(encode_file(audio, Encoding("wav", 32))).decode()


def mix(*tracks: Mapping[str, Any], settings: Settings | None = None, **params: Any) -> dict[str, Any]:
    params = {"tracks": list(tracks), "output_format": "wav", "bit_depth": 32, **params}
    job = {"id": "job", "input": {"operation": "mix_audio", "params": params}}
    return answer(job, settings=settings or Settings(), models=MODELS)


def read(reply: Mapping[str, Any]) -> tuple[NDArray[np.float32], int]:
    waveform, rate = soundfile.read(io.BytesIO(base64.b64decode(reply["output_audio"])), dtype="float32")
    return np.atleast_2d(waveform.T), rate


def find_problems(**params: Any) -> dict[str, str]:
    with pytest.raises(InvalidRequestError) as caught:
        Params.parse(params)
    return {error["field"]: error["problem"] for error in caught.value.details["errors"]}


def test_tracks_at_their_defaults_are_summed_as_they_are_beyond_full_scale() -> None:
    parts = [make_noise(2, RATE, seed=seed, level=0.5) for seed in range(3)]
    waveform, _ = read(mix(*({"audio": encode_track(part)} for part in parts)))
    assert abs(waveform).max() > 1.0
    np.testing.assert_allclose(waveform, sum(parts), atol=1e-6)


def test_gain_pan_start_and_fades_place_a_track() -> None:
    first, second = np.zeros(RATE), np.full(RATE // 2, 0.1)
    track = {"audio": encode_track(second), "gain_db": 6.0206, "pan": -1, "start_s": 1.25, "fade_in": 0.1}
    reply = mix({"audio": encode_track(first), "name": "silence"}, track | {"fade_out": 0.2})
    waveform, _ = read(reply)
    left, right = waveform
    start = round(1.25 * RATE)
    assert waveform.shape == (2, start + RATE // 2) and not right.any() and not left[: start + 1].any()
    middle = left[start + round(0.15 * RATE) : -round(0.25 * RATE)]
    np.testing.assert_allclose(middle, 0.2 * np.sqrt(2), rtol=1e-4)
    assert left[start + round(0.05 * RATE)] == pytest.approx(0.1 * np.sqrt(2), rel=1e-2)
    assert left[-round(0.1 * RATE)] == pytest.approx(0.1 * np.sqrt(2), rel=1e-2) and left[-1] == 0
    assert reply["tracks"] == [
        {"name": "silence", "start": 0.0, "end": 1.0},
        {"name": "track_2", "start": 1.25, "end": 1.75},
    ]


@pytest.mark.parametrize("pan", [-1, -0.3, 0, 0.8])
def test_the_power_is_the_same_at_every_pan(pan: float) -> None:
    tracks: list[dict[str, Any]] = [
        {"audio": encode_track(make_noise(1, RATE)), "pan": pan},
        {"audio": encode_track(np.zeros((2, RATE)))},
    ]
    waveform, _ = read(mix(*tracks))
    assert float(np.square(waveform).sum() / RATE) == pytest.approx(2 * 0.2**2, rel=0.02)


def test_tracks_of_other_rates_and_widths_become_those_of_the_widest_and_highest() -> None:
    low, high = make_tone(1.0, sample_rate=16_000, channels=1), make_tone(0.5, sample_rate=48_000)
    tracks = [{"audio": encode_track(audio.waveform, audio.sample_rate)} for audio in (low, high)]
    waveform, rate = read(mix(*tracks))
    assert rate == 48_000 and waveform.shape == (2, 48_000)
    np.testing.assert_allclose(waveform[0, 24_000:], waveform[1, 24_000:], atol=1e-6)
    mono, _ = read(mix(tracks[0], tracks[0]))
    assert mono.shape == (1, 16_000)


@pytest.mark.parametrize(("tempo", "semitones", "length"), [(1.5, 0, 58_801), (0.5, 0, 176_402), (0.8, 5, 110_251)])
def test_a_stretched_track_has_the_exact_length_and_pitch(tempo: float, semitones: float, length: int) -> None:
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(88_201) / RATE)
    track = {"audio": encode_track(tone), "time_stretch": tempo, "semitones": semitones}
    waveform, _ = read(mix(track, {"audio": encode_track(np.zeros(100))}))
    assert waveform.shape == (1, length)
    part = waveform[0, RATE // 4 : -RATE // 4]
    peak = np.argmax(abs(np.fft.rfft(part * np.hanning(len(part)), 1 << 20))) * RATE / (1 << 20)
    assert peak == pytest.approx(440 * 2 ** (semitones / 12), rel=1e-3)


def test_a_track_ducks_while_the_other_one_sounds_and_comes_back() -> None:
    key = np.zeros(4 * RATE)
    key[RATE : 2 * RATE] = 0.5
    music = np.full((1, 4 * RATE), 0.1)
    ducked = {"audio": encode_track(music), "duck_under": "voice", "duck_db": 12, "duck_release": 0.2}
    waveform, _ = read(mix({"audio": encode_track(key), "name": "voice"}, ducked))
    level = 20 * np.log10((waveform[0] - key) / 0.1)
    assert abs(level[: RATE - 500]).max() < 0.01
    assert level[round(1.4 * RATE) : 2 * RATE - 500] == pytest.approx(-12, abs=0.1)
    assert np.all(np.diff(level[2 * RATE + 500 : 3 * RATE]) >= -1e-3) and level[-1] > -0.1


def test_a_master_preset_and_a_list_of_effects_change_the_mix_and_not_its_length() -> None:
    tracks = [{"audio": encode_track(make_noise(2, RATE, seed=seed))} for seed in range(2)]
    plain, _ = read(mix(*tracks))
    glued, _ = read(mix(*tracks, master="glue"))
    louder, _ = read(mix(*tracks, master=[{"effect": "peak", "gain_db": 12, "q": 0.3, "cutoff_frequency_hz": 1000}]))
    assert glued.shape == louder.shape == plain.shape
    assert np.square(glued).sum() < 0.9 * np.square(plain).sum() < np.square(louder).sum() / 2
    long, _ = read(mix(*tracks, master=[{"effect": "reverb"}], tail=0.5))
    assert long.shape[1] == round(1.5 * RATE) and abs(long[:, RATE + 1000 : RATE + 5000]).max() > 1e-3


def test_all_errors_of_tracks_are_reported_with_their_paths() -> None:
    tracks = [{"audio": "x", "gian_db": 1}, {"gain_db": 99, "pan": "left"}, 3, {"audio": "y", "name": None}]
    problems = find_problems(tracks=tracks)
    assert set(problems) == {"tracks.0.gian_db", "tracks.1.audio", "tracks.1.gain_db", "tracks.1.pan", "tracks.2"}
    assert "Did you mean 'gain_db'" in problems["tracks.0.gian_db"]


def test_ducking_under_no_track_or_itself_is_refused() -> None:
    tracks = [
        {"audio": "x", "name": "drums", "duck_under": 0},
        {"audio": "y", "duck_under": "drum"},
        {"audio": "y", "duck_under": 3},
        {"audio": "z", "name": "drums"},
    ]
    problems = find_problems(tracks=tracks)
    assert set(problems) == {"tracks", "tracks.0.duck_under", "tracks.1.duck_under"}
    problems = find_problems(tracks=tracks[:3])
    assert set(problems) == {"tracks.0.duck_under", "tracks.1.duck_under", "tracks.2.duck_under"}
    assert "Did you mean 'drums'" in problems["tracks.1.duck_under"]


@pytest.mark.parametrize("count", [0, 1, 17, 10_000])
def test_the_number_of_tracks_is_limited(count: int) -> None:
    assert set(find_problems(tracks=[{"audio": "x"}] * count)) == {"tracks"}


def test_effects_are_checked_against_their_own_parameters() -> None:
    effects = [
        {"effect": "reverb", "room_sise": 0.5},
        {"effect": "limter"},
        {"effect": "delay", "mix": True},
        {"effect": "chorus", "rate_hz": float("nan"), "depth": 10**400},
        {"effect": 3},
        {},
    ]
    problems = find_problems(tracks=[{"audio": "x"}] * 2, master=effects)
    assert list(problems) == [
        "master.0.room_sise", "master.1.effect", "master.2.mix", "master.3.rate_hz", "master.3.depth",
        "master.4.effect", "master.5.effect",
    ]  # fmt: skip
    assert "Did you mean 'room_size'" in problems["master.0.room_sise"] and "'limiter'" in problems["master.1.effect"]


def test_the_parameters_of_the_reply_have_no_audio() -> None:
    parameters = mix(*[{"audio": encode_track(np.ones(1000)), "pan": 1}] * 2)["parameters"]
    assert [track["pan"] for track in parameters["tracks"]] == [1, 1]
    assert not any("audio" in track for track in parameters["tracks"])


def test_an_error_in_the_audio_names_the_track() -> None:
    with pytest.raises(AudioError, match=r"^Invalid base64 audio data in 'tracks\.1\.audio'"):
        mix({"audio": encode_track(np.ones(1000))}, {"audio": "!"})


def test_a_mix_that_is_too_long_is_refused_before_it_is_made() -> None:
    song = encode_track(np.ones(1000))
    with pytest.raises(AudioError) as caught:
        mix({"audio": song}, {"audio": song, "start_s": 80_000})
    assert caught.value.error_code == "audio_too_long"


def test_progress_goes_up_and_a_cancel_ends_the_work() -> None:
    cancel, percents = threading.Event(), list[float]()

    def report(update: Mapping[str, Any]) -> None:
        percents.append(update["percent"])
        if update["stage"] == "mix":
            cancel.set()

    song = encode_track(make_noise(1, 2 * RATE))
    params = {"tracks": [{"audio": song, "semitones": 1}, {"audio": song, "duck_under": 0}]}
    job = {"id": "job", "input": {"operation": "mix_audio", "params": params}}
    with pytest.raises(CancelledError):
        answer(job, settings=Settings(), models=MODELS, cancel=cancel, report=report)
    assert percents == sorted(percents) and percents[-1] == 60
