"""Faster replacements for parts of demucs's networks, which compute the same results, and reduced precision.

demucs's own transform asks the device several times a segment whether padding and window sums are valid, and computes
position embeddings on the host each time. Each such question empties a GPU's queue.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from demucs.demucs import BLSTM, LocalState
from demucs.hdemucs import HDecLayer, HDemucs, HEncLayer
from demucs.htdemucs import HTDemucs
from demucs.transformer import CrossTransformerEncoder, create_2d_sin_embedding, create_sin_embedding
from torch import nn
from torch.nn import functional as F

_QUERIES_PER_BLOCK = 256  # whose scores fit into a core's cache
_VALUES_PER_CHUNK = 1 << 19  # whose hidden results fit into a processor's cache


def optimize_network(
    network: nn.Module,
    device: torch.device,
    dtype: torch.dtype,
    *,
    reduces_outer: bool = False,
    reduces_convolutions: bool = True,
) -> None:
    """Puts every replacement of this module that helps on `device` into a network, in place.

    Args:
        network: an HTDemucs, HDemucs or Demucs on `device`, in float32.
        dtype: of the inner layers, float32 or bfloat16.
        reduces_outer, reduces_convolutions: see `reduce_precision`.
    """
    assert dtype in (torch.float32, torch.bfloat16), f"Demucs runs in float32 or bfloat16, not {dtype}"
    if dtype != torch.float32:
        reduce_precision(network, outer=reduces_outer, convolutions=reduces_convolutions)
    patch_stft(network, device)
    patch_transformer(network)
    patch_attention(network)
    if device.type == "cpu":
        patch_dconv(network)


# Precision


def reduce_precision(network: nn.Module, *, outer: bool = False, convolutions: bool = True) -> None:
    """Converts the network's inner layers to bfloat16, in place.

    The outermost layer of each branch stays in float32, because its rounding errors would be in the stems unchanged.
    So do layers with LSTMs or local attention (positions above 256 have no exact bfloat16), the spectrogram, all
    normalisation of the input, and the sums of segments. Each layer casts its inputs, so no other layer changes.

    Args:
        outer: converts the first layers of the encoders, too. They move the most bytes. With random weights at full
            size the error of htdemucs is then 53 dB below the signal, otherwise 61 dB.
        convolutions: converts layers with convolutions, too, and not only the transformer's.
    """
    exact = (BLSTM, LocalState) if convolutions else (BLSTM, LocalState, nn.Conv1d, nn.Conv2d)
    for layer, is_inner in _list_layers(network, outer=outer):
        reduced = is_inner and not any(isinstance(part, exact) for part in layer.modules())
        _run_in(layer, torch.bfloat16 if reduced else torch.float32)


def _list_layers(network: nn.Module, *, outer: bool) -> Iterator[tuple[nn.Module, bool]]:
    """Every layer that has weights, and whether it is an inner one; `outer` counts the encoders' first as such."""
    for name in ("encoder", "tencoder"):
        for index, layer in enumerate(getattr(network, name, ())):
            yield layer, outer or index > 0
    for name in ("decoder", "tdecoder"):
        layers = getattr(network, name, ())
        for index, layer in enumerate(layers):
            yield layer, index < len(layers) - 1
    for name in ("channel_upsampler", "channel_downsampler", "channel_upsampler_t", "channel_downsampler_t"):
        if (layer := getattr(network, name, None)) is not None:
            yield layer, True
    if (transformer := getattr(network, "crosstransformer", None)) is not None:
        for layer in (*transformer.layers, *transformer.layers_t):
            yield layer, True
        yield transformer.norm_in, False
        yield transformer.norm_in_t, False
    if (lstm := getattr(network, "lstm", None)) is not None:
        yield lstm, False


