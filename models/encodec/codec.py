"""EnCodec: audio to codes and back (arXiv 2210.13438), mono or as two interleaved channels, in float32.

Checkpoints in transformers' and in audiocraft's own format become the same network.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from models.checkpoints.hf_folder import read_settings
from models.checkpoints.tensor_loader import TensorLoader, read_tensors
from models.encodec.seanet import Layer, SEANetConfig, build_decoder, build_encoder
from models.runtime.chunks import plan_chunks
from models.runtime.progress import Progress, ignore_progress

CHUNK_S = 10.0  # decoded at a time: the widest layer takes 8 MB a second
CONTEXT_FRAMES = 16  # on either side of a chunk; the receptive field of the layers after the LSTM is less than 4

FINAL_ACTIVATIONS: Mapping[str, Layer] = {"Tanh": torch.tanh}
# Each field of `SEANetConfig`, its name in transformers' `config.json`, and its value if the file leaves it out.
HUB_CONFIG: Mapping[str, tuple[str, Any]] = {
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


@dataclass(frozen=True, slots=True, eq=False)
class EnCodec:
    """A loaded network for one channel, or for all channels of a codec that was trained on them together.

    Args:
        sample_rate: Hz.
        codebooks: `[card, D]` each.
        encoder: `[B, C, samples]` to `[B, D, frames]`.
        decoder: `[B, D, frames]` to `[B, C, samples]`: the layers at the frame rate, and those after them.
        nbytes: of all weights.
    """

    config: SEANetConfig
    sample_rate: int
    codebooks: tuple[torch.Tensor, ...]
    encoder: list[Layer]
    decoder: tuple[list[Layer], list[Layer]]
    nbytes: int


class Codec:
    """A codec as a language model uses it.

    Args:
        codebooks: how many of the network's are in use, for one channel.
        stereo: two mono channels with interleaved codebooks, as in MusicGen's stereo models.
    """

    def __init__(self, network: EnCodec, *, codebooks: int, stereo: bool = False) -> None:
        assert len(network.codebooks) >= codebooks, f"the codec has {len(network.codebooks)} of {codebooks} codebooks"
        self._network, self._stereo = network, stereo
        self._codebooks = network.codebooks[:codebooks]
        self.sample_rate = network.sample_rate
        self.hop_length = network.config.hop_length
        self.channels = 2 if stereo else network.config.channels
        self.codebooks = codebooks * (2 if stereo else 1)

    @property
    def frame_rate(self) -> float:
        """Frames of codes per second."""
        return self.sample_rate / self.hop_length

    @property
    def nbytes(self) -> int:
        """Of all weights."""
        return self._network.nbytes

    def encode(self, waveform: torch.Tensor) -> torch.Tensor:
        """Finds the codes of audio.

        Args:
            waveform: `[B, C, samples]` at `sample_rate`, full scale 1.0.

        Returns:
            `[B, K, frames]`, one frame for each `hop_length` samples, rounded up.
        """
        assert waveform.ndim == 3, f"the codec takes [B, C, samples], not {list(waveform.shape)}"
        batch, channels, _ = waveform.shape
        assert channels == self.channels, f"{channels} channels for a codec of {self.channels}"
        mono = waveform.reshape(batch * channels, 1, -1) if self._stereo else waveform
        residual = _apply(self._network.encoder, mono).transpose(1, 2)
        codes = []
        for codebook in self._codebooks:
            distances = torch.addmm(codebook.square().sum(1), residual.flatten(0, 1), codebook.T, alpha=-2)
            codes.append(distances.argmin(-1).view(residual.shape[:2]))
            residual = residual - codebook[codes[-1]]
        stacked = torch.stack(codes, dim=1)
        return stacked.view(batch, -1, *stacked.shape[1:]).transpose(1, 2).flatten(1, 2)

    def split_channels(self, codes: torch.Tensor) -> torch.Tensor:
        """`[B, K, T]` interleaved codes to `[channels, B, K / channels, T]`; a codec that is not stereo has one."""
        batch, codebooks, frames = codes.shape
        assert codebooks == self.codebooks, f"codes of {codebooks} codebooks, the codec has {self.codebooks}"
        count = 2 if self._stereo else 1
        return codes.reshape(batch, codebooks // count, count, frames).permute(2, 0, 1, 3)

    def decode_latents(self, codes: torch.Tensor) -> torch.Tensor:
        """`[B, K, T]` codes of one channel to latents `[B, D, T]`, the sum of their codebooks' vectors."""
        vectors = [codebook[codes[:, k]] for k, codebook in enumerate(self._codebooks)]
        return torch.stack(vectors).sum(0).transpose(1, 2)

    def decode(self, codes: torch.Tensor, *, progress: Progress = ignore_progress) -> torch.Tensor:
        """Turns codes into audio, in bounded memory whatever the length.

        The layers at the frame rate, LSTM included, run over the whole. The others have a receptive field of a few
        frames and run in chunks with context, so that the result is that of a single pass.

        Args:
            codes: `[B, K, T]`.
            progress: called before each chunk.

        Returns:
            `[B, C, T * hop_length]`.
        """
        channels = self.split_channels(codes)
        hidden = self.decode_latents(channels.flatten(0, 1))
        at_frame_rate, upsampling = self._network.decoder
        hidden = _apply(at_frame_rate, hidden)
        frames, parts = hidden.shape[-1], []
        for chunk in plan_chunks(frames, size=int(CHUNK_S * self.frame_rate), context=CONTEXT_FRAMES):
            progress(chunk.keep_start / frames)
            part = _apply(upsampling, hidden[..., chunk.start : chunk.stop])
            parts.append(part[..., chunk.scaled(self.hop_length)])
        return torch.cat(torch.cat(parts, dim=-1).chunk(len(channels)), dim=1)


