"""Stems as a caller gets them: the mix's own rate, length and channels, the residual placed. Knows no requests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from audio.dsp.resample import resample_blocks, resampled_length
from audio.types import AudioSource, Waveform, iter_blocks
from models.demucs.segments import InferenceOptions

if TYPE_CHECKING:
    from models.demucs.engine import Progress, Separator

_MODEL_CHANNELS: Final = 2


@dataclass(frozen=True, slots=True)
class Plan:
    """Which stems go out, and which the model has to compute for that.

    Args:
        outputs: names, in order.
        computed: the model's stems that are needed.
        complement: the name among `outputs` that is made of what is left, or None.
        residual: the stems sum to the mix: the complement is the mix less the other stem; of all stems, `other` takes
            what the model left over (all take an equal part where there is no `other`).
    """

    outputs: tuple[str, ...]
    computed: tuple[str, ...]
    complement: str | None
    residual: bool

    def finished(self, computed: Waveform, mix: Waveform) -> dict[str, Waveform]:
        """`[S, C, n]` in the order of `computed`, and the mix `[C, n]`, as stems `[C, n]` by name."""
        stems = dict(zip(self.computed, computed, strict=True))
        if self.complement is not None:
            first = self.outputs[0]
            others = [stems[name] for name in stems if name != first]
            rest = mix - stems[first] if self.residual else np.sum(others, axis=0, dtype=np.float32)
            return {first: stems[first], self.complement: rest}
        if self.residual:
            takers = ["other"] if "other" in stems else list(stems)
            left = mix.copy()
            for stem in stems.values():
                left -= stem
            left /= len(takers)
            stems |= {name: stems[name] + left for name in takers}
        return {name: stems[name] for name in self.outputs}


def plan_stems(model_stems: Sequence[str], *, stems: Sequence[str] | None, residual: bool) -> Plan:
    """The stems asked for (None: all). A subset has no sum to keep: `residual` counts only where all are asked for."""
    wanted = tuple(dict.fromkeys(stems)) if stems is not None else tuple(model_stems)
    complete = set(wanted) == set(model_stems)
    return Plan(wanted, tuple(model_stems) if complete else wanted, None, residual and complete)


def plan_two_stems(model_stems: Sequence[str], stem: str, *, residual: bool) -> Plan:
    """One stem and its complement. With `residual` only that stem is computed, without it all are."""
    others = tuple(name for name in model_stems if name != stem)
    return Plan((stem, f"no_{stem}"), (stem,) if residual else (stem, *others), f"no_{stem}", residual)


def separate(
    separator: Separator, sound: AudioSource, plan: Plan, passes: InferenceOptions, progress: Progress
) -> Iterator[dict[str, Waveform]]:
    """Separates any mono or stereo sound, in memory or on disk.

    Args:
        progress: called with the fraction done, 0..1, at every batch of segments; what it raises ends the work.

    Yields:
        The plan's stems as `[C, n]` blocks, in sum exactly as long as the sound, at its rate and with its channels.
    """
    from models.demucs.engine import Task, measure

    assert sound.channels in (1, _MODEL_CHANNELS), "the decoder gives mono or stereo"
    rate = separator.sample_rate
    mix = _Mix(sound, rate)
    task = Task(plan.computed, measure(iter_blocks(sound)), passes)
    flat = (_flattened(block, sound.channels) for block in separator.separate(mix, task, progress))
    at_own_rate = resample_blocks(flat, rate, sound.sample_rate, num_samples=mix.num_samples, length=sound.num_samples)
    position = 0
    for block in at_own_rate:
        original = sound.read(position, block.shape[1])
        position += block.shape[1]
        yield plan.finished(block.reshape(len(plan.computed), sound.channels, -1), original)


class _Mix:
    """A sound as stereo at the model's rate; read from front to back, and no more of it held than that takes."""

    def __init__(self, sound: AudioSource, sample_rate: int) -> None:
        length = resampled_length(sound.num_samples, sound.sample_rate, sample_rate)
        self.num_samples = max(length, 1)
        self._sound = sound
        self._coming: Iterator[Waveform] | None = None
        if sound.sample_rate != sample_rate:
            self._coming = resample_blocks(
                iter_blocks(sound),
                sound.sample_rate,
                sample_rate,
                num_samples=sound.num_samples,
                length=self.num_samples,
            )
        self._held = np.zeros((sound.channels, 0), np.float32)
        self._held_from = 0

    def read(self, start: int, count: int) -> Waveform:
        """Samples `start` to `start + count`, `[2, n]`; `start` never goes back."""
        samples = self._sound.read(start, count) if self._coming is None else self._resampled(start, count)
        return samples if samples.shape[0] == _MODEL_CHANNELS else np.repeat(samples, _MODEL_CHANNELS, axis=0)

    def _resampled(self, start: int, count: int) -> Waveform:
        assert self._coming is not None and start >= self._held_from
        parts, end = [self._held], self._held_from + self._held.shape[1]
        while end < start + count:
            parts.append(next(self._coming))
            end += parts[-1].shape[1]
        self._held = np.concatenate(parts, axis=1)[:, start - self._held_from :]
        self._held_from = start
        return self._held[:, :count]


def _flattened(stems: Waveform, channels: int) -> Waveform:
    """`[S, 2, n]` as `[S * channels, n]`, all to be resampled together; mono is the mean of both sides."""
    stems = stems if channels == _MODEL_CHANNELS else stems.mean(axis=1, keepdims=True)
    return stems.reshape(-1, stems.shape[-1])
