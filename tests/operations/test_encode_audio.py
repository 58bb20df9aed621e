"""The operation `encode_audio`, from JSON to reply, with tiny codecs in the real files."""

from __future__ import annotations

import base64
import hashlib
import io
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from audio import Audio
from errors import AudioError, CancelledError, InvalidRequestError, ModelError, UnknownNameError
from models import Models, registry
from operations import encode_audio
from testing.codecs import RATE, call, encode_base64, make_input, write_codecs
from testing.dispatch import answer
from testing.signals import make_noise
from worker.settings import Settings


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_codecs(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def models(folder: Path) -> Models:
    return registry.build(device="cpu", models_dir=folder)


@pytest.fixture(autouse=True)
def no_temporary_files_remain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    yield
    assert list(temporary.iterdir()) == []


def read_file(artefact: dict[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    data = base64.b64decode(artefact["output_file"], validate=True)
    assert (len(data), hashlib.sha256(data).hexdigest()) == (artefact["size"], artefact["sha256"])
    assert (artefact["filename"], artefact["format"]) == ("codes.npz", "npz")
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.mark.parametrize("model", ["encodec_24khz", "encodec_32khz"])
def test_the_codes_are_those_of_transformers(models: Models, folder: Path, model: str) -> None:
    from transformers import EncodecModel

    waveform = make_noise(1, RATE + 77)
    reply = call(models, "encode_audio", audio=encode_base64(Audio(waveform, RATE)), model=model)
    theirs: Any = EncodecModel.from_pretrained(folder / model)
    with torch.inference_mode():
        expected = theirs.encode(torch.from_numpy(waveform)[None], bandwidth=1.0).audio_codes[0, 0]
    assert reply["codes"] == expected.tolist()
    assert (reply["num_codebooks"], reply["num_frames"], reply["num_samples"]) == (4, 51, RATE + 77)
    assert (reply["frame_rate"], reply["codec_sample_rate"], reply["bitrate_kbps"]) == (50.0, RATE, 1.0)
    assert reply["model_used"] == reply["parameters"]["model"] == model
    assert "scales" not in reply and "files" not in reply and "output_audio" not in reply and reply["warnings"] == []
    assert "audio" not in reply["parameters"] and reply["parameters"]["num_codebooks"] == 4


def test_codes_in_segments_have_scales(models: Models, folder: Path) -> None:
    from transformers import EncodecModel

    waveform = make_noise(2, 2 * RATE)
    reply = call(models, "encode_audio", audio=encode_base64(Audio(waveform, RATE)), model="facebook/encodec_48khz")
    theirs: Any = EncodecModel.from_pretrained(folder / "encodec_48khz")
    with torch.inference_mode():
        expected = theirs.encode(torch.from_numpy(waveform)[None], bandwidth=1.0)
    frames = expected.audio_codes[:, 0].transpose(0, 1).flatten(1)
    assert reply["codes"] == frames[:, : reply["num_frames"]].tolist()
    assert reply["num_frames"] == frames.shape[1] - expected.last_frame_pad_length
    assert reply["scales"] == pytest.approx([float(scale) for scale in expected.audio_scales], rel=1e-6)


def test_few_codes_are_lists_and_many_are_a_file(models: Models, folder: Path) -> None:
    audio = make_input(90, rate=RATE)
    reply = call(models, "encode_audio", audio=audio, model="encodec_32khz")
    assert "codes" not in reply and 4 * reply["num_frames"] == 18_000 > encode_audio.MAX_LISTED_CODES
    arrays = read_file(reply["files"]["codes"])
    assert arrays["codes"].shape == (4, 4500) and arrays["codes"].dtype == np.int16
    assert (str(arrays["model"]), int(arrays["sample_rate"]), float(arrays["frame_rate"])) == (
        "encodec_32khz",
        RATE,
        50,
    )
    assert int(arrays["num_samples"]) == 90 * RATE and "scales" not in arrays
    fewer = call(models, "encode_audio", audio=audio, model="encodec_32khz", num_codebooks=2)
    assert fewer["codes"] == arrays["codes"][:2].tolist() and fewer["bitrate_kbps"] == 0.5


def test_a_file_is_returned_on_request_and_delivered_as_audio_is(models: Models, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"audio": make_input(1.5, channels=2), "model": "encodec_48khz"}
    listed = call(models, "encode_audio", **asked)
    reply = call(models, "encode_audio", **asked, codes_format="npz")
    arrays = read_file(reply["files"]["codes"])
    assert "codes" not in reply and "scales" not in reply
    assert arrays["codes"].tolist() == listed["codes"]
    assert arrays["scales"].tolist() == listed["scales"]
    (tmp_path / "volume").mkdir()
    settings = Settings(volume_dirs=(tmp_path / "volume",))
    stored = call(models, "encode_audio", **asked, codes_format="npz", delivery="volume", settings=settings)
    assert Path(stored["files"]["codes"]["output_path"]).read_bytes()[:2] == b"PK"


@pytest.mark.parametrize(
    ("asked", "codebooks"), [({}, 4), ({"bandwidth": 0.5}, 2), ({"bandwidth": 1}, 4), ({"num_codebooks": 3}, 3)]
)
def test_the_bandwidth_or_the_number_of_codebooks_is_chosen(models: Models, asked: Any, codebooks: int) -> None:
    reply = call(models, "encode_audio", audio=make_input(), model="encodec_24khz", **asked)
    assert len(reply["codes"]) == reply["num_codebooks"] == reply["parameters"]["num_codebooks"] == codebooks
    assert reply["bitrate_kbps"] == reply["parameters"]["bandwidth"] == 0.25 * codebooks


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"bandwidth": 6.0}, "'bandwidth' is 6 kbit/s, and the codec 'encodec_24khz' has 0.5, 1"),
        ({"num_codebooks": 5}, "'num_codebooks' is 5, and the codec 'encodec_24khz' encodes with 1 to 4"),
        ({"num_codebooks": 3, "model": "two"}, "an even number from 2 to 8"),
        ({"num_codebooks": 0}, "'num_codebooks' must be greater"),
        ({"bandwidth": 0.5, "num_codebooks": 2}, "cannot be sent together"),
        ({"bandwidth": "1", "codes_format": "list", "return_audio": 1, "x": 2}, "'x' is unknown"),
    ],
)
def test_what_the_codec_does_not_have_is_refused_before_the_audio_is_read(
    models: Models, asked: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        call(models, "encode_audio", **({"audio": "https://192.0.2.1/a.wav", "model": "encodec_24khz"} | asked))


def test_the_default_is_the_published_codec_that_is_here_and_without_one_the_demos(models: Models) -> None:
    assert call(models, "encode_audio", audio=make_input())["model_used"] == "encodec_32khz"
    reply = call(registry.build(device="cpu"), "encode_audio", audio=make_input(0.5, rate=32_000))
    assert reply["model_used"] == "demo" and reply["licence"] == "MIT"
    assert len(reply["codes"]) == 4 and len(reply["codes"][0]) == 25


def test_an_unknown_model_and_a_broken_one_are_named(models: Models, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Unknown codec 'encodec_24'.*Did you mean 'encodec_24khz'"):
        call(models, "encode_audio", audio=make_input(), model="encodec_24")
    write_codecs(tmp_path)
    (tmp_path / "encodec_24khz" / "config.json").write_text("{")
    with pytest.raises(ModelError, match="'encodec_24khz' cannot be used"):
        call(registry.build(device="cpu", models_dir=tmp_path), "encode_audio", audio="x", model="encodec_24khz")


def test_the_round_trip_is_returned_with_its_distance(models: Models) -> None:
    waveform = make_noise(1, RATE)
    asked: dict[str, Any] = {"audio": encode_base64(Audio(waveform, RATE)), "model": "encodec_24khz"}
    reply = call(models, "encode_audio", **asked, return_audio=True, output_format="wav", bit_depth=32)
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(reply["output_audio"])), dtype="float32")
    assert (rate, len(samples), reply["filename"]) == (RATE, RATE, "decoded.wav")
    projection = np.dot(samples, waveform[0]) / np.dot(waveform[0], waveform[0]) * waveform[0]
    expected = 10 * np.log10((projection**2).sum() / ((samples - projection) ** 2).sum())
    assert reply["si_sdr_db"] == pytest.approx(expected, abs=0.01)
    assert 0 < reply["log_mel_distance_db"] < 60
    decoded = call(
        models, "decode_audio", codes=reply["codes"], model="encodec_24khz", output_format="wav", bit_depth=32
    )
    assert decoded["sha256"] == reply["sha256"]
    assert {"encode_s", "decode_s"} <= reply["timings"].keys()


