"""Loads EnCodec's network from a checkpoint in transformers' or in audiocraft's own format."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch

from models.checkpoints.errors import CheckpointError
from models.checkpoints.hf_folder import find_weights, read_config
from models.checkpoints.settings import Settings
from models.checkpoints.tensor_loader import TensorLoader, read_tensors
from models.checkpoints.weight_norm import fold_weight_norm
from models.encodec.codec import Codec
from models.encodec.network import EnCodec
from models.encodec.seanet import Layer, SEANetConfig, build_decoder, build_encoder
from models.encodec.spec import CodecSpec, Segments, read_spec

MAX_LSTM_LAYERS = 16

FINAL_ACTIVATIONS: Mapping[str, Layer] = {"Tanh": torch.tanh}


def from_folder(folder: Path, device: str) -> EnCodec:
    """Loads a network from transformers' format.

    Raises:
        CheckpointError: tensors are missing or of another shape, or a setting is not supported.
    """
    settings = read_config(folder)
    spec = read_spec(settings)
    config = SEANetConfig(
        channels=spec.channels,
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
        group_norm=settings.get("norm_type") == "time_group_norm",
    )
    state = read_tensors(find_weights(folder), mapped=True)
    return _build(config, spec.sample_rate, state, device, spec.segments)


def load_codec(folder: Path, spec: CodecSpec, device: str) -> Codec:
    """Loads a codec in transformers' format, with all codebooks of its spec.

    Raises:
        CheckpointError: as `from_folder`; or its codebooks are not those of the spec.
    """
    network = from_folder(folder, device)
    tables = network.codebooks[: spec.codebooks]
    if len(tables) < spec.codebooks or any(len(table) != spec.cardinality for table in tables):
        raise CheckpointError(f"its tensors hold other codebooks than {spec.codebooks} of {spec.cardinality} codes")
    return Codec(network, codebooks=spec.codebooks)


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
    settings.require("pad_mode", None, "reflect", "constant", "replicate")
    return settings.text("pad_mode", "reflect")


def _build(
    config: SEANetConfig,
    sample_rate: int,
    state: Mapping[str, torch.Tensor],
    device: str,
    segments: Segments | None = None,
) -> EnCodec:
    """Builds the network of these tensors, whichever format's names they have."""
    named = fold_weight_norm({_rename(name): tensor for name, tensor in state.items()})
    loaders = [TensorLoader(named, device, prefix) for prefix in ("encoder.", "decoder.", "quantizer.layers.")]
    encoder, decoder = build_encoder(config, loaders[0]), build_decoder(config, loaders[1])
    codebooks: list[torch.Tensor] = []
    while (name := f"{len(codebooks)}.codebook.embed") in loaders[2]:
        codebooks.append(loaders[2](name, -1, config.dimension))
    nbytes = sum(loader.nbytes for loader in loaders)
    return EnCodec(config, sample_rate, tuple(codebooks), encoder, decoder, nbytes, segments)


def _rename(name: str) -> str:
    """Returns audiocraft's name of a tensor as transformers' own."""
    name = re.sub(r"^(encoder|decoder)\.model\.", r"\1.layers.", name)
    name = re.sub(r"\.(conv\.conv|convtr\.convtr)\.", ".conv.", name)
    return name.replace("quantizer.vq.layers.", "quantizer.layers.").replace("._codebook.", ".codebook.")
