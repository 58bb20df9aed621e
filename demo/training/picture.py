"""Draws mel spectrograms into a small PNG, without a plotting library."""

import struct
import zlib
from pathlib import Path

import librosa
import numpy as np
from numpy.typing import NDArray

from demo.training.render import SAMPLE_RATE

GAP = 6


def write_spectrograms(path: Path, clips: list[NDArray[np.float32]], width: int = 640) -> None:
    """One strip a clip, top to bottom: 128 mel bands, low notes at the bottom, dark (-70 dB) to bright (0 dB)."""
    strips = []
    for clip in clips:
        mel = librosa.feature.melspectrogram(y=clip, sr=SAMPLE_RATE, n_mels=128, hop_length=max(1, len(clip) // width))
        level = (librosa.power_to_db(mel, ref=np.max, top_db=70) + 70) / 70
        strips += [level[::-1, :width], np.ones((GAP, level[:, :width].shape[1]))]
    _write_png(path, (np.concatenate(strips[:-1]) * 255).astype(np.uint8))


def _palette() -> bytes:
    """Black over purple and orange to light yellow."""
    stops = np.array([[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]])
    at = np.linspace(0, 4, 256)
    return np.stack([np.interp(at, range(5), stops[:, i]) for i in range(3)], 1).astype(np.uint8).tobytes()


def _write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    height, width = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"PLTE", _palette()), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
