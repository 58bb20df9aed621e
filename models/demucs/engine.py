"""Separates a mix window by window: batches of segments, overlap-add on the device. Knows no requests and no files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from math import sqrt
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from audio.types import Waveform
from models.demucs.bag import Bag, broken, needed_submodels
from models.demucs.network import Network
from models.demucs.precision import Precision
from models.demucs.segments import InferenceOptions, Lane, Overlap, Segment, even_batches, shifted_starts, too_long

Progress = Callable[[float], None]
Stems = NDArray[np.float32]
_WINDOW_S: Final = {"cpu": 60.0, "cuda": 300.0}
_QUIETEST: Final = 1e-8
_MEASURED_AT_ONCE: Final = 1 << 20


class Mix(Protocol):
    """A stereo mix at the model's sample rate. Read from front to back, each span overlapping the one before."""

    @property
    def num_samples(self) -> int: ...

    def read(self, start: int, count: int) -> Waveform:
        """Samples `start` to `start + count`, `[2, n]`."""


@dataclass(frozen=True, slots=True)
class Level:
    """What the mix is scaled by before the networks and back after: `(mix - mean) / std`."""

    mean: float
    std: float


@dataclass(frozen=True, slots=True)
class Task:
    """What to separate.

    Args:
        stems: which to compute.
        level: of the whole mix, from `measure`.
        passes: how to go through it.
    """

    stems: tuple[str, ...]
    level: Level
    passes: InferenceOptions = InferenceOptions()


@dataclass(frozen=True, slots=True)
class _Piece:
    """A segment, and the part of the mix that the network is given for it."""

    segment: Segment
    index: int
    input_start: int
    input_length: int


@dataclass(frozen=True, slots=True)
class Model:
    """What a `Separator` runs.

    Args:
        bag: how the submodels are weighed.
        load: gives the network of a submodel by its index, on the CPU.
        stems: of all submodels, in order.
        sample_rate: of all submodels, in Hz.
    """

    bag: Bag
    load: Callable[[int], nn.Module]
    stems: tuple[str, ...]
    sample_rate: int


@dataclass(frozen=True, slots=True)
class Runtime:
    """Where and how a `Separator` runs.

    Args:
        device: as torch names it.
        precision: see `Network`.
        window_s: seconds of result that are held at once; None: by device.
        cuda_graphs: see `Network`.
    """

    device: str = "cpu"
    precision: Precision = "auto"
    window_s: float | None = None
    cuda_graphs: bool = True


@dataclass(frozen=True, slots=True)
class _Run:
    """One separation under way."""

    mix: Mix
    task: Task
    lanes: Sequence[Lane]
    step: Callable[[int], None]
    device: torch.device
    _weights: dict[Overlap, Tensor] = field(default_factory=dict)

    @property
    def longest(self) -> int:
        return max(lane.segment_length for lane in self.lanes)

    def weights(self, overlap: Overlap) -> Tensor:
        """What each sample of a segment counts, `[n]`, on the device; most segments share the same."""
        if overlap not in self._weights:
            self._weights[overlap] = torch.from_numpy(overlap.weights()).to(self.device)
        return self._weights[overlap]


