"""EnCodec as a value: sound to codes and back, mono or as two interleaved sides. Knows no language model.

Both formats, transformers' and audiocraft's own, become the same network; all in float32.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from models.checkpoints.hf_folder import read_settings
from models.checkpoints.tensor_loader import TensorLoader, read_tensors
from models.encodec.seanet import Layer, Plan, decoder, encoder

CHUNK_S = 10.0  # decoded at a time: the widest layer takes 8 MB a second
MARGIN = 16  # frames beside a chunk; what a sample hears of the layers after the LSTM is less than 4

FINAL_ACTIVATIONS: Mapping[str, Layer] = {"Tanh": torch.tanh}
# Each size and way by its name in transformers' `config.json`, and what it is where that leaves it out.
HUB_PLAN: Mapping[str, tuple[str, Any]] = {
    "channels": ("audio_channels", 1),
    "filters": ("num_filters", 32),
    "dimension": ("hidden_size", 128),
    "ratios": ("upsampling_ratios", (8, 5, 4, 2)),
    "residual_layers": ("num_residual_layers", 1),
    "kernel": ("kernel_size", 7),
    "last_kernel": ("last_kernel_size", 7),
    "residual_kernel": ("residual_kernel_size", 3),
    "dilation": ("dilation_growth_rate", 2),
    "compress": ("compress", 2),
    "lstm": ("num_lstm_layers", 2),
    "causal": ("use_causal_conv", True),
    "pad_mode": ("pad_mode", "reflect"),
    "trim_right": ("trim_right_ratio", 1.0),
    "shortcut": ("use_conv_shortcut", True),
}


@dataclass(frozen=True, eq=False)
class EnCodec:
    """A loaded network for one side.

    Args:
        sample_rate: Hz.
        books: `[card, D]` each.
        encoder: sound `[B, C, samples]` to `[B, D, frames]`.
        decoder: `[B, D, frames]` to sound: the layers at the frames' rate, and those after them.
        nbytes: of all weights.
    """

    plan: Plan
    sample_rate: int
    books: tuple[torch.Tensor, ...]
    encoder: list[Layer]
    decoder: tuple[list[Layer], list[Layer]]
    nbytes: int


class Codec:
    """A codec as a language model uses it.

    Args:
        codebooks: how many of the network's are in use, for one side.
        stereo: two mono sides with their codebooks interleaved, as MusicGen's stereo models have it.
    """

    def __init__(self, network: EnCodec, *, codebooks: int, stereo: bool = False) -> None:
        self._network, self._stereo = network, stereo
        self.sample_rate = network.sample_rate
        self.hop_length = network.plan.hop_length
        self.channels = 2 if stereo else network.plan.channels
        self.codebooks = codebooks * (2 if stereo else 1)
        assert len(network.books) >= codebooks, "describe() has seen to that"
        self._books = network.books[:codebooks]

    @property
    def frame_rate(self) -> float:
        return self.sample_rate / self.hop_length

    @property
    def nbytes(self) -> int:
        return self._network.nbytes

    def sides(self, codes: torch.Tensor) -> torch.Tensor:
        """`[B, K, F]` to `[sides, B, K / sides, F]`."""
        batch, codebooks, frames = codes.shape
        count = 2 if self._stereo else 1
        return codes.reshape(batch, codebooks // count, count, frames).permute(2, 0, 1, 3)

    def encode(self, waveform: torch.Tensor) -> torch.Tensor:
        """`[B, C, samples]` to `[B, K, F]` codes."""
        batch, channels, _ = waveform.shape
        assert channels == self.channels
        mono = waveform.reshape(batch * channels, 1, -1) if self._stereo else waveform
        residual = _through(self._network.encoder, mono).transpose(1, 2)
        codes = []
        for book in self._books:
            nearest = torch.addmm(book.square().sum(1), residual.flatten(0, 1), book.T, alpha=-2).argmin(-1)
            codes.append(nearest.view(residual.shape[:2]))
            residual = residual - book[codes[-1]]
        made = torch.stack(codes, dim=1)
        return made.view(batch, -1, *made.shape[1:]).transpose(1, 2).flatten(1, 2)

    def latent(self, codes: torch.Tensor) -> torch.Tensor:
        """`[B, K, F]` codes of one side to `[B, D, F]`."""
        return torch.stack([book[codes[:, k]] for k, book in enumerate(self._books)]).sum(0).transpose(1, 2)

    def decode(self, codes: torch.Tensor, *, on_chunk: Callable[[float], None] = lambda done: None) -> torch.Tensor:
        """`[B, K, F]` codes to `[B, C, samples]`, in bounded memory whatever the length.

        The layers at frame rate, with the LSTM, see the whole; the others, which see less than `MARGIN` frames, take it
        in chunks. So there is no seam: the result is that of one pass. `on_chunk` is called with 0..1 before each.
        """
        sides = self.sides(codes)
        hidden = self.latent(sides.flatten(0, 1))
        at_frames, after = self._network.decoder
        hidden = _through(at_frames, hidden)
        chunk, frames = int(CHUNK_S * self.frame_rate), hidden.shape[-1]
        pieces = []
        for start in range(0, frames, chunk):
            on_chunk(start / frames)
            end, left = min(start + chunk, frames), max(start - MARGIN, 0)
            piece = _through(after, hidden[..., left : end + MARGIN])
            pieces.append(piece[..., (start - left) * self.hop_length : (end - left) * self.hop_length])
        return torch.cat(torch.cat(pieces, dim=-1).chunk(len(sides)), dim=1)


def _through(layers: list[Layer], x: torch.Tensor) -> torch.Tensor:
    for layer in layers:
        x = layer(x)
    return x


def from_folder(folder: Path, device: str) -> EnCodec:
    """From transformers' format.

    Raises:
        KeyError, ValueError: tensors are missing or of another shape, or a setting asks for something else.
    """
    settings = read_settings(folder)
    _demand("normalize", settings.get("normalize", False), False)
    _demand("norm_type", settings.get("norm_type", "weight_norm"), "weight_norm")
    plan = Plan(**{part: type(usual)(settings.get(name, usual)) for part, (name, usual) in HUB_PLAN.items()})
    return _built(plan, int(settings.get("sampling_rate", 24_000)), read_tensors(folder), device)


def from_audiocraft(state: Mapping[str, torch.Tensor], settings: Mapping[str, Any], device: str) -> EnCodec:
    """From audiocraft's own format; raises as `from_folder`."""
    encodec, seanet = settings["encodec"], settings["seanet"]
    ways = seanet.get("decoder") or {}
    _demand("autoencoder", encodec.get("autoencoder"), "seanet")
    _demand("quantizer", encodec.get("quantizer"), "rvq")
    _demand("renormalize", bool(encodec.get("renormalize")), False)
    _demand("activation", seanet.get("activation", "ELU"), "ELU")
    _demand("alpha", (seanet.get("activation_params") or {}).get("alpha", 1.0), 1.0)
    _demand("channels", seanet["channels"], encodec["channels"])
    _demand("encoder", bool(seanet.get("encoder")), False)
    _demand("norm", seanet.get("norm", "none"), "weight_norm", "none")
    _demand("final_activation", ways.get("final_activation"), None, *FINAL_ACTIVATIONS)
    _demand("final_activation_params", bool(ways.get("final_activation_params")), False)
    plan = Plan(
        channels=int(encodec["channels"]),
        filters=int(seanet["n_filters"]),
        dimension=int(seanet["dimension"]),
        ratios=tuple(seanet["ratios"]),
        residual_layers=int(seanet["n_residual_layers"]),
        kernel=int(seanet.get("kernel_size", 7)),
        last_kernel=int(seanet.get("last_kernel_size", 7)),
        residual_kernel=int(seanet.get("residual_kernel_size", 3)),
        dilation=int(seanet.get("dilation_base", 2)),
        compress=int(seanet.get("compress", 2)),
        lstm=int(seanet.get("lstm") or 0),
        causal=bool(seanet.get("causal")),
        pad_mode=str(seanet.get("pad_mode", "reflect")),
        trim_right=float(ways.get("trim_right_ratio", 1.0)),
        shortcut=not seanet.get("true_skip", True),
        final=FINAL_ACTIVATIONS.get(ways.get("final_activation") or ""),
    )
    return _built(plan, int(encodec["sample_rate"]), state, device)


