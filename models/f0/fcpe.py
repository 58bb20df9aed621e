"""f0 by FCPE (arXiv 2509.15140) with torchfcpe's network and weights, in windows that answer as the whole file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import torchfcpe
from torch import Tensor
from torchfcpe.models import CFNaiveMelPE

from errors import ErrorCode, ModelError
from models.device import require
from models.f0.mel import LogMel
from models.f0.tracker import Curve, Progress, Waveform, num_frames, windows

WINDOW = 2048  # frames
CONTEXT = 96  # six layers that look 15 frames to each side, and two convolutions that look one
THRESHOLD = 0.006
POWER_FLOOR = 1e-9
_STATISTICS_SHARE = 0.1  # of the time, about, for the progress


class Fcpe:
    """FCPE on a device.

    The network is convolutions alone, but for one group norm over the whole file: its statistics are gathered first,
    window by window. torchfcpe's frames lie 5 ms late; ours are around their samples.

    Args:
        network: torchfcpe's, with its weights.
        device: where it is.
        window: frames that are looked at together.
    """

    def __init__(self, network: CFNaiveMelPE, device: torch.device, *, window: int = WINDOW) -> None:
        self.network, self.device, self._window = network, device, window
        self._mel = LogMel(f_min=0.0, htk=False, power_floor=POWER_FLOOR, device=device)
        self.memory_bytes = sum(value.numel() * value.element_size() for value in network.parameters())

    @torch.inference_mode()
    def track(self, waveform: Waveform, *, hop_length: int, filter_radius: int, progress: Progress) -> Curve:
        """As `Tracker.track`; neither `hop_length` nor `filter_radius` counts here."""
        count = num_frames(waveform)
        f0 = np.zeros(count, np.float32)
        if count == 0:
            return f0
        normalize = self._normalizer(waveform, count, lambda done: progress(_STATISTICS_SHARE * done))
        for window in windows(count, longest=self._window, context=CONTEXT):
            mel = self._mel.frames(waveform, window.start, window.stop)[None]
            f0[window.kept] = self._f0(mel, normalize)[window.inside]
            progress(_STATISTICS_SHARE + (1 - _STATISTICS_SHARE) * window.keep_stop / count)
        return f0

    def _normalizer(self, waveform: Waveform, count: int, progress: Progress) -> Callable[[Tensor], Tensor]:
        """The group norm after the first convolution, with the statistics of the whole file."""
        convolution, norm = self.network.input_stack[0], self.network.input_stack[1]
        total = torch.zeros(2, norm.num_groups, dtype=torch.float64)
        for window in windows(count, longest=self._window, context=1):
            mel = self._mel.frames(waveform, window.start, window.stop)[None]
            groups = convolution(mel)[0, :, window.inside].reshape(norm.num_groups, -1)
            total += torch.stack((groups.sum(1), groups.square().sum(1))).cpu()
            progress(window.keep_stop / count)
        each = norm.num_channels // norm.num_groups
        mean, power = total / (count * each)
        factor = (power - mean.square() + norm.eps).rsqrt()
        factors, means = torch.stack((factor, mean * factor)).float().to(self.device).repeat_interleave(each, dim=1)
        scale, shift = norm.weight * factors, norm.bias - norm.weight * means
        return lambda x: x * scale[:, None] + shift[:, None]

    def _f0(self, mel: Tensor, normalize: Callable[[Tensor], Tensor]) -> Curve:
        """`[T]` Hz for a window's log-mel `[1, 128, T]`."""
        network = self.network
        x = network.input_stack[3](F.leaky_relu(normalize(network.input_stack[0](mel))))
        x = network.norm(network.net(x.transpose(1, 2)))
        cents = network.latent2cents_local_decoder(network.output_proj(x).sigmoid(), threshold=THRESHOLD)
        return np.asarray(network.cent_to_f0(cents)[0, :, 0].cpu().numpy())


def load(device: str) -> Fcpe:
    """FCPE with the weights in torchfcpe's wheel."""
    require(device)
    file = Path(torchfcpe.__file__).parent / "assets" / "fcpe_c_v001.pt"
    try:
        stored = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelError(
            "torchfcpe is installed without its weights. Install the wheel again, or choose another f0_method.",
            code=ErrorCode.MODEL_UNAVAILABLE,
        ) from error
    sizes, bands = stored["config_dict"]["model"], stored["config_dict"]["mel"]["num_mels"]
    names = ("out_dims", "hidden_dims", "n_layers", "n_heads", "f0_max", "f0_min", "conv_only")
    network = CFNaiveMelPE(
        input_channels=bands, use_fa_norm=sizes["use_fa_norm"], **{name: sizes[name] for name in names}
    )
    network.load_state_dict(stored["model"])
    place = torch.device(device)
    return Fcpe(network.eval().requires_grad_(False).to(place), place)
