"""The forward pass of the diffusion transformer, over the modules of diffusers' `AceStepTransformer1DModel`.

What does not change from step to step is computed once: keys and values of cross-attention, rotary embeddings, masks,
the embedding of the second timestep, and the unconditional branch's cross-attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from models.acestep.attention import SlidingMask, attend, attend_sliding, make_sliding_mask

KeysValues = tuple[torch.Tensor, torch.Tensor]
"""Keys and values of one layer's cross-attention, `[1, L, H, D]` each."""


@dataclass(frozen=True, slots=True, eq=False)
class Positions:
    """What depends on the number of tokens alone.

    Args:
        cosine, sine: rotary embeddings, `[L, 1, D]`.
        mask: of the layers with a sliding window.
    """

    cosine: torch.Tensor
    sine: torch.Tensor
    mask: SlidingMask


@dataclass(frozen=True, slots=True, eq=False)
class StepInputs:
    """What the transformer is given at every step of a phase.

    Args:
        context: `[1, T, 2 C]`: latents of the source, then the mask.
        cross_kv: for each layer, of the conditions.
        positions: `DiffusionTransformer.make_positions` of T.
        guided: whether the unconditional branch is computed too.
        cross_bias: `[1, L]`, added to the scores of cross-attention: -inf where keys are padding; None: no padding.
    """

    context: torch.Tensor
    cross_kv: Sequence[KeysValues]
    positions: Positions
    guided: bool
    cross_bias: torch.Tensor | None = None

    @property
    def num_frames(self) -> int:
        """T."""
        return self.context.shape[1]


