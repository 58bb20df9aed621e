"""The sizes of the checkpoint's networks, and a forward pass of the transformer over batches of unequal texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from demo.training.songs.vae import CONFIG as VAE_CONFIG
from models.acestep.config import NetworkConfig, TextEncoderConfig, Widths
from models.acestep.network import build_networks, build_text_encoder

_WIDTHS = Widths(hidden_size=160, intermediate_size=384, num_heads=4, num_kv_heads=2)
CONFIG = NetworkConfig(
    transformer=_WIDTHS,
    encoder=_WIDTHS,
    num_layers=6,
    num_lyric_layers=1,
    num_timbre_layers=1,
    num_pooler_layers=1,
    head_dim=40,
    latent_channels=VAE_CONFIG.latent_channels,
    text_hidden_size=96,
    sliding_window=64,
    fsq_dim=_WIDTHS.hidden_size,
    is_turbo=True,
    version="turbo",
)


def make_text_config(vocab_size: int) -> TextEncoderConfig:
    """Returns the sizes of the text encoder."""
    return TextEncoderConfig(
        widths=Widths(hidden_size=CONFIG.text_hidden_size, intermediate_size=192, num_heads=4, num_kv_heads=2),
        num_layers=2,
        head_dim=24,
        vocab_size=vocab_size,
        rope_theta=1e6,
        rms_norm_eps=1e-6,
    )


@dataclass(frozen=True, slots=True)
class Texts:
    """Token ids of a batch's texts.

    Args:
        ids: `[B, L]`, padded at the end.
        is_token: `[B, L]`, False where it is padding.
        lyric_ids: `[1, M]`, the same lyrics for the whole batch.
    """

    ids: torch.Tensor
    is_token: torch.Tensor
    lyric_ids: torch.Tensor


class SongNetworks(nn.Module):
    """All networks but the VAE, under the names that the worker's `Components` gives them."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        networks = build_networks(CONFIG)
        self.transformer: Any = networks["transformer"]
        self.condition_encoder: Any = networks["condition_encoder"]
        self.audio_tokenizer: Any = networks["audio_tokenizer"]
        self.audio_token_detokenizer: Any = networks["audio_token_detokenizer"]
        self.text_encoder: Any = build_text_encoder(make_text_config(vocab_size))

    def encode_conditions(
        self, texts: Texts, references: torch.Tensor, dropped: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Encodes lyrics, timbre and text, in the order of the worker.

        Args:
            texts: of the batch.
            references: latents of references, `[B, T, C]`, or `[1, T, C]` of silence for all.
            dropped: `[B]`: True for items whose conditions are replaced by the unconditional branch's.

        Returns:
            Conditions `[B, K, E]`, and a mask `[B, K]` that is True where they are no padding.
        """
        encoder, count = self.condition_encoder, len(texts.ids)
        hidden = self.text_encoder(input_ids=texts.ids, attention_mask=texts.is_token.long()).last_hidden_state
        embedded = self.text_encoder.get_input_embeddings()(texts.lyric_ids)
        lyrics = encoder.lyric_encoder(inputs_embeds=embedded, attention_mask=torch.ones_like(texts.lyric_ids).bool())
        # The timbre of silence is learnt from references: its own gradient would take a tenth of a step.
        with torch.set_grad_enabled(torch.is_grad_enabled() and len(references) > 1):
            timbre, _ = encoder.timbre_encoder(references, torch.arange(len(references)))
        parts = [lyrics.expand(count, -1, -1), timbre.expand(count, -1, -1), encoder.text_projector(hidden)]
        conditions = torch.where(dropped[:, None, None], encoder.null_condition_emb, torch.cat(parts, dim=1))
        always = torch.ones(count, lyrics.shape[1] + 1, dtype=torch.bool)
        return conditions, torch.cat([always, texts.is_token], dim=1)

    def predict(  # noqa: PLR0913  (the inputs of diffusers' transformer)
        self,
        latents: torch.Tensor,
        timesteps: torch.Tensor,
        context: torch.Tensor,
        *,
        conditions: torch.Tensor,
        is_condition: torch.Tensor,
        num_layers: int | None = None,
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Predicts velocities; computes what diffusers' transformer computes for each item alone.

        Args:
            latents: noisy ones, `[B, T, C]`, T even.
            timesteps: `[B]`.
            context: `[B, T, 2 C]`.
            conditions, is_condition: see `encode_conditions`.
            num_layers: how many layers are run; None: all of them.

        Returns:
            Velocities `[B, T, C]`, and the residual stream `[B, T / 2, H]` after each layer.
        """
        module = self.transformer
        embedding, modulation = module.time_embed(timesteps)
        second, second_modulation = module.time_embed_r(torch.zeros_like(timesteps[:1]))
        embedding, modulation = embedding + second, modulation + second_modulation
        x = module.proj_in_conv(torch.cat([context, latents], dim=-1).transpose(1, 2)).transpose(1, 2)
        embedded = module.condition_embedder(conditions)
        angles = _make_angles(x.shape[1])
        states = []
        for layer in module.layers[:num_layers]:
            shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = (layer.scale_shift_table + modulation).chunk(6, dim=1)
            hidden = _normalize(layer.self_attn_norm, x) * (1 + scale) + shift
            x = x + _attend(layer.self_attn, hidden, hidden, angles=angles) * gate
            hidden = _normalize(layer.cross_attn_norm, x)
            x = x + _attend(layer.cross_attn, hidden, embedded, mask=is_condition[:, None, None])
            x = x + layer.mlp(_normalize(layer.mlp_norm, x) * (1 + mlp_scale) + mlp_shift) * mlp_gate
            states.append(x)
        shift, scale = (module.scale_shift_table + embedding.unsqueeze(1)).chunk(2, dim=1)
        x = _normalize(module.norm_out, x) * (1 + scale) + shift
        return module.proj_out_conv(x.transpose(1, 2)).transpose(1, 2), states


def _make_angles(num_tokens: int) -> torch.Tensor:
    """Angles of the rotary embedding, `[L, D]`."""
    exponents = torch.arange(0, CONFIG.head_dim, 2) / CONFIG.head_dim
    angles = torch.outer(torch.arange(num_tokens).float(), 1.0 / CONFIG.rope_theta**exponents)
    return torch.cat([angles, angles], dim=-1)


def _attend(
    attention: Any,
    hidden: torch.Tensor,
    source: torch.Tensor,
    *,
    angles: torch.Tensor | None = None,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attention of diffusers' `AceStepAttention`; `angles` for self-attention, `mask` for cross-attention."""
    shape = (-1, CONFIG.head_dim)
    query = _normalize(attention.norm_q, attention.to_q(hidden).unflatten(-1, shape)).transpose(1, 2)
    key = _normalize(attention.norm_k, attention.to_k(source).unflatten(-1, shape)).transpose(1, 2)
    value = attention.to_v(source).unflatten(-1, shape).transpose(1, 2)
    if angles is not None:
        query, key = _rotate(query, angles), _rotate(key, angles)
        length = len(angles)
        if attention.sliding_window is not None and length > attention.sliding_window + 1:
            position = torch.arange(length)
            mask = (position[:, None] - position).abs() <= attention.sliding_window
    # Two products and a softmax: for heads this small their gradients take a third of the time of torch's own kernel.
    groups = query.shape[1] // key.shape[1]
    scores = query @ key.repeat_interleave(groups, dim=1).transpose(2, 3) * attention.scaling
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    attended = scores.softmax(dim=-1).to(value.dtype) @ value.repeat_interleave(groups, dim=1)
    projected: torch.Tensor = attention.to_out[0](attended.transpose(1, 2).flatten(2))
    return projected


def _normalize(norm: Any, x: torch.Tensor) -> torch.Tensor:
    return F.rms_norm(x, norm.weight.shape, norm.weight.to(x.dtype), norm.eps)


def _rotate(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * angles.cos() + torch.cat([-second, first], dim=-1) * angles.sin()
