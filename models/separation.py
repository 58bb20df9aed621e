"""Separation, whatever network does it: what an engine offers, which stems to compute, resampling, residual.

Importable without torch.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from audio.dsp.resample import resample_blocks, resampled_length
from audio.types import AudioSource, Waveform, iter_blocks
from errors import InvalidRequestError
from models.family import ModelFamily, ModelInfo
from models.runtime.progress import Progress

Stems = NDArray[np.float32]
"""`[S, 2, n]`."""

Role = Literal["vocals", "karaoke", "dereverb", "denoise", "stems"]
"""What a model is for: `vocals` takes the vocals out of a song, `karaoke` the lead vocal out of the vocals, `dereverb`
and `denoise` give audio without reverb or noise, `stems` splits a song into several instruments."""

_MODEL_CHANNELS = 2


@dataclass(frozen=True, slots=True)
class InferenceOptions:
    """How the networks go through a mix.

    Args:
        shifts: number of passes whose results are averaged, each shifted by a random time of at most half a second;
            0: one pass without a shift.
        overlap: fraction of a segment that overlaps the next one, 0 to below 1; None: the model's own.
        segment: length of a segment in seconds; None: the model's own.
        seed: of the random shifts.
    """

    shifts: int = 0
    overlap: float | None = None
    segment: float | None = None
    seed: int = 0


class Mix:
    """Audio as stereo at a model's sample rate. It is read from front to back, and only what is needed is kept.

    Args:
        source: mono or stereo; what is given, for what must be measured before the first sample is separated.
        sample_rate: of the model, in Hz.
    """

    def __init__(self, source: AudioSource, sample_rate: int) -> None:
        length = resampled_length(source.num_samples, source.sample_rate, sample_rate)
        self.num_samples = max(length, 1)
        self.source = source
        self._resampled: Iterator[Waveform] | None = None
        if source.sample_rate != sample_rate:
            self._resampled = resample_blocks(
                iter_blocks(source),
                source.sample_rate,
                sample_rate,
                num_samples=source.num_samples,
                length=self.num_samples,
            )
        self._buffer = np.zeros((source.channels, 0), np.float32)
        self._buffer_start = 0

    def read(self, start: int, count: int) -> Waveform:
        """Samples `start` to `start + count`, `[2, n]`. `start` must not be less than in the call before."""
        samples = self.source.read(start, count) if self._resampled is None else self._read_resampled(start, count)
        return samples if samples.shape[0] == _MODEL_CHANNELS else np.repeat(samples, _MODEL_CHANNELS, axis=0)

    def _read_resampled(self, start: int, count: int) -> Waveform:
        assert self._resampled is not None, "only audio of another sample rate is resampled"
        assert start >= self._buffer_start, f"samples from {start} on were dropped: {self._buffer_start} was read"
        parts, end = [self._buffer], self._buffer_start + self._buffer.shape[1]
        while end < start + count:
            parts.append(next(self._resampled))
            end += parts[-1].shape[1]
        self._buffer = np.concatenate(parts, axis=1)[:, start - self._buffer_start :]
        self._buffer_start = start
        return self._buffer[:, :count]


class Separator(Protocol):
    """The engine of a loaded separation model."""

    @property
    def stems(self) -> tuple[str, ...]:
        """What it can compute, in the order of the model's output."""

    @property
    def sample_rate(self) -> int:
        """In Hz."""

    @property
    def memory_bytes(self) -> int:
        """Device memory of the loaded weights."""

    def separate(
        self, mix: Mix, stems: Sequence[str], *, options: InferenceOptions, progress: Progress
    ) -> Iterator[Stems]:
        """Separates a mix.

        Args:
            mix: at `sample_rate`; read once, from front to back.
            stems: which of `self.stems` to compute.
            options: how to go through the mix.
            progress: called with the fraction done, 0..1, at the start and after every batch.

        Yields:
            `[S, 2, n]` in the order of `stems`: consecutive blocks, in sum as long as the mix.

        Raises:
            InvalidRequestError: `options.segment` is longer than the model takes.
            ModelError: a network cannot be downloaded or loaded.
        """

    def warm_up(self) -> None:
        """Runs every network once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeparationModelInfo(ModelInfo):
    """What a separation model can do.

    Args:
        stems: in the order of the model's output; empty for a local model that cannot be used.
        role: what it is for.
        max_segment: the longest `segment` in seconds; None: no limit.
        overlap: of neighbouring segments if a request states none, as a fraction of their length.
        is_partition: whether the stems are meant to sum to the mix; False for a model that gives a stem
            and its parts.
        sample_rate: in Hz.
        licence: of the weights.
        licence_note: what is on record about the licence, when its name does not say all.
        about: one sentence.
        hub_id: its repository on the Hugging Face hub; None: it is not there, or not on record.
        source: the page on which it is published; None: not on record.
        sha256: of its weights, in hexadecimal digits; None: not on record.
        size: of its weights in bytes; None: not known.
    """

    stems: tuple[str, ...] = ()
    role: Role = "stems"
    max_segment: float | None = None
    overlap: float = 0.25
    is_partition: bool = True
    sample_rate: int = 44_100
    licence: str = "unknown"
    licence_note: str = ""
    about: str = "A model folder of this worker."
    hub_id: str | None = None
    source: str | None = None
    sha256: str | None = None
    size: int | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "stems": list(self.stems),
            "role": self.role,
            "sample_rate": self.sample_rate,
            "channels": _MODEL_CHANNELS,
            "max_segment_s": self.max_segment,
            "licence": self.licence,
            "licence_note": self.licence_note,
            "about": self.about,
            "hub_id": self.hub_id,
            "source": self.source,
            "sha256": self.sha256,
            "size": self.size,
            "available": self.availability.to_json(),
        }


class SeparationFamily(ModelFamily[Separator]):
    """A family of separation models."""

    @abstractmethod
    def names(self) -> Sequence[str]:
        """Every name that `resolve` takes: models that are known or here, and aliases."""

    def knows(self, name: str) -> bool:
        """Whether `name` is one of `names()`; may look into fewer folders."""
        return name in self.names()

    @abstractmethod
    def list_models(self) -> Sequence[SeparationModelInfo]: ...

    @abstractmethod
    def describe(self, name: str) -> SeparationModelInfo:
        """What the model called `name` can do; reads what its files state about themselves, and no weights.

        Raises:
            ModelError: its files are here and broken, or it is not supported. Another model is never taken instead.
        """

    def engine_bytes(self, engine: Separator) -> int:
        return engine.memory_bytes

    def warm_up(self, engine: Separator) -> None:
        engine.warm_up()


@dataclass(frozen=True, slots=True)
class StemPlan:
    """Which stems are returned, and which the model has to compute for them.

    Args:
        outputs: names, in order.
        computed: the model's stems that are needed.
        complement: the name among `outputs` of everything that is not the first stem, or None.
        residual: whether the stems sum to the mix. The complement is then the mix minus the first stem. Of all stems,
            `other` gets what the model left over; without an `other`, each stem gets an equal part.
    """

    outputs: tuple[str, ...]
    computed: tuple[str, ...]
    complement: str | None
    residual: bool

    def assemble(self, computed: Waveform, mix: Waveform) -> dict[str, Waveform]:
        """Stems `[C, n]` by name.

        Args:
            computed: `[S, C, n]` in the order of `self.computed`.
            mix: `[C, n]`.
        """
        assert computed.shape == (len(self.computed), *mix.shape), (
            f"stems are [S, C, n] of a mix [C, n], not {computed.shape} of {mix.shape}"
        )
        stems = dict(zip(self.computed, computed, strict=True))
        if self.complement is not None:
            first = self.outputs[0]
            others = [stems[name] for name in stems if name != first]
            rest = mix - stems[first] if self.residual else np.sum(others, axis=0, dtype=np.float32)
            return {first: stems[first], self.complement: rest}
        if self.residual:
            receivers = ["other"] if "other" in stems else list(stems)
            rest = mix.copy()
            for stem in stems.values():
                rest -= stem
            rest /= len(receivers)
            stems |= {name: stems[name] + rest for name in receivers}
        return {name: stems[name] for name in self.outputs}


def plan_stems(model_stems: Sequence[str], *, stems: Sequence[str] | None, residual: bool) -> StemPlan:
    """The plan for some of the model's stems; None: all. `residual` has no effect unless all stems are requested."""
    outputs = tuple(dict.fromkeys(stems)) if stems is not None else tuple(model_stems)
    complete = set(outputs) == set(model_stems)
    # The only stem of a model would get all that it left over, and be the mix.
    residual = residual and complete and len(outputs) > 1
    return StemPlan(outputs, tuple(model_stems) if complete else outputs, None, residual)


