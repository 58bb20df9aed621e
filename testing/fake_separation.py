"""Separation models without networks: each answers with stems that it was given, and records what it was asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from errors import unknown_name_error
from models.family import LOCAL, READY, Availability, ModelHandle, Readiness
from models.runtime.progress import Progress
from models.separation import InferenceOptions, Mix, Role, SeparationFamily, SeparationModelInfo, Separator, Stems

Waveform = NDArray[np.float32]
BLOCK = 30_011


@dataclass
class FakeSeparationModel:
    """A model whose stems do not depend on its input.

    Args:
        stems: `[2, T]` by name; silence follows.
        inputs: what it was given, `[2, n]` for each call, in order.
        computed: the stems that it was asked for at each call.
    """

    role: Role
    stems: Mapping[str, Waveform]
    availability: Availability = LOCAL
    inputs: list[Waveform] = field(default_factory=list)
    computed: list[tuple[str, ...]] = field(default_factory=list)


class FakeSeparator:
    sample_rate = 44_100
    memory_bytes = 0

    def __init__(self, model: FakeSeparationModel) -> None:
        self.model = model
        self.stems = tuple(model.stems)

    def separate(
        self, mix: Mix, stems: Sequence[str], *, options: InferenceOptions, progress: Progress
    ) -> Iterator[Stems]:
        self.model.computed.append(tuple(stems))
        read = []
        for start in range(0, mix.num_samples, BLOCK):
            progress(start / mix.num_samples)
            count = min(BLOCK, mix.num_samples - start)
            read.append(mix.read(start, count))
            block = np.zeros((len(stems), 2, count), np.float32)
            for row, name in zip(block, stems, strict=True):
                part = self.model.stems[name][:, start : start + count]
                row[:, : part.shape[1]] = part
            yield block
        self.model.inputs.append(np.concatenate(read, axis=1))

    def warm_up(self) -> None:
        """Nothing has to be loaded."""


class FakeSeparationFamily(SeparationFamily):
    """Models by name. The first is the default."""

    name = "fake"

    def __init__(self, models: Mapping[str, FakeSeparationModel]) -> None:
        self.models = models

    def names(self) -> list[str]:
        return list(self.models)

    def list_models(self) -> list[SeparationModelInfo]:
        return [self.describe(name) for name in self.models]

    def describe(self, name: str) -> SeparationModelInfo:
        model = self.models[name]
        return SeparationModelInfo(
            name=name, availability=model.availability, stems=tuple(model.stems), role=model.role
        )

    def readiness(self) -> Readiness:
        return READY

    def search_paths(self) -> list[str]:
        return []

    def resolve(self, name: str | None) -> ModelHandle[Separator]:
        name = next(iter(self.models)) if name is None else name
        if name not in self.models:
            raise unknown_name_error("model", name, self.models)
        return ModelHandle(self, name)

    def memory_bytes(self, name: str) -> int:
        return 0

    def load(self, name: str, *, device: str) -> Separator:
        return FakeSeparator(self.models[name])
