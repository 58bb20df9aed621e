"""The synthesizer of one RVC voice: content features and f0 in, waveform out. Inference only, all noise handed in."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from errors import ErrorCode, ModelError
from models.device import cpu_multiplies_bfloat16
from models.rvc.decoder import Decoder
from models.rvc.rvc_import import import_network_module

if TYPE_CHECKING:
    from models.rvc.checkpoint import Checkpoint, SynthesizerConfig

Precision = Literal["auto", "float32", "bfloat16", "float16"]
CONTENT_WIDTH: Final = {"v1": 256, "v2": 768}
NOISE_SCALE: Final = 0.66666  # of the latent, as rvc-python's `infer` has it
_ATTENTION_ROWS: Final = 512


class Synthesizer(nn.Module):
    """rvc-python's `SynthesizerTrnMs{256,768}NSFsid[_nono]` without what only training uses.

    Built from rvc-python's own modules: text encoder, flow, decoder; weight norm is folded into the weights. The
    attention and the decoder run the same weights in our own, faster loops.

    Args:
        checkpoint: of the voice.
        device: as torch names it.
        precision: of the decoder; `auto` is what the device multiplies fastest.
    """

    def __init__(self, checkpoint: Checkpoint, *, device: str = "cpu", precision: Precision = "auto") -> None:
        super().__init__()
        config = checkpoint.config
        self.width = CONTENT_WIDTH[checkpoint.version]
        self.uses_f0 = checkpoint.f0
        self.sample_rate = checkpoint.sample_rate
        self.inter_channels = config.inter_channels
        reference: Any = build_reference(config, width=self.width, f0=checkpoint.f0)
        load_folded(reference, checkpoint.weights)
        reference.eval().requires_grad_(False)
        layers = reference["enc_p"].encoder
        layers.attn_layers = nn.ModuleList(RelativeAttention(layer) for layer in layers.attn_layers)
        self.encoder, self.flow, self.speaker = reference["enc_p"], reference["flow"], reference["emb_g"]
        self.mixer: Any = reference["dec"].m_source.l_linear if self.uses_f0 else None
        self.decoder = Decoder(reference["dec"], choose_dtype(precision, torch.device(device)))
        self.hop_length = self.decoder.hop_length
        self.to(device)

    @property
    def device(self) -> torch.device:
        return self.speaker.weight.device  # type: ignore[no-any-return]

    @property
    def memory_bytes(self) -> int:
        """What the weights hold."""
        tensors = {id(tensor): tensor for tensor in (*self.parameters(), *self.buffers())}
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())

    def latent(self, features: Tensor, pitch: Tensor | None, noise: Tensor) -> Tensor:
        """What the decoder makes sound of.

        Args:
            features: `[B, T, width]`, 100 frames/s.
            pitch: `[B, T]` int64, 1 to 255, `coarse(f0)`; None for a voice without f0.
            noise: `[B, inter, T]` standard normal.

        Returns:
            `[B, inter, T]` float32.
        """
        lengths = torch.full((features.shape[0],), features.shape[1], device=features.device)
        mean, log_scale, mask = self.encoder(features, pitch, lengths)
        drawn = mean + torch.exp(log_scale) * noise * NOISE_SCALE
        flowed: Tensor = self.flow(drawn, mask, g=self._speaker(features.shape[0]), reverse=True)
        return flowed

    def excitation(self, sine: Tensor) -> Tensor:
        """The decoder's source from a sine with its noise: `[B, N]` -> `[B, N]` float32."""
        return torch.tanh(self.mixer(sine[..., None])[..., 0])

    def decode(self, latent: Tensor, source: Tensor | None) -> Tensor:
        """`[B, inter, T]` and the excitation `[B, T * hop_length]` -> waveform `[B, T * hop_length]` float32."""
        waveform: Tensor = self.decoder(latent, self._speaker(latent.shape[0]), source)
        return waveform

    def _speaker(self, batch: int) -> Tensor:
        """The first speaker's embedding, `[B, gin, 1]`: voices for conversion have one."""
        return self.speaker.weight[0].expand(batch, -1)[:, :, None]  # type: ignore[no-any-return]


