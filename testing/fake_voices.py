"""Voice families without networks: a singer that passes the vocal through, for what stands around the conversion."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audio import Audio
from audio.dsp.resample import resample
from errors import ErrorCode, ModelError, UnknownNameError
from models import Models
from models.cache import Family
from models.rvc.converter import ConversionSettings
from models.rvc.preprocess import PreprocessedVocal

Waveform = NDArray[np.float32]
Progress = Callable[[float], None]
BLOCK = 7001


@dataclass(frozen=True)
class Voice:
    name: str
    sample_rate: int = 40_000
    f0: bool = True
    index: Path | None = Path("a.index")


VOICES = (
    Voice("my_voice"),
    Voice("low", sample_rate=32_000),
    Voice("high", sample_rate=48_000),
    Voice("flat", f0=False, index=None),
    Voice("../Büro *1"),
)


@dataclass
class Calls:
    """What the families were asked to do."""

    loaded: list[str] = field(default_factory=list)
    tracked: list[dict[str, Any]] = field(default_factory=list)
    sung: list[tuple[Waveform | None, ConversionSettings]] = field(default_factory=list)


class Named:
    """What the fake families have in common."""

    name = ""
    word = "ready"

    def __init__(self, calls: Calls) -> None:
        self.calls = calls

    def rows(self) -> list[dict[str, Any]]:
        return []

    def status(self) -> str:
        return self.word

    def search_paths(self) -> list[str]:
        return []

    def resolve(self, name: str | None) -> str:
        return name or "default"

    def memory_bytes(self, name: str) -> int:
        return 0

    def load(self, name: str, *, device: str) -> Any:
        self.calls.loaded.append(f"{self.name}/{name}")
        return self.engine(name)

    def engine(self, name: str) -> Any:
        return object()


class Encoders(Named):
    name = "hubert"


class Tracker:
    """Says that everything louder than nothing is sung at 220 Hz."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls

    def estimate(self, waveform: Waveform, *, hop_length: int, filter_radius: int, progress: Progress) -> Waveform:
        progress(0.5)
        self.calls.tracked.append({"hop_length": hop_length, "filter_radius": filter_radius})
        frames = waveform[: len(waveform) // 160 * 160].reshape(-1, 160)
        return np.where(np.abs(frames).max(axis=1, initial=0) > 1e-6, 220.0, 0.0).astype(np.float32)


class Trackers(Named):
    name = "f0"

    def engine(self, name: str) -> Any:
        return Tracker(self.calls)


@dataclass
class Singer:
    """Sings what it hears at `level`, over a little noise."""

    sample_rate: int
    calls: Calls
    noise: float = 0.0
    level: float = 1.0

    def convert(
        self,
        vocal: PreprocessedVocal,
        f0: Waveform | None,
        encoder: object,
        *,
        settings: ConversionSettings,
        progress: Progress,
    ) -> Iterator[Waveform]:
        self.calls.sung.append((f0, settings))
        sung = resample(Audio(np.ascontiguousarray(vocal.waveform[None]), 16_000), self.sample_rate).waveform
        noise = self.noise * np.random.default_rng(settings.seed).standard_normal(sung.shape)
        sung = (self.level * sung + noise).astype(np.float32)
        for start in range(0, sung.shape[1], BLOCK):
            progress(start / sung.shape[1])
            yield sung[:, start : start + BLOCK]


class Voices(Named):
    name = "rvc"
    noise = 0.0
    level = 1.0

    @property
    def voices(self) -> Voices:
        return self

    def find(self, name: str) -> Voice:
        found = [voice for voice in VOICES if voice.name == name]
        if not found:
            raise UnknownNameError(f"Voice model not found: '{name}'.", code=ErrorCode.VOICE_NOT_FOUND)
        return found[0]

    def engine(self, name: str) -> Any:
        return Singer(self.find(name).sample_rate, self.calls, self.noise, self.level)


class MissingEncoders(Encoders):
    word = "hubert_base.pt is not here, and downloads are off"

    def resolve(self, name: str | None) -> str:
        raise ModelError(self.word)


def fake_models(
    *others: Family, encoders: type[Named] = Encoders, voices: type[Named] = Voices
) -> tuple[Models, Calls]:
    """`Models` with fake families, beside real ones, and what they will be asked to do."""
    calls = Calls()
    fakes: list[Family] = [voices(calls), encoders(calls), Trackers(calls), *others]
    return Models({family.name: family for family in fakes}, device="cpu"), calls
