"""Delivers replies with test audio, for tests of worker/output."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import soundfile

from audio import Audio
from errors import DeliveryError
from worker.job import Job
from worker.output.deliver import deliver
from worker.output.strict_json import dump_json
from worker.reply import AudioOut, Output, Reply
from worker.settings import Settings

RATE = 44100  # Hz
INLINE = Settings(volume_dirs=())


def make_noise(seconds: float, *, channels: int = 2, peak: float = 0.5, seed: int = 1, rate: int = RATE) -> Audio:
    """White noise, which compresses worst."""
    drawn = np.random.default_rng(seed).uniform(-peak, peak, (channels, int(seconds * rate)))
    return Audio(drawn.astype(np.float32), rate)


def make_tone(seconds: float, *, peak: float = 0.5, frequency: float = 440.0, rate: int = RATE) -> Audio:
    times = np.arange(int(seconds * rate)) / rate
    return Audio((peak * np.sin(2 * np.pi * frequency * times)).astype(np.float32)[None].repeat(2, 0), rate)


def make_silence(seconds: float) -> Audio:
    return Audio(np.zeros((2, int(seconds * RATE)), np.float32), RATE)


def run_delivery(
    reply: Reply,
    settings: Settings = INLINE,
    *,
    job: Job | None = None,
    used: Mapping[str, Any] | None = None,
    **out: Any,
) -> dict[str, Any]:
    """The success reply to a request with these audio-out fields, within the budget."""
    result = deliver(
        reply,
        operation="generate_music",
        used={"output_format": "auto", "delivery": "auto", "bitrate": None, "seed": 3} if used is None else used,
        audio_out=AudioOut(**out),
        job=job or Job(id="job-1", started=time.monotonic() - 1.0),
        settings=settings,
    )
    assert len(dump_json(result).encode()) <= settings.inline_budget_bytes
    return result


def catch_error(reply: Reply, settings: Settings = INLINE, **options: Any) -> DeliveryError:
    """The error that the delivery ends with."""
    with pytest.raises(DeliveryError) as caught:
        run_delivery(reply, settings, **options)
    return caught.value


def make_reply(audio: Audio, name: str = "song", **extra: Any) -> Reply:
    return Reply(outputs=[Output(audio, name, extra)])


def read_artefact(artefact: Mapping[str, Any]) -> tuple[np.ndarray, int]:
    """The samples and the rate of an inline artefact, after a check of its fields."""
    data = base64.b64decode(artefact["output_audio"], validate=True)
    assert len(data) == artefact["size"]
    assert hashlib.sha256(data).hexdigest() == artefact["sha256"]
    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    assert (rate, samples.shape[1]) == (artefact["sample_rate"], artefact["channels"])
    assert artefact["duration"] == pytest.approx(samples.shape[0] / rate, abs=1e-6)
    return samples.T, rate


def compute_base64_size(size: int) -> int:
    """Characters of base64 for `size` bytes."""
    return (size + 2) // 3 * 4


def make_settings_with_budget(limit: int) -> Settings:
    """Settings without bucket and volume, with an inline budget of `limit` bytes."""
    return dataclasses.replace(INLINE, inline_budget_bytes=limit)
