"""f0 by RMVPE (arXiv 2306.15412), in overlapping chunks: audio of any length in bounded memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from errors import ModelError
from models.checkpoints.errors import broken_checkpoint, report_broken
from models.checkpoints.tensor_loader import read_tensors
from models.device import prepare_device
from models.f0.estimator import BIN_REACH, CENTS_OF_BIN_0, CENTS_PER_BIN, F0Contour, F0Estimator, Waveform, count_frames
from models.f0.mel import N_MELS, LogMel
from models.runtime.batches import BatchRunner
from models.runtime.chunks import Chunk, plan_equal_chunks
from models.runtime.dtype import RMVPE, inference_dtype
from models.runtime.progress import Progress

REMEDY = "Replace the file by the one that its maker published."
MEL_F_MIN = 30.0
THRESHOLD = 0.03  # frames with at most this salience are unvoiced
NUM_BINS = 360
_BN_EPS = 1e-5

CHUNK_LENGTH = 12_288  # frames: up to two minutes are computed at once
# Frames at a chunk's ends whose result is discarded. The U-Net sees about 1600 frames to each side, the GRU the whole
# file. With random weights and a slow GRU, f0 is within 1e-4 Hz of that of the whole file (with 768 within 6 Hz).
CONTEXT = 1024
BATCH_SIZE = {"cpu": 1, "cuda": 3}  # chunks; in half precision at most 0.9 GB of activations
# Frames that the GRU sees at once, CONTEXT of them on each side discarded. Its steps follow one another, so on a GPU
# ten short rows take less time than one long one; on a CPU they would take more.
GRU_CHUNK_LENGTH = {"cuda": 3072}


class Rmvpe(F0Estimator):
    """RMVPE on a device.

    Args:
        network: the network.
        chunk_length: frames that are computed together, a multiple of `network.frames_multiple`.
        context: frames at both ends of a chunk whose result is discarded; likewise a multiple.
        batch_size: chunks that are computed together; fewer if memory runs out. None chooses by device.
    """

    def __init__(
        self,
        network: RmvpeNetwork,
        *,
        chunk_length: int = CHUNK_LENGTH,
        context: int = CONTEXT,
        batch_size: int | None = None,
    ) -> None:
        assert chunk_length % network.frames_multiple == context % network.frames_multiple == 0, (
            f"chunk_length and context are multiples of {network.frames_multiple}"
        )
        self._network, self._chunk_length, self._context = network, chunk_length, context
        self._batch_size = batch_size or BATCH_SIZE.get(network.device.type, 1)
        self._mel = LogMel(f_min=MEL_F_MIN, htk=True, power_floor=0.0, device=network.device)
        self.memory_bytes = network.memory_bytes

    @classmethod
    def load(cls, *, device: str, weights: Path | None = None) -> Self:
        """RMVPE from the file rmvpe.pt; on CUDA the U-Net runs in half precision."""
        assert weights is not None, "RMVPE is loaded from the file rmvpe.pt"
        prepare_device(device)
        torch_device = torch.device(device)
        with report_broken("RMVPE", REMEDY):
            state = read_tensors(weights)
        return cls(RmvpeNetwork(state, device=torch_device, dtype=inference_dtype(RMVPE, torch_device)))

    def estimate(self, waveform: Waveform, *, hop_length: int, filter_radius: int, progress: Progress) -> F0Contour:
        """See `F0Estimator.estimate`; `hop_length` and `filter_radius` have no effect."""
        num_frames = count_frames(waveform)
        f0 = np.zeros(num_frames, np.float32)
        if num_frames == 0:
            return f0
        mel_frames = num_frames + 1
        multiple = self._network.frames_multiple
        # On a grid of whole steps of the network, as if the file had been padded and computed at once.
        padded = -(-mel_frames // multiple) * multiple
        chunks = plan_equal_chunks(padded, longest=self._chunk_length, context=self._context, multiple=multiple)

        def estimate_batch(batch: Sequence[Chunk]) -> NDArray[np.float32]:
            mel = torch.stack([self._compute_mel(waveform, chunk, mel_frames) for chunk in batch])
            return np.asarray(decode_salience(self._network.compute_salience(mel)).cpu().numpy())

        for batch, batch_f0 in BatchRunner("chunks").run(list(chunks), estimate_batch, size=self._batch_size):
            for chunk, chunk_f0 in zip(batch, batch_f0, strict=True):
                f0[chunk.kept] = chunk_f0[chunk.inside][: num_frames - chunk.keep_start]
            progress(min(batch[-1].keep_stop / num_frames, 1.0))
        return f0

    def _compute_mel(self, waveform: Waveform, chunk: Chunk, mel_frames: int) -> torch.Tensor:
        """`[128, chunk]`; frames after the last one are 0, because RMVPE's users have always padded so."""
        mel = self._mel.compute(waveform, chunk.start, min(chunk.stop, mel_frames))
        return F.pad(mel, (0, chunk.stop - chunk.start - mel.shape[1]))


