"""Separates a mix with a RoFormer, chunk by chunk: chunks overlap, and are faded into each other on the device.

The chunks are cut, padded and weighted as the code does it with which the published models were trained and measured
(`demix` of ZFTurbo's Music-Source-Separation-Training).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from audio.types import Waveform, iter_blocks
from models.roformer.network import RoformerNetwork, TransformerLayer
from models.runtime.batches import BatchRunner
from models.runtime.normalization import NormalizationStats, measure_normalization
from models.runtime.progress import Progress, ignore_progress
from models.separation import InferenceOptions, Mix, Stems

_MAX_SHIFT_S = 0.5
_CUDA_BATCH_SAMPLES = 4 * 352_800  # four chunks of the usual 8 s
_SILENCE = 2.0**-16  # below the smallest step of 16-bit audio
_READ_SAMPLES = 1 << 18
DEFAULT_OPTIONS = InferenceOptions()


@dataclass(frozen=True, slots=True)
class ChunkPlan:
    """How one pass over the mix is cut into chunks.

    Args:
        num_samples: of the mix.
        length: of a chunk, in samples.
        step: samples from one chunk's start to the next.
        shift: samples by which the pass begins earlier.
    """

    num_samples: int
    length: int
    step: int
    shift: int = 0

    @property
    def border(self) -> int:
        """Samples that are mirrored before and after the mix; 0 for a mix that is not longer than both together."""
        border = self.length - self.step
        return border if self.num_samples > 2 * border else 0

    @property
    def end(self) -> int:
        return self.num_samples + self.border

    @property
    def starts(self) -> range:
        """The first sample of each chunk, counted from the beginning of the mix."""
        return range(-self.border - self.shift, self.end, self.step)

    def weights(self, start: int) -> NDArray[np.float32]:
        """The weights of a chunk, `[length]`: 1, with a linear fade at each end that has a neighbour."""
        weights = np.ones(self.length, np.float32)
        # A fade begins and ends with 0, and is therefore never longer than what the neighbours cover.
        fade = min(self.length // 10, self.length - self.step)
        if fade > 1 and start != self.starts[0]:
            weights[:fade] = np.linspace(0, 1, fade, dtype=np.float32)
        if fade > 1 and start != self.starts[-1]:
            weights[-fade:] = np.linspace(1, 0, fade, dtype=np.float32)
        return weights


@dataclass(frozen=True, slots=True)
class _Chunk:
    """A chunk of a pass, and the samples that the network gets for it.

    Args:
        plan: of the pass.
        start: its first sample, counted from the beginning of the mix.
        samples: `[2, length]`.
        num_samples: how many of them count; the others are padding.
    """

    plan: ChunkPlan
    start: int
    samples: Waveform
    num_samples: int

    @property
    def is_silent(self) -> bool:
        return float(np.abs(self.samples).max()) < _SILENCE


@dataclass(slots=True)
class _Separation:
    """The state of one separation.

    Args:
        stems: that were asked for.
        stats: by which the network's input is normalized; None: it is not.
        progress: called with the fraction done.
        total: number of chunks of all passes.
    """

    stems: tuple[str, ...]
    stats: NormalizationStats | None
    progress: Progress
    total: int
    done: int = 0
    batches: BatchRunner = field(default_factory=lambda: BatchRunner("chunks"))

    def count(self, chunks: int) -> None:
        """Adds to the number of finished chunks, and reports their fraction."""
        self.done += chunks
        self.report()

    def report(self) -> None:
        """Reports the fraction done; what `progress` raises ends the work."""
        self.progress(self.done / self.total)


class RoformerSeparator:
    """A RoFormer as a separation engine.

    A cancel is seen before every layer of the network: on a CPU within a fraction of a second, whatever the length of
    a chunk.

    Args:
        network: the loaded network.
        batch_size: chunks that are computed together at most; None: depends on the device.
    """

    def __init__(self, network: RoformerNetwork, *, batch_size: int | None = None) -> None:
        config = network.config
        self.stems = (*config.stems, *([config.complement] if config.complement else []))
        self.sample_rate = config.sample_rate
        self._network, self._config, self._given_batch_size = network, config, batch_size

    @property
    def memory_bytes(self) -> int:
        """Bytes of the weights that have been loaded."""
        return self._network.memory_bytes

    def warm_up(self) -> None:
        """Runs a batch of silence on a GPU, in a job's shape, and a quarter of a second of it on a CPU."""
        length, device = self._config.chunk_length, self._network.device
        if device.type == "cpu":
            length = min(length, max(self.sample_rate // 4, self._config.n_fft))
        silence = torch.zeros(1, 2, length, device=device)

        def run(batch: Sequence[int]) -> torch.Tensor:
            result: torch.Tensor = self._network(silence.expand(len(batch), -1, -1))
            return result

        size = self._batch_size(length)
        for _ in BatchRunner("chunks").run(range(size), run, size=size):
            pass

    def separate(
        self,
        mix: Mix,
        stems: Sequence[str],
        *,
        options: InferenceOptions = DEFAULT_OPTIONS,
        progress: Progress = ignore_progress,
    ) -> Iterator[Stems]:
        """Separates a mix; see `models.separation.Separator`.

        Only the mask estimators of `stems` are loaded and computed. Memory is that of one batch of chunks and of what
        overlaps it, whatever the length of the mix.
        """
        progress(0.0)
        stats = measure_normalization(iter_blocks(mix.source)) if self._config.normalize else None
        plans = self._plan_passes(mix.num_samples, options)
        separation = _Separation(tuple(stems), stats, progress, sum(len(plan.starts) for plan in plans))
        overlap_add = _OverlapAdd(len(stems), self._network.device)
        for chunks, next_start in _group_chunks(_PaddedMix(mix, plans), self._batch_size(plans[0].length)):
            self._add_chunks(overlap_add, chunks, separation)
            block = overlap_add.take(min(next_start, mix.num_samples))
            if block.shape[-1]:
                yield block

    @torch.inference_mode()
    def _add_chunks(self, overlap_add: _OverlapAdd, chunks: Sequence[_Chunk], separation: _Separation) -> None:
        """Computes the stems of some chunks and adds them; those of a silent chunk without the network."""
        loud = [chunk for chunk in chunks if not chunk.is_silent]
        for chunk in chunks:
            if chunk.is_silent:
                overlap_add.add(chunk, self._assemble(chunk, separation.stems, {}))
        if len(loud) < len(chunks):
            separation.count(len(chunks) - len(loud))
        names = self._list_computed(separation.stems)
        run = partial(self._run, [self._config.stems.index(name) for name in names], separation.stats)
        with _call_between_layers(self._network, separation.report):
            for batch, results in separation.batches.run(loud, run, size=len(chunks)):
                for chunk, result in zip(batch, results, strict=True):
                    computed = dict(zip(names, result, strict=True))
                    overlap_add.add(chunk, self._assemble(chunk, separation.stems, computed))
                separation.count(len(batch))

    def _list_computed(self, stems: Sequence[str]) -> list[str]:
        """The network's stems that are needed: the complement is the mix without the only one."""
        only = self._config.stems[0]
        return list(dict.fromkeys(only if name == self._config.complement else name for name in stems))

    def _assemble(self, chunk: _Chunk, stems: Sequence[str], computed: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """`[S, 2, length]` in the order of `stems`, from the network's stems by name; what is missing is silent."""
        samples = torch.from_numpy(chunk.samples).to(self._network.device)
        silence = torch.zeros_like(samples)
        rest = samples - computed.get(self._config.stems[0], silence)
        return torch.stack([rest if name == self._config.complement else computed.get(name, silence) for name in stems])

    def _plan_passes(self, num_samples: int, options: InferenceOptions) -> list[ChunkPlan]:
        length = self._config.chunk_length
        if options.segment is not None:
            length = max(round(options.segment * self.sample_rate), self._config.n_fft)
        step = length // self._config.num_overlap
        if options.overlap is not None:
            step = round(length * (1 - options.overlap))
        generator = random.Random(options.seed)
        most = int(_MAX_SHIFT_S * self.sample_rate)
        shifts = [generator.randint(0, most) for _ in range(options.shifts)] or [0]
        return [ChunkPlan(num_samples, length, max(step, 1), shift) for shift in shifts]

    def _batch_size(self, length: int) -> int:
        if self._given_batch_size is not None:
            return self._given_batch_size
        return max(1, _CUDA_BATCH_SAMPLES // length) if self._network.device.type == "cuda" else 1

    def _run(self, columns: Sequence[int], stats: NormalizationStats | None, chunks: Sequence[_Chunk]) -> torch.Tensor:
        """The network's stems with the indices `columns` of each chunk, `[B, S, 2, length]`."""
        samples = torch.from_numpy(np.stack([chunk.samples for chunk in chunks])).to(self._network.device)
        if stats is None:
            result: torch.Tensor = self._network(samples, columns)
            return result
        stems: torch.Tensor = self._network((samples - stats.mean) / stats.std, columns)
        return stems * stats.std + stats.mean


class _PaddedMix:
    """The mix with mirrored borders, cut into the chunks of all passes. The mix is read once, from front to back."""

    def __init__(self, mix: Mix, plans: Sequence[ChunkPlan]) -> None:
        self._mix, self._plans = mix, plans
        self._buffer = np.zeros((2, 0), np.float32)
        self._first = 0  # the position of its first sample

    def starts(self) -> list[tuple[int, int]]:
        """The start of every chunk with the number of its pass, in the order of the starts."""
        return sorted((start, number) for number, plan in enumerate(self._plans) for start in plan.starts)

    def cut(self, start: int, number: int) -> _Chunk:
        """The chunk of a pass; the calls are in the order of `starts`."""
        plan = self._plans[number]
        count = min(plan.length, plan.end - start)
        part = self._read(start, count, plan.border)
        # As in training: a part of more than half a chunk is mirrored to a whole one.
        mode = "reflect" if count > plan.length // 2 else "constant"
        padding = ((0, 0), (0, plan.length - count))
        samples = np.pad(part, padding, mode="reflect") if mode == "reflect" else np.pad(part, padding)
        return _Chunk(plan, start, samples, count)

    def _read(self, start: int, count: int, border: int) -> Waveform:
        """`[2, count]` from `start`; the mix is mirrored in its borders, and silent beyond them."""
        length = self._mix.num_samples
        positions = np.arange(start, start + count)
        is_inside = positions >= -border
        positions = np.abs(positions)
        positions = np.where(positions < length, positions, 2 * (length - 1) - positions)
        positions = np.where(is_inside, positions, 0)
        self._fill(max(start - 2 * border - 1, 0), int(positions.max()) + 1)
        part: Waveform = self._buffer[:, positions - self._first] * is_inside.astype(np.float32)
        return part

    def _fill(self, first: int, end: int) -> None:
        """Reads what is missing up to `end`, and drops what is before `first`."""
        buffer_end = self._first + self._buffer.shape[1]
        blocks = [self._buffer]
        while buffer_end < end:
            block = self._mix.read(buffer_end, min(_READ_SAMPLES, self._mix.num_samples - buffer_end))
            blocks.append(block)
            buffer_end += block.shape[1]
        drop = max(min(first, buffer_end) - self._first, 0)
        self._buffer = np.concatenate(blocks, axis=1)[:, drop:]
        self._first += drop


def _group_chunks(mix: _PaddedMix, size: int) -> Iterator[tuple[list[_Chunk], int]]:
    """Yields `size` chunks at a time, with the start of the chunk that follows them (after the last: far away)."""
    starts = mix.starts()
    for first in range(0, len(starts), size):
        following = starts[first + size :][:1]
        chunks = [mix.cut(start, number) for start, number in starts[first : first + size]]
        yield chunks, following[0][0] if following else chunks[0].plan.end


class _OverlapAdd:
    """The weighted sums of the chunks that have not been taken yet, on the device."""

    def __init__(self, num_stems: int, device: torch.device) -> None:
        self._sums = torch.zeros(num_stems, 2, 0, device=device)
        self._weights = torch.zeros(0, device=device)
        self._first = 0  # the position of the first sum

    def add(self, chunk: _Chunk, stems: torch.Tensor) -> None:
        """Adds a chunk's `[S, 2, length]`, without padding and what is before the mix."""
        weights = torch.from_numpy(chunk.plan.weights(chunk.start)).to(stems.device)
        skip = max(self._first - chunk.start, 0)
        begin, end = chunk.start + skip - self._first, chunk.start + chunk.num_samples - self._first
        if (missing := end - len(self._weights)) > 0:
            self._sums = torch.nn.functional.pad(self._sums, (0, missing))
            self._weights = torch.nn.functional.pad(self._weights, (0, missing))
        if end > begin:
            part = slice(skip, chunk.num_samples)
            self._sums[..., begin:end] += stems[..., part] * weights[part]
            self._weights[begin:end] += weights[part]

    def take(self, end: int) -> Stems:
        """The finished samples up to `end`, `[S, 2, n]`; none if `end` has been taken."""
        count = max(end - self._first, 0)
        block = self._sums[..., :count] / self._weights[:count]
        self._sums, self._weights = self._sums[..., count:].clone(), self._weights[count:].clone()
        self._first += count
        return np.ascontiguousarray(block.cpu().numpy())


@contextmanager
def _call_between_layers(network: RoformerNetwork, function: Callable[[], None]) -> Iterator[None]:
    """Calls `function` before every layer that runs in the block; what it raises ends the work."""
    layers = [module for module in network.modules() if isinstance(module, TransformerLayer)]
    hooks = [layer.register_forward_pre_hook(lambda *_: function()) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