def _apply(layers: list[Layer], x: torch.Tensor) -> torch.Tensor:
    for layer in layers:
        x = layer(x)
    return x


def from_folder(folder: Path, device: str) -> EnCodec:
    """A codec in transformers' format.

    Raises:
        KeyError, ValueError: tensors are missing or have another shape, or a setting is not supported.
    """
    settings = read_settings(folder)
    _check_setting("normalize", settings.get("normalize", False), False)
    _check_setting("norm_type", settings.get("norm_type", "weight_norm"), "weight_norm")
    config = SEANetConfig(
        **{part: type(default)(settings.get(name, default)) for part, (name, default) in HUB_CONFIG.items()}
    )
    return _build(config, int(settings.get("sampling_rate", 24_000)), read_tensors(folder), device)


def from_audiocraft(state: Mapping[str, torch.Tensor], settings: Mapping[str, Any], device: str) -> EnCodec:
    """A codec in audiocraft's own format. Raises as `from_folder`."""
    encodec, seanet = settings["encodec"], settings["seanet"]
    decoder = seanet.get("decoder") or {}
    _check_setting("autoencoder", encodec.get("autoencoder"), "seanet")
    _check_setting("quantizer", encodec.get("quantizer"), "rvq")
    _check_setting("renormalize", bool(encodec.get("renormalize")), False)
    _check_setting("activation", seanet.get("activation", "ELU"), "ELU")
    _check_setting("alpha", (seanet.get("activation_params") or {}).get("alpha", 1.0), 1.0)
    _check_setting("channels", seanet["channels"], encodec["channels"])
    _check_setting("encoder", bool(seanet.get("encoder")), False)
    _check_setting("norm", seanet.get("norm", "none"), "weight_norm", "none")
    _check_setting("final_activation", decoder.get("final_activation"), None, *FINAL_ACTIVATIONS)
    _check_setting("final_activation_params", bool(decoder.get("final_activation_params")), False)
    config = SEANetConfig(
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
        trim_right=float(decoder.get("trim_right_ratio", 1.0)),
        shortcut=not seanet.get("true_skip", True),
        final=FINAL_ACTIVATIONS.get(decoder.get("final_activation") or ""),
    )
    return _build(config, int(encodec["sample_rate"]), state, device)


def _check_setting(name: str, value: object, *supported: object) -> None:
    if value not in supported:
        raise ValueError(f"codec with {name} = {value}")


def _build(config: SEANetConfig, sample_rate: int, state: Mapping[str, torch.Tensor], device: str) -> EnCodec:
    """The network with these tensors, whichever format's names they have."""
    named = {_rename(name): tensor for name, tensor in state.items()}
    loaders = [TensorLoader(named, device, prefix) for prefix in ("encoder.", "decoder.", "quantizer.layers.")]
    count = 1 + max(int(name.split(".")[2]) for name in named if name.startswith("quantizer.layers."))
    encoder, decoder = build_encoder(config, loaders[0]), build_decoder(config, loaders[1])
    codebooks = tuple(loaders[2](f"{index}.codebook.embed", -1, config.dimension) for index in range(count))
    return EnCodec(config, sample_rate, codebooks, encoder, decoder, nbytes=sum(loader.nbytes for loader in loaders))


def _rename(name: str) -> str:
    """transformers' current name of a tensor that has audiocraft's name, or an older one of transformers."""
    name = re.sub(r"^(encoder|decoder)\.model\.", r"\1.layers.", name)
    name = re.sub(r"\.(conv\.conv|convtr\.convtr)\.", ".conv.", name)
    name = name.replace(".parametrizations.weight.original0", ".weight_g")
    name = name.replace(".parametrizations.weight.original1", ".weight_v")
    return name.replace("quantizer.vq.layers.", "quantizer.layers.").replace("._codebook.", ".codebook.")
