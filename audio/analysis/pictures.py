"""Pictures of audio of any length, drawn with Pillow: its waveform, and its spectrogram with beats and chords."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from audio.analysis.frames import iter_mono, iter_spectra
from audio.types import AudioSource, iter_blocks

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

WIDTH = 1600  # pixels of the time axis
_MARGIN_LEFT, _MARGIN_RIGHT, _HEADER, _FOOTER = 56, 12, 26, 28
_CHANNEL_HEIGHT, _SPECTROGRAM_HEIGHT, _CHORDS_HEIGHT = 180, 420, 30
_BACKGROUND, _GRID, _TEXT = (18, 20, 26), (52, 56, 66), (222, 226, 232)
_PEAK_COLOUR, _RMS_COLOUR = (64, 132, 188), (138, 196, 240)
_BEAT_COLOUR, _DOWNBEAT_COLOUR = (255, 255, 255), (178, 186, 198)
_CHORD_COLOURS = ((44, 62, 88), (66, 50, 84))
_FONT_SIZE = 14
_COLOURS = np.array([(10, 12, 18), (48, 20, 96), (150, 40, 110), (232, 96, 60), (252, 190, 80), (255, 252, 214)])
_NUM_COLOURS = 64
_RANGE_DB = 80.0
_LOWEST_HZ, _HIGHEST_HZ = 30.0, 20_000.0
_SPECTRUM_RATE = 44_100
_FRAME_LENGTH, _SHORTEST_HOP = 4096, 64
_LABELLED_HZ = {50: "50", 100: "100", 200: "200", 500: "500", 1000: "1k", 2000: "2k", 5000: "5k", 10_000: "10k"}
_TIME_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800)
_LABEL_PIXELS = 90  # between labels of the time axis
_BEAT_PIXELS = 5  # between beats that are drawn


@dataclass(frozen=True)
class Annotations:
    """What is drawn into a spectrogram.

    Args:
        beats, downbeats: in s.
        chords: start and end (s) and name of each.
        title: one line above the picture.
    """

    beats: Sequence[float] = ()
    downbeats: Sequence[float] = ()
    chords: Sequence[tuple[float, float, str]] = ()
    title: str = ""


def draw_waveform(source: AudioSource) -> BinaryIO:
    """A PNG of the waveform, 1600 pixels wide: for each channel its peaks, and its RMS level brighter."""
    lowest, highest, rms = _measure_columns(source)
    height = source.channels * _CHANNEL_HEIGHT
    image, draw = _make_canvas(height)
    scale = max(float(np.abs(lowest).max()), float(highest.max()), 1e-4)
    for channel in range(source.channels):
        middle = _HEADER + channel * _CHANNEL_HEIGHT + _CHANNEL_HEIGHT // 2
        reach = _CHANNEL_HEIGHT / 2 - 6
        for column in range(WIDTH):
            x = _MARGIN_LEFT + column
            top, bottom = (middle - value[channel, column] / scale * reach for value in (highest, lowest))
            draw.line((x, top, x, bottom), fill=_PEAK_COLOUR)
            level = rms[channel, column] / scale * reach
            draw.line((x, middle - level, x, middle + level), fill=_RMS_COLOUR)
        draw.line((_MARGIN_LEFT, middle, _MARGIN_LEFT + WIDTH, middle), fill=_GRID)
        name = "LR"[channel] if source.channels == 2 else ""
        draw.text((10, middle - _FONT_SIZE / 2), name, fill=_TEXT, font_size=_FONT_SIZE)
    draw.text((_MARGIN_LEFT, 4), f"peak {20 * np.log10(scale):.1f} dBFS", fill=_TEXT, font_size=_FONT_SIZE)
    _draw_time_axis(draw, source.duration, height)
    return _encode(image)


def draw_spectrogram(source: AudioSource, annotations: Annotations) -> BinaryIO:
    """A PNG of the spectrogram, 1600 pixels wide, with a logarithmic frequency axis.

    Beats are short lines at its top, downbeats long ones, unless they would be too close to be told apart; chords are a
    strip below.
    """
    from PIL import Image

    levels, frequencies = _measure_spectrogram(source)
    image, draw = _make_canvas(_SPECTROGRAM_HEIGHT + _CHORDS_HEIGHT)
    colours = np.stack([np.interp(levels, np.linspace(0, 1, len(_COLOURS)), row) for row in _COLOURS.T], axis=-1)
    image.paste(Image.fromarray(colours.astype(np.uint8)), (_MARGIN_LEFT, _HEADER))
    for hz, label in _LABELLED_HZ.items():
        if frequencies[-1] < hz < frequencies[0]:
            y = _HEADER + float(np.interp(-np.log(hz), -np.log(frequencies), np.arange(len(frequencies))))
            draw.text((8, y - _FONT_SIZE / 2), label, fill=_TEXT, font_size=_FONT_SIZE)
            draw.line((_MARGIN_LEFT - 5, y, _MARGIN_LEFT, y), fill=_TEXT)
    _draw_beats(draw, source.duration, annotations)
    _draw_chords(draw, source.duration, annotations.chords)
    draw.text((_MARGIN_LEFT, 4), annotations.title, fill=_TEXT, font_size=_FONT_SIZE)
    _draw_time_axis(draw, source.duration, _SPECTROGRAM_HEIGHT + _CHORDS_HEIGHT)
    return _encode(image)


def _draw_beats(draw: ImageDraw.ImageDraw, duration: float, annotations: Annotations) -> None:
    for times, length, colour in (
        (annotations.beats, 10, _BEAT_COLOUR),
        (annotations.downbeats, _SPECTROGRAM_HEIGHT, _DOWNBEAT_COLOUR),
    ):
        if len(times) * _BEAT_PIXELS <= WIDTH:
            for time in times:
                x = _MARGIN_LEFT + time / duration * WIDTH
                draw.line((x, _HEADER, x, _HEADER + length), fill=colour)


def _draw_chords(draw: ImageDraw.ImageDraw, duration: float, chords: Sequence[tuple[float, float, str]]) -> None:
    top = _HEADER + _SPECTROGRAM_HEIGHT + 2
    for number, (start, end, name) in enumerate(chords):
        left, right = (_MARGIN_LEFT + time / duration * WIDTH for time in (start, end))
        if name != "N":
            draw.rectangle((left, top, right, top + _CHORDS_HEIGHT - 4), fill=_CHORD_COLOURS[number % 2])
        if name != "N" and draw.textlength(name, font_size=_FONT_SIZE) + 4 <= right - left:
            draw.text((left + 3, top + 5), name, fill=_TEXT, font_size=_FONT_SIZE)


def _measure_columns(source: AudioSource) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]:
    """Lowest and highest sample and RMS of each column of each channel: `[C, WIDTH]` each."""
    lowest = np.zeros((source.channels, WIDTH), np.float32)
    highest = np.zeros_like(lowest)
    energy = np.zeros((source.channels, WIDTH))
    counts = np.zeros(WIDTH)
    position = 0
    for block in iter_blocks(source):
        columns = (np.arange(position, position + block.shape[1]) * WIDTH) // source.num_samples
        starts = np.flatnonzero(np.diff(columns, prepend=-1))
        present = columns[starts]
        lowest[:, present] = np.minimum(lowest[:, present], np.minimum.reduceat(block, starts, axis=1))
        highest[:, present] = np.maximum(highest[:, present], np.maximum.reduceat(block, starts, axis=1))
        energy[:, present] += np.add.reduceat(block.astype(np.float64) ** 2, starts, axis=1)
        counts[present] += np.diff(starts, append=block.shape[1])
        position += block.shape[1]
    if source.num_samples < WIDTH:  # a column without a sample shows the one before it
        filled = np.maximum.accumulate(np.where(counts > 0, np.arange(WIDTH), 0))
        lowest, highest, energy, counts = lowest[:, filled], highest[:, filled], energy[:, filled], counts[filled]
    return lowest, highest, np.sqrt(energy / np.maximum(counts, 1))


def _measure_spectrogram(source: AudioSource) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Levels from 0 (80 dB below the loudest) to 1, `[rows, WIDTH]`, high frequencies first; the rows' frequencies."""
    rate = min(source.sample_rate, _SPECTRUM_RATE)
    num_samples = source.duration * rate
    hop_length = int(np.clip(num_samples / WIDTH, _SHORTEST_HOP, _FRAME_LENGTH))
    frequencies = np.geomspace(min(_HIGHEST_HZ, rate / 2), _LOWEST_HZ, _SPECTROGRAM_HEIGHT)
    bins = frequencies / rate * _FRAME_LENGTH
    below = np.minimum(bins.astype(int), _FRAME_LENGTH // 2 - 1)
    share = bins - below
    power = np.zeros((WIDTH, _SPECTROGRAM_HEIGHT))
    counts = np.zeros(WIDTH)
    frame = 0
    blocks = iter_mono(source, rate, lambda _: None)
    for spectra in iter_spectra(blocks, frame_length=_FRAME_LENGTH, hop_length=hop_length):
        rows = spectra[:, below] * (1 - share) + spectra[:, below + 1] * share
        positions = np.arange(frame, frame + len(rows)) * hop_length / num_samples * WIDTH
        columns = np.minimum(positions.astype(int), WIDTH - 1)
        np.add.at(power, columns, rows**2)
        np.add.at(counts, columns, 1)
        frame += len(rows)
    filled = np.maximum.accumulate(np.where(counts > 0, np.arange(WIDTH), 0))
    mean = (power / np.maximum(counts, 1)[:, None])[filled]
    decibels = 10 * np.log10(np.maximum(mean, 1e-12))
    loudest = max(float(decibels.max()), -60.0)
    return np.clip((decibels - loudest) / _RANGE_DB + 1, 0, 1).T, frequencies


def _make_canvas(height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """An empty picture with `height` pixels between its header and its time axis."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (_MARGIN_LEFT + WIDTH + _MARGIN_RIGHT, _HEADER + height + _FOOTER), _BACKGROUND)
    return image, ImageDraw.Draw(image)


def _draw_time_axis(draw: ImageDraw.ImageDraw, duration: float, height: int) -> None:
    most = WIDTH / _LABEL_PIXELS
    step = next((one for one in _TIME_STEPS if duration / one <= most), 3600)
    y = _HEADER + height
    for number in range(int(duration / step) + 1):
        x = _MARGIN_LEFT + number * step / duration * WIDTH
        draw.line((x, y, x, y + 5), fill=_TEXT)
        minutes, seconds = divmod(number * step, 60)
        text = f"{int(minutes)}:{seconds:02.0f}" if step >= 1 else f"{number * step:.1f}"
        draw.text((x + 3, y + 6), text, fill=_TEXT, font_size=_FONT_SIZE)


def _encode(image: Image.Image) -> BinaryIO:
    file = io.BytesIO()
    image.quantize(_NUM_COLOURS).save(file, "PNG", optimize=True)
    file.seek(0)
    return file