class RelativeAttention(nn.Module):
    """rvc-python's `MultiHeadAttention` with a window of relative positions, in memory linear in time.

    The reference pads its 2w+1 relative positions to 2T-1 and multiplies all of them; here the band alone is computed,
    for some rows of queries at a time. (Shaw et al. 2018, arXiv:1803.02155)
    """

    def __init__(self, reference: Any) -> None:
        super().__init__()
        self.heads, self.window = int(reference.n_heads), int(reference.window_size)
        self.conv_q, self.conv_k, self.conv_v = reference.conv_q, reference.conv_k, reference.conv_v
        self.conv_o = reference.conv_o
        self.emb_rel_k, self.emb_rel_v = reference.emb_rel_k, reference.emb_rel_v

    def forward(self, x: Tensor, context: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """`[B, C, T]` -> `[B, C, T]`. `context` is `x`, and every frame counts: no mask."""
        query, key, value = (self._split(conv(x)) for conv in (self.conv_q, self.conv_k, self.conv_v))
        query = query / math.sqrt(query.shape[-1])
        steps, rows = x.shape[-1], _ATTENTION_ROWS if x.device.type == "cpu" else x.shape[-1]
        parts = [self._rows(query[:, :, start : start + rows], key, value, start) for start in range(0, steps, rows)]
        return self.conv_o(torch.cat(parts, dim=2).transpose(2, 3).flatten(1, 2))  # type: ignore[no-any-return]

    def _rows(self, query: Tensor, key: Tensor, value: Tensor, start: int) -> Tensor:
        """Queries `start`, `start + 1`, ... against all keys: `[B, H, n, D]`."""
        scores = torch.matmul(query, key.transpose(2, 3))
        columns, inside = self._band(start, query.shape[2], key.shape[2], query.device)
        columns = columns.expand(*scores.shape[:3], -1)
        band = torch.matmul(query, self.emb_rel_k.transpose(1, 2)) * inside
        scores.scatter_add_(3, columns, band)
        weights = functional.softmax(scores, dim=-1)
        near = weights.gather(3, columns) * inside
        return torch.matmul(weights, value) + torch.matmul(near, self.emb_rel_v)

    def _band(self, start: int, rows: int, steps: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Which keys lie within the window of each query, `[rows, 2w+1]`, and whether they exist."""
        offsets = torch.arange(-self.window, self.window + 1, device=device)
        columns = torch.arange(start, start + rows, device=device)[:, None] + offsets
        return columns.clamp(0, steps - 1), (columns >= 0) & (columns < steps)

    def _split(self, x: Tensor) -> Tensor:
        batch, channels, steps = x.shape
        return x.view(batch, self.heads, channels // self.heads, steps).transpose(2, 3)


def choose_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """`auto`: float16 on CUDA, bfloat16 on a processor that multiplies in it, else float32."""
    if precision != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]
    if device.type == "cuda":
        return torch.float16
    return torch.bfloat16 if device.type == "cpu" and cpu_multiplies_bfloat16() else torch.float32


def build_reference(config: SynthesizerConfig, *, width: int, f0: bool) -> nn.ModuleDict:
    """rvc-python's modules for `config`, weight norm removed, with weights that mean nothing yet.

    Not on the meta device: weight norm there imports a compiler, which takes longer than drawing the weights (from a
    generator that is put back as it was).
    """
    with torch.random.fork_rng(devices=[]):
        network = _reference_parts(config, width=width, f0=f0)
    for module in network.modules():
        if hasattr(module, "weight_g"):
            nn.utils.remove_weight_norm(module)
    return network


def _reference_parts(config: SynthesizerConfig, *, width: int, f0: bool) -> nn.ModuleDict:
    models = import_network_module("lib.infer_pack.models")
    encoder = models.TextEncoder256 if width == CONTENT_WIDTH["v1"] else models.TextEncoder768
    generator = [
        config.inter_channels,
        config.resblock,
        [*config.resblock_kernel_sizes],
        [[*sizes] for sizes in config.resblock_dilation_sizes],
        [*config.upsample_rates],
        config.upsample_initial_channel,
        [*config.upsample_kernel_sizes],
    ]
    text = [
        config.inter_channels,
        config.hidden_channels,
        config.filter_channels,
        config.n_heads,
        config.n_layers,
        config.kernel_size,
        0.0,
    ]
    gin = config.gin_channels
    decoder = (
        models.GeneratorNSF(*generator, gin_channels=gin, sr=config.sample_rate, is_half=False)
        if f0
        else models.Generator(*generator, gin_channels=gin)
    )
    flow = models.ResidualCouplingBlock(config.inter_channels, config.hidden_channels, 5, 1, 3, gin_channels=gin)
    parts = {
        "enc_p": encoder(*text, f0=f0),
        "flow": flow,
        "dec": decoder,
        "emb_g": nn.Embedding(config.n_speakers, gin),
    }
    return nn.ModuleDict(parts)


def load_folded(network: nn.Module, weights: dict[str, Tensor]) -> None:
    """Gives `network` the weights of a checkpoint, weight norm folded, in float32.

    Raises:
        ModelError: weights are missing or of another shape than the checkpoint's `config` says.
    """
    folded = fold_weight_norm(weights)
    wanted = network.state_dict()
    wrong = [name for name, like in wanted.items() if name not in folded or folded[name].shape != like.shape]
    if wrong:
        raise ModelError(
            f"This voice's checkpoint does not hold what its config says: {len(wrong)} of {len(wanted)} tensors are "
            f"missing or of another shape, the first is '{wrong[0]}'. Save or download it anew.",
            code=ErrorCode.BROKEN_CHECKPOINT,
            details={"tensor": wrong[0]},
        )
    network.load_state_dict({name: folded[name] for name in wanted}, assign=True)


def fold_weight_norm(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every `x.weight_g` and `x.weight_v` as one `x.weight`; all in float32, each a tensor of its own."""
    folded = {}
    for name, tensor in weights.items():
        if name.endswith(".weight_v"):
            base = name.removesuffix("_v")
            scale = weights[f"{base}_g"].float()
            folded[base] = torch._weight_norm(tensor.float(), scale, 0)
        elif not name.endswith(".weight_g"):
            folded[name] = tensor.float().clone()
    return folded
