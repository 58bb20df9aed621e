"""Draws waveforms and mel spectrograms into small PNG files, without a plotting library.

`python -m demo.training.picture music.wav picture.png` draws the picture in the README.
"""

import struct
import sys
import zlib
from pathlib import Path

import librosa
import numpy as np
import soundfile
from numpy.typing import NDArray

GAP = 6
WIDTH = 640
WAVEFORM_HEIGHT = 96
SAMPLE_RATE = 32_000


def write_spectrograms(path: Path, clips: list[NDArray[np.float32]], width: int = WIDTH) -> None:
    """Writes one mel spectrogram per clip, from top to bottom; low frequencies are at the bottom.

    Args:
        clips: each `[T]` at 32 kHz.
        width: pixels.
    """
    strips = []
    for clip in clips:
        strips += [mel_spectrogram(clip, SAMPLE_RATE, width), _gap(width)]
    _write_png(path, np.concatenate(strips[:-1]))


def write_clip(path: Path, clip: NDArray[np.float32], sample_rate: int, width: int = WIDTH) -> None:
    """Writes the waveform of one clip `[T]` above its mel spectrogram."""
    _write_png(path, np.concatenate([waveform(clip, width), _gap(width), mel_spectrogram(clip, sample_rate, width)]))


def mel_spectrogram(clip: NDArray[np.float32], sample_rate: int, width: int) -> NDArray[np.float64]:
    """`[128, width]` levels from 0 (70 dB below the maximum) to 1."""
    hop_length = max(1, len(clip) // width)
    mel = librosa.feature.melspectrogram(y=clip, sr=sample_rate, n_mels=128, hop_length=hop_length)
    level = (librosa.power_to_db(mel, ref=np.max, top_db=70) + 70) / 70
    return np.asarray(level[::-1, :width])


def waveform(clip: NDArray[np.float32], width: int) -> NDArray[np.float64]:
    """`[96, width]`: a column is bright between the lowest and the highest sample that it stands for."""
    columns = clip[: len(clip) // width * width].reshape(width, -1)
    half = WAVEFORM_HEIGHT / 2
    rows = np.arange(WAVEFORM_HEIGHT)[:, None]
    top, bottom = half - half * columns.max(1), half - half * columns.min(1)
    return np.where((rows >= top - 0.5) & (rows <= bottom + 0.5), 0.65, 0.0)


def _gap(width: int) -> NDArray[np.float64]:
    return np.ones((GAP, width))


def _palette() -> bytes:
    """Black over purple and orange to light yellow."""
    stops = np.array([[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]])
    at = np.linspace(0, 4, 256)
    return np.stack([np.interp(at, range(5), stops[:, i]) for i in range(3)], 1).astype(np.uint8).tobytes()


def _write_png(path: Path, levels: NDArray[np.float64]) -> None:
    pixels = (levels * 255).astype(np.uint8)
    height, width = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"PLTE", _palette()), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


if __name__ == "__main__":
    audio, rate = soundfile.read(sys.argv[1], dtype="float32", always_2d=True)
    write_clip(Path(sys.argv[2]), audio.mean(1), rate)