def _demand(name: str, found: object, *wanted: object) -> None:
    if found not in wanted:
        raise ValueError(f"codec with {name} = {found}")


def _built(plan: Plan, sample_rate: int, state: Mapping[str, torch.Tensor], device: str) -> EnCodec:
    """The network with these tensors, whosever names they have."""
    named = {_new_name(name): tensor for name, tensor in state.items()}
    parts = [TensorLoader(named, device, prefix) for prefix in ("encoder.", "decoder.", "quantizer.layers.")]
    count = 1 + max(int(name.split(".")[2]) for name in named if name.startswith("quantizer.layers."))
    made = encoder(plan, parts[0]), decoder(plan, parts[1])
    books = tuple(parts[2](f"{index}.codebook.embed", -1, plan.dimension) for index in range(count))
    return EnCodec(plan, sample_rate, books, *made, nbytes=sum(part.nbytes for part in parts))


def _new_name(name: str) -> str:
    """audiocraft's name of a tensor, or an older one of transformers, as transformers' own."""
    name = re.sub(r"^(encoder|decoder)\.model\.", r"\1.layers.", name)
    name = re.sub(r"\.(conv\.conv|convtr\.convtr)\.", ".conv.", name)
    name = name.replace(".parametrizations.weight.original0", ".weight_g")
    name = name.replace(".parametrizations.weight.original1", ".weight_v")
    return name.replace("quantizer.vq.layers.", "quantizer.layers.").replace("._codebook.", ".codebook.")
