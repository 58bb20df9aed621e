"""f0 by FCPE (arXiv 2509.15140) with torchfcpe's network and weights, in chunks that give the whole file's result."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F

from errors import ErrorCode, ModelError
from models.device import prepare_device
from models.f0.estimator import F0Contour, F0Estimator, Waveform, count_frames
from models.f0.mel import LogMel
from models.runtime.chunks import plan_equal_chunks
from models.runtime.progress import Progress

_PACKAGE = "torchfcpe"
CHUNK_LENGTH = 2048  # frames
CONTEXT = 96  # frames: six layers that see 15 frames to each side, and two convolutions that see one
THRESHOLD = 0.006
POWER_FLOOR = 1e-9
_STATISTICS_SHARE = 0.1  # of the progress; about its share of the time

Normalize = Callable[[torch.Tensor], torch.Tensor]


class Fcpe(F0Estimator):
    """FCPE on a device.

    The network is convolutional except for one group norm over the whole file, whose statistics are computed first,
    chunk by chunk. torchfcpe's frames are 5 ms late; these are centred on their samples.

    Args:
        network: torchfcpe's, with its weights.
        device: where the network is.
        chunk_length: frames that are computed together.
    """

    def __init__(self, network: Any, device: torch.device, *, chunk_length: int = CHUNK_LENGTH) -> None:
        self.network, self.device, self._chunk_length = network, device, chunk_length
        self._mel = LogMel(f_min=0.0, htk=False, power_floor=POWER_FLOOR, device=device)
        self.memory_bytes = sum(value.nbytes for value in (*network.parameters(), *network.buffers()))

    @classmethod
    def load(cls, *, device: str, weights: Path | None = None) -> Self:
        """FCPE with the weights in torchfcpe's wheel.

        Raises:
            ModelError: the wheel has no weights, or there is no such device.
        """
        prepare_device(device)
        package = _find_package()
        try:
            stored = torch.load(package / "assets" / "fcpe_c_v001.pt", map_location="cpu", weights_only=True)
        except OSError as error:
            raise ModelError(
                "The installed torchfcpe has no weights. Install the wheel again, or choose another f0_method.",
                code=ErrorCode.MODEL_UNAVAILABLE,
            ) from error
        sizes, bands = stored["config_dict"]["model"], stored["config_dict"]["mel"]["num_mels"]
        names = ("out_dims", "hidden_dims", "n_layers", "n_heads", "f0_max", "f0_min", "conv_only")
        network = _import_networks().CFNaiveMelPE(
            input_channels=bands, use_fa_norm=sizes["use_fa_norm"], **{name: sizes[name] for name in names}
        )
        network.load_state_dict(stored["model"])
        torch_device = torch.device(device)
        return cls(network.eval().requires_grad_(False).to(torch_device), torch_device)

    @torch.inference_mode()
    def estimate(self, waveform: Waveform, *, hop_length: int, filter_radius: int, progress: Progress) -> F0Contour:
        """See `F0Estimator.estimate`; `hop_length` and `filter_radius` have no effect."""
        num_frames = count_frames(waveform)
        f0 = np.zeros(num_frames, np.float32)
        if num_frames == 0:
            return f0
        normalize = self._fit_norm(waveform, num_frames, lambda done: progress(_STATISTICS_SHARE * done))
        for chunk in plan_equal_chunks(num_frames, longest=self._chunk_length, context=CONTEXT):
            mel = self._mel.compute(waveform, chunk.start, chunk.stop)[None]
            f0[chunk.kept] = self._estimate_chunk(mel, normalize)[chunk.inside]
            progress(_STATISTICS_SHARE + (1 - _STATISTICS_SHARE) * chunk.keep_stop / num_frames)
        return f0

    def _fit_norm(self, waveform: Waveform, num_frames: int, progress: Progress) -> Normalize:
        """The group norm after the first convolution, with the statistics of the whole file."""
        convolution, norm = self.network.input_stack[0], self.network.input_stack[1]
        sums = torch.zeros(2, norm.num_groups, dtype=torch.float64)
        for chunk in plan_equal_chunks(num_frames, longest=self._chunk_length, context=1):
            mel = self._mel.compute(waveform, chunk.start, chunk.stop)[None]
            groups = convolution(mel)[0, :, chunk.inside].reshape(norm.num_groups, -1)
            sums += torch.stack((groups.sum(1), groups.square().sum(1))).cpu()
            progress(chunk.keep_stop / num_frames)
        group_size = norm.num_channels // norm.num_groups
        mean, power = sums / (num_frames * group_size)
        factor = (power - mean.square() + norm.eps).rsqrt()
        per_channel = torch.stack((factor, mean * factor)).float().to(self.device).repeat_interleave(group_size, dim=1)
        factors, means = per_channel
        scale, shift = norm.weight * factors, norm.bias - norm.weight * means
        return lambda x: x * scale[:, None] + shift[:, None]

    def _estimate_chunk(self, mel: torch.Tensor, normalize: Normalize) -> F0Contour:
        """Log-mel `[1, 128, T]` -> `[T]` in Hz."""
        network = self.network
        x = network.input_stack[3](F.leaky_relu(normalize(network.input_stack[0](mel))))
        x = network.norm(network.net(x.transpose(1, 2)))
        cents = network.latent2cents_local_decoder(network.output_proj(x).sigmoid(), threshold=THRESHOLD)
        return np.asarray(network.cent_to_f0(cents)[0, :, 0].cpu().numpy())


def _find_package() -> Path:
    """The folder of the installed torchfcpe; a path that does not exist if there is none."""
    spec = importlib.util.find_spec(_PACKAGE)
    folders = spec.submodule_search_locations if spec else None
    return Path(folders[0] if folders else _PACKAGE)


def _import_networks() -> Any:
    """`torchfcpe.models`, imported below an empty package object.

    The package's own `__init__` imports librosa and numba, and prints to standard output if they are missing.
    """
    if _PACKAGE in sys.modules:
        return importlib.import_module(f"{_PACKAGE}.models")
    spec = importlib.util.find_spec(_PACKAGE)
    assert spec is not None, "its weights have been found"
    empty = importlib.util.module_from_spec(spec)
    sys.modules[_PACKAGE] = empty
    try:
        return importlib.import_module(f"{_PACKAGE}.models")
    finally:
        del sys.modules[_PACKAGE]  # whoever imports it later gets the real one
