"""The sizes of ACE-Step's networks, as a checkpoint's settings state them, each checked. Needs no torch.

Settings of the original layout: https://huggingface.co/ACE-Step/Ace-Step1.5, acestep-v15-turbo/config.json.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from models.acestep.info import CHANNELS, SAMPLE_RATE
from models.checkpoints.errors import CheckpointError
from models.checkpoints.settings import Settings

FRAME_RATE = 25  # latents a second

_MAX_WIDTH = 1 << 14
_MAX_LAYERS = 128
_MAX_HEADS = 256
_MAX_FRAMES = 15_000  # of latents: 600 s, the length of the silence
_MAX_CODES = 1 << 20
_MAX_HEAD_DIM = 1024
_MAX_MULTIPLE = 64
_MAX_VOCABULARY = 1 << 20
_LAYER_TYPES = ("sliding_attention", "full_attention")  # by turns


@dataclass(frozen=True, slots=True, kw_only=True)
class Widths:
    """The sizes of a stack of transformer layers.

    Args:
        hidden_size: of the residual stream.
        intermediate_size: of the MLP.
        num_heads: of the queries.
        num_kv_heads: of keys and values.
    """

    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfig:
    """The sizes of the diffusion transformer, the condition encoder and the audio tokenizer.

    Args:
        transformer: of the diffusion transformer.
        encoder: of the condition encoder, the audio tokenizer and its detokenizer; of an XL model other ones than the
            transformer's.
        num_layers: of the diffusion transformer.
        num_lyric_layers, num_timbre_layers, num_pooler_layers: of the lyric encoder, of the timbre encoder, and of the
            audio tokenizer and its detokenizer each.
        head_dim: of every attention.
        latent_channels: of the audio VAE.
        text_hidden_size: of the text encoder.
        patch_size: latents in one token of the transformer.
        sliding_window: how far a token of every other layer sees to each side, in tokens.
        rope_theta, rms_norm_eps, attention_bias: of every layer.
        timbre_frames: latents of the reference that the timbre encoder takes.
        pool_window_size: latents in one audio code.
        fsq_dim: width that codes are projected to.
        fsq_levels: of the finite scalar quantiser, the fastest first.
        is_turbo: whether the model has guidance and few steps distilled into it.
        version: what the file calls the model: `turbo`, `sft`, `base`; empty: nothing.
    """

    transformer: Widths
    encoder: Widths
    num_layers: int
    num_lyric_layers: int
    num_timbre_layers: int
    num_pooler_layers: int
    head_dim: int
    latent_channels: int
    text_hidden_size: int
    patch_size: int = 2
    sliding_window: int = 128
    rope_theta: float = 1e6
    rms_norm_eps: float = 1e-6
    attention_bias: bool = False
    timbre_frames: int = 750
    pool_window_size: int = 5
    fsq_dim: int = 2048
    fsq_levels: tuple[int, ...] = (8, 8, 8, 5, 5, 5)
    is_turbo: bool = False
    version: str = ""

    @property
    def is_xl(self) -> bool:
        """Whether the transformer is wider than its conditions; the timbre encoder then has a token of its own."""
        return self.transformer.hidden_size != self.encoder.hidden_size

    @property
    def codebook_size(self) -> int:
        """Number of different audio codes."""
        return math.prod(self.fsq_levels)


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingDefaults:
    """How a model is sampled unless a request says otherwise.

    Args:
        num_steps: of the sampler.
        shift: of the timesteps.
        cfg_coef: classifier-free guidance scale; 1 = none.
    """

    num_steps: int
    shift: float
    cfg_coef: float

    @property
    def is_turbo(self) -> bool:
        """Whether they are those of a turbo model, which has the guidance distilled into its weights."""
        return self.cfg_coef == 1


@dataclass(frozen=True, slots=True, kw_only=True)
class VaeConfig:
    """The sizes of the audio VAE (Oobleck).

    Args:
        encoder_hidden_size: channels of the encoder's first layer, and of its output: a mean and a scale.
        decoder_channels: of the decoder's last layer.
        latent_channels: of the latents.
        downsampling_ratios: of the encoder's blocks; their product is the hop length.
        channel_multiples: of the blocks' channels.
    """

    encoder_hidden_size: int
    decoder_channels: int
    latent_channels: int
    downsampling_ratios: tuple[int, ...]
    channel_multiples: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextEncoderConfig:
    """The sizes of the text encoder (Qwen3)."""

    widths: Widths
    num_layers: int
    head_dim: int
    vocab_size: int
    rope_theta: float
    rms_norm_eps: float


def read_network_config(settings: Settings) -> NetworkConfig:
    """Reads the `config.json` of the original layout; raises `CheckpointError` for values that cannot be."""
    transformer = _read_widths(settings, "")
    encoder = _read_widths(settings, "encoder_")
    num_layers = settings.integer("num_hidden_layers", most=_MAX_LAYERS)
    _check_layer_types(settings, num_layers)
    channels = settings.integer("audio_acoustic_hidden_dim", 64, most=_MAX_WIDTH)
    settings.require("in_channels", 3 * channels)  # the source's latents, the mask and the noisy latents
    settings.require("timbre_hidden_dim", None, channels)
    settings.require("fsq_input_num_quantizers", None, 1)
    settings.require("use_sliding_window", None, True)
    version = settings.text("model_version", "")
    levels = settings.integers("fsq_input_levels", (8, 8, 8, 5, 5, 5), least=2)
    config = NetworkConfig(
        transformer=transformer,
        encoder=encoder,
        num_layers=num_layers,
        num_lyric_layers=settings.integer("num_lyric_encoder_hidden_layers", 8, most=_MAX_LAYERS),
        num_timbre_layers=settings.integer("num_timbre_encoder_hidden_layers", 4, most=_MAX_LAYERS),
        num_pooler_layers=settings.integer("num_attention_pooler_hidden_layers", 2, most=_MAX_LAYERS),
        head_dim=settings.integer("head_dim", 128, least=2, most=_MAX_HEAD_DIM),
        latent_channels=channels,
        text_hidden_size=settings.integer("text_hidden_dim", 1024, most=_MAX_WIDTH),
        patch_size=settings.integer("patch_size", 2, most=16),
        sliding_window=settings.integer("sliding_window", 128, most=_MAX_FRAMES),
        rope_theta=settings.number("rope_theta", 1e6),
        rms_norm_eps=settings.number("rms_norm_eps", 1e-6, most=1.0),
        attention_bias=settings.flag("attention_bias"),
        timbre_frames=settings.integer("timbre_fix_frame", 750, most=_MAX_FRAMES),
        pool_window_size=settings.integer("pool_window_size", 5, most=256),
        fsq_dim=settings.integer("fsq_dim", encoder.hidden_size, most=_MAX_WIDTH),
        fsq_levels=levels,
        is_turbo=settings.flag("is_turbo", version.startswith("turbo")),
        version=version,
    )
    if config.head_dim % 2 or config.fsq_dim != encoder.hidden_size or config.codebook_size > _MAX_CODES:
        raise CheckpointError(
            f"its sizes do not fit together: head_dim {config.head_dim}, fsq_dim {config.fsq_dim} beside an encoder "
            f"of {encoder.hidden_size}, {config.codebook_size} codes"
        )
    return config


def read_vae_config(settings: Settings, config: NetworkConfig) -> VaeConfig:
    """Reads the `config.json` of the VAE; raises `CheckpointError` if it does not fit the other networks."""
    settings.require("_class_name", None, "AutoencoderOobleck")
    settings.require("audio_channels", None, CHANNELS)
    settings.require("sampling_rate", SAMPLE_RATE)
    settings.require("decoder_input_channels", config.latent_channels)
    settings.require("encoder_hidden_size", 2 * config.latent_channels)  # a mean and a scale for each channel
    vae = VaeConfig(
        encoder_hidden_size=settings.integer("encoder_hidden_size"),
        decoder_channels=settings.integer("decoder_channels", most=_MAX_WIDTH),
        latent_channels=config.latent_channels,
        downsampling_ratios=settings.integers("downsampling_ratios"),
        channel_multiples=settings.integers("channel_multiples"),
    )
    if math.prod(vae.downsampling_ratios) != SAMPLE_RATE // FRAME_RATE:
        raise CheckpointError(f"its 'downsampling_ratios' do not make {FRAME_RATE} latents a second")
    if any(ratio % 2 for ratio in vae.downsampling_ratios):
        # A block with an odd ratio pads unevenly: its output is a sample shorter than its input says.
        raise CheckpointError("its 'downsampling_ratios' are not all even")
    if len(vae.channel_multiples) != len(vae.downsampling_ratios) or max(vae.channel_multiples) > _MAX_MULTIPLE:
        raise CheckpointError("its 'channel_multiples' do not fit its 'downsampling_ratios'")
    return vae


def read_text_encoder_config(settings: Settings, config: NetworkConfig) -> TextEncoderConfig:
    """Reads the `config.json` of the text encoder; raises `CheckpointError` if it does not fit the other networks."""
    settings.require("model_type", "qwen3")
    settings.require("hidden_act", None, "silu")
    settings.require("hidden_size", config.text_hidden_size)
    settings.require("attention_bias", None, False)
    settings.require("use_sliding_window", None, False)
    settings.require("rope_scaling", None)
    settings.require("rope_parameters.rope_type", None, "default")
    theta = settings.number("rope_theta", 1e6)
    return TextEncoderConfig(
        widths=_read_widths(settings, ""),
        num_layers=settings.integer("num_hidden_layers", most=_MAX_LAYERS),
        head_dim=settings.integer("head_dim", 128, most=_MAX_HEAD_DIM),
        vocab_size=settings.integer("vocab_size", most=_MAX_VOCABULARY),
        rope_theta=settings.number("rope_parameters.rope_theta", theta),
        rms_norm_eps=settings.number("rms_norm_eps", 1e-6, most=1.0),
    )


def _read_widths(settings: Settings, prefix: str) -> Widths:
    """Reads the sizes of the transformer (no prefix) or of the condition encoder, which has the transformer's heads
    unless it states others."""

    def read(name: str, most: int) -> int:
        default = settings.integer(name, most=most) if prefix else None
        return settings.integer(prefix + name, default, most=most)

    widths = Widths(
        hidden_size=read("hidden_size", _MAX_WIDTH),
        intermediate_size=read("intermediate_size", 4 * _MAX_WIDTH),
        num_heads=read("num_attention_heads", _MAX_HEADS),
        num_kv_heads=read("num_key_value_heads", _MAX_HEADS),
    )
    if widths.num_heads % widths.num_kv_heads:
        raise CheckpointError(
            f"its {widths.num_heads} attention heads cannot share {widths.num_kv_heads} heads of keys and values"
        )
    return widths


def _check_layer_types(settings: Settings, num_layers: int) -> None:
    types = settings.texts("layer_types")
    if types and types != tuple(_LAYER_TYPES[layer % 2] for layer in range(num_layers)):
        raise CheckpointError(
            f"its 'layer_types' are not {num_layers} that alternate between {' and '.join(_LAYER_TYPES)}"
        )
