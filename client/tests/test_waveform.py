"""Samples to wav and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from music_worker.errors import InputError, OutputError
from music_worker.waveform import Samples, decode


@pytest.mark.parametrize("channels", [1, 2])
def test_floating_point_samples_come_back_bit_for_bit(channels: int) -> None:
    array = np.random.default_rng(1).uniform(-1.5, 1.5, (channels, 1000)).astype(np.float32)
    decoded, sample_rate = decode(Samples(array, 32_000).to_wav(), "a.wav")
    assert sample_rate == 32_000 and np.array_equal(decoded, array)


def test_one_dimension_is_mono_and_int16_stays_int16() -> None:
    array = np.array([0, 16384, -32768], np.int16)
    content = Samples(array, 8000).to_wav()
    assert len(content) == 44 + 6
    assert decode(content, "a.wav")[0].tolist() == [[0.0, 0.5, -1.0]]


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (np.zeros((0,), np.float32), "not empty"),
        (np.zeros((1000, 2), np.float32), "transpose"),
        (np.zeros((2, 2, 2), np.float32), r"\[C, T\]"),
        (np.array([0.0, np.nan], np.float32), "NaN"),
        (np.zeros(10, np.int64), "int64"),
    ],
)
def test_an_array_that_is_not_audio_is_refused_with_a_sentence(array: np.ndarray[Any, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Samples(array, 44_100).to_wav()


def test_a_wav_of_24_bits_is_decoded() -> None:
    content = bytearray(Samples(np.zeros(2, np.int16), 8000).to_wav())
    content[32:34], content[34:36] = (3).to_bytes(2, "little"), (24).to_bytes(2, "little")
    content[40:] = (6).to_bytes(4, "little") + b"\x00\x00\x40" + b"\x00\x00\x80"
    assert decode(bytes(content), "a.wav")[0].tolist() == [[0.5, -1.0]]


@pytest.mark.parametrize("content", [b"", b"RIFF", b"RIFF\x00\x00\x00\x00WAVE", b"RIFF\x00\x00\x00\x00WAVEfmt \x10"])
def test_a_damaged_wav_is_an_error(content: bytes) -> None:
    with pytest.raises(OutputError):
        decode(content, "a.wav")