def decode_salience(salience: torch.Tensor) -> torch.Tensor:
    """f0 in Hz, 0 = unvoiced: the mean of the bins around the most salient one, weighted by salience.

    Args:
        salience: `[..., 360]`, 0 to 1.

    Returns:
        `[...]` float32.
    """
    assert salience.shape[-1] == NUM_BINS, f"salience has {NUM_BINS} bins, not {salience.shape[-1]}"
    highest, center = salience.max(dim=-1, keepdim=True)
    offsets = torch.arange(-BIN_REACH, BIN_REACH + 1, device=salience.device)
    weights = F.pad(salience, (BIN_REACH, BIN_REACH)).gather(-1, center + BIN_REACH + offsets)
    position = center[..., 0] + (weights * offsets).sum(-1) / weights.sum(-1)
    f0 = 10 * torch.exp2((CENTS_OF_BIN_0 + CENTS_PER_BIN * position) / 1200)
    return torch.where(highest[..., 0] > THRESHOLD, f0, 0.0)


class RmvpeNetwork:
    """RMVPE's network: log-mel spectrograms to pitch salience by a U-Net, a GRU and a classifier of 360 bins.

    Batch norms are folded into the convolutions. Sizes are read from the tensors.

    Args:
        state: the tensors of rmvpe.pt.
        device: where to run.
        dtype: of the U-Net; the GRU and the classifier run in float32.
        gru_chunk_length: frames that the GRU sees at once, more than twice CONTEXT; None chooses by device: on a CPU
            all.

    Raises:
        ModelError: a tensor is missing, or its shape does not fit the others.
    """

    def __init__(
        self,
        state: Mapping[str, torch.Tensor],
        *,
        device: torch.device,
        dtype: torch.dtype,
        gru_chunk_length: int | None = None,
    ) -> None:
        self.device, self.dtype = device, dtype
        self._gru_chunk_length = gru_chunk_length or GRU_CHUNK_LENGTH.get(device.type)
        build = _LayerBuilder(state, device, dtype)
        self._scale, self._shift = (build.place(part, torch.float32) for part in build.affine("unet.encoder.bn"))
        self._encoder = [build.blocks(f"{name}.conv") for name in build.names("unet.encoder.layers")]
        self._middle = [build.blocks(f"{name}.conv") for name in build.names("unet.intermediate.layers")]
        self._decoder = [
            (build.upsampling(f"{name}.conv1"), build.blocks(f"{name}.conv2"))
            for name in build.names("unet.decoder.layers")
        ]
        self._head = build.conv(build.tensor("cnn.weight", 4), build.tensor("cnn.bias", 1))
        self._gru = build.gru("fc.0.gru")
        classifier = build.tensor("fc.1.weight", 2), build.tensor("fc.1.bias", 1)
        self._classifier = tuple(build.place(part, torch.float32) for part in classifier)
        if len(self._encoder) != len(self._decoder) or len(self._classifier[1]) != NUM_BINS:
            raise _not_rmvpe_error()
        self.memory_bytes = build.placed_bytes

    @property
    def frames_multiple(self) -> int:
        """The number of frames must be a multiple of this, because each level of the U-Net halves it."""
        return int(2 ** len(self._encoder))

    @torch.inference_mode()
    def compute_salience(self, mel: torch.Tensor) -> torch.Tensor:
        """The salience of each pitch bin.

        Args:
            mel: `[B, 128, T]` log-mel, T a multiple of `frames_multiple`.

        Returns:
            `[B, T, 360]` float32, 0 to 1.
        """
        assert mel.ndim == 3 and mel.shape[2] % self.frames_multiple == 0, (
            f"the log-mel is [B, {N_MELS}, T] with T a multiple of {self.frames_multiple}, not {list(mel.shape)}"
        )
        hidden = self._unet(mel * self._scale + self._shift)
        return F.linear(self._run_gru(hidden), *self._classifier).sigmoid()

    def _run_gru(self, hidden: torch.Tensor) -> torch.Tensor:
        """`[B, T, 384]` -> `[B, T, 512]`, in overlapping chunks that are rows of one batch, if T is long enough."""
        batch, frames, _ = hidden.shape
        length = self._gru_chunk_length
        if length is None or frames <= length:
            return torch.as_tensor(self._gru(hidden)[0])
        chunks = list(plan_equal_chunks(frames, longest=length, context=CONTEXT))
        states = self._gru(torch.cat([hidden[:, chunk.start : chunk.stop] for chunk in chunks]))[0]
        rows = states.unflatten(0, (len(chunks), batch))
        return torch.cat([row[:, chunk.inside] for row, chunk in zip(rows, chunks, strict=True)], dim=1)

    def _unet(self, mel: torch.Tensor) -> torch.Tensor:
        """`[B, 128, T]` to the GRU's input `[B, T, 384]` float32."""
        x = mel.transpose(1, 2).unsqueeze(1).to(self.dtype).contiguous(memory_format=torch.channels_last)
        skips = []
        for blocks in self._encoder:
            x = _run_blocks(blocks, x)
            skips.append(x)
            x = F.avg_pool2d(x, 2)
        for blocks in self._middle:
            x = _run_blocks(blocks, x)
        for upsampling, blocks in self._decoder:
            x = _run_blocks(blocks, torch.cat((upsampling(x).relu_(), skips.pop()), dim=1))
        return self._head(x).float().transpose(1, 2).flatten(2)


