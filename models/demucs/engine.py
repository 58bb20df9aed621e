"""Separates a mix window by window: segments run in batches, and their results are overlap-added on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby

import numpy as np
import torch
from torch import nn

from audio.types import iter_blocks
from models.demucs.bag import Bag, broken_model, select_submodels
from models.demucs.network import Network
from models.demucs.segments import ModelPass, Overlap, Segment, draw_pass_starts
from models.runtime.batches import BatchRunner
from models.runtime.dtype import Precision
from models.runtime.host_transfer import CudaCopyQueue, HostTransfer
from models.runtime.normalization import NormalizationStats, measure_normalization
from models.runtime.progress import Progress, ignore_progress
from models.separation import InferenceOptions, Mix, Stems, segment_too_long_error

_WINDOW_S = {"cpu": 60.0, "cuda": 300.0}
DEFAULT_OVERLAP = 0.25
DEFAULT_OPTIONS = InferenceOptions()


@dataclass(frozen=True, slots=True)
class SeparationModel:
    """What a `DemucsSeparator` runs.

    Args:
        bag: the submodels' weights in each stem.
        load: returns the network of a submodel by its index, on the CPU.
        stems: of every submodel, in order.
        sample_rate: of every submodel, in Hz.
    """

    bag: Bag
    load: Callable[[int], nn.Module]
    stems: tuple[str, ...]
    sample_rate: int


@dataclass(frozen=True, slots=True)
class Runtime:
    """Where and how a `DemucsSeparator` runs.

    Args:
        device: as torch names it.
        precision: see `Network`.
        window_s: seconds of stems that are computed before they are returned; None: depends on the device.
        batch_size: segments that are computed together at most; None: depends on the device.
        reduces_outer: see `Network`.
    """

    device: str = "cpu"
    precision: Precision = "auto"
    window_s: float | None = None
    batch_size: int | None = None
    reduces_outer: bool = False


@dataclass(frozen=True, slots=True)
class _SegmentInput:
    """A segment of a pass, and the samples of the mix that the network gets for it."""

    segment: Segment
    index: int
    start: int
    length: int


@dataclass(frozen=True, slots=True)
class _Separation:
    """The state of one separation.

    Args:
        columns: `[S]`, indices of the requested stems among the model's, on the device.
        stem_weights: `[P, S, 1, 1]`, the share of each pass in each requested stem, on the device.
        report: called with the number of segments that have been finished.
    """

    mix: Mix
    columns: torch.Tensor
    stats: NormalizationStats
    options: InferenceOptions
    passes: list[ModelPass]
    stem_weights: torch.Tensor
    report: Callable[[int], None]
    batches: BatchRunner = field(default_factory=lambda: BatchRunner("segments"))
    _weights: dict[Overlap, torch.Tensor] = field(default_factory=dict)

    def weights(self, overlap: Overlap) -> torch.Tensor:
        """The weight of each sample of a segment, `[n]`, on the device. Most segments share the same."""
        if overlap not in self._weights:
            self._weights[overlap] = torch.from_numpy(overlap.weights()).to(self.stem_weights.device)
        return self._weights[overlap]


class DemucsSeparator:
    """A bag of Demucs networks. Each is loaded when a stem first needs it, and then kept on the device."""

    def __init__(self, model: SeparationModel, runtime: Runtime) -> None:
        self.stems = model.stems
        self.sample_rate = model.sample_rate
        self.device = torch.device(runtime.device)
        self._model, self._runtime = model, runtime
        self._window = int(self.sample_rate * (runtime.window_s or _WINDOW_S.get(self.device.type, 60.0)))
        self._weights = model.bag.weights_for(len(self.stems))
        self._networks: dict[int, Network] = {}
        self._transfer = HostTransfer(CudaCopyQueue(self.device)) if self.device.type == "cuda" else None

    @property
    def memory_bytes(self) -> int:
        """Bytes of the loaded networks' weights."""
        return sum(network.memory_bytes for network in self._networks.values())

    def prepare(self, stems: Sequence[str] | None = None) -> None:
        """Loads the networks that `stems` need; None: all of them."""
        for submodel in select_submodels(self._weights, self.stems, stems or self.stems):
            self._network(submodel)

    def warm_up(self) -> None:
        """Runs one batch of silence through every network, and copies a result to the host."""
        self.prepare()
        for network in self._networks.values():
            segment = network.segment_length(None)
            run = partial(_separate_silence, network, network.input_length(segment, None))
            size = self._batch_size(network, segment)
            for _, stems in BatchRunner("segments").run(range(size), run, size=size):
                self._to_host(stems[0])

    def separate(
        self,
        mix: Mix,
        stems: Sequence[str],
        *,
        options: InferenceOptions = DEFAULT_OPTIONS,
        progress: Progress = ignore_progress,
        stats: NormalizationStats | None = None,
    ) -> Iterator[Stems]:
        """Separates a mix.

        Args:
            mix: stereo, at `sample_rate`.
            stems: which of the model's stems to compute.
            options: how to go through the mix.
            progress: called with the fraction done, 0..1, at the start and after each batch.
            stats: by which the mix is normalized; None: those of the whole mix.

        Yields:
            `[S, 2, n]` float32 in the order of `stems`: consecutive blocks, in sum as long as the mix. The length of
            the window changes the samples by rounding errors only.

        Raises:
            InvalidRequestError: `options.segment` is longer than the model takes.
            ModelError: a network cannot be downloaded or loaded.
        """
        progress(0.0)
        stats = stats or measure_normalization(iter_blocks(mix.source))
        passes = self._plan_passes(stems, options, mix.num_samples)
        report = _count_segments(progress, sum(one.num_segments for one in passes))
        columns = [self.stems.index(name) for name in stems]
        shares = [
            [self._weights[one.submodel][column] / max(options.shifts, 1) for column in columns] for one in passes
        ]
        stem_weights = torch.tensor(shares, device=self.device)[..., None, None]
        indices = torch.tensor(columns, device=self.device)
        separation = _Separation(mix, indices, stats, options, passes, stem_weights, report)
        longest = max(one.segment_length for one in passes)
        tail = torch.zeros(len(stems), 2, longest, device=self.device)
        for begin in range(0, mix.num_samples, self._window):
            end = min(begin + self._window, mix.num_samples)
            with torch.inference_mode():
                sums = torch.cat([tail, tail.new_zeros(*tail.shape[:2], end - begin)], dim=-1)
                self._add_window(sums, separation, begin, end)
                tail = sums[..., end - begin :].clone()
                block = self._to_host(sums[..., : end - begin].mul_(stats.std).add_(stats.mean))
            yield block

    def _plan_passes(self, stems: Sequence[str], options: InferenceOptions, num_samples: int) -> list[ModelPass]:
        starts = draw_pass_starts(len(self._weights), options, self.sample_rate)
        passes = []
        for submodel in select_submodels(self._weights, self.stems, stems):
            network = self._network(submodel)
            if (
                options.segment is not None
                and network.max_segment is not None
                and options.segment > network.max_segment
            ):
                raise segment_too_long_error(options.segment, network.max_segment)
            length = network.segment_length(options.segment)
            overlap = DEFAULT_OVERLAP if options.overlap is None else options.overlap
            stride = max(int((1 - overlap) * length), 1)
            passes += [ModelPass(submodel, start, num_samples, length, stride) for start in starts[submodel]]
        return passes

    def _add_window(self, sums: torch.Tensor, separation: _Separation, begin: int, end: int) -> None:
        """Adds every segment that starts in `begin..end` to `sums` `[S, 2, n]`, whose first sample is `begin`."""
        options = separation.options
        inputs = [self._plan_inputs(one, options.segment, begin, end) for one in separation.passes]
        if not any(inputs):
            return
        buffer = self._read_window(separation, [segment_input for of_pass in inputs for segment_input in of_pass])
        for model_pass, of_pass, shares in zip(separation.passes, inputs, separation.stem_weights, strict=True):
            network = self._network(model_pass.submodel)
            separate = partial(_separate_batch, network, buffer, separation.columns)
            for length, same_length in groupby(of_pass, key=lambda one: one.length):
                size = self._batch_size(network, length)
                for batch, stems in separation.batches.run(list(same_length), separate, size=size):
                    for segment_input, result in zip(batch, stems, strict=True):
                        weights = shares * separation.weights(model_pass.overlap(segment_input.index))
                        _add_segment(sums, result, segment_input, weights, begin)
                    separation.report(len(batch))

    def _plan_inputs(self, model_pass: ModelPass, segment_s: float | None, begin: int, end: int) -> list[_SegmentInput]:
        """The inputs of the segments that start in `begin..end`; those before the mix belong to the first window."""
        network = self._network(model_pass.submodel)
        inputs = []
        for index in model_pass.indices_between(begin if begin else model_pass.start, end):
            segment = model_pass.segment(index)
            length = network.input_length(segment.length, segment_s)
            inputs.append(_SegmentInput(segment, index, segment.start - (length - segment.length) // 2, length))
        return inputs

    def _batch_size(self, network: Network, length: int) -> int:
        return self._runtime.batch_size or network.batch_size(length)

    def _read_window(self, separation: _Separation, inputs: Sequence[_SegmentInput]) -> _WindowBuffer:
        mix, stats = separation.mix, separation.stats
        start = min(one.start for one in inputs)
        end = max(one.start + one.length for one in inputs)
        first = max(start, 0)
        waveform = mix.read(first, min(end, mix.num_samples) - first)
        samples = torch.zeros(2, end - start, device=self.device)
        inside = samples[:, first - start :][:, : waveform.shape[1]]
        if self._transfer is not None:
            self._transfer.to_device(waveform, inside)
        else:
            inside.copy_(torch.from_numpy(np.ascontiguousarray(waveform)))
        inside.sub_(stats.mean).div_(stats.std)
        return _WindowBuffer(samples, start)

    def _to_host(self, stems: torch.Tensor) -> Stems:
        """`[S, 2, n]` as an array, which the next window does not change."""
        if self._transfer is None:
            return np.ascontiguousarray(stems.cpu().numpy())
        return self._transfer.to_host(stems.flatten(0, 1)).reshape(stems.shape)

    def _network(self, submodel: int) -> Network:
        if submodel not in self._networks:
            network = Network(
                self._model.load(submodel),
                self.device,
                self._runtime.precision,
                segment=self._model.bag.segment,
                reduces_outer=self._runtime.reduces_outer,
            )
            if network.stems != self.stems or network.sample_rate != self.sample_rate:
                raise broken_model("its submodels are not for the same stems and sample rate")
            self._networks[submodel] = network
        return self._networks[submodel]


@dataclass(frozen=True, slots=True)
class _WindowBuffer:
    """The part of the mix that the segments of one window need, normalized, on the device; silence around the mix.

    Args:
        samples: `[2, n]`.
        start: the first one's position in the mix.
    """

    samples: torch.Tensor
    start: int

    def read(self, segment_input: _SegmentInput) -> torch.Tensor:
        """What the network gets for a segment, `[2, T]`."""
        return self.samples[:, segment_input.start - self.start :][:, : segment_input.length]


def _separate_batch(
    network: Network, buffer: _WindowBuffer, columns: torch.Tensor, batch: Sequence[_SegmentInput]
) -> torch.Tensor:
    """The stems in `columns` of each input, `[B, S, 2, T]`."""
    return network(torch.stack([buffer.read(one) for one in batch])).index_select(1, columns)


@torch.inference_mode()
def _separate_silence(network: Network, length: int, batch: Sequence[int]) -> torch.Tensor:
    return network(torch.zeros(len(batch), 2, length, device=network.device))


def _add_segment(
    sums: torch.Tensor, result: torch.Tensor, segment_input: _SegmentInput, weights: torch.Tensor, begin: int
) -> None:
    """Adds a network's `[S, 2, T]`, without the padding around the segment and what is before the mix's start."""
    segment = segment_input.segment
    left = segment.start - segment_input.start
    skip = max(-segment.start, 0)
    offset = segment.start + skip - begin
    part = result[..., left + skip : left + segment.length]
    sums[..., offset : offset + part.shape[-1]] += part * weights[..., skip:]


def _count_segments(progress: Progress, total: int) -> Callable[[int], None]:
    """A function that adds to the number of finished segments and reports their fraction of `total`."""
    done = 0

    def report(segments: int) -> None:
        nonlocal done
        done += segments
        progress(done / total)

    return report
