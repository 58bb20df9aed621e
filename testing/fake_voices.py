"""Families of voice conversion without networks: the converter returns the vocal that it is given."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audio import Audio
from audio.dsp.resample import resample
from errors import ErrorCode, ModelError, UnknownNameError
from models import Models
from models.checkpoints.locations import WeightLocations
from models.demucs import DemucsFamily
from models.f0 import F0Estimator, PitchFamily
from models.family import READY, ModelHandle, Readiness
from models.hubert.encoder import ContentEncoder
from models.hubert.family import HubertFamily
from models.runtime.progress import UNATTENDED, Observer, Progress
from models.rvc import RvcFamily, Voices
from models.rvc.converter import ConversionSettings, FeatureExtractor, VoiceConverter
from models.rvc.preprocess import PreprocessedVocal
from models.rvc.voices import Voice
from models.separation import SeparationFamily
from models.separation_models import SeparationModels
from testing.models import make_models

Waveform = NDArray[np.float32]
BLOCK = 7001


def _voice(name: str, *, sample_rate: int = 40_000, f0: bool = True) -> Voice:
    """A voice with an index, unless it takes no f0."""
    return Voice(name, Path("a.pth"), Path("a.index") if f0 else None, "v2", sample_rate, f0, size=0)


VOICES = {
    voice.name: voice
    for voice in (
        _voice("my_voice"),
        _voice("low", sample_rate=32_000),
        _voice("high", sample_rate=48_000),
        _voice("flat", f0=False),
        _voice("../Büro *1"),
    )
}


@dataclass
class Calls:
    """What the families were asked to do."""

    loaded: list[str] = field(default_factory=list)
    tracked: list[dict[str, Any]] = field(default_factory=list)
    converted: list[tuple[Waveform | None, ConversionSettings]] = field(default_factory=list)


class FakeF0Method(F0Estimator):
    """220 Hz at every frame that is not silent."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls

    def estimate(self, waveform: Waveform, *, hop_length: int, filter_radius: int, progress: Progress) -> Waveform:
        progress(0.5)
        self.calls.tracked.append({"hop_length": hop_length, "filter_radius": filter_radius})
        frames = waveform[: len(waveform) // 160 * 160].reshape(-1, 160)
        return np.where(np.abs(frames).max(axis=1, initial=0) > 1e-6, 220.0, 0.0).astype(np.float32)


class FakeF0Family(PitchFamily):
    def __init__(self, calls: Calls) -> None:
        super().__init__(WeightLocations())
        self.calls = calls

    def readiness(self) -> Readiness:
        return READY

    def resolve(self, name: str | None) -> ModelHandle[F0Estimator]:
        return ModelHandle(self, name or "default")

    def memory_bytes(self, name: str) -> int:
        return 0

    def load(self, name: str, *, device: str) -> F0Estimator:
        self.calls.loaded.append(f"f0/{name}")
        return FakeF0Method(self.calls)

    def download(self, name: str, observer: Observer = UNATTENDED) -> None:
        """Everything is here."""


class FakeEncoder(ContentEncoder):
    def __init__(self) -> None:
        """Without weights: the fake converter does not call it."""


class FakeEncoderFamily(HubertFamily):
    def __init__(self, calls: Calls) -> None:
        super().__init__(WeightLocations())
        self.calls = calls

    def readiness(self) -> Readiness:
        return READY

    def resolve(self, name: str | None) -> ModelHandle[ContentEncoder]:
        return ModelHandle(self, name or "default")

    def memory_bytes(self, name: str) -> int:
        return 0

    def download(self, name: str, observer: Observer = UNATTENDED) -> None:
        """Everything is here."""

    def engine_bytes(self, engine: ContentEncoder) -> int:
        return 0

    def load(self, name: str, *, device: str) -> ContentEncoder:
        self.calls.loaded.append(f"hubert/{name}")
        return FakeEncoder()


class MissingEncoderFamily(FakeEncoderFamily):
    reason = "hubert_base.pt is not here, and downloads are off"

    def readiness(self) -> Readiness:
        return Readiness(self.reason)

    def resolve(self, name: str | None) -> ModelHandle[ContentEncoder]:
        raise ModelError(self.reason)


class FakeConverter(VoiceConverter):
    """Returns the vocal at `level` over a little noise."""

    def __init__(self, sample_rate: int, calls: Calls, *, noise: float, level: float) -> None:
        self.sample_rate = sample_rate
        self.calls = calls
        self.noise = noise
        self.level = level

    def convert(
        self,
        vocal: PreprocessedVocal,
        f0: Waveform | None,
        encoder: FeatureExtractor,
        *,
        settings: ConversionSettings,
        progress: Progress,
    ) -> Iterator[Waveform]:
        self.calls.converted.append((f0, settings))
        converted = resample(Audio(np.ascontiguousarray(vocal.waveform[None]), 16_000), self.sample_rate).waveform
        noise = self.noise * np.random.default_rng(settings.seed).standard_normal(converted.shape)
        converted = (self.level * converted + noise).astype(np.float32)
        for start in range(0, converted.shape[1], BLOCK):
            progress(start / converted.shape[1])
            yield converted[:, start : start + BLOCK]


class FakeVoiceFamily(RvcFamily):
    noise = 0.0
    level = 1.0

    def __init__(self, calls: Calls) -> None:
        super().__init__(Voices([]))
        self.calls = calls

    def readiness(self) -> Readiness:
        return READY

    def find(self, name: str) -> Voice:
        if name not in VOICES:
            raise UnknownNameError(f"Voice model not found: '{name}'.", code=ErrorCode.VOICE_NOT_FOUND)
        return VOICES[name]

    def memory_bytes(self, name: str) -> int:
        return 0

    def engine_bytes(self, engine: VoiceConverter) -> int:
        return 0

    def load(self, name: str, *, device: str) -> VoiceConverter:
        self.calls.loaded.append(f"rvc/{name}")
        return FakeConverter(self.find(name).sample_rate, self.calls, noise=self.noise, level=self.level)


def fake_models(
    *,
    encoders: type[FakeEncoderFamily] = FakeEncoderFamily,
    voices: type[FakeVoiceFamily] = FakeVoiceFamily,
    separation: SeparationFamily | SeparationModels | None = None,
) -> tuple[Models, Calls]:
    """`Models` with fake families of voice conversion, and what they will be asked to do."""
    calls = Calls()
    models = make_models(
        voices=voices(calls),
        content_encoders=encoders(calls),
        f0=FakeF0Family(calls),
        separation=separation or DemucsFamily(WeightLocations()),
    )
    return models, calls
