"""The network of Mel-Band RoFormer and BS RoFormer: from a stereo mix to stems, by one complex mask for each stem.

Lu et al., Music Source Separation with Band-Split RoPE Transformer (arXiv 2309.02612); Wang et al., Mel-Band RoFormer
for Music Source Separation (arXiv 2310.01809).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import nn

from models.checkpoints.tensor_loader import TensorLoader
from models.roformer.bands import group_equal_widths, index_masks
from models.roformer.config import RoformerConfig
from models.runtime.dtype import ROFORMER, Precision, inference_dtype

TensorReader = Callable[[Sequence[str]], Mapping[str, torch.Tensor]]
"""Reads the tensors whose names begin with one of the prefixes, in their stored dtypes, on the CPU."""

_TRUNK = ("band_split.", "layers.", "final_norm.", "linear_62_bias_0", "linear_64_bias_0")
_NORM_EPS = 1e-24  # of the squared norm, as F.normalize bounds the norm
# Tokens that one layer works on at once on a CPU, whose caches hold their activations.
_CPU_TOKENS = 1024
# Attention scores that are in memory at once on a CPU: those of 8 heads and 1024 positions.
_CPU_SCORES = 8 * 1024 * 1024


class RoformerNetwork(nn.Module):
    """A RoFormer, ready to run on batches. Mask estimators are loaded when they are first asked for.

    Args:
        config: its sizes.
        read: reads its tensors.
        device: where it runs.
        precision: `float32` for the reference's results; `bfloat16`: linear layers and attention only, as `auto` takes
            it if the device multiplies bfloat16.

    Raises:
        CheckpointError: a tensor is missing, is left over or has another shape than the network's sizes ask for.
    """

    def __init__(
        self, config: RoformerConfig, read: TensorReader, device: torch.device | str, precision: Precision = "auto"
    ) -> None:
        super().__init__()
        self.config = config
        self.device = torch.device(device)
        self._dtype = inference_dtype(ROFORMER, self.device, precision)
        self._read = read
        load = TensorLoader(read(_TRUNK), str(self.device))
        self.band_split = BandSplit(config, load)
        self.layers = nn.ModuleList(
            Transformer(config, load, f"layers.{layer}.{axis}", depth, self._dtype)
            for layer in range(config.depth)
            for axis, depth in enumerate((config.time_depth, config.freq_depth))
        )
        self.gamma = freeze(load("final_norm.gamma", config.dim)) if config.kind == "bs" else None
        load.check_all_used("layers.")
        load.check_all_used("band_split.")
        self.mask_estimators: nn.ModuleDict = nn.ModuleDict()
        positions, weights = index_masks(config.bands, config.num_bins)
        self._positions = torch.from_numpy(positions).to(self.device)
        self._weights = torch.from_numpy(weights).to(self.device)[:, None, None, :, None, None]
        self._window = torch.hann_window(config.win_length, device=self.device)

    @property
    def memory_bytes(self) -> int:
        """Bytes of the weights that have been loaded."""
        return sum(weight.nbytes for weight in self.parameters())

    def prepare(self, columns: Sequence[int]) -> None:
        """Loads the mask estimators of the stems with these indices in `config.stems`, if they are not loaded yet.

        Raises:
            CheckpointError: as the class.
        """
        for column in columns:
            if str(column) not in self.mask_estimators:
                prefix = f"mask_estimators.{self.config.mask_estimators[column]}."
                load = TensorLoader(self._read([prefix]), str(self.device), prefix)
                self.mask_estimators[str(column)] = MaskEstimator(self.config, load, self._dtype)
                load.check_all_used()

    @torch.inference_mode()
    def forward(self, mix: torch.Tensor, columns: Sequence[int] | None = None) -> torch.Tensor:
        """Separates a batch.

        Args:
            mix: `[B, 2, T]` float32, T above `n_fft // 2`.
            columns: which of `config.stems`; None: all.

        Returns:
            `[B, S, 2, T]` float32, in the order of `columns`.
        """
        config = self.config
        batch, channels, length = mix.shape
        assert channels == 2, f"mixes are [B, 2, T], not {list(mix.shape)}"
        columns = range(len(config.stems)) if columns is None else columns
        self.prepare(columns)
        # A network for mono gets each channel as a mix of its own.
        spectrum = self._transform(mix.reshape(-1, config.channels, length))
        features = self._encode(spectrum)
        stems = []
        for column in columns:
            mask = self._combine_masks(self.mask_estimators[str(column)](features, len(spectrum)))
            stems.append(self._invert(spectrum * torch.view_as_complex(mask), length))
        separated = torch.stack(stems, dim=1).reshape(batch, -1, len(stems), config.channels, length)
        return separated.transpose(1, 2).reshape(batch, len(columns), 2, length)

    def _transform(self, mix: torch.Tensor) -> torch.Tensor:
        """`[B, C, T]` to complex `[B, t, F, C]`."""
        config = self.config
        spectrum = torch.stft(
            mix.flatten(0, 1),
            config.n_fft,
            config.hop_length,
            config.win_length,
            self._window,
            normalized=config.normalized,
            return_complex=True,
        )
        return spectrum.reshape(*mix.shape[:2], *spectrum.shape[1:]).permute(0, 3, 2, 1).contiguous()

    def _invert(self, spectrum: torch.Tensor, length: int) -> torch.Tensor:
        """Complex `[B, t, F, C]` to `[B, C, T]`."""
        config = self.config
        if config.zero_dc:
            spectrum[:, :, 0] = 0
        waveform = torch.istft(
            spectrum.permute(0, 3, 2, 1).flatten(0, 1),
            config.n_fft,
            config.hop_length,
            config.win_length,
            self._window,
            normalized=config.normalized,
            length=length,
        )
        return waveform.reshape(len(spectrum), config.channels, length)

    def _encode(self, spectrum: torch.Tensor) -> torch.Tensor:
        """Complex `[B, t, F, C]` to normalized features `[N, B * t, D]`, one for each band, frame and mix."""
        x = self.band_split(spectrum)  # [B, N, t, D]
        total = torch.zeros_like(x) if self.config.skip_connection else None
        for index, layer in enumerate(self.layers):
            along_time = index % 2 == 0
            if along_time and total is not None:
                x += total
            x = layer(x.flatten(0, 1)).view_as(x).transpose(1, 2).contiguous()
            if not along_time and total is not None:
                total += x
        if self.gamma is not None:
            x = normalize(x) * self.gamma
        features: torch.Tensor = x.permute(1, 0, 2, 3).reshape(x.shape[1], -1, x.shape[-1]).to(self._dtype)
        return features

    def _combine_masks(self, masks: torch.Tensor) -> torch.Tensor:
        """Averages the masks of all bands, `[B, t, values, C, 2]`, in each bin: `[B, t, F, C, 2]`."""
        if len(self._positions) == 1:
            return masks
        parts = (masks.index_select(2, positions) for positions in self._positions)
        return torch.stack([part.mul_(weight) for part, weight in zip(parts, self._weights, strict=True)]).sum(dim=0)


class BandSplit(nn.Module):
    """Projects the bins of each band to one vector. Bands of equal width that are neighbours are projected together.

    Args:
        config: the network's sizes.
        load: hands out its tensors.
    """

    def __init__(self, config: RoformerConfig, load: TensorLoader) -> None:
        super().__init__()
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        self._dim = config.dim
        for run in group_equal_widths(config.bands):
            width = 2 * config.channels * len(config.bands[run.start])
            names = [f"band_split.to_features.{band}" for band in range(run.start, run.stop)]
            gammas = torch.stack([load(f"{name}.0.gamma", width) for name in names])
            weights = torch.stack([load(f"{name}.1.weight", config.dim, width) for name in names])
            self.weights.append(freeze(weights * gammas[:, None]))
            self.biases.append(freeze(torch.stack([load(f"{name}.1.bias", config.dim) for name in names])[:, None]))
        bins = [index for band in config.bands for index in band]
        is_adjacent = bins == list(range(config.num_bins))
        self._bins = None if is_adjacent else torch.tensor(bins, device=self.weights[0].device)

    def forward(self, spectrum: torch.Tensor) -> torch.Tensor:
        """Complex `[B, t, F, C]` to `[B, N, t, D]`."""
        if self._bins is not None:
            spectrum = spectrum.index_select(2, self._bins)
        values = torch.view_as_real(spectrum).flatten(2).flatten(0, 1)
        features, start = [], 0
        for weight, bias in zip(self.weights, self.biases, strict=True):
            bands, _, width = weight.shape
            part = values[:, start : start + bands * width].reshape(len(values), bands, width)
            features.append(torch.baddbmm(bias, normalize(part).transpose(0, 1), weight.mT))
            start += bands * width
        batch, frames = spectrum.shape[:2]
        return torch.cat(features, dim=0).reshape(-1, batch, frames, self._dim).transpose(0, 1).contiguous()


class Transformer(nn.Module):
    """Layers of attention and feed-forward along one axis; in a Mel-Band RoFormer, a norm follows.

    Args:
        config: the network's sizes.
        load: hands out its tensors.
        name: of the transformer, before the names of its tensors.
        depth: number of layers.
        dtype: of the linear layers and the attention.
    """

    def __init__(self, config: RoformerConfig, load: TensorLoader, name: str, depth: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TransformerLayer(config, load, f"{name}.layers.{i}", dtype) for i in range(depth))
        self.gamma = freeze(load(f"{name}.norm.gamma", config.dim)) if config.kind == "mel" else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[n, L, D]` float32 to the same shape; `x` is changed in place."""
        rows = len(x) if x.is_cuda else max(1, _CPU_TOKENS // x.shape[1])
        for start in range(0, len(x), rows):
            for layer in self.layers:
                layer(x[start : start + rows])
        return x if self.gamma is None else normalize(x).mul_(self.gamma)


class AttentionSizes(Protocol):
    """What a layer needs to know of its network.

    Attributes:
        dim: of the residual stream.
        num_attention_heads, head_dim: of the attention.
    """

    @property
    def dim(self) -> int: ...
    @property
    def num_attention_heads(self) -> int: ...
    @property
    def head_dim(self) -> int: ...


class TransformerLayer(nn.Module):
    """Self-attention with rotary positions and a gate for each head, then a feed-forward network.

    The norms' factors are multiplied into the linear layers that follow them, and the projections of queries, keys,
    values and gates are one. Queries and keys have the even dimensions of each head before the odd ones, so that
    rotating is done on halves; their products stay the same.

    Args:
        config, load, dtype: as `Transformer` takes them.
        name: of the layer.
    """

    def __init__(self, config: AttentionSizes, load: TensorLoader, name: str, dtype: torch.dtype) -> None:
        super().__init__()
        dim, heads, size = config.dim, config.num_attention_heads, config.head_dim
        inner = heads * size
        self._heads, self._dtype = heads, dtype
        self.frequencies = freeze(load(f"{name}.0.rotary_embed.freqs", size // 2))
        qkv = load(f"{name}.0.to_qkv.weight", 3 * inner, dim)
        bias = self._load_bias(load, f"{name}.0.to_qkv.bias", "linear_62_bias_0", 3 * inner)
        gates = load(f"{name}.0.to_gates.weight", heads, dim)
        halves = torch.arange(size, device=qkv.device).reshape(-1, 2).T.flatten()
        order = torch.arange(3 * inner, device=qkv.device).reshape(3, heads, size)
        order[:2] = order[:2][..., halves]
        order = order.flatten()
        attention_gamma = load(f"{name}.0.norm.gamma", dim)
        self.weight_in = freeze((torch.cat([qkv[order], gates]) * attention_gamma).to(dtype))
        self.bias_in = freeze(torch.cat([bias[order], load(f"{name}.0.to_gates.bias", heads)]).to(dtype))
        self.weight_out = freeze(load(f"{name}.0.to_out.0.weight", dim, inner).to(dtype))
        self.bias_out = freeze(self._load_bias(load, f"{name}.0.to_out.0.bias", "linear_64_bias_0", dim).to(dtype))
        hidden = load(f"{name}.1.net.1.weight", -1, dim)
        self.weight_up = freeze((hidden * load(f"{name}.1.net.0.gamma", dim)).to(dtype))
        self.bias_up = freeze(load(f"{name}.1.net.1.bias", len(hidden)).to(dtype))
        self.weight_down = freeze(load(f"{name}.1.net.4.weight", dim, len(hidden)).to(dtype))
        self.bias_down = freeze(load(f"{name}.1.net.4.bias", dim).to(dtype))
        self._rotation: tuple[torch.Tensor, torch.Tensor] | None = None

    def forward(self, x: torch.Tensor) -> None:
        """Adds to `[n, L, D]` float32, in place."""
        heads, inner = self._heads, self.weight_out.shape[1]
        projected = F.linear(normalize(x).to(self._dtype), self.weight_in, self.bias_in)
        qkv = projected[..., : 3 * inner].view(*x.shape[:2], 3, heads, -1)
        queries, keys = self._rotate(qkv[:, :, :2]).permute(2, 0, 3, 1, 4)
        attended = attend(queries, keys, qkv[:, :, 2].transpose(1, 2)).transpose(1, 2)
        gates = projected[..., 3 * inner :].sigmoid().unsqueeze(-1)
        x += F.linear((attended * gates).flatten(2), self.weight_out, self.bias_out)
        hidden = F.gelu(F.linear(normalize(x).to(self._dtype), self.weight_up, self.bias_up))
        x += F.linear(hidden, self.weight_down, self.bias_down)

    def _rotate(self, pairs: torch.Tensor) -> torch.Tensor:
        """Turns the two halves of each head by the angles of their position, and scales the queries as `attend` needs
        them: `[n, L, 2, heads, size]`."""
        length, size = pairs.shape[1], pairs.shape[-1]
        if self._rotation is None or len(self._rotation[0]) != length:
            positions = torch.arange(length, device=pairs.device, dtype=torch.float32)
            angles = torch.outer(positions, self.frequencies)
            scales = torch.tensor([size**-0.5, 1.0], device=pairs.device)[:, None, None]
            self._rotation = (
                (torch.cat([angles.cos(), angles.cos()], dim=1)[:, None, None] * scales).to(self._dtype),
                (torch.cat([-angles.sin(), angles.sin()], dim=1)[:, None, None] * scales).to(self._dtype),
            )
        cosines, sines = self._rotation
        first, second = pairs.chunk(2, dim=-1)
        return torch.addcmul(pairs * cosines, torch.cat([second, first], dim=-1), sines)

    @staticmethod
    def _load_bias(load: TensorLoader, name: str, shared: str, size: int) -> torch.Tensor:
        """Loads a bias that most models do not have, and that all layers of some share."""
        for candidate in (name, shared):
            if candidate in load:
                return load(candidate, size)
        return torch.zeros(size, device=load.device)


class MaskEstimator(nn.Module):
    """Estimates one stem's mask from the features of each band, by a small network for each band.

    Args:
        config: the network's sizes.
        load: hands out its tensors.
        dtype: of the linear layers.
    """

    def __init__(self, config: RoformerConfig, load: TensorLoader, dtype: torch.dtype) -> None:
        super().__init__()
        self._channels, self._bands = config.channels, group_equal_widths(config.bands)
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        last = config.mask_linears - 1
        inputs = config.dim
        for index in range(last):
            outputs = load(f"to_freqs.0.0.{2 * index}.bias", -1).numel()
            self._add(load, range(len(config.bands)), 2 * index, outputs, inputs, dtype)
            inputs = outputs
        for run in self._bands:
            width = 2 * config.channels * len(config.bands[run.start])
            self._add(load, range(run.start, run.stop), 2 * last, 2 * width, inputs, dtype)

    def _add(  # noqa: PLR0913  (sizes of one layer)
        self, load: TensorLoader, bands: Sequence[int], index: int, outputs: int, inputs: int, dtype: torch.dtype
    ) -> None:
        names = [f"to_freqs.{band}.0.{index}" for band in bands]
        weights = torch.stack([load(f"{name}.weight", outputs, inputs).to(dtype) for name in names])
        biases = torch.stack([load(f"{name}.bias", outputs).to(dtype) for name in names])
        self.weights.append(freeze(weights))
        self.biases.append(freeze(biases[:, None]))

    def forward(self, features: torch.Tensor, batch: int) -> torch.Tensor:
        """`[N, B * t, D]` to float32 `[B, t, values, C, 2]`: the masks of all bands, one after the other."""
        num_hidden = len(self.weights) - len(self._bands)
        masks = []
        for run, bands in enumerate(self._bands):
            hidden = features[bands]
            for weight, bias in zip(self.weights[:num_hidden], self.biases[:num_hidden], strict=True):
                hidden = torch.baddbmm(bias[bands], hidden, weight[bands].mT).tanh_()
            weight, bias = self.weights[num_hidden + run], self.biases[num_hidden + run]
            mask = F.glu(torch.baddbmm(bias, hidden, weight.mT), dim=-1)
            masks.append(mask.transpose(0, 1).flatten(1))
        together = torch.cat(masks, dim=1).float()
        return together.reshape(batch, len(together) // batch, -1, self._channels, 2)


def attend(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Attention of queries that are scaled already, `[n, heads, L, size]` each, to the same shape.

    In bfloat16 on a CPU, products of whole matrices take two thirds of the time of torch's fused attention, which
    multiplies small blocks. They round the scores to bfloat16, which costs 0.4 dB of 41 dB.
    """
    if queries.device.type != "cpu" or queries.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(queries, keys, values, scale=1.0)
    count, heads, length, size = queries.shape
    result = queries.new_empty(count, length, heads, size).transpose(1, 2)
    rows = min(length, max(1, _CPU_SCORES // (heads * length)))
    step = max(1, _CPU_SCORES // (heads * length * rows))
    for start in range(0, count, step):
        part = slice(start, start + step)
        for first in range(0, length, rows):
            scores = queries[part, :, first : first + rows] @ keys[part].mT
            torch.softmax(scores, dim=-1, out=scores)
            result[part, :, first : first + rows] = scores @ values[part]
    return result


def normalize(x: torch.Tensor) -> torch.Tensor:
    """Scales the last dimension to a root mean square of 1; zeros stay zeros."""
    if x.device.type != "cpu":
        return F.rms_norm(x, x.shape[-1:], eps=_NORM_EPS / x.shape[-1])
    # On a CPU rms_norm is made of twice as many steps.
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    scale: torch.Tensor = norm.clamp_min_(_NORM_EPS**0.5).reciprocal_().mul_(x.shape[-1] ** 0.5)
    return x * scale


def freeze(tensor: torch.Tensor) -> nn.Parameter:
    """Makes a weight that is not trained."""
    return nn.Parameter(tensor, requires_grad=False)
