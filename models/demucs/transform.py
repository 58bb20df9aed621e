"""Demucs's Fourier transform and position tables without a host's look at device data. Knows no audio and no files.

demucs's own ask the device several times a segment whether padding and window sums are sound, and compute a table of
sines on the host each time. Each such question empties a GPU's queue and forbids CUDA graphs. Same figures otherwise.
"""

from __future__ import annotations

import torch
from demucs.hdemucs import HDemucs
from demucs.htdemucs import HTDemucs
from demucs.transformer import CrossTransformerEncoder, create_2d_sin_embedding, create_sin_embedding
from torch import Tensor, nn
from torch.nn import functional


class Transform:
    """Frames of `n_fft` samples, a quarter apart, Hann window, scaled by `1 / sqrt(n_fft)`; edges reflected.

    Takes the place of the methods `_spec` and `_ispec` of HTDemucs and HDemucs.
    """

    def __init__(self, n_fft: int, device: torch.device) -> None:
        self.n_fft = n_fft
        self.hop = n_fft // 4
        self.edge = self.hop // 2 * 3
        self.window = torch.hann_window(n_fft, device=device)
        # The sum of the four overlapping squared windows, divided out with the synthesis window.
        self.synthesis = self.window * n_fft**0.5 / (self.window.view(4, self.hop) ** 2).sum(0).repeat(4)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, T]` samples to `[B, C, n_fft / 2, ceil(T / hop)]` complex; the highest band is left out."""
        batch, channels, length = x.shape
        frames = -(-length // self.hop)
        x = _reflected(x, self.edge, self.edge + frames * self.hop - length).view(batch * channels, -1)
        z = torch.stft(x, self.n_fft, self.hop, window=self.window, normalized=True, center=False, return_complex=True)
        return z[:, :-1].view(batch, channels, self.n_fft // 2, frames)

    def inverse(self, z: Tensor, length: int) -> Tensor:
        """`[..., n_fft / 2, frames]` complex to `[..., length]` samples."""
        *lead, _, count = z.shape
        frames = torch.fft.irfft(z.transpose(-1, -2), self.n_fft) * self.synthesis
        frames = frames.reshape(-1, count, 4, self.hop)
        x = z.real.new_zeros(frames.shape[0], count + 3, self.hop)
        for part in range(4):
            x[:, part : part + count] += frames[:, :, part]
        return x.view(*lead, -1)[..., self.edge : self.edge + length]


class Transformer(nn.Module):
    """demucs's cross-domain transformer with its position tables kept; takes its place in HTDemucs."""

    def __init__(self, encoder: CrossTransformerEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self._tables: dict[tuple[int, ...], tuple[Tensor, Tensor]] = {}

    def forward(self, x: Tensor, xt: Tensor) -> tuple[Tensor, Tensor]:
        """Spectrum `[B, C, F, T]` and wave `[B, C, T']`, both in and out."""
        encoder = self.encoder
        bands, frames = x.shape[2:]
        table, table_t = self._positions(x, xt)
        x = encoder.norm_in(x.permute(0, 3, 2, 1).flatten(1, 2)) + table
        xt = encoder.norm_in_t(xt.transpose(1, 2)) + table_t
        for index, (layer, layer_t) in enumerate(zip(encoder.layers, encoder.layers_t, strict=True)):
            if index % 2 == encoder.classic_parity:
                x, xt = layer(x), layer_t(xt)
            else:
                x, xt = layer(x, xt), layer_t(xt, x)
        return x.view(x.shape[0], frames, bands, -1).permute(0, 3, 2, 1), xt.transpose(1, 2)

    def _positions(self, x: Tensor, xt: Tensor) -> tuple[Tensor, Tensor]:
        """Tables `[1, T * F, C]` and `[1, T', C]`, made once for each shape."""
        key = (*x.shape[1:], xt.shape[2])
        if key not in self._tables:
            encoder, channels = self.encoder, x.shape[1]
            bands, frames = x.shape[2:]
            table = create_2d_sin_embedding(channels, bands, frames, x.device, encoder.max_period)  # type: ignore[no-untyped-call]
            table_t = create_sin_embedding(xt.shape[2], channels, device=x.device, max_period=encoder.max_period)
            scale = encoder.weight_pos_embed
            self._tables[key] = (scale * table.permute(0, 3, 2, 1).flatten(1, 2), scale * table_t.transpose(0, 1))
        return self._tables[key]


def streamline(network: nn.Module, device: torch.device) -> None:
    """Puts the classes above into a hybrid network, in place, where its variant is one that they know."""
    if isinstance(network, HTDemucs) or (isinstance(network, HDemucs) and network.hybrid and not network.hybrid_old):
        transform = Transform(network.nfft, device)
        network._spec = transform.forward
        network._ispec = transform.inverse
    encoder = getattr(network, "crosstransformer", None)
    if isinstance(encoder, CrossTransformerEncoder) and encoder.emb == "sin" and encoder.sin_random_shift == 0:
        network.crosstransformer = Transformer(encoder)


def _reflected(x: Tensor, left: int, right: int) -> Tensor:
    """`[B, C, T]` with its edges mirrored outwards; what is too short to be mirrored is first made longer by zeros."""
    missing = max(left, right) - x.shape[-1] + 1
    if missing > 0:
        zeros_right = min(right, missing)
        x = functional.pad(x, (missing - zeros_right, zeros_right))
        left, right = left - (missing - zeros_right), right - zeros_right
    return functional.pad(x, (left, right), mode="reflect")
