"""A Mel-Band RoFormer that can be trained; its state has the published names, so that the worker loads it.

Wang et al., Mel-Band RoFormer for Music Source Separation (arXiv 2310.01809).
"""

import torch
import torch.nn.functional as F
from torch import nn

from models.roformer.bands import index_masks, make_mel_bands


class MelBandRoformer(nn.Module):
    """Gives one stem of a stereo mix, by a complex mask. The arguments are those of the published yaml files."""

    _positions: torch.Tensor
    _weights: torch.Tensor
    _window: torch.Tensor

    def __init__(  # noqa: PLR0913
        self,
        *,
        dim: int,
        depth: int,
        heads: int,
        dim_head: int,
        num_bands: int,
        sample_rate: int,
        stft_n_fft: int,
        stft_hop_length: int,
        mlp_expansion_factor: int,
        **_: object,
    ) -> None:
        super().__init__()
        self._n_fft, self._hop = stft_n_fft, stft_hop_length
        bands = make_mel_bands(sample_rate, stft_n_fft, num_bands)
        positions, weights = index_masks(bands, stft_n_fft // 2 + 1)
        self._bands = bands
        self.register_buffer("_positions", torch.from_numpy(positions), persistent=False)
        self.register_buffer("_weights", torch.from_numpy(weights), persistent=False)
        self.register_buffer("_window", torch.hann_window(stft_n_fft), persistent=False)
        self.band_split = _BandSplit([4 * len(band) for band in bands], dim)
        self.layers = nn.ModuleList(
            nn.ModuleList(_Transformer(dim, heads, dim_head) for _axis in range(2)) for _layer in range(depth)
        )
        self.mask_estimators = nn.ModuleList([_MaskEstimator(dim, dim * mlp_expansion_factor, bands)])

    def forward(self, mix: torch.Tensor) -> torch.Tensor:
        """Separates `[B, 2, T]`; the stem has the same shape."""
        batch, channels, length = mix.shape
        spectrum = torch.stft(mix.flatten(0, 1), self._n_fft, self._hop, window=self._window, return_complex=True)
        spectrum = spectrum.reshape(batch, channels, *spectrum.shape[1:]).permute(0, 3, 2, 1)  # [B, t, F, C]
        values = torch.view_as_real(spectrum)
        x = self.band_split([values[:, :, band.start : band.stop].flatten(2) for band in self._bands])  # [B, N, t, D]
        for pair in self.layers:
            assert isinstance(pair, nn.ModuleList)
            x = pair[0](x.flatten(0, 1)).view_as(x)
            turned = x.transpose(1, 2)
            x = pair[1](turned.flatten(0, 1)).view_as(turned).transpose(1, 2)
        masks = self.mask_estimators[0](x)  # [B, t, bins of all bands, C, 2]
        mask = sum(
            masks[:, :, index] * weight[:, None, None]
            for index, weight in zip(self._positions, self._weights, strict=True)
        )
        masked = spectrum * torch.view_as_complex(mask.float().contiguous())
        masked = torch.cat([torch.zeros_like(masked[:, :, :1]), masked[:, :, 1:]], dim=2)  # as `zero_dc` does
        stem = torch.istft(
            masked.permute(0, 3, 2, 1).flatten(0, 1), self._n_fft, self._hop, window=self._window, length=length
        )
        return stem.view_as(mix)


class _Norm(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        normalized: torch.Tensor = F.normalize(x.float(), dim=-1) * (x.shape[-1] ** 0.5 * self.gamma)
        return normalized


class _BandSplit(nn.Module):
    def __init__(self, widths: list[int], dim: int) -> None:
        super().__init__()
        self.to_features = nn.ModuleList(nn.Sequential(_Norm(width), nn.Linear(width, dim)) for width in widths)

    def forward(self, bands: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack([project(band) for project, band in zip(self.to_features, bands, strict=True)], dim=1)


class _Transformer(nn.Module):
    """One layer of attention and feed-forward, and a norm."""

    def __init__(self, dim: int, heads: int, dim_head: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.ModuleList([_Attention(dim, heads, dim_head), _FeedForward(dim)])])
        self.norm = _Norm(dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.layers:
            assert isinstance(block, nn.ModuleList)
            for part in block:
                x = x + part(x)
        normalized: torch.Tensor = self.norm(x)
        return normalized


class _FeedForward(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.net = nn.Sequential(_Norm(dim), nn.Linear(dim, 4 * dim), nn.GELU(), nn.Identity(), nn.Linear(4 * dim, dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        projected: torch.Tensor = self.net(x)
        return projected


class _Rotary(nn.Module):
    freqs: torch.Tensor

    def __init__(self, dim_head: int) -> None:
        super().__init__()
        self.register_buffer("freqs", 10_000.0 ** -(torch.arange(0, dim_head, 2) / dim_head))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Rotates neighbouring pairs of `[B, heads, T, dim_head]` by their position."""
        angles = torch.arange(x.shape[2], device=x.device)[:, None] * self.freqs
        even, odd = x.float()[..., ::2], x.float()[..., 1::2]
        cos, sin = angles.cos(), angles.sin()
        return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)


class _Attention(nn.Module):
    def __init__(self, dim: int, heads: int, dim_head: int) -> None:
        super().__init__()
        self._heads = heads
        self.norm = _Norm(dim)
        self.rotary_embed = _Rotary(dim_head)
        self.to_qkv = nn.Linear(dim, 3 * heads * dim_head, bias=False)
        self.to_gates = nn.Linear(dim, heads)
        self.to_out = nn.Sequential(nn.Linear(heads * dim_head, dim, bias=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[B, T, D]` to the same shape."""
        x = self.norm(x)
        q, k, v = self.to_qkv(x).view(*x.shape[:2], 3, self._heads, -1).permute(2, 0, 3, 1, 4)
        q, k = self.rotary_embed(q), self.rotary_embed(k)
        weights = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1)
        mixed = weights @ v * self.to_gates(x).sigmoid().transpose(1, 2)[..., None]
        projected: torch.Tensor = self.to_out(mixed.transpose(1, 2).flatten(2))
        return projected


class _MaskEstimator(nn.Module):
    """One small network for each band: two linear layers, tanh between them, a gate behind them."""

    def __init__(self, dim: int, hidden: int, bands: tuple[range, ...]) -> None:
        super().__init__()
        self.to_freqs = nn.ModuleList(
            nn.Sequential(
                nn.Sequential(nn.Linear(dim, hidden), nn.Tanh(), nn.Linear(hidden, 8 * len(band))), nn.GLU(dim=-1)
            )
            for band in bands
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features `[B, N, t, D]` to masks `[B, t, bins of all bands, C, 2]`."""
        masks = [estimate(x[:, band]).unflatten(-1, (-1, 2, 2)) for band, estimate in enumerate(self.to_freqs)]
        return torch.cat(masks, dim=2)