def plan_two_stems(model_stems: Sequence[str], stem: str, *, residual: bool) -> StemPlan:
    """The plan for one stem and its complement. With `residual` only that stem is computed, without it all are.

    A model of one stem leaves nothing else to sum: its complement is always the mix without it.
    """
    others = tuple(name for name in model_stems if name != stem)
    residual = residual or not others
    return StemPlan((stem, f"no_{stem}"), (stem,) if residual else (stem, *others), f"no_{stem}", residual)


def separate(
    separator: Separator, source: AudioSource, plan: StemPlan, options: InferenceOptions, progress: Progress
) -> Iterator[dict[str, Waveform]]:
    """Separates mono or stereo audio, in memory or on disk.

    Args:
        progress: called with the fraction done, 0..1, after every batch of segments; what it raises ends the work.

    Yields:
        The plan's stems as `[C, n]` blocks: together as long as the source, with its sample rate and channels.
    """
    assert source.channels in (1, _MODEL_CHANNELS), f"decoded audio is mono or stereo, not {source.channels} channels"
    sample_rate = separator.sample_rate
    mix = Mix(source, sample_rate)
    blocks = separator.separate(mix, plan.computed, options=options, progress=progress)
    resampled = resample_blocks(
        (_merge_stem_channels(block, source.channels) for block in blocks),
        sample_rate,
        source.sample_rate,
        num_samples=mix.num_samples,
        length=source.num_samples,
    )
    position = 0
    for block in resampled:
        original = source.read(position, block.shape[1])
        position += block.shape[1]
        yield plan.assemble(block.reshape(len(plan.computed), source.channels, -1), original)


def _merge_stem_channels(stems: Waveform, channels: int) -> Waveform:
    """`[S, 2, n]` as `[S * channels, n]`, which is resampled in one go; mono is the mean of both channels."""
    stems = stems if channels == _MODEL_CHANNELS else stems.mean(axis=1, keepdims=True)
    return stems.reshape(-1, stems.shape[-1])


def segment_too_long_error(segment: float, longest: float) -> InvalidRequestError:
    """The error for a segment longer than the segments that the model was trained on, in seconds."""
    errors = [{"field": "segment", "problem": f"must be at most {longest:g}"}]
    return InvalidRequestError(
        f"'segment' is {segment:g} s, and this model takes at most {longest:g} s. Leave it out for the model's own.",
        details={"errors": errors, "faults": errors},
    )
