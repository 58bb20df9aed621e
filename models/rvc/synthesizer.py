"""The synthesizer of one RVC voice: features, f0 and noise in, waveform out. Inference only.

The network modules are rvc-python's, imported without its package `__init__`: that of 0.1.5 imports its whole inference
path, and with it fairseq, which no longer installs.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
import threading
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from errors import ErrorCode, ModelError
from models.checkpoints.weight_norm import fold_weight_norm
from models.runtime.dtype import RVC_SYNTHESIZER, Precision, inference_dtype
from models.rvc.checkpoint import Checkpoint
from models.rvc.config import FEATURE_WIDTHS, SynthesizerConfig
from models.rvc.decoder import Decoder

NOISE_SCALE = 0.66666  # of the latents, as in rvc-python's `infer`
_ATTENTION_ROWS = 512
_PACKAGE = "rvc_python"
_IMPORT_LOCK = threading.RLock()


class Synthesizer(nn.Module):
    """rvc-python's `SynthesizerTrnMs{256,768}NSFsid[_nono]` without what only training uses.

    Text encoder and flow are rvc-python's own modules, with weight norm folded into the weights. The attention and the
    decoder compute the same from the same weights, faster.

    Args:
        checkpoint: of the voice.
        device: torch device name.
        precision: of the decoder; `auto` is the fastest one of the device.

    Raises:
        ModelError: the checkpoint's weights do not fit its config, or rvc-python is not installed.
    """

    def __init__(self, checkpoint: Checkpoint, *, device: str = "cpu", precision: Precision = "auto") -> None:
        super().__init__()
        config = checkpoint.config
        self.width = FEATURE_WIDTHS[checkpoint.version]
        self.uses_f0 = checkpoint.f0
        self.sample_rate = checkpoint.sample_rate
        self.inter_channels = config.inter_channels
        reference: Any = _build_reference(config, width=self.width, f0=checkpoint.f0)
        _load_folded(reference, checkpoint.weights)
        reference.eval().requires_grad_(False)
        reference["enc_p"].encoder = TransformerLayers(reference["enc_p"].encoder)
        self.encoder, self.flow, self.speaker = reference["enc_p"], reference["flow"], reference["emb_g"]
        self.harmonic_mixer: Any = reference["dec"].m_source.l_linear if self.uses_f0 else None
        self.decoder = Decoder(reference["dec"], inference_dtype(RVC_SYNTHESIZER, device, precision))
        self.hop_length = self.decoder.hop_length
        self.to(device)

    @property
    def device(self) -> torch.device:
        return self.speaker.weight.device  # type: ignore[no-any-return]

    @property
    def memory_bytes(self) -> int:
        """Bytes of the weights; a tensor that is shared counts once."""
        tensors = {id(tensor): tensor for tensor in (*self.parameters(), *self.buffers())}
        return sum(tensor.nbytes for tensor in tensors.values())

    def sample_latents(self, features: torch.Tensor, pitch: torch.Tensor | None, noise: torch.Tensor) -> torch.Tensor:
        """Samples the prior given the features and runs the flow backwards.

        Args:
            features: `[B, T, width]`, 100 frames/s.
            pitch: `[B, T]` int64, 1 to 255, from `quantize_f0`; None for a voice without f0.
            noise: `[B, inter_channels, T]`, standard normal.

        Returns:
            `[B, inter_channels, T]` float32, the decoder's input.
        """
        batch, frames, width = features.shape
        assert width == self.width, f"features of this voice are {self.width} wide, not {width}"
        assert noise.shape == (batch, self.inter_channels, frames), "the noise is [B, inter_channels, T]"
        lengths = torch.full((batch,), frames, device=features.device)
        mean, log_scale, mask = self.encoder(features, pitch, lengths)
        sampled = mean + torch.exp(log_scale) * noise * NOISE_SCALE
        latents: torch.Tensor = self.flow(sampled, mask, g=self._embed_speaker(batch), reverse=True)
        return latents

    def project_excitation(self, sine: torch.Tensor) -> torch.Tensor:
        """The decoder's excitation from a noisy sine: `[B, N]` -> `[B, N]` float32."""
        return torch.tanh(self.harmonic_mixer(sine[..., None])[..., 0])

    def decode(self, latents: torch.Tensor, excitation: torch.Tensor | None) -> torch.Tensor:
        """`[B, inter_channels, T]` and `[B, T * hop_length]` -> waveform `[B, T * hop_length]` float32."""
        waveform: torch.Tensor = self.decoder(latents, self._embed_speaker(latents.shape[0]), excitation)
        return waveform

    def _embed_speaker(self, batch: int) -> torch.Tensor:
        """The first speaker's embedding, `[B, gin_channels, 1]`: voices for conversion have one speaker."""
        return self.speaker.weight[0].expand(batch, -1)[:, :, None]  # type: ignore[no-any-return]