def _run_in(layer: nn.Module, dtype: torch.dtype) -> None:
    def cast(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(arg.to(dtype) if isinstance(arg, torch.Tensor) else arg for arg in args)

    layer.to(dtype)
    layer.register_forward_pre_hook(cast)


# Short-time Fourier transform


class STFT:
    """Frames of `n_fft` samples, a quarter apart, Hann window, scaled by `1 / sqrt(n_fft)`; edges reflected.

    Replaces the methods `_spec` and `_ispec` of HTDemucs and HDemucs.
    """

    def __init__(self, n_fft: int, device: torch.device) -> None:
        self.n_fft = n_fft
        self.hop_length = n_fft // 4
        self.edge = self.hop_length // 2 * 3
        self.window = torch.hann_window(n_fft, device=device)
        # The synthesis window is divided by the sum of the four overlapping squared windows.
        squares = self.window.view(4, self.hop_length) ** 2
        self.synthesis_window = self.window * n_fft**0.5 / squares.sum(0).repeat(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[B, C, T]` samples to `[B, C, n_fft / 2, ceil(T / hop_length)]` complex, without the highest frequency."""
        assert x.ndim == 3, f"samples are [B, C, T], not {list(x.shape)}"
        batch, channels, length = x.shape
        frames = -(-length // self.hop_length)
        x = _pad_reflecting(x, self.edge, self.edge + frames * self.hop_length - length)
        z = torch.stft(
            x.view(batch * channels, -1),
            self.n_fft,
            self.hop_length,
            window=self.window,
            normalized=True,
            center=False,
            return_complex=True,
        )
        return z[:, :-1].view(batch, channels, self.n_fft // 2, frames)

    def inverse(self, z: torch.Tensor, length: int) -> torch.Tensor:
        """`[..., n_fft / 2, frames]` complex to `[..., length]` samples."""
        *batch, bands, count = z.shape
        assert bands == self.n_fft // 2, f"the spectrogram has {bands} bands and not {self.n_fft // 2}"
        frames = torch.fft.irfft(z.transpose(-1, -2), self.n_fft) * self.synthesis_window
        frames = frames.reshape(-1, count, 4, self.hop_length)
        x = z.real.new_zeros(frames.shape[0], count + 3, self.hop_length)
        for quarter in range(4):
            x[:, quarter : quarter + count] += frames[:, :, quarter]
        return x.view(*batch, -1)[..., self.edge : self.edge + length]


def patch_stft(network: nn.Module, device: torch.device) -> None:
    """Replaces the transform of a hybrid network, in place. HDemucs variants with other framing keep their own."""
    if isinstance(network, HTDemucs) or (isinstance(network, HDemucs) and network.hybrid and not network.hybrid_old):
        stft = STFT(network.nfft, device)
        network._spec = stft.forward
        network._ispec = stft.inverse


def _pad_reflecting(x: torch.Tensor, left: int, right: int) -> torch.Tensor:
    """Mirrors the edges of `[B, C, T]` outwards; an input too short for that is first extended with zeros."""
    missing = max(left, right) - x.shape[-1] + 1
    if missing > 0:
        zeros_right = min(right, missing)
        x = F.pad(x, (missing - zeros_right, zeros_right))
        left, right = left - (missing - zeros_right), right - zeros_right
    return F.pad(x, (left, right), mode="reflect")


# Transformer


class CrossTransformer(nn.Module):
    """demucs's cross-domain transformer, which computes its position embeddings once for each input shape.

    Args:
        encoder: whose layers are run, with sine embeddings and no random shift of positions.
    """

    def __init__(self, encoder: CrossTransformerEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self._embeddings: dict[tuple[int, ...], tuple[torch.Tensor, torch.Tensor]] = {}

    def forward(self, x: torch.Tensor, xt: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features of the spectrogram `[B, C, F, T]` and of the waveform `[B, C, T']`; returns the same shapes."""
        assert x.ndim == 4 and xt.ndim == 3, f"features are [B, C, F, T] and [B, C, T'], not {x.shape} and {xt.shape}"
        encoder = self.encoder
        bands, frames = x.shape[2:]
        embedding, embedding_t = self._position_embeddings(x, xt)
        x = encoder.norm_in(x.permute(0, 3, 2, 1).flatten(1, 2)) + embedding
        xt = encoder.norm_in_t(xt.transpose(1, 2)) + embedding_t
        for index, (layer, layer_t) in enumerate(zip(encoder.layers, encoder.layers_t, strict=True)):
            if index % 2 == encoder.classic_parity:
                x, xt = layer(x), layer_t(xt)
            else:
                x, xt = layer(x, xt), layer_t(xt, x)
        return x.view(x.shape[0], frames, bands, -1).permute(0, 3, 2, 1), xt.transpose(1, 2)

    def _position_embeddings(self, x: torch.Tensor, xt: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`[1, T * F, C]` and `[1, T', C]`."""
        key = (*x.shape[1:], xt.shape[2])
        if key not in self._embeddings:
            encoder, channels = self.encoder, x.shape[1]
            bands, frames = x.shape[2:]
            grid = create_2d_sin_embedding(channels, bands, frames, x.device, encoder.max_period)  # type: ignore[no-untyped-call]
            line = create_sin_embedding(xt.shape[2], channels, device=x.device, max_period=encoder.max_period)
            scale = encoder.weight_pos_embed
            self._embeddings[key] = (scale * grid.permute(0, 3, 2, 1).flatten(1, 2), scale * line.transpose(0, 1))
        return self._embeddings[key]


def patch_transformer(network: nn.Module) -> None:
    """Replaces the transformer of an HTDemucs, in place. Variants with other position embeddings keep their own."""
    encoder = getattr(network, "crosstransformer", None)
    if isinstance(encoder, CrossTransformerEncoder) and encoder.emb == "sin" and encoder.sin_random_shift == 0:
        network.crosstransformer = CrossTransformer(encoder)


# Attention


class Attention(nn.Module):
    """Replaces a batch-first `nn.MultiheadAttention` without masks, whose CPU kernels gain nothing from bfloat16.

    Args:
        module: whose weights are used.
    """

    def __init__(self, module: nn.MultiheadAttention) -> None:
        super().__init__()
        assert module.batch_first and module.in_proj_weight is not None and module.bias_k is None, (
            "only batch-first attention with one input width and no extra keys is replaced"
        )
        self.num_heads = module.num_heads
        self.in_proj_weight = module.in_proj_weight
        self.in_proj_bias = module.in_proj_bias
        self.out_proj = module.out_proj

    def forward(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **options: Any
    ) -> tuple[torch.Tensor, None]:
        """`[B, T, C]`, `[B, T', C]`, `[B, T', C]` to `[B, T, C]`, and no weights, because no caller asks for them."""
        assert options.get("attn_mask") is None and options.get("key_padding_mask") is None, "masks are not supported"
        heads = attend(*(self._project(part, x) for part, x in enumerate((query, key, value))))
        result: torch.Tensor = self.out_proj(heads.transpose(1, 2).flatten(2))
        return result, None

    def _project(self, part: int, x: torch.Tensor) -> torch.Tensor:
        """The queries (part 0), keys (1) or values (2) of each head, `[B, H, T, D]`."""
        weight = self.in_proj_weight.chunk(3)[part]
        bias = self.in_proj_bias.chunk(3)[part] if self.in_proj_bias is not None else None
        return F.linear(x, weight, bias).view(*x.shape[:2], self.num_heads, -1).transpose(1, 2)


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Softmax attention over `[B, H, T, D]`, `[B, H, T', D]`, `[B, H, T', D]`; returns `[B, H, T, D]`."""
    assert key.shape == value.shape, f"keys {list(key.shape)} and values {list(value.shape)} differ in shape"
    if query.device.type != "cpu" or query.dtype == torch.float32:
        return F.scaled_dot_product_attention(query, key, value)
    result = torch.empty_like(query, memory_format=torch.contiguous_format)
    query = (query * query.shape[-1] ** -0.5).contiguous()
    scores = query.new_empty(2, _QUERIES_PER_BLOCK, key.shape[2])
    for batch in range(query.shape[0]):
        for head in range(query.shape[1]):
            _attend_one_head(query[batch, head], key[batch, head], value[batch, head], scores, result[batch, head])
    return result


def _attend_one_head(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scores: torch.Tensor, result: torch.Tensor
) -> None:
    """Writes one head's `[T, D]` into `result`. Queries are scaled already; `scores` `[2, block, T']` is scratch."""
    key, value = key.t(), value.contiguous()
    for start in range(0, query.shape[0], _QUERIES_PER_BLOCK):
        block = query[start : start + _QUERIES_PER_BLOCK]
        raw, weights = scores[:, : block.shape[0]]
        torch.mm(block, key, out=raw)
        torch.softmax(raw, -1, out=weights)
        torch.mm(weights, value, out=result[start : start + block.shape[0]])


def patch_attention(module: nn.Module) -> None:
    """Replaces every `nn.MultiheadAttention` inside, in place."""
    for name, child in module.named_children():
        if isinstance(child, nn.MultiheadAttention) and child.batch_first and child.in_proj_weight is not None:
            setattr(module, name, Attention(child))
        else:
            patch_attention(child)


# Residual branches


class ChunkedBatch(nn.Module):
    """Runs a module on a few entries of its batch at a time. The module must treat batch entries independently.

    The residual branches (`dconv`) of the spectrogram's layers take every band as a batch entry of its own. Their
    hidden results are larger than any cache, and moving them through memory takes longer than the arithmetic.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[N, C, T]` to `[N, C, T]`."""
        assert x.ndim == 3, f"the input is [N, C, T], not {list(x.shape)}"
        size = max(_VALUES_PER_CHUNK // (x.shape[1] * x.shape[2]), 1)
        result = torch.empty_like(x, memory_format=torch.contiguous_format)
        for start in range(0, len(x), size):
            result[start : start + size] = self.module(x[start : start + size])
        return result


def patch_dconv(network: nn.Module) -> None:
    """Wraps every residual branch over frequency bands in a `ChunkedBatch`, in place."""
    for layer in network.modules():
        branch = getattr(layer, "dconv", None)
        if isinstance(layer, HEncLayer | HDecLayer) and layer.freq and branch is not None:
            setattr(layer, "dconv", ChunkedBatch(branch))  # noqa: B010  (declared as another class)
