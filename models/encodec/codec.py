"""EnCodec: audio to codes and back (arXiv 2210.13438), mono or as two interleaved channels, in float32.

Checkpoints in transformers' and in audiocraft's own format become the same network.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from models.checkpoints.hf_folder import find_weights, read_config
from models.checkpoints.settings import Settings
from models.checkpoints.tensor_loader import TensorLoader, read_tensors
from models.checkpoints.weight_norm import fold_weight_norm
from models.encodec.seanet import Layer, SEANetConfig, build_decoder, build_encoder
from models.runtime.chunks import plan_chunks
from models.runtime.progress import Progress, ignore_progress

CHUNK_S = 10.0  # the widest layer takes 8 MB a second
CONTEXT_FRAMES = 16  # on either side of a chunk; the receptive field of the layers after the LSTM is less than 4
MAX_LSTM_LAYERS = 16

FINAL_ACTIVATIONS: Mapping[str, Layer] = {"Tanh": torch.tanh}


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
        chunk_s: seconds of audio decoded at a time.
    """

    def __init__(self, network: EnCodec, *, codebooks: int, stereo: bool = False, chunk_s: float = CHUNK_S) -> None:
        assert len(network.codebooks) >= codebooks, f"the codec has {len(network.codebooks)} of {codebooks} codebooks"
        self._network, self._stereo, self._chunk_s = network, stereo, chunk_s
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
        for chunk in plan_chunks(frames, size=int(self._chunk_s * self.frame_rate), context=CONTEXT_FRAMES):
            progress(chunk.keep_start / frames)
            part = _apply(upsampling, hidden[..., chunk.start : chunk.stop])
            parts.append(part[..., chunk.scale_inside(self.hop_length)])
        return torch.cat(torch.cat(parts, dim=-1).chunk(len(channels)), dim=1)


def _apply(layers: list[Layer], x: torch.Tensor) -> torch.Tensor:
    for layer in layers:
        x = layer(x)
    return x


def from_folder(folder: Path, device: str) -> EnCodec:
    """Loads a network from transformers' format.

    Raises:
        CheckpointError: tensors are missing or of another shape, or a setting is not supported.
    """
    settings = read_config(folder)
    settings.require("normalize", None, False)
    settings.require("norm_type", None, "weight_norm")
    config = SEANetConfig(
        channels=settings.integer("audio_channels", 1),
        filters=settings.integer("num_filters", 32),
        dimension=settings.integer("hidden_size", 128),
        ratios=settings.integers("upsampling_ratios", (8, 5, 4, 2)),
        residual_layers=settings.integer("num_residual_layers", 1, least=0),
        kernel=settings.integer("kernel_size", 7),
        last_kernel=settings.integer("last_kernel_size", 7),
        residual_kernel=settings.integer("residual_kernel_size", 3),
        dilation=settings.integer("dilation_growth_rate", 2),
        compress=settings.integer("compress", 2),
        lstm=settings.integer("num_lstm_layers", 2, least=0, most=MAX_LSTM_LAYERS),
        causal=settings.flag("use_causal_conv", True),
        pad_mode=_read_pad_mode(settings),
        trim_right=settings.number("trim_right_ratio", 1.0, least=-1.0),
        shortcut=settings.flag("use_conv_shortcut", True),
    )
    state = read_tensors(find_weights(folder), mapped=True)
    return _build(config, settings.integer("sampling_rate", 24_000), state, device)


def from_audiocraft(state: Mapping[str, torch.Tensor], settings: Settings, device: str) -> EnCodec:
    """Loads a network from audiocraft's own format; raises as `from_folder`."""
    encodec, seanet = settings.section("encodec"), settings.section("seanet")
    encodec.require("autoencoder", "seanet")
    encodec.require("quantizer", "rvq")
    encodec.require("renormalize", None, False)
    encodec.require("channels", seanet.get("channels"))
    seanet.require("activation", None, "ELU")
    seanet.require("activation_params.alpha", None, 1.0)
    seanet.require("encoder", None, {})
    seanet.require("norm", None, "weight_norm", "none")
    seanet.require("decoder.final_activation", None, *FINAL_ACTIVATIONS)
    seanet.require("decoder.final_activation_params", None, {})
    config = SEANetConfig(
        channels=encodec.integer("channels"),
        filters=seanet.integer("n_filters"),
        dimension=seanet.integer("dimension"),
        ratios=seanet.integers("ratios"),
        residual_layers=seanet.integer("n_residual_layers", least=0),
        kernel=seanet.integer("kernel_size", 7),
        last_kernel=seanet.integer("last_kernel_size", 7),
        residual_kernel=seanet.integer("residual_kernel_size", 3),
        dilation=seanet.integer("dilation_base", 2),
        compress=seanet.integer("compress", 2),
        lstm=seanet.integer("lstm", 0, least=0, most=MAX_LSTM_LAYERS),
        causal=seanet.flag("causal"),
        pad_mode=_read_pad_mode(seanet),
        trim_right=seanet.number("decoder.trim_right_ratio", 1.0, least=-1.0),
        shortcut=not seanet.flag("true_skip", True),
        final=FINAL_ACTIVATIONS.get(seanet.get("decoder.final_activation") or ""),
    )
    return _build(config, encodec.integer("sample_rate"), state, device)


def _read_pad_mode(settings: Settings) -> str:
    settings.require("pad_mode", None, "reflect", "constant", "replicate", "circular")
    return settings.text("pad_mode", "reflect")


def _build(config: SEANetConfig, sample_rate: int, state: Mapping[str, torch.Tensor], device: str) -> EnCodec:
    """Builds the network of these tensors, whichever format's names they have."""
    named = fold_weight_norm({_rename(name): tensor for name, tensor in state.items()})
    loaders = [TensorLoader(named, device, prefix) for prefix in ("encoder.", "decoder.", "quantizer.layers.")]
    encoder, decoder = build_encoder(config, loaders[0]), build_decoder(config, loaders[1])
    codebooks: list[torch.Tensor] = []
    while (name := f"{len(codebooks)}.codebook.embed") in loaders[2]:
        codebooks.append(loaders[2](name, -1, config.dimension))
    nbytes = sum(loader.nbytes for loader in loaders)
    return EnCodec(config, sample_rate, tuple(codebooks), encoder, decoder, nbytes=nbytes)


def _rename(name: str) -> str:
    """Returns audiocraft's name of a tensor as transformers' own."""
    name = re.sub(r"^(encoder|decoder)\.model\.", r"\1.layers.", name)
    name = re.sub(r"\.(conv\.conv|convtr\.convtr)\.", ".conv.", name)
    return name.replace("quantizer.vq.layers.", "quantizer.layers.").replace("._codebook.", ".codebook.")
