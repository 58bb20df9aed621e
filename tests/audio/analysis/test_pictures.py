"""Pictures show what they should: pixels where the signal is."""

from __future__ import annotations

from typing import BinaryIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from audio import Audio
from audio.analysis.pictures import WIDTH, Annotations, draw_spectrogram, draw_waveform
from testing.signals import copy_to_disk, make_tone

LEFT, TOP = 56, 26  # of the area that shows the signal


def read_pixels(file: BinaryIO) -> NDArray[np.int16]:
    """`[height, width, 3]`; the file must be a PNG."""
    image = Image.open(file, formats=["PNG"])
    image.load()
    return np.asarray(image.convert("RGB"), np.int16)


def test_the_waveform_is_high_where_the_audio_is_loud() -> None:
    waveform = np.zeros((2, 44_100), np.float32)
    waveform[0, :22_050] = 0.8 * np.sin(np.arange(22_050))
    pixels = read_pixels(draw_waveform(Audio(waveform, 44_100)))
    is_drawn = np.abs(pixels - pixels[TOP + 4, LEFT + WIDTH - 2]).sum(axis=2) > 60
    heights = is_drawn[TOP : TOP + 360].sum(axis=0)
    assert heights[LEFT + 10 : LEFT + 790].min() > 100 and heights[LEFT + 810 : LEFT + 1590].max() < 10


def test_the_spectrogram_is_bright_at_the_frequency_of_a_tone() -> None:
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(44_100) / 44_100)
    pixels = read_pixels(draw_spectrogram(Audio(tone[None].astype(np.float32), 44_100), Annotations()))
    column = pixels[TOP : TOP + 420, LEFT + 800].sum(axis=1)
    expected = 420 * np.log(20_000 / 1000) / np.log(20_000 / 30)
    assert abs(int(column.argmax()) - expected) < 4


def test_beats_and_chords_are_drawn() -> None:
    audio = make_tone(4.0)
    plain = read_pixels(draw_spectrogram(audio, Annotations()))
    marked = read_pixels(draw_spectrogram(audio, Annotations(beats=[1.0], downbeats=[2.0], chords=[(0.0, 2.0, "Am")])))
    differs = np.abs(plain - marked).sum(axis=2) > 60
    columns = differs[TOP + 12 : TOP + 300].mean(axis=0)
    assert columns[LEFT + 800] > 0.5 and columns[LEFT + 400] < 0.1  # a downbeat's line is long, a beat's is short
    assert differs[TOP : TOP + 9, LEFT + 400].mean() > 0.5
    strip = differs[TOP + 425 : TOP + 440].mean(axis=0)
    assert strip[LEFT + 300 : LEFT + 700].min() > 0.5 and strip[LEFT + 900 : LEFT + 1500].max() < 0.1


@pytest.mark.parametrize("num_samples", [1, 2, 1000, 200_000])
@pytest.mark.parametrize("sample_rate", [8000, 192_000])
def test_audio_of_any_length_and_rate_can_be_drawn(num_samples: int, sample_rate: int) -> None:
    audio = Audio(np.full((1, num_samples), 0.1, np.float32), sample_rate)
    sizes = {read_pixels(file).shape[1] for file in (draw_waveform(audio), draw_spectrogram(audio, Annotations()))}
    assert sizes == {LEFT + WIDTH + 12}


def test_audio_on_disk_looks_like_audio_in_memory() -> None:
    audio = make_tone(2.0)
    with copy_to_disk(audio) as stored:
        assert draw_waveform(stored).read() == draw_waveform(audio).read()
