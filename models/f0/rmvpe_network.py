"""RMVPE's network (arXiv 2306.15412) over the published state dict, for inference: a U-Net, a GRU, 360 pitch bins.

Batch norms are folded into the convolutions. The U-Net may run in reduced precision; the GRU and all after it run in
float32. Sizes are read from the tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.rvc.checkpoint import broken

_BN_EPS = 1e-5
_BINS = 360

State = Mapping[str, Tensor]


class Network:
    """Log-mel spectrograms to pitch salience.

    Args:
        state: the tensors of rmvpe.pt.
        device: where to run.
        dtype: of the U-Net.

    Raises:
        ModelError: a tensor is missing or has another shape than the rest asks for.
    """

    def __init__(self, state: State, *, device: torch.device, dtype: torch.dtype) -> None:
        try:
            self._build(state, device, dtype)
        except (KeyError, IndexError, RuntimeError, ValueError) as error:
            raise broken("rmvpe.pt does not hold the network RMVPE") from error

    def _build(self, state: State, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        state = {key: value.detach().to(torch.float32) for key, value in state.items()}
        self._scale, self._shift = (part.to(device) for part in _affine(state, "unet.encoder.bn"))
        build = _Builder(state, device, dtype)
        self._encoder = [build.blocks(f"{name}.conv") for name in build.each("unet.encoder.layers")]
        self._middle = [build.blocks(f"{name}.conv") for name in build.each("unet.intermediate.layers")]
        self._decoder = [
            (build.upward(f"{name}.conv1"), build.blocks(f"{name}.conv2")) for name in build.each("unet.decoder.layers")
        ]
        self._head = _Conv(state["cnn.weight"], state["cnn.bias"], device, dtype)
        self._gru = _gru(state, "fc.0.gru").to(device)
        self._classify = state["fc.1.weight"].to(device), state["fc.1.bias"].to(device)
        if len(self._encoder) != len(self._decoder) or len(self._classify[1]) != _BINS:
            raise ValueError("levels or bins do not match")
        self.memory_bytes = sum(value.numel() for value in state.values()) * torch.finfo(dtype).bits // 8

    @property
    def frames_multiple(self) -> int:
        """The number of frames must be a multiple of this: each level of the U-Net halves it."""
        return int(2 ** len(self._encoder))

    @torch.inference_mode()
    def salience(self, mel: Tensor) -> Tensor:
        """How likely each bin is.

        Args:
            mel: `[B, 128, T]` log-mel, T a multiple of `frames_multiple`.

        Returns:
            `[B, T, 360]` float32 in 0..1.
        """
        hidden = self._unet(mel * self._scale + self._shift)
        states = self._gru(hidden)[0]
        return F.linear(states, *self._classify).sigmoid()

    def _unet(self, mel: Tensor) -> Tensor:
        """`[B, 128, T]` to the GRU's input `[B, T, 384]` float32."""
        x = mel.transpose(1, 2).unsqueeze(1).to(self.dtype).contiguous(memory_format=torch.channels_last)
        skipped = []
        for blocks in self._encoder:
            x = _through(blocks, x)
            skipped.append(x)
            x = F.avg_pool2d(x, 2)
        for blocks in self._middle:
            x = _through(blocks, x)
        for upward, blocks in self._decoder:
            x = _through(blocks, torch.cat((upward(x).relu_(), skipped.pop()), dim=1))
        return self._head(x).float().transpose(1, 2).flatten(2)


class _Conv:
    def __init__(self, weight: Tensor, bias: Tensor, device: torch.device, dtype: torch.dtype) -> None:
        self._weight = weight.to(device, dtype).contiguous(memory_format=torch.channels_last)
        self._bias = bias.to(device, dtype)
        self._padding = weight.shape[-1] // 2

    def __call__(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self._weight, self._bias, padding=self._padding)


class _Upward:
    """A transposed convolution that doubles both axes."""

    def __init__(self, weight: Tensor, bias: Tensor, device: torch.device, dtype: torch.dtype) -> None:
        self._weight = weight.to(device, dtype).contiguous(memory_format=torch.channels_last)
        self._bias = bias.to(device, dtype)

    def __call__(self, x: Tensor) -> Tensor:
        return F.conv_transpose2d(x, self._weight, self._bias, stride=2, padding=1, output_padding=1)


class _Block:
    """Two convolutions beside a shortcut."""

    def __init__(self, first: _Conv, second: _Conv, shortcut: _Conv | None) -> None:
        self._first, self._second, self._shortcut = first, second, shortcut

    def __call__(self, x: Tensor) -> Tensor:
        y = self._second(self._first(x).relu_()).relu_()
        return y.add_(x if self._shortcut is None else self._shortcut(x))


def _through(blocks: Sequence[_Block], x: Tensor) -> Tensor:
    for block in blocks:
        x = block(x)
    return x


class _Builder:
    """Makes layers from a state dict, by name."""

    def __init__(self, state: State, device: torch.device, dtype: torch.dtype) -> None:
        self._state, self._device, self._dtype = state, device, dtype

    def each(self, prefix: str) -> list[str]:
        """`<prefix>.0`, `<prefix>.1` ... as far as there are any."""
        indices = {int(key[len(prefix) + 1 :].split(".")[0]) for key in self._state if key.startswith(f"{prefix}.")}
        if indices != set(range(len(indices))) or not indices:
            raise KeyError(prefix)
        return [f"{prefix}.{index}" for index in range(len(indices))]

    def blocks(self, prefix: str) -> list[_Block]:
        return [self._block(name) for name in self.each(prefix)]

    def upward(self, prefix: str) -> _Upward:
        scale, shift = _affine(self._state, f"{prefix}.1")
        weight = self._state[f"{prefix}.0.weight"] * scale[None, :, None, None]
        return _Upward(weight, shift, self._device, self._dtype)

    def _block(self, prefix: str) -> _Block:
        shortcut = None
        if f"{prefix}.shortcut.weight" in self._state:
            shortcut = self._conv(self._state[f"{prefix}.shortcut.weight"], self._state[f"{prefix}.shortcut.bias"])
        return _Block(self._folded(f"{prefix}.conv", 0), self._folded(f"{prefix}.conv", 3), shortcut)

    def _folded(self, prefix: str, index: int) -> _Conv:
        scale, shift = _affine(self._state, f"{prefix}.{index + 1}")
        return self._conv(self._state[f"{prefix}.{index}.weight"] * scale[:, None, None, None], shift)

    def _conv(self, weight: Tensor, bias: Tensor) -> _Conv:
        return _Conv(weight, bias, self._device, self._dtype)


def _affine(state: State, prefix: str) -> tuple[Tensor, Tensor]:
    """A batch norm at inference as a factor and a summand."""
    scale = state[f"{prefix}.weight"] / (state[f"{prefix}.running_var"] + _BN_EPS).sqrt()
    return scale, state[f"{prefix}.bias"] - state[f"{prefix}.running_mean"] * scale


def _gru(state: State, prefix: str) -> nn.GRU:
    own = {key[len(prefix) + 1 :]: value for key, value in state.items() if key.startswith(f"{prefix}.")}
    gates, width = own["weight_ih_l0"].shape
    gru = nn.GRU(width, gates // 3, num_layers=len(own) // 8, batch_first=True, bidirectional=True)
    gru.load_state_dict(own)
    return gru.eval().requires_grad_(False)
