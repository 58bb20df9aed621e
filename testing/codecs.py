"""A folder of tiny codecs of every kind, and requests to encode and decode with them."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from audio import Audio
from audio.files.formats import Encoding
from models import Models
from testing.dispatch import answer
from testing.signals import encode_file, make_noise
from testing.tiny_musicgen import SEGMENTED, Shape, write_checkpoint, write_hub_codec
from worker.settings import Settings

RATE = 16_000  # of every tiny codec


def write_codecs(folder: Path) -> Path:
    """`encodec_24khz` (causal), `encodec_32khz`, `encodec_48khz` (in segments with scales), and `two`, a stereo
    MusicGen."""
    write_hub_codec(folder / "encodec_24khz", use_causal_conv=True, target_bandwidths=[0.5, 1.0])
    write_hub_codec(folder / "encodec_32khz")
    write_hub_codec(folder / "encodec_48khz", **SEGMENTED)
    write_checkpoint(folder / "two", Shape(stereo=True))
    return folder


def encode_base64(audio: Audio) -> str:
    """The audio as 32-bit wav in base64."""
    return base64.b64encode(encode_file(audio, Encoding("wav", bit_depth=32))).decode()


def make_input(seconds: float = 1.0, *, channels: int = 1, rate: int = RATE) -> str:
    """Noise in base64."""
    return encode_base64(Audio(make_noise(channels, round(seconds * rate)), rate))


def call(models: Models, operation: str, *, settings: Settings | None = None, **params: Any) -> dict[str, Any]:
    """The reply; raises the `RequestError` of a request that fails."""
    job = {"id": "job", "input": {"operation": operation, "params": params}}
    return answer(job, settings=settings or Settings(volume_dirs=()), models=models)
