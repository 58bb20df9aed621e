"""generate_music with `continuation_codes`: codes in place of a recording, in lists and in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audio import Audio
from errors import AudioError, InvalidRequestError
from models import Models, registry
from testing.codecs import RATE, call, encode_base64
from testing.signals import make_noise
from testing.tiny_musicgen import Shape, write_checkpoint

CODES = np.random.default_rng(0).integers(0, 32, (4, 30)).tolist()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("models")
    write_checkpoint(folder / "tiny")
    write_checkpoint(folder / "two", Shape(stereo=True))
    return registry.build(device="cpu", models_dir=folder)


def generate(models: Models, **params: Any) -> dict[str, Any]:
    defaults: dict[str, Any] = {"prompt": "piano", "model": "tiny", "duration": 0.5, "seed": 3, "output_format": "wav"}
    return call(models, "generate_music", **(defaults | params))


@pytest.mark.parametrize("model", ["tiny", "two"])
@pytest.mark.parametrize("include_prompt", [True, False])
def test_codes_are_continued_as_the_recording_that_they_encode(
    models: Models, model: str, include_prompt: bool
) -> None:
    recording = encode_base64(Audio(make_noise(2, 12_800), RATE))
    asked: dict[str, Any] = {"model": model, "include_prompt": include_prompt}
    expected = generate(models, continuation_audio=recording, **asked)
    encoded: dict[str, Any] = {"audio": recording, "model": model}
    lists = call(models, "encode_audio", **encoded)["codes"]
    file = call(models, "encode_audio", **encoded, codes_format="npz")["files"]["codes"]["output_file"]
    for codes in (lists, file):
        found = generate(models, continuation_codes=codes, **asked)
        assert found["sha256"] == expected["sha256"]
        assert found["duration"] == pytest.approx(0.8 * include_prompt + 0.5)
        assert "continuation_codes" not in found["parameters"]


def test_other_codes_give_other_music_and_no_prompt_is_needed(models: Models) -> None:
    first, second = (generate(models, prompt=None, continuation_codes=codes) for codes in (CODES, CODES[::-1]))
    assert first["sha256"] != second["sha256"]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"continuation_codes": [[1], [1, 2]]}, "'continuation_codes' must have lists of one length"),
        ({"continuation_codes": [[-1]]}, "they are -1 to -1"),
        ({"continuation_codes": CODES, "continuation_audio": "x"}, "cannot be sent together with 'continuation_audio'"),
        ({"continuation_codes": CODES, "continuation_end": 1.0}, "'continuation_audio' is required"),
        ({"continuation_codes": 5}, "'continuation_codes'"),
    ],
)
def test_codes_that_cannot_be_are_refused(models: Models, params: Any, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        generate(models, **params)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"continuation_codes": CODES[:2]}, "has 2 codebooks, and 'tiny' continues codes of all 4"),
        ({"continuation_codes": CODES, "model": "two"}, "has 4 codebooks, and 'two' continues codes of all 8"),
        ({"continuation_codes": CODES * 2}, "of 8 codebooks, and it has 4"),
        ({"continuation_codes": [[32]] * 4}, "their highest is 32"),
    ],
)
def test_codes_of_another_codec_are_refused_before_anything_is_loaded(
    models: Models, params: Any, message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=message) as refused:
        generate(models, melody_audio=None, **params)
    assert refused.value.error_code == "invalid_codes" and refused.value.details["field"] == "continuation_codes"


def test_codes_that_fill_the_window_are_too_long(models: Models) -> None:
    with pytest.raises(
        AudioError, match=r"2.0 s long, but they must be shorter than the window of 'tiny', 2 s"
    ) as refused:
        generate(models, continuation_codes=[[1] * 100] * 4)
    assert refused.value.error_code == "continuation_too_long"
    assert generate(models, continuation_codes=[[1] * 99] * 4)["success"] is True


def test_a_file_of_another_codec_is_refused(models: Models, tmp_path: Path) -> None:
    import base64
    import io

    file = io.BytesIO()
    np.savez(file, codes=np.array(CODES), sample_rate=24_000)
    with pytest.raises(InvalidRequestError, match="they state 24000 Hz, and it has 16000"):
        generate(models, continuation_codes=base64.b64encode(file.getvalue()).decode())
    with pytest.raises(InvalidRequestError, match="The file in 'continuation_codes' cannot be used: it is not a zip"):
        generate(models, continuation_codes=base64.b64encode(b"x" * 50).decode())


def test_other_engines_do_not_take_codes(models: Models) -> None:
    with pytest.raises(InvalidRequestError, match="'continuation_codes' is a parameter of MusicGen"):
        generate(models, continuation_codes=CODES, model="suno/V4_5")