class Separator:
    """A bag of Demucs networks, each loaded when a stem first needs it, then kept on the device."""

    def __init__(self, model: Model, runtime: Runtime) -> None:
        self.stems = model.stems
        self.sample_rate = model.sample_rate
        self.device = torch.device(runtime.device)
        self._model = model
        self._precision, self._cuda_graphs = runtime.precision, runtime.cuda_graphs
        self._window = int(self.sample_rate * (runtime.window_s or _WINDOW_S.get(self.device.type, 60.0)))
        self._weights = model.bag.weights_for(len(self.stems))
        self._networks: dict[int, Network] = {}

    @property
    def memory_bytes(self) -> int:
        """What the weights of the loaded networks hold."""
        return sum(network.memory_bytes for network in self._networks.values())

    def prepare(self, stems: Sequence[str] | None = None) -> None:
        """Loads the networks that `stems` (all, by default) need."""
        for index in needed_submodels(self._weights, self.stems, stems or self.stems):
            self._network(index)

    def separate(self, mix: Mix, task: Task, progress: Progress) -> Iterator[Stems]:
        """Separates a mix.

        Args:
            mix: stereo, at `sample_rate`.
            task: what and how.
            progress: called with the fraction done, 0..1, before and after each batch; what it raises ends the work.

        Yields:
            `[S, 2, n]` float32 in the order of `task.stems`: consecutive blocks, as long as the mix in sum. How they
            are cut changes them by no more than rounding.
        """
        progress(0.0)
        lanes = self._lanes(task, mix.num_samples)
        run = _Run(mix, task, lanes, _steps(progress, sum(lane.num_segments for lane in lanes)), self.device)
        tail = torch.zeros(len(task.stems), 2, run.longest, device=self.device)
        for begin in range(0, mix.num_samples, self._window):
            end = min(begin + self._window, mix.num_samples)
            with torch.inference_mode():
                sums = torch.cat([tail, tail.new_zeros(*tail.shape[:2], end - begin)], dim=-1)
                self._add_window(sums, run, begin, end)
                tail = sums[..., end - begin :].clone()
                block = _to_host(sums[..., : end - begin].mul_(task.level.std).add_(task.level.mean))
            yield block

    def _lanes(self, task: Task, num_samples: int) -> list[Lane]:
        passes = task.passes
        starts = shifted_starts(len(self._weights), passes, self.sample_rate)
        lanes = []
        for submodel in needed_submodels(self._weights, self.stems, task.stems):
            length = _segment_length(self._network(submodel), passes.segment)
            stride = max(int((1 - passes.overlap) * length), 1)
            lanes += [Lane(submodel, start, num_samples, length, stride) for start in starts[submodel]]
        return lanes

    def _add_window(self, sums: Tensor, run: _Run, begin: int, end: int) -> None:
        """Adds every segment that starts in `begin..end` to `sums`, whose first sample is `begin`."""
        pieces = [self._pieces(lane, run.task.passes.segment, begin, end) for lane in run.lanes]
        if not any(pieces):
            return
        span = _Span(run.mix, [piece for some in pieces for piece in some], run.task.level, self.device)
        columns = [self.stems.index(name) for name in run.task.stems]
        for lane, some in zip(run.lanes, pieces, strict=True):
            network = self._network(lane.submodel)
            shares = self._shares(lane.submodel, columns, run.task.passes.shifts)
            for batch in _batches(some, network):
                stems = network(torch.stack([span.cut(piece) for piece in batch]))[:, columns]
                for piece, result in zip(batch, stems, strict=True):
                    _add(sums, result, piece, shares * run.weights(lane.overlap(piece.index)), begin)
                run.step(len(batch))

    def _shares(self, submodel: int, columns: Sequence[int], shifts: int) -> Tensor:
        """What one pass of a submodel counts in each stem, `[S, 1, 1]`."""
        row = self._weights[submodel]
        return torch.tensor([row[column] / max(shifts, 1) for column in columns], device=self.device)[:, None, None]

    def _pieces(self, lane: Lane, segment_s: float | None, begin: int, end: int) -> list[_Piece]:
        network = self._network(lane.submodel)
        pieces = []
        for index in lane.starting_in(begin if begin else lane.start, end):
            segment = lane.segment(index)
            length = network.input_length(segment.length, segment_s)
            pieces.append(_Piece(segment, index, segment.start - (length - segment.length) // 2, length))
        return pieces

    def _network(self, submodel: int) -> Network:
        if submodel not in self._networks:
            module = self._model.load(submodel)
            segment = self._model.bag.segment
            network = Network(module, self.device, self._precision, segment=segment, cuda_graphs=self._cuda_graphs)
            if network.stems != self.stems or network.sample_rate != self.sample_rate:
                raise broken("its submodels are not for the same stems and sample rate")
            self._networks[submodel] = network
        return self._networks[submodel]


class _Span:
    """The part of the mix that a window's segments need, scaled, on the device by one transfer; silence around it."""

    def __init__(self, mix: Mix, pieces: Sequence[_Piece], level: Level, device: torch.device) -> None:
        self._start = min(piece.input_start for piece in pieces)
        end = max(piece.input_start + piece.input_length for piece in pieces)
        first = max(self._start, 0)
        waveform = mix.read(first, min(end, mix.num_samples) - first)
        self._samples = torch.zeros(2, end - self._start, device=device)
        part = self._samples[:, first - self._start :][:, : waveform.shape[1]]
        part.copy_(_from_host(waveform, device), non_blocking=True).sub_(level.mean).div_(level.std)

    def cut(self, piece: _Piece) -> Tensor:
        """What the network is given for `piece`, `[2, T]`."""
        return self._samples[:, piece.input_start - self._start :][:, : piece.input_length]


def measure(blocks: Iterator[Waveform]) -> Level:
    """Mean and standard deviation of the mono mix, as demucs.api scales by; in one pass, summed in float64."""
    count, mean, squares = 0, 0.0, 0.0
    for block in blocks:
        mono = block.mean(axis=0, dtype=np.float32)
        added, own_mean = len(mono), float(mono.mean(dtype=np.float64))
        difference = own_mean - mean
        mono -= np.float32(own_mean)
        squares += float(np.square(mono, out=mono).sum(dtype=np.float64))
        squares += difference**2 * count * added / (count + added)
        count += added
        mean += difference * added / count
    return Level(mean, sqrt(squares / max(count - 1, 1)) + _QUIETEST)


def _segment_length(network: Network, segment: float | None) -> int:
    if segment is not None and network.max_segment is not None and segment > network.max_segment:
        raise too_long(segment, network.max_segment)
    return network.segment_length(segment)


def _batches(pieces: Sequence[_Piece], network: Network) -> Iterator[Sequence[_Piece]]:
    """Pieces with inputs of one length, as many at once as the network takes."""
    for length, same in groupby(pieces, key=lambda piece: piece.input_length):
        yield from even_batches(list(same), network.batch_size(length))


def _add(sums: Tensor, result: Tensor, piece: _Piece, weights: Tensor, begin: int) -> None:
    """Adds a network's `[S, 2, T]`, less the padding around the segment, from the mix's first sample on."""
    segment = piece.segment
    left = segment.start - piece.input_start
    skip = max(-segment.start, 0)
    at = segment.start + skip - begin
    part = result[..., left + skip : left + segment.length]
    sums[..., at : at + part.shape[-1]] += part * weights[..., skip:]


def _steps(progress: Progress, total: int) -> Callable[[int], None]:
    done = 0

    def step(segments: int) -> None:
        nonlocal done
        done += segments
        progress(done / total)

    return step


def _from_host(waveform: Waveform, device: torch.device) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(waveform))
    return tensor.pin_memory() if device.type == "cuda" else tensor


def _to_host(stems: Tensor) -> Stems:
    if stems.device.type != "cuda":
        return np.ascontiguousarray(stems.numpy())
    host = torch.empty(stems.shape, dtype=stems.dtype, pin_memory=True)
    host.copy_(stems, non_blocking=True)
    torch.cuda.synchronize(stems.device)
    return host.numpy()
