"""The operation `decode_audio`, from JSON to reply, with tiny codecs in the real files."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from errors import InvalidRequestError, ModelError, SourceError, UnknownNameError
from models import Models, registry
from testing.codecs import RATE, call, make_input, write_codecs
from worker.settings import Settings

CODES = np.random.default_rng(0).integers(0, 32, (4, 50)).tolist()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return registry.build(device="cpu", models_dir=write_codecs(tmp_path_factory.mktemp("models")))


def decode(models: Models, **params: Any) -> dict[str, Any]:
    return call(models, "decode_audio", **params)


def pack(**arrays: Any) -> str:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return base64.b64encode(file.getvalue()).decode()


def read_samples(reply: dict[str, Any]) -> np.ndarray[Any, Any]:
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(reply["output_audio"])), always_2d=True)
    assert rate == RATE == reply["sample_rate"]
    return np.asarray(samples.T)


@pytest.mark.parametrize("model", ["encodec_24khz", "encodec_32khz", "encodec_48khz", "two"])
def test_lists_and_a_file_give_the_audio_of_the_round_trip(models: Models, model: str) -> None:
    asked: dict[str, Any] = {"audio": make_input(1.3, channels=2), "model": model}
    listed = call(models, "encode_audio", **asked, return_audio=True)
    packed = call(models, "encode_audio", **asked, codes_format="npz")
    lists = {name: listed[name] for name in ("codes", "scales", "num_samples") if name in listed}
    from_lists = decode(models, **lists, model=model)
    from_file = decode(models, codes=packed["files"]["codes"]["output_file"])
    assert from_lists["sha256"] == from_file["sha256"] == listed["sha256"]
    assert from_file["model_used"] == from_lists["model_used"] == model
    assert (from_file["num_codebooks"], from_file["num_frames"]) == (listed["num_codebooks"], listed["num_frames"])
    assert read_samples(from_file).shape == (listed["channels"], round(1.3 * RATE))
    assert "codes" not in from_file["parameters"] and from_file["warnings"] == []


def test_a_file_is_taken_from_a_volume_and_from_a_data_uri(models: Models, tmp_path: Path) -> None:
    settings = Settings(volume_dirs=(tmp_path,))
    asked: dict[str, Any] = {"audio": make_input(), "model": "encodec_24khz", "codes_format": "npz"}
    path = call(models, "encode_audio", **asked, delivery="volume", settings=settings)["files"]["codes"]["output_path"]
    first = call(models, "decode_audio", codes=path, settings=settings)
    uri = f"data:application/zip;base64,{base64.b64encode(Path(path).read_bytes()).decode()}"
    assert decode(models, codes=uri)["sha256"] == first["sha256"]
    with pytest.raises(SourceError, match="not below a mounted volume"):
        decode(models, codes="/etc/passwd")


def test_without_the_length_the_audio_ends_with_the_last_frame(models: Models) -> None:
    assert read_samples(decode(models, codes=CODES, model="encodec_24khz")).shape == (1, 50 * 320)
    shorter = decode(models, codes=CODES, model="encodec_24khz", num_samples=49 * 320 + 1)
    assert read_samples(shorter).shape == (1, 49 * 320 + 1)
    segments = decode(models, codes=CODES, model="encodec_48khz", scales=[0.5])
    assert read_samples(segments).shape == (2, 15_840)  # one more would begin a second segment


def test_fewer_codebooks_than_the_codec_has_are_decoded(models: Models) -> None:
    one, all_four = (decode(models, codes=CODES[:rows], model="encodec_24khz") for rows in (1, 4))
    assert one["num_codebooks"] == 1 and one["sha256"] != all_four["sha256"]


def test_codes_of_another_program_need_a_model(models: Models) -> None:
    file = pack(codes=np.array(CODES))
    with pytest.raises(InvalidRequestError, match="does not name its codec. Send its name as 'model'"):
        decode(models, codes=file)
    lists = decode(models, codes=CODES, model="encodec_24khz")
    assert decode(models, codes=file, model="encodec_24khz")["sha256"] == lists["sha256"]


def test_another_model_than_the_file_names_is_a_warning(models: Models) -> None:
    file = pack(codes=np.array(CODES), model="encodec_32khz")
    assert decode(models, codes=file)["model_used"] == "encodec_32khz"
    other = decode(models, codes=file, model="encodec_24khz")
    assert other["warnings"] == ["The codes were made by 'encodec_32khz', and 'encodec_24khz' decoded them."]
    with pytest.raises(UnknownNameError, match="Unknown codec 'nothing'"):
        decode(models, codes=pack(codes=np.array(CODES), model="nothing"))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"codes": [[1, 2, 3], [1, 2]]}, "'codes' must have lists of one length, not of 2 to 3 codes"),
        ({"codes": [[], []]}, "'codes' must have at least one frame"),
        ({"codes": [[1], []]}, "lists of one length, not of 0 to 1"),
        ({"codes": []}, "'codes' List must have at least 1 item"),
        ({"codes": [[1]] * 300}, "'codes' List must have at most 256 items"),
        ({"codes": [[-1]]}, "they are -1 to -1"),
        ({"codes": [[10**30]]}, "'codes'"),
        ({"codes": [[0, 40_000]]}, "they are 0 to 40000"),
        ({"codes": [[0.5]]}, "'codes'"),
        ({"codes": [[True]]}, "'codes'"),
        ({"codes": [["1"]]}, "'codes'"),
        ({"codes": [1, 2]}, "'codes'"),
        ({"codes": {"a": 1}}, "'codes'"),
        ({"codes": CODES, "scales": [0.0]}, "'scales'"),
        ({"codes": CODES, "scales": [1e9]}, "'scales'"),
        ({"codes": CODES, "num_samples": 0}, "'num_samples'"),
        ({"codes": "UEsDBA==", "scales": [1.0], "num_samples": 3}, "'scales' cannot.*'num_samples' cannot"),
        ({}, "'codes' is required"),
    ],
)
def test_codes_that_cannot_be_are_refused_with_all_faults(models: Models, params: Any, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message) as refused:
        decode(models, **({"model": "encodec_24khz"} | params))
    assert refused.value.error_code == "invalid_request"


def test_lists_without_a_model_are_refused(models: Models) -> None:
    with pytest.raises(InvalidRequestError, match="'model' is required when 'codes' are lists"):
        decode(models, codes=CODES)


OTHER: dict[str, tuple[dict[str, Any], str]] = {
    "too many codebooks": ({"codes": [[1]] * 5}, "of 5 codebooks, and it has 4"),
    "codes out of range": ({"codes": [[32]]}, "their highest is 32, and its codebooks have 32 codes"),
    "an odd number": ({"codes": CODES[:3], "model": "two"}, "of 3 codebooks, and it has an even number of at most 8"),
    "too long": ({"codes": CODES, "num_samples": 16_001}, "50 frames, and audio of 16001 samples has 51"),
    "too short": ({"codes": CODES, "num_samples": 3}, "50 frames, and audio of 3 samples has 1"),
    "scales": ({"codes": CODES, "scales": [1.0]}, "1 scales instead of 0"),
    "no scales": ({"codes": CODES, "model": "encodec_48khz"}, "0 scales instead of 1"),
    "few scales": ({"codes": [CODES[0] * 2], "model": "encodec_48khz", "scales": [1.0]}, "1 scales instead of 2"),
    "another rate": ({"codes": {"sample_rate": 24_000}}, "they state 24000 Hz, and it has 16000"),
    "another frame rate": ({"codes": {"frame_rate": 75.0}}, "they state 75 frames a second, and it has 50"),
    "no sample": ({"codes": {"num_samples": 0}}, "audio of 0 samples has 0"),
    "negative scales": ({"codes": {"scales": np.array([-1.0])}, "model": "encodec_48khz"}, "scale is not above 0"),
    "scales of nan": ({"codes": {"scales": np.array([np.nan])}, "model": "encodec_48khz"}, "scale is not above 0"),
}


@pytest.mark.parametrize(("params", "message"), OTHER.values(), ids=OTHER)
def test_codes_of_another_codec_are_refused_with_the_reason(models: Models, params: Any, message: str) -> None:
    params = {"model": "encodec_24khz"} | params
    if isinstance(params["codes"], dict):
        params["codes"] = pack(codes=np.array(CODES), **params["codes"])
    with pytest.raises(
        InvalidRequestError, match=f"codes' cannot be decoded by '{params['model']}': .*{message}"
    ) as refused:
        decode(models, **params)
    assert refused.value.error_code == "invalid_codes" and refused.value.details["field"] == "codes"


def test_a_file_that_is_no_npz_a_bomb_and_objects_are_refused(models: Models) -> None:
    file = io.BytesIO()
    np.savez_compressed(file, codes=np.zeros((4, 1 << 20), np.int16))
    bomb = base64.b64encode(file.getvalue()).decode()
    settings = Settings(volume_dirs=(), max_input_bytes=1 << 20)
    with pytest.raises(InvalidRequestError, match="at most 1048576 are read"):
        call(models, "decode_audio", codes=bomb, model="encodec_24khz", settings=settings)
    for codes, reason in (
        (make_input(0.1), "not a zip file"),
        (pack(codes=np.array([[None]], object)), "objects or records"),
    ):
        with pytest.raises(InvalidRequestError, match=reason) as refused:
            decode(models, codes=codes, model="encodec_24khz")
        assert refused.value.error_code == "invalid_codes"


def test_codes_of_more_audio_than_the_worker_takes_are_refused(models: Models) -> None:
    settings = Settings(volume_dirs=(), max_input_seconds=0.5)
    with pytest.raises(InvalidRequestError, match="those of 1 s of audio, and at most 0.5 s") as refused:
        call(models, "decode_audio", codes=CODES, model="encodec_24khz", settings=settings)
    assert refused.value.error_code == "audio_too_long"


def test_a_codec_whose_weights_are_damaged_is_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = write_codecs(tmp_path) / "encodec_24khz" / "model.safetensors"
    tensors = load_file(path)
    tensors["decoder.layers.0.conv.bias"].fill_(float("nan"))
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="not finite, so its weights are damaged"):
        decode(registry.build(device="cpu", models_dir=tmp_path), codes=CODES, model="encodec_24khz")