def test_stereo_is_mixed_down_for_a_mono_codec_and_mono_is_copied_for_a_stereo_codec(models: Models) -> None:
    stereo = make_noise(2, RATE)
    mixed = call(models, "encode_audio", audio=encode_base64(Audio(stereo, RATE)), model="encodec_24khz")
    mono = Audio(stereo.mean(axis=0, keepdims=True), RATE)
    assert mixed["codes"] == call(models, "encode_audio", audio=encode_base64(mono), model="encodec_24khz")["codes"]
    assert mixed["warnings"] == ["The codec is mono, so the two channels were mixed down to one."]
    for model in ("encodec_48khz", "two"):
        copied = call(models, "encode_audio", audio=encode_base64(mono), model=model)
        both = Audio(np.repeat(mono.waveform, 2, axis=0), RATE)
        assert copied["codes"] == call(models, "encode_audio", audio=encode_base64(both), model=model)["codes"]
        assert copied["warnings"] == []


@pytest.mark.parametrize("model", ["encodec_24khz", "encodec_32khz", "encodec_48khz", "two"])
@pytest.mark.parametrize("seconds", [1e-4, 0.01, 0.1])
def test_the_shortest_audio_is_encoded(models: Models, model: str, seconds: float) -> None:
    reply = call(models, "encode_audio", audio=make_input(seconds), model=model, return_audio=True)
    samples = round(seconds * RATE)
    assert (reply["num_samples"], reply["num_frames"]) == (samples, -(-samples // 320))
    assert reply["duration"] == pytest.approx(samples / RATE, abs=1e-6)


def test_audio_without_a_sample_at_the_codecs_rate_is_too_short(models: Models) -> None:
    with pytest.raises(AudioError, match="shorter than a sample at the codec's 16000 Hz") as refused:
        call(models, "encode_audio", audio=encode_base64(Audio(make_noise(1, 1), 192_000)), model="encodec_24khz")
    assert refused.value.error_code == "audio_too_short"


@pytest.mark.parametrize("model", ["encodec_24khz", "encodec_48khz"])
def test_silence_has_codes_and_no_si_sdr(models: Models, model: str) -> None:
    silence = encode_base64(Audio(np.zeros((1, RATE), np.float32), RATE))
    reply = call(models, "encode_audio", audio=silence, model=model, return_audio=True)
    assert reply["si_sdr_db"] is None and reply["log_mel_distance_db"] >= 0
    assert all(len(row) == reply["num_frames"] for row in reply["codes"])


def test_a_telephone_recording_is_resampled(models: Models) -> None:
    reply = call(models, "encode_audio", audio=make_input(1.0, rate=8000), model="encodec_48khz")
    assert reply["num_samples"] == RATE and reply["warnings"] == []


@pytest.mark.parametrize(("audio", "code"), [("", "empty_audio"), ("//////", "unsupported_audio_format")])
def test_what_is_no_audio_is_refused(models: Models, audio: str, code: str) -> None:
    with pytest.raises(AudioError) as refused:
        call(models, "encode_audio", audio=audio, model="encodec_24khz")
    assert refused.value.error_code == code


def test_audio_of_no_samples_and_of_nan_is_refused(models: Models) -> None:
    broken = make_noise(1, RATE)
    broken[0, 100] = np.nan
    file = io.BytesIO()
    soundfile.write(file, np.zeros((0, 1), np.float32), RATE, format="WAV", subtype="FLOAT")
    empty = base64.b64encode(file.getvalue()).decode()
    file = io.BytesIO()
    soundfile.write(file, broken.T, RATE, format="WAV", subtype="FLOAT")
    for audio, code in ((empty, "empty_audio"), (base64.b64encode(file.getvalue()).decode(), "nan_audio")):
        with pytest.raises(AudioError) as refused:
            call(models, "encode_audio", audio=audio, model="encodec_24khz")
        assert refused.value.error_code == code


def test_a_cancelled_job_ends_between_chunks(models: Models) -> None:
    cancel, reports = threading.Event(), []

    def report(update: Any) -> None:
        reports.append(update)
        if update["stage"] == "encode" and update["percent"] > 30:
            cancel.set()

    params = {"audio": make_input(60, rate=RATE), "model": "encodec_24khz"}
    job = {"id": "job", "input": {"operation": "encode_audio", "params": params}}
    with pytest.raises(CancelledError):
        answer(job, settings=Settings(volume_dirs=()), models=models, cancel=cancel, report=report)
    assert max(update["percent"] for update in reports) < 60