class _Conv:
    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        self._weight, self._bias = weight, bias
        self._padding = weight.shape[-1] // 2

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, self._weight, self._bias, padding=self._padding)


class _Upsampling:
    """A transposed convolution that doubles both axes."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        self._weight, self._bias = weight, bias

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv_transpose2d(x, self._weight, self._bias, stride=2, padding=1, output_padding=1)


class _Block:
    """Two convolutions with a residual connection."""

    def __init__(self, first: _Conv, second: _Conv, shortcut: _Conv | None) -> None:
        self._first, self._second, self._shortcut = first, second, shortcut

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        y = self._second(self._first(x).relu_()).relu_()
        return y.add_(x if self._shortcut is None else self._shortcut(x))


def _run_blocks(blocks: Sequence[_Block], x: torch.Tensor) -> torch.Tensor:
    for block in blocks:
        x = block(x)
    return x


class _LayerBuilder:
    """Builds layers from a state dict, by name.

    Attributes:
        placed_bytes: of all weights that have been placed on the device.

    Raises:
        ModelError: a tensor is missing, or its shape does not fit the others.
    """

    def __init__(self, state: Mapping[str, torch.Tensor], device: torch.device, dtype: torch.dtype) -> None:
        self._state, self._device, self._dtype = state, device, dtype
        self.placed_bytes = 0

    def place(self, weight: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
        """A weight on the device, channels last if it is a kernel; None: in the layers' dtype."""
        placed = weight.to(self._device, dtype or self._dtype)
        if placed.ndim == 4:
            placed = placed.contiguous(memory_format=torch.channels_last)
        self.placed_bytes += placed.nbytes
        return placed

    def tensor(self, name: str, ndim: int) -> torch.Tensor:
        value = self._state.get(name)
        if value is None or value.ndim != ndim:
            raise _not_rmvpe_error()
        return value.detach().to(torch.float32)

    def names(self, prefix: str) -> list[str]:
        """The names `<prefix>.0`, `<prefix>.1` ... that the state dict has."""
        indices = {key[len(prefix) + 1 :].split(".")[0] for key in self._state if key.startswith(f"{prefix}.")}
        names = [str(index) for index in range(len(indices))]
        if indices != set(names) or not names:
            raise _not_rmvpe_error()
        return [f"{prefix}.{name}" for name in names]

    def blocks(self, prefix: str) -> list[_Block]:
        return [self._block(name) for name in self.names(prefix)]

    def upsampling(self, prefix: str) -> _Upsampling:
        scale, shift = self.affine(f"{prefix}.1")
        weight = self.tensor(f"{prefix}.0.weight", 4)
        if weight.shape[1] != len(scale):
            raise _not_rmvpe_error()
        return _Upsampling(self.place(weight * scale[None, :, None, None]), self.place(shift))

    def conv(self, weight: torch.Tensor, bias: torch.Tensor) -> _Conv:
        if len(weight) != len(bias):
            raise _not_rmvpe_error()
        return _Conv(self.place(weight), self.place(bias))

    def affine(self, prefix: str) -> tuple[torch.Tensor, torch.Tensor]:
        """A batch norm at inference as scale and shift, `[C]` each."""
        names = ("weight", "bias", "running_mean", "running_var")
        weight, bias, mean, variance = (self.tensor(f"{prefix}.{name}", 1) for name in names)
        if not len(weight) == len(bias) == len(mean) == len(variance):
            raise _not_rmvpe_error()
        scale = weight / (variance + _BN_EPS).sqrt()
        return scale, bias - mean * scale

    def gru(self, prefix: str) -> nn.GRU:
        weights = {
            key.removeprefix(f"{prefix}."): value.detach().to(torch.float32)
            for key, value in self._state.items()
            if key.startswith(f"{prefix}.")
        }
        gates, width = self.tensor(f"{prefix}.weight_ih_l0", 2).shape
        hidden, num_layers = max(gates // 3, 1), max(len(weights) // 8, 1)
        gru = nn.GRU(width, hidden, num_layers=num_layers, batch_first=True, bidirectional=True)
        if {key: value.shape for key, value in gru.state_dict().items()} != {k: v.shape for k, v in weights.items()}:
            raise _not_rmvpe_error()
        gru.load_state_dict(weights)
        gru = gru.eval().requires_grad_(False).to(self._device)
        self.placed_bytes += sum(weight.nbytes for weight in gru.parameters())
        return gru

    def _block(self, prefix: str) -> _Block:
        shortcut = None
        if f"{prefix}.shortcut.weight" in self._state:
            shortcut = self.conv(self.tensor(f"{prefix}.shortcut.weight", 4), self.tensor(f"{prefix}.shortcut.bias", 1))
        return _Block(self._folded_conv(f"{prefix}.conv", 0), self._folded_conv(f"{prefix}.conv", 3), shortcut)

    def _folded_conv(self, prefix: str, index: int) -> _Conv:
        scale, shift = self.affine(f"{prefix}.{index + 1}")
        weight = self.tensor(f"{prefix}.{index}.weight", 4)
        if len(weight) != len(scale):
            raise _not_rmvpe_error()
        return self.conv(weight * scale[:, None, None, None], shift)


def _not_rmvpe_error() -> ModelError:
    return broken_checkpoint("The f0 method 'rmvpe'", "rmvpe.pt does not hold the network RMVPE", REMEDY)
