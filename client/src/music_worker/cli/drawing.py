"""A small waveform for the terminal, drawn from a few samples of a file; without NumPy."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
from array import array
from collections.abc import Sequence
from pathlib import Path

BLOCKS = " ▁▂▃▄▅▆▇█"
LEVELS = 8
MAX_COLUMNS = 72
FRAMES_A_COLUMN = 512
PCM, IEEE_FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
DECODE_TIMEOUT_S = 20


def draw_waveform(path: Path, *, columns: int | None = None) -> list[str]:
    """One or two lines of block characters, as high as the audio is loud; empty if the file cannot be read here.

    wav is read here; other formats need ffmpeg.
    """
    width = columns or min(MAX_COLUMNS, shutil.get_terminal_size().columns - 2)
    peaks = _read_wav_peaks(path, width) or _decode_peaks(path, width)
    return draw_peaks(peaks) if peaks else []


def draw_peaks(peaks: Sequence[float]) -> list[str]:
    """Two lines for peaks of 0 to 1, one column each; the lower one alone if no peak is above a half."""
    heights = [round(min(max(peak, 0.0), 1.0) * 2 * LEVELS) for peak in peaks]
    upper = "".join(BLOCKS[max(height - LEVELS, 0)] for height in heights)
    lower = "".join(BLOCKS[max(min(height, LEVELS), 1)] for height in heights)
    return [upper, lower] if upper.strip() else [lower]


def _read_wav_peaks(path: Path, columns: int) -> list[float]:
    """The peak of each column of a wav file; of long columns only the first frames are read."""
    try:
        with path.open("rb") as file:
            if file.read(4) != b"RIFF" or not file.seek(8) or file.read(4) != b"WAVE":
                return []
            layout: tuple[int, int, int] | None = None
            while len(head := file.read(8)) == 8:
                name, size = head[:4], struct.unpack("<I", head[4:])[0]
                start = file.tell()
                if name == b"fmt ":
                    layout = _read_layout(file.read(min(size, 40)))
                if name == b"data" and layout is not None:
                    code, channels, width = layout
                    block = channels * width
                    frames = min(size, path.stat().st_size - start) // block
                    peaks = []
                    for column in range(columns):
                        first, last = frames * column // columns, frames * (column + 1) // columns
                        file.seek(start + first * block)
                        data = file.read(min(max(last - first, 1), FRAMES_A_COLUMN) * block)
                        peaks.append(_find_peak(data[: len(data) // width * width], code, width))
                    return peaks
                file.seek(start + size + size % 2)
    except (OSError, struct.error, ValueError):
        return []
    return []


def _read_layout(header: bytes) -> tuple[int, int, int] | None:
    """Format code, channels and bytes of a sample; None for a kind that is not read here."""
    code, channels, _, _, _, bits = struct.unpack("<HHIIHH", header[:16])
    if code == EXTENSIBLE:
        code = struct.unpack("<H", header[24:26])[0]
    if not channels or (code, bits) not in ((PCM, 16), (PCM, 24), (PCM, 32), (IEEE_FLOAT, 32)):
        return None
    return code, channels, bits // 8


def _find_peak(data: bytes, code: int, width: int) -> float:
    if not data:
        return 0.0
    if width == 3:  # the upper two bytes are enough for a picture
        data, width = bytes(byte for number, byte in enumerate(data) if number % 3), 2
    samples = array("f" if code == IEEE_FLOAT else {2: "h", 4: "i"}[width])
    samples.frombytes(data)
    if sys.byteorder == "big":
        samples.byteswap()
    full_scale = 1.0 if code == IEEE_FLOAT else float(1 << (8 * width - 1))
    return max(abs(min(samples)), abs(max(samples))) / full_scale


def _decode_peaks(path: Path, columns: int) -> list[float]:
    """The peaks of a file that ffmpeg decodes; empty without ffmpeg."""
    if (ffmpeg := shutil.which("ffmpeg")) is None:
        return []
    command = [ffmpeg, "-v", "error", "-nostdin", "-i", str(path), "-ac", "1", "-ar", "4000", "-f", "s16le", "-"]
    try:
        decoded = subprocess.run(command, capture_output=True, check=False, timeout=DECODE_TIMEOUT_S).stdout
    except (OSError, subprocess.TimeoutExpired):
        return []
    frames = len(decoded) // 2
    if frames < columns:
        return []
    return [
        _find_peak(decoded[2 * (frames * column // columns) : 2 * (frames * (column + 1) // columns)], PCM, 2)
        for column in range(columns)
    ]
