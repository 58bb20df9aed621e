"""ACE-Step's networks: diffusers' modules, with the two things that a checkpoint needs beside them.

Imports diffusers, which takes seconds: import this module only to load a model.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from diffusers.models.autoencoders.autoencoder_oobleck import AutoencoderOobleck
from diffusers.models.transformers.ace_step_transformer import AceStepTransformer1DModel
from diffusers.pipelines.ace_step.modeling_ace_step import (
    AceStepAudioTokenDetokenizer,
    AceStepAudioTokenizer,
    AceStepConditionEncoder,
)
from torch import nn
from transformers.models.qwen3.configuration_qwen3 import Qwen3Config
from transformers.models.qwen3.modeling_qwen3 import Qwen3Model

from models.acestep.config import NetworkConfig, SamplingDefaults, TextEncoderConfig, VaeConfig, Widths
from models.acestep.info import CHANNELS, SAMPLE_RATE

if TYPE_CHECKING:
    import tokenizers


@dataclass(frozen=True, slots=True, kw_only=True)
class AceStepConfig:
    """What is known of a loaded model besides its weights.

    Args:
        sizes: of the networks.
        defaults: of sampling.
        device: of all networks.
        dtype: of all networks but the VAE, which may run in another.
    """

    sizes: NetworkConfig
    defaults: SamplingDefaults
    device: torch.device
    dtype: torch.dtype

    @property
    def is_turbo(self) -> bool:
        """Whether guidance and few steps are distilled into the model."""
        return self.sizes.is_turbo


@dataclass(frozen=True, slots=True, kw_only=True)
class Components:
    """The networks of one model, in evaluation mode, on one device.

    Args:
        transformer: `AceStepTransformer1DModel`: predicts the velocity of latents `[B, T, C]`.
        condition_encoder: `AceStepConditionEncoder`, whose `null_condition_emb` is the unconditional branch's.
        audio_tokenizer: `AceStepAudioTokenizer`: latents to codes; None: the model's files have none, as those of
            acestep-v15-xl-turbo-diffusers, and it makes neither covers nor music from codes.
        audio_token_detokenizer: `AceStepAudioTokenDetokenizer`: quantised codes to latents; None as the tokenizer is.
        vae: `AutoencoderOobleck`, with weight norm as it is stored.
        text_encoder: `Qwen3Model`.
        tokenizer: of the text encoder; it appends `<|endoftext|>` to a text.
        silence_latent: `[1, T, C]`, latents of 600 s of silence, in the dtype of the model; the condition encoder's.
        config: sizes, defaults, device and dtype.
    """

    transformer: nn.Module
    condition_encoder: nn.Module
    audio_tokenizer: nn.Module | None
    audio_token_detokenizer: nn.Module | None
    vae: nn.Module
    text_encoder: nn.Module
    tokenizer: tokenizers.Tokenizer
    silence_latent: torch.Tensor
    config: AceStepConfig

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Every network that there is, by its name."""
        networks = {
            "transformer": self.transformer,
            "condition_encoder": self.condition_encoder,
            "audio_tokenizer": self.audio_tokenizer,
            "audio_token_detokenizer": self.audio_token_detokenizer,
            "vae": self.vae,
            "text_encoder": self.text_encoder,
        }
        return {name: network for name, network in networks.items() if network is not None}

    @property
    def memory_bytes(self) -> int:
        """Of all weights and buffers."""
        networks = self.networks.values()
        tensors = [tensor for module in networks for tensor in (*module.parameters(), *module.buffers())]
        return sum(tensor.nbytes for tensor in tensors)


class ContiguousConv1d(nn.Conv1d):
    """A convolution whose result, transposed to `[B, T, C]`, is contiguous.

    The transformer transposes the patches. Every linear layer behind a transposed view becomes a batched product with a
    copy of its weight, which on a CPU takes two thirds of the time.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Takes `[B, C, T]` and returns `[B, C', T']`."""
        return super().forward(input).transpose(1, 2).contiguous().transpose(1, 2)


