"""Decoding takes little more memory than the longest accepted audio, for every file.

Measured in a separate process, one file after the other, each from a high-water mark reset to the memory in use.
"""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import soundfile

from audio import Audio
from audio.files.formats import Encoding, FormatName
from audio.files.mpeg import frame_length
from audio.files.ogg import checksum, iter_pages
from testing.repository import ROOT
from testing.signals import encode_file, encode_with_ffmpeg, make_tone, needs_ffmpeg

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak is read from /proc")

MAX_SECONDS: Final = 180
MAX_BYTES: Final = MAX_SECONDS * 44100 * 2 * 4

MEASURE: Final = """
import json, resource, sys
from pathlib import Path
from audio.files.decode import DecodeLimits, decode_source
from errors import AudioError

def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if key in line).split()[1]) * 1024

def measure(name):
    data = Path(name).read_bytes()
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    try:
        outcome = decode_source(data, limits=limits, memory_bytes=MEMORY_BYTES).audio.num_samples
    except AudioError as error:
        outcome = error.error_code
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return {"outcome": outcome, "peak": status("VmHWM") - before, "child": child}

limits = DecodeLimits(
    max_bytes=1 << 30, max_seconds=SECONDS, max_decoded_bytes=1 << 30, max_sample_rate=44100, max_channels=8
)
measure(sys.argv[1])
print(json.dumps([measure(name) for name in sys.argv[2:]]))
""".replace("SECONDS", str(MAX_SECONDS))


def measure(files: list[bytes], folder: Path, memory_bytes: int | None = None) -> list[dict[str, Any]]:
    """Outcome and peak memory for each file, decoded one after the other in a process warmed up by a small file."""
    script = MEASURE.replace("MEMORY_BYTES", str(memory_bytes))
    paths = [folder / str(index) for index in range(len(files) + 1)]
    for path, data in zip(paths, [encode_file(make_tone(0.5), Encoding("wav")), *files], strict=True):
        path.write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, paths)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return list(json.loads(done.stdout))


@cache
def silent_flac(seconds: int, channels: int = 2) -> bytes:
    stream = io.BytesIO()
    with soundfile.SoundFile(stream, "w", 44100, channels, format="FLAC", subtype="PCM_16") as file:
        for _ in range(seconds):
            file.write(np.zeros((44100, channels), np.int16))
    return stream.getvalue()


@cache
def silent(form: FormatName, seconds: int) -> bytes:
    waveform = np.broadcast_to(np.zeros((2, 1), np.float32), (2, seconds * 44100))
    return encode_file(Audio(waveform, 44100), Encoding(form, bitrate=64))


def flac_with_stated_samples(total: int, seconds: int) -> bytes:
    """FLAC with its number of samples, 36 bits in STREAMINFO, overwritten; 0 means unknown."""
    data = bytearray(silent_flac(seconds))
    data[21] = data[21] & 0xF0 | total >> 32
    data[22:26] = struct.pack(">I", total & 0xFFFFFFFF)
    return bytes(data)


