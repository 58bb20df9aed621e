"""Separates audio of any sample rate, mono or stereo: which stems to compute, resampling, complement, residual."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from audio.dsp.resample import resample_blocks, resampled_length
from audio.types import AudioSource, Waveform, iter_blocks
from models.demucs.segments import InferenceOptions
from models.runtime.progress import Progress

if TYPE_CHECKING:
    from models.demucs.engine import Separator

_MODEL_CHANNELS = 2


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
    return StemPlan(outputs, tuple(model_stems) if complete else outputs, None, residual and complete)


def plan_two_stems(model_stems: Sequence[str], stem: str, *, residual: bool) -> StemPlan:
    """The plan for one stem and its complement. With `residual` only that stem is computed, without it all are."""
    others = tuple(name for name in model_stems if name != stem)
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
    from models.demucs.engine import measure_normalization

    assert source.channels in (1, _MODEL_CHANNELS), f"decoded audio is mono or stereo, not {source.channels} channels"
    sample_rate = separator.sample_rate
    mix = _ModelInput(source, sample_rate)
    stats = measure_normalization(iter_blocks(source))
    blocks = separator.separate(mix, plan.computed, stats=stats, options=options, progress=progress)
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


class _ModelInput:
    """Audio as stereo at the model's sample rate. It is read from front to back, and only what is needed is kept."""

    def __init__(self, source: AudioSource, sample_rate: int) -> None:
        length = resampled_length(source.num_samples, source.sample_rate, sample_rate)
        self.num_samples = max(length, 1)
        self._source = source
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
        samples = self._source.read(start, count) if self._resampled is None else self._read_resampled(start, count)
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


def _merge_stem_channels(stems: Waveform, channels: int) -> Waveform:
    """`[S, 2, n]` as `[S * channels, n]`, which is resampled in one go; mono is the mean of both channels."""
    stems = stems if channels == _MODEL_CHANNELS else stems.mean(axis=1, keepdims=True)
    return stems.reshape(-1, stems.shape[-1])