class TransformerLayers(nn.Module):
    """The layers of rvc-python's text encoder without its attention mask, `[B, 1, T, T]`: all frames are valid."""

    def __init__(self, reference: Any) -> None:
        super().__init__()
        self.attentions = nn.ModuleList(RelativeAttention(layer) for layer in reference.attn_layers)
        self.attention_norms, self.norms = reference.norm_layers_1, reference.norm_layers_2
        self.feed_forwards = reference.ffn_layers

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """`[B, C, T]` -> `[B, C, T]`; the mask `[B, 1, T]` is ones."""
        layers = zip(self.attentions, self.attention_norms, self.feed_forwards, self.norms, strict=True)
        for attention, attention_norm, feed_forward, norm in layers:
            x = attention_norm(x + attention(x))
            x = norm(x + feed_forward(x, mask))
        return x


class RelativeAttention(nn.Module):
    """rvc-python's `MultiHeadAttention` with relative positions in a window, in memory linear in time.

    The reference pads its 2w+1 relative positions to 2T-1 and multiplies all of them; here only those in the window
    are computed, for a block of queries at a time. (Shaw et al. 2018, arXiv:1803.02155)
    """

    def __init__(self, reference: Any) -> None:
        super().__init__()
        self.heads, self.window = int(reference.n_heads), int(reference.window_size)
        self.conv_q, self.conv_k, self.conv_v = reference.conv_q, reference.conv_k, reference.conv_v
        self.conv_o = reference.conv_o
        self.emb_rel_k, self.emb_rel_v = reference.emb_rel_k, reference.emb_rel_v

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[B, C, T]` -> `[B, C, T]`."""
        query, key, value = (self._split_heads(conv(x)) for conv in (self.conv_q, self.conv_k, self.conv_v))
        query = query / math.sqrt(query.shape[-1])
        frames, rows = x.shape[-1], _ATTENTION_ROWS if x.device.type == "cpu" else x.shape[-1]
        blocks = [
            self._attend(query[:, :, start : start + rows], key, value, start) for start in range(0, frames, rows)
        ]
        return self.conv_o(torch.cat(blocks, dim=2).transpose(2, 3).flatten(1, 2))  # type: ignore[no-any-return]

    def _attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, start: int) -> torch.Tensor:
        """Attention of the queries `start`, `start + 1`, ... to all keys: `[B, H, n, D]`."""
        scores = torch.matmul(query, key.transpose(2, 3))
        columns, valid = self._window_columns(start, query.shape[2], key.shape[2], query.device)
        columns = columns.expand(*scores.shape[:3], -1)
        scores.scatter_add_(3, columns, torch.matmul(query, self.emb_rel_k.transpose(1, 2)) * valid)
        weights = F.softmax(scores, dim=-1)
        window_weights = weights.gather(3, columns) * valid
        return torch.matmul(weights, value) + torch.matmul(window_weights, self.emb_rel_v)

    def _window_columns(
        self, start: int, rows: int, frames: int, device: torch.device
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The keys in the window of each query, `[rows, 2w+1]`, and whether they exist."""
        offsets = torch.arange(-self.window, self.window + 1, device=device)
        columns = torch.arange(start, start + rows, device=device)[:, None] + offsets
        return columns.clamp(0, frames - 1), (columns >= 0) & (columns < frames)

    def _split_heads(self, x: torch.Tensor) -> torch.Tensor:
        batch, channels, frames = x.shape
        return x.view(batch, self.heads, channels // self.heads, frames).transpose(2, 3)


def _build_reference(config: SynthesizerConfig, *, width: int, f0: bool) -> nn.ModuleDict:
    """rvc-python's modules for `config` with random weights, weight norm removed.

    Not on the meta device: weight norm imports a compiler there, which takes longer than drawing the weights. The state
    of torch's generator is kept.
    """
    models = import_network_module("lib.infer_pack.models")
    gin = config.gin_channels
    text_encoder = models.TextEncoder256 if width == FEATURE_WIDTHS["v1"] else models.TextEncoder768
    text_sizes = (
        config.inter_channels,
        config.hidden_channels,
        config.filter_channels,
        config.n_heads,
        config.n_layers,
        config.kernel_size,
        0.0,  # dropout
    )
    generator_sizes = (
        config.inter_channels,
        config.resblock,
        [*config.resblock_kernel_sizes],
        [[*sizes] for sizes in config.resblock_dilation_sizes],
        [*config.upsample_rates],
        config.upsample_initial_channel,
        [*config.upsample_kernel_sizes],
    )
    with torch.random.fork_rng(devices=[]):
        decoder = (
            models.GeneratorNSF(*generator_sizes, gin_channels=gin, sr=config.sample_rate, is_half=False)
            if f0
            else models.Generator(*generator_sizes, gin_channels=gin)
        )
        flow = models.ResidualCouplingBlock(config.inter_channels, config.hidden_channels, 5, 1, 3, gin_channels=gin)
        network = nn.ModuleDict(
            {
                "enc_p": text_encoder(*text_sizes, f0=f0),
                "flow": flow,
                "dec": decoder,
                "emb_g": nn.Embedding(config.n_speakers, gin),
            }
        )
    for module in network.modules():
        if hasattr(module, "weight_g"):
            nn.utils.remove_weight_norm(module)
    return network


def _load_folded(network: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Gives `network` the weights of a checkpoint, weight norm folded, in float32.

    Raises:
        ModelError: weights are missing or of another shape than the checkpoint's `config` says.
    """
    folded = {name: tensor.to(torch.float32, copy=True) for name, tensor in fold_weight_norm(weights).items()}
    expected = network.state_dict()
    wrong = [name for name, like in expected.items() if name not in folded or folded[name].shape != like.shape]
    if wrong:
        raise ModelError(
            f"This voice's checkpoint does not match its own config: {len(wrong)} of {len(expected)} tensors are "
            f"missing or have another shape; the first is '{wrong[0]}'. Download or export the voice again.",
            code=ErrorCode.BROKEN_CHECKPOINT,
            details={"tensor": wrong[0]},
        )
    network.load_state_dict({name: folded[name] for name in expected}, assign=True)


def import_network_module(name: str) -> Any:
    """Imports `rvc_python.<name>`, e.g. `lib.infer_pack.models`, below an empty package object. Thread-safe.

    Raises:
        ModelError: rvc-python is not installed.
    """
    with _IMPORT_LOCK:
        if _PACKAGE not in sys.modules:
            sys.modules[_PACKAGE] = _make_bare_package()
        return importlib.import_module(f"{_PACKAGE}.{name}")


def _make_bare_package() -> ModuleType:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.submodule_search_locations is None:
        raise ModelError(
            "Voice conversion needs the network definitions of the package rvc-python, which is not installed. Install "
            "it with: pip install --no-deps rvc-python==0.1.5",
            code=ErrorCode.MODEL_UNAVAILABLE,
        )
    package = ModuleType(_PACKAGE, "rvc-python without its __init__.")
    package.__path__ = list(spec.submodule_search_locations)
    package.__spec__ = spec  # importlib.util.find_spec raises ValueError for a loaded module without a spec
    return package
