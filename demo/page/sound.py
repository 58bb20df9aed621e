"""What the page shows of one sound: an mp3 to play, its measures, and pictures of it."""

from __future__ import annotations

import functools
import io
import math
from dataclasses import dataclass
from typing import BinaryIO

from audio.analysis.pictures import Annotations, draw_spectrogram, draw_waveform
from audio.dsp.loudness import integrated_loudness
from audio.files.decode import FORMATS, DecodeLimits, decode
from audio.files.encode import encode
from audio.files.formats import Encoding

PICTURE_WIDTH = 900  # pixels
PICTURE_COLOURS = 48
BITRATE = 128  # kbit/s
_LIMITS = DecodeLimits(
    max_bytes=1 << 28, max_seconds=600.0, max_decoded_bytes=1 << 30, max_sample_rate=192_000, max_channels=8
)


@dataclass(frozen=True, slots=True)
class Sound:
    """One sound, measured and drawn.

    Args:
        mp3: the whole sound.
        duration: in seconds.
        peak_db: highest sample in dBFS; None: silence.
        loudness_lufs: integrated loudness; None: silence, or too short to be measured.
        waveform_png, spectrogram_png: pictures over time.
    """

    mp3: bytes
    duration: float
    sample_rate: int
    channels: int
    peak_db: float | None
    loudness_lufs: float | None
    waveform_png: bytes
    spectrogram_png: bytes


def is_sound(filename: str) -> bool:
    """Whether a file is audio, by its ending."""
    return filename.rpartition(".")[2] in FORMATS


@functools.cache
def make_sound(data: bytes) -> Sound:
    """Decodes, measures and draws an audio file; one that many requests have, once."""
    audio = decode(data, limits=_LIMITS).audio
    peak, loudness = audio.peak, integrated_loudness(audio)
    mp3 = io.BytesIO()
    encode(audio, Encoding("mp3", bitrate=BITRATE), mp3)
    return Sound(
        mp3=mp3.getvalue(),
        duration=audio.duration,
        sample_rate=audio.sample_rate,
        channels=audio.channels,
        peak_db=20 * math.log10(peak) if peak > 0 else None,
        loudness_lufs=loudness if math.isfinite(loudness) else None,
        waveform_png=shrink_picture(draw_waveform(audio)),
        spectrogram_png=shrink_picture(draw_spectrogram(audio, Annotations())),
    )


def shrink_picture(png: BinaryIO) -> bytes:
    """A smaller PNG with few colours, because the page holds many."""
    from PIL import Image

    with Image.open(png) as picture:
        height = round(picture.height * PICTURE_WIDTH / picture.width)
        small = picture.convert("RGB").resize((PICTURE_WIDTH, height), Image.Resampling.LANCZOS)
        stream = io.BytesIO()
        small.quantize(PICTURE_COLOURS, dither=Image.Dither.NONE).save(stream, "PNG", optimize=True)
    return stream.getvalue()
