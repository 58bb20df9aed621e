"""f0 by RMVPE (arXiv 2306.15412), in overlapping windows: any length in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.device import require
from models.f0.mel import LogMel
from models.f0.rmvpe_network import Network
from models.f0.tracker import Curve, Progress, Waveform, Window, num_frames, windows
from models.rvc.checkpoint import read_tensors

MEL_F_MIN = 30.0
THRESHOLD = 0.03  # salience at or below which a frame is unvoiced
CENTS_OF_BIN_0 = 1997.3794084376191  # above 10 Hz
CENTS_PER_BIN = 20
REACH = 4  # bins on either side of the highest that take part in the mean

WINDOW = 12_288  # frames: a file of up to two minutes is computed at once
# Frames at a window's ends that its neighbours decide on. The U-Net sees about 1600 to either side, the GRU the whole
# file. On random weights with a slow GRU, f0 then is that of the whole file within 1e-4 Hz (with 768 within 6 Hz).
CONTEXT = 1024
BATCH = {"cpu": 1, "cuda": 3}  # in half precision at most 0.9 GB of activations


class Rmvpe:
    """RMVPE on a device.

    Args:
        network: the network.
        window: frames of a window, a multiple of what the network asks for.
        context: frames at both ends of a window that its neighbours decide on; likewise a multiple.
    """

    def __init__(self, network: Network, *, window: int = WINDOW, context: int = CONTEXT) -> None:
        assert window % network.frames_multiple == context % network.frames_multiple == 0
        self._network, self._window, self._context = network, window, context
        self._mel = LogMel(f_min=MEL_F_MIN, htk=True, power_floor=0.0, device=network.device)
        self.memory_bytes = network.memory_bytes

    def track(self, waveform: Waveform, *, hop_length: int, filter_radius: int, progress: Progress) -> Curve:
        """As `Tracker.track`; neither `hop_length` nor `filter_radius` counts here."""
        count = num_frames(waveform)
        f0 = np.zeros(count, np.float32)
        if count == 0:
            return f0
        for batch in _batches(self._windows(count + 1), BATCH.get(self._network.device.type, 1)):
            for window, curve in zip(batch, self._f0(waveform, batch, count + 1), strict=True):
                f0[window.kept] = curve[window.inside][: count - window.keep_start]
            progress(min(batch[-1].keep_stop / count, 1.0))
        return f0

    def _windows(self, frames: int) -> Iterable[Window]:
        """On a grid of whole steps of the network, as if the file had been padded and computed at once."""
        multiple = self._network.frames_multiple
        padded = -(-frames // multiple) * multiple
        return windows(padded, longest=self._window, context=self._context, multiple=multiple)

    def _f0(self, waveform: Waveform, batch: Sequence[Window], frames: int) -> Curve:
        mel = torch.stack([self._window_mel(waveform, window, frames) for window in batch])
        return np.asarray(decode(self._network.salience(mel)).cpu().numpy())

    def _window_mel(self, waveform: Waveform, window: Window, frames: int) -> Tensor:
        """`[128, window]`; frames after the file's last are 0, as the network's users have always padded."""
        mel = self._mel.frames(waveform, window.start, min(window.stop, frames))
        return F.pad(mel, (0, window.stop - window.start - mel.shape[1]))


def decode(salience: Tensor) -> Tensor:
    """f0 in Hz, `[...]` float32: the mean of the bins around the highest, weighted by salience `[..., 360]`."""
    highest, center = salience.max(dim=-1, keepdim=True)
    beside = torch.arange(-REACH, REACH + 1, device=salience.device)
    weights = F.pad(salience, (REACH, REACH)).gather(-1, center + REACH + beside)
    place = center[..., 0] + (weights * beside).sum(-1) / weights.sum(-1)
    f0 = 10 * torch.exp2((CENTS_OF_BIN_0 + CENTS_PER_BIN * place) / 1200)
    return torch.where(highest[..., 0] > THRESHOLD, f0, 0.0)


def load(path: Path, device: str) -> Rmvpe:
    """RMVPE from the file rmvpe.pt; on CUDA the U-Net is in half precision."""
    require(device)
    place = torch.device(device)
    return Rmvpe(Network(read_tensors(path), device=place, dtype=choose_dtype(place)))


def choose_dtype(device: torch.device) -> torch.dtype:
    """float16 on CUDA, where RVC has always run this network in it; else float32.

    bfloat16 would save a second a minute on a CPU, and frames where two octaves are nearly alike would flip.
    """
    return torch.float16 if device.type == "cuda" else torch.float32


def _batches(items: Iterable[Window], size: int) -> Iterator[tuple[Window, ...]]:
    left = iter(items)
    while batch := tuple(islice(left, size)):
        yield batch