class DiffusionTransformer:
    """Predicts velocities of latents.

    Args:
        module: `AceStepTransformer1DModel`, whose weights are used as they are.
        null_condition: `[1, 1, E]`, what stands in place of the conditions in the unconditional branch.
    """

    @torch.inference_mode()
    def __init__(self, module: Any, null_condition: torch.Tensor) -> None:
        self._module = module
        config = self._module.config
        self._window: int = config.sliding_window
        self._head_dim: int = config.head_dim
        self._groups: int = config.num_attention_heads // config.num_key_value_heads
        weight = self._module.condition_embedder.weight
        self.dtype: torch.dtype = weight.dtype
        self.device: torch.device = weight.device
        # The model takes t and t - r, and r = t in sampling.
        self._second_embedding, self._second_modulation = self._module.time_embed_r(
            torch.zeros(1, dtype=self.dtype, device=self.device)
        )
        self._null_outputs = self._attend_null(null_condition.to(self.device, self.dtype))

    def compute_cross_kv(self, conditions: torch.Tensor) -> tuple[KeysValues, ...]:
        """Keys and values of each layer for conditions `[1, L, E]`."""
        embedded = self._module.condition_embedder(conditions.to(self.dtype))
        pairs = []
        for layer in self._module.layers:
            attention = layer.cross_attn
            key = attention.to_k(embedded).unflatten(-1, (attention.kv_heads, attention.head_dim))
            value = attention.to_v(embedded).unflatten(-1, (attention.kv_heads, attention.head_dim))
            pairs.append((_normalize(attention.norm_k, key), value))
        return tuple(pairs)

    def count_tokens(self, num_frames: int) -> int:
        """Tokens of T frames: the last one may have fewer frames than the others."""
        return -(-num_frames // int(self._module.patch_size))

    def make_positions(self, num_frames: int) -> Positions:
        """Rotary embeddings and the mask for T frames."""
        num_tokens = self.count_tokens(num_frames)
        exponents = torch.arange(0, self._head_dim, 2, dtype=torch.float32, device=self.device) / self._head_dim
        frequencies = 1.0 / self._module.rope_theta**exponents
        angles = torch.outer(torch.arange(num_tokens, dtype=torch.float32, device=self.device), frequencies)
        angles = torch.cat([angles, angles], dim=-1)[:, None]
        mask = make_sliding_mask(num_tokens, self._window, groups=self._groups, dtype=self.dtype, device=self.device)
        return Positions(angles.cos().to(self.dtype), angles.sin().to(self.dtype), mask)

    def predict(self, latents: torch.Tensor, timestep: torch.Tensor, inputs: StepInputs) -> torch.Tensor:
        """Velocities of noisy latents.

        Args:
            latents: `[1, T, C]` in the transformer's dtype.
            timestep: `[1]` in the transformer's dtype, 0..1.
            inputs: the conditions.

        Returns:
            `[1, T, C]`, or `[2, T, C]` if guided: with the conditions, and without. In the transformer's dtype.
        """
        module = self._module
        embedding, modulation = module.time_embed(timestep)
        embedding = embedding + self._second_embedding
        modulation = modulation + self._second_modulation
        frames = torch.cat([inputs.context, latents], dim=-1)
        frames = F.pad(frames, (0, 0, 0, -inputs.num_frames % module.patch_size))
        # Without a contiguous copy of the tokens, each linear layer becomes a batched product with a copied weight.
        x = module.proj_in_conv(frames.transpose(1, 2)).transpose(1, 2).contiguous()
        positions = inputs.positions
        for index, layer in enumerate(module.layers):
            table = layer.scale_shift_table + modulation
            shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = table.chunk(6, dim=1)
            hidden = _normalize(layer.self_attn_norm, x) * (1 + scale) + shift
            x = x + self._attend_self(layer.self_attn, hidden, positions) * gate
            x = self._add_cross(layer, index, x, inputs)
            hidden = _normalize(layer.mlp_norm, x) * (1 + mlp_scale) + mlp_shift
            hidden = F.silu(layer.mlp.gate_proj(hidden), inplace=True).mul_(layer.mlp.up_proj(hidden))
            x = x + layer.mlp.down_proj(hidden) * mlp_gate
        shift, scale = (module.scale_shift_table + embedding.unsqueeze(1)).chunk(2, dim=1)
        x = _normalize(module.norm_out, x) * (1 + scale) + shift
        velocities: torch.Tensor = module.proj_out_conv(x.transpose(1, 2)).transpose(1, 2)
        return velocities[:, : inputs.num_frames]

    def _attend_self(self, attention: Any, hidden: torch.Tensor, positions: Positions) -> torch.Tensor:
        shape = (-1, self._head_dim)
        query = _normalize(attention.norm_q, attention.to_q(hidden).unflatten(-1, shape))
        key = _normalize(attention.norm_k, attention.to_k(hidden).unflatten(-1, shape))
        value = attention.to_v(hidden).unflatten(-1, shape)
        query, key = _rotate(query, positions), _rotate(key, positions)
        if attention.sliding_window is None:
            attended = attend(query, key, value)
        else:
            attended = attend_sliding(query, key, value, positions.mask)
        projected: torch.Tensor = attention.to_out[0](attended)
        return projected

    def _add_cross(self, layer: Any, index: int, x: torch.Tensor, inputs: StepInputs) -> torch.Tensor:
        """`x` with the cross-attention added. Up to the first one, both branches are one row."""
        conditional: torch.Tensor = x[:1]
        attention = layer.cross_attn
        hidden = _normalize(layer.cross_attn_norm, conditional)
        query = _normalize(attention.norm_q, attention.to_q(hidden).unflatten(-1, (-1, self._head_dim)))
        attended = attend(query, *inputs.cross_kv[index], bias=inputs.cross_bias)
        conditional = torch.add(conditional, attention.to_out[0](attended))
        if not inputs.guided:
            return conditional
        return torch.cat([conditional, x[-1:] + self._null_outputs[index]])

    def _attend_null(self, null_condition: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """For each layer, the cross-attention of the unconditional branch, `[1, 1, H]`.

        All of its keys and values are the same, so whatever the query and the scores, it is that one value.
        """
        embedded = self._module.condition_embedder(null_condition)
        outputs = []
        for layer in self._module.layers:
            attention = layer.cross_attn
            value = attention.to_v(embedded).unflatten(-1, (-1, self._head_dim))
            outputs.append(attention.to_out[0](value.repeat_interleave(self._groups, dim=2).flatten(2)))
        return tuple(outputs)


def _normalize(norm: Any, x: torch.Tensor) -> torch.Tensor:
    """RMSNorm of the last dimension. In half precision by one kernel, which rounds once instead of twice."""
    if x.dtype == torch.float32:
        normalized: torch.Tensor = norm(x)
        return normalized
    return F.rms_norm(x, norm.weight.shape, norm.weight, norm.eps)


def _rotate(x: torch.Tensor, positions: Positions) -> torch.Tensor:
    """Rotary embedding of `[B, L, H, D]`, halves against halves, in float32."""
    first, second = x.chunk(2, dim=-1)
    turned = torch.cat([-second, first], dim=-1)
    return (x.float() * positions.cosine + turned.float() * positions.sine).to(x.dtype)