def build_networks(config: NetworkConfig) -> dict[str, nn.Module]:
    """Builds the four networks of a checkpoint, with random weights, under the names that `Components` gives them.

    Under `torch.device("meta")` they take no memory.
    """
    common = {
        "head_dim": config.head_dim,
        "rope_theta": config.rope_theta,
        "rms_norm_eps": config.rms_norm_eps,
        "attention_bias": config.attention_bias,
        "sliding_window": config.sliding_window,
    }
    encoder = common | _name_widths(config.encoder)
    pooled = encoder | {
        "audio_acoustic_hidden_dim": config.latent_channels,
        "pool_window_size": config.pool_window_size,
        "num_attention_pooler_hidden_layers": config.num_pooler_layers,
    }
    transformer = AceStepTransformer1DModel(
        **common,
        **_name_widths(config.transformer),
        num_hidden_layers=config.num_layers,
        in_channels=3 * config.latent_channels,
        audio_acoustic_hidden_dim=config.latent_channels,
        patch_size=config.patch_size,
        encoder_hidden_size=config.encoder.hidden_size,
        is_turbo=config.is_turbo,
        model_version=config.version,
    )
    patch = transformer.proj_in_conv
    transformer.proj_in_conv = ContiguousConv1d(
        patch.in_channels, patch.out_channels, kernel_size=config.patch_size, stride=config.patch_size
    )
    condition_encoder = AceStepConditionEncoder(
        **encoder,
        text_hidden_dim=config.text_hidden_size,
        timbre_hidden_dim=config.latent_channels,
        num_lyric_encoder_hidden_layers=config.num_lyric_layers,
        num_timbre_encoder_hidden_layers=config.num_timbre_layers,
    )
    if config.is_xl:
        _prepend_timbre_token(condition_encoder.timbre_encoder)
    return {
        "transformer": transformer,
        "condition_encoder": condition_encoder,
        "audio_tokenizer": AceStepAudioTokenizer(
            **pooled, fsq_dim=config.fsq_dim, fsq_input_levels=list(config.fsq_levels)
        ),
        "audio_token_detokenizer": AceStepAudioTokenDetokenizer(**pooled),
    }


def build_vae(config: VaeConfig) -> nn.Module:
    """Builds the audio VAE with random weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's old weight norm, whose names the files have
        vae = AutoencoderOobleck(
            encoder_hidden_size=config.encoder_hidden_size,
            downsampling_ratios=list(config.downsampling_ratios),
            channel_multiples=list(config.channel_multiples),
            decoder_channels=config.decoder_channels,
            decoder_input_channels=config.latent_channels,
            audio_channels=CHANNELS,
            sampling_rate=SAMPLE_RATE,
        )
    return cast("nn.Module", vae)


def build_text_encoder(config: TextEncoderConfig) -> nn.Module:
    """Builds the text encoder with random weights."""
    return Qwen3Model(
        Qwen3Config(
            vocab_size=config.vocab_size,
            hidden_size=config.widths.hidden_size,
            intermediate_size=config.widths.intermediate_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.widths.num_heads,
            num_key_value_heads=config.widths.num_kv_heads,
            head_dim=config.head_dim,
            rms_norm_eps=config.rms_norm_eps,
            rope_parameters={"rope_theta": config.rope_theta, "rope_type": "default"},
            use_cache=False,
        )
    )


def _prepend_timbre_token(encoder: nn.Module) -> None:
    """Puts the learned token of an XL model before the embedded reference.

    The encoder's output at position 0 is the timbre. diffusers takes that of the first latent for every size, which is
    right for the smaller models alone.
    """

    def prepend(module: nn.Module, inputs: object, embedded: torch.Tensor) -> torch.Tensor:
        token = cast("torch.Tensor", encoder.special_token)
        return torch.cat([token.expand(len(embedded), -1, -1), embedded], dim=1)

    cast("nn.Module", encoder.embed_tokens).register_forward_hook(prepend)


def _name_widths(widths: Widths) -> dict[str, int]:
    return {
        "hidden_size": widths.hidden_size,
        "intermediate_size": widths.intermediate_size,
        "num_attention_heads": widths.num_heads,
        "num_key_value_heads": widths.num_kv_heads,
    }