def mp3_with_stated_frames(frames: int, seconds: int) -> bytes:
    """MP3 of repeated silent frames after a tag that states `frames`."""
    data = bytearray(silent("mp3", 4))
    at, start = data.find(b"Info", 0, 200), frame_length(bytes(data[:4]))
    body = data[start:] * (seconds // 4)
    data[at + 8 : at + 16] = struct.pack(">II", frames, start + len(body))
    return bytes(data[:start] + body)


def mp3_without_a_tag(seconds: int) -> bytes:
    data = silent("mp3", 4)
    return data[frame_length(data) :] * (seconds // 4)


def ogg_with_stated_samples(total: int) -> bytes:
    """Vorbis whose last page states `total` samples, with a correct checksum."""
    *before, last = iter_pages(io.BytesIO(silent("ogg", 4)))
    unsigned = last.data[:6] + struct.pack("<Q", total) + last.data[14:22] + bytes(4) + last.data[26:]
    signed = unsigned[:22] + struct.pack("<I", checksum(unsigned)) + unsigned[26:]
    return b"".join(page.data for page in before) + signed


def wav_with_header(*, channels: int = 2, rate: int = 44100, data_bytes: int = 4000) -> bytes:
    head = struct.pack("<HHIIHH", 1, channels, rate, rate * channels * 2 % (1 << 32), channels * 2 % 65536, 16)
    body = b"WAVEfmt \x10\0\0\0" + head + b"data" + struct.pack("<I", data_bytes) + bytes(4000)
    return b"RIFF" + struct.pack("<I", len(body)) + body


FULL: Final = MAX_SECONDS * 44100

HOSTILE: Final[dict[str, tuple[Callable[[], bytes], object]]] = {
    "flac longer than the limit": (lambda: silent_flac(900), "audio_too_long"),
    "flac longer than the limit, length unknown": (lambda: flac_with_stated_samples(0, 900), "audio_too_long"),
    "flac that states a billion missing samples": (lambda: flac_with_stated_samples(10**9, 1), "audio_too_long"),
    "flac that states almost the limit": (lambda: flac_with_stated_samples(FULL - 1, 1), "corrupt_audio"),
    "flac at the limit": (lambda: silent_flac(MAX_SECONDS), FULL),
    "flac at the limit, length unknown": (lambda: flac_with_stated_samples(0, MAX_SECONDS), FULL),
    "mp3 of an hour": (lambda: mp3_with_stated_frames(137_813, 3600), "audio_too_long"),
    "mp3 of an hour without a tag": (lambda: mp3_without_a_tag(3600), "audio_too_long"),
    "mp3 that states a billion missing frames": (lambda: mp3_with_stated_frames(10**9, 4), None),
    "mp3 that states almost the limit": (lambda: mp3_with_stated_frames(6800, 4), None),
    "mp3 at the limit, without a tag": (lambda: mp3_without_a_tag(MAX_SECONDS - 8), None),
    "mp3 that states less than it contains": (lambda: mp3_with_stated_frames(1000, MAX_SECONDS - 8), None),
    "ogg that states a missing hour": (lambda: ogg_with_stated_samples(3600 * 44100), None),
    "ogg that states almost the limit": (lambda: ogg_with_stated_samples(FULL - 1), None),
    "ogg at the limit": (lambda: silent("ogg", MAX_SECONDS), FULL),
    "flac of eight channels": (lambda: silent_flac(MAX_SECONDS - 1, channels=8), FULL - 44100),
    "wav of 65,535 channels": (lambda: wav_with_header(channels=65535), "corrupt_audio"),
    "wav at two billion Hz": (lambda: wav_with_header(rate=2**31 - 1), "sample_rate_too_high"),
    "wav that states 4 missing GB": (lambda: wav_with_header(data_bytes=0xFFFFFF00), "corrupt_audio"),
}


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    files = [make() for make, _ in HOSTILE.values()]
    return dict(zip(HOSTILE, measure(files, tmp_path_factory.mktemp("hostile")), strict=True))


@pytest.mark.parametrize("name", HOSTILE)
def test_decoding_a_hostile_file_stays_below_the_memory_limit(name: str, figures: dict[str, dict[str, Any]]) -> None:
    assert HOSTILE[name][1] in (None, figures[name]["outcome"])
    assert figures[name]["peak"] < 1.2 * MAX_BYTES


def test_audio_beyond_the_memory_limit_takes_disk_space_instead(tmp_path: Path) -> None:
    """63 MB of audio, from a small file whose header states its length and from one whose header does not."""
    files = [silent_flac(MAX_SECONDS), flac_with_stated_samples(0, MAX_SECONDS)]
    assert all(len(file) < 1 << 20 for file in files)
    for figure in measure(files, tmp_path, memory_bytes=8 << 20):
        assert figure["outcome"] == FULL
        assert figure["peak"] < 24 << 20


@needs_ffmpeg
@pytest.mark.parametrize(("options", "suffix"), [(("-c:a", "aac"), "m4a"), (("-c:a", "flac"), "mka")])
def test_ffmpeg_stays_below_the_memory_limit(options: tuple[str, ...], suffix: str, tmp_path: Path) -> None:
    silence = ("-f", "lavfi", "-t", "200", "-i", "anullsrc=sample_rate=44100:channel_layout=stereo")
    data = encode_with_ffmpeg(make_tone(0.1), *silence, "-map", "1:a", *options, suffix=suffix)
    (figure,) = measure([data], tmp_path)
    assert figure["outcome"] == "audio_too_long"
    assert figure["peak"] < 1.2 * MAX_BYTES
    assert figure["child"] < 300 * 1024 * 1024
