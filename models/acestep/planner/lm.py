"""The planner's network, Qwen3: its configuration and its weights. `forward.py` runs it.

The same arithmetic as transformers' `Qwen3ForCausalLM`, which tests hold the logits to. The head is two: text is never
drawn beside audio codes, so each phase computes its own logits alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from models.acestep.planner.config import PlannerConfig
from models.acestep.planner.vocabulary import Vocabulary
from models.checkpoints.tensor_loader import TensorLoader
from models.device import cpu_multiplies_bfloat16
from models.runtime.dtype import PLANNER_ACTIVATIONS, PLANNER_WEIGHTS, inference_dtype
from models.runtime.linear import Linear, build_linear, can_pack

_PREFIX = "model."


@dataclass(frozen=True, eq=False)
class Layer:
    """One transformer layer.

    Args:
        norm, norm_mlp: `[hidden]`, weights of the RMS norms before attention and before the MLP.
        qkv: to the heads of queries, keys and values, one after the other. In those of queries and keys, the two
            numbers that are rotated together are neighbours; in the checkpoint they are half a head apart.
        norm_heads: `[query heads + key heads, head_dim]`, weights of the norm of each head, in float32; those of the
            queries also scale by 1/sqrt(head_dim).
        gate_up: to the gate and the factor of the MLP, one after the other.
    """

    norm: torch.Tensor
    qkv: Linear
    norm_heads: torch.Tensor
    out: Linear
    norm_mlp: torch.Tensor
    gate_up: Linear
    down: Linear


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A loaded planner.

    Args:
        embedding: `[vocabulary, hidden]`.
        norm: `[hidden]`, before the heads.
        text_head: to the logits of the ids below `num_text`.
        code_head: to the logits of the audio codes, whose ids begin at `num_text`.
        cache_dtype: of cached keys and values.
        nbytes: of all weights.
    """

    config: PlannerConfig
    embedding: torch.Tensor
    layers: tuple[Layer, ...]
    norm: torch.Tensor
    text_head: Linear
    code_head: Linear
    num_text: int
    num_codes: int
    cache_dtype: torch.dtype
    nbytes: int

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embedding.device

    @property
    def dtype(self) -> torch.dtype:
        """Of activations."""
        return self.norm.dtype

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """Ids of any shape to embeddings, with one more dimension."""
        return F.embedding(tokens, self.embedding).to(self.dtype)

    def normalize(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """RMS norm over the last dimension."""
        return F.rms_norm(x, weight.shape, weight, self.config.rms_norm_eps)

    def compute_text_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """`[R, hidden]` to `[R, num_text]` float32."""
        return self.text_head(self.normalize(hidden, self.norm)).float()

    def compute_code_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """`[R, hidden]` to `[R, num_codes]` float32."""
        return self.code_head(self.normalize(hidden, self.norm)).float()

    def compute_rotations(self, columns: int) -> torch.Tensor:
        """`[columns, head_dim / 2]` complex: by what each pair of a head's numbers is multiplied at each position."""
        even = torch.arange(0, self.config.head_dim, 2, dtype=torch.float32, device=self.device)
        frequencies = self.config.rope_theta ** -(even / self.config.head_dim)
        phase = torch.arange(columns, dtype=torch.float32, device=self.device)[:, None] * frequencies
        return torch.complex(phase.cos(), phase.sin())


def choose_weight_dtype(device: str) -> torch.dtype:
    """The type of the weights: on a CPU, bfloat16 is worth it for packed weights alone."""
    has_bfloat16 = cpu_multiplies_bfloat16() and can_pack() if device == "cpu" else None
    return inference_dtype(PLANNER_WEIGHTS, device, has_bfloat16=has_bfloat16)


def choose_cache_dtype(device: torch.device, weights: torch.dtype) -> torch.dtype:
    """The type of cached keys and values: the weights', but float16 for bfloat16 on a CPU, whose kernels read it faster
    and which holds one more digit than the products of bfloat16 have."""
    return torch.float16 if device.type == "cpu" and weights == torch.bfloat16 else weights


def load_language_model(
    state: Mapping[str, torch.Tensor],
    config: PlannerConfig,
    *,
    vocabulary: Vocabulary,
    device: str,
    dtype: torch.dtype,
) -> LanguageModel:
    """Copies the checkpoint's tensors, one after the other, to the device.

    Args:
        state: by the names of Qwen3ForCausalLM, with or without their prefix `model.`; each tensor is read once.
        vocabulary: where text ends and audio codes begin.
        dtype: of the weights; activations have the type of `PLANNER_ACTIVATIONS`.

    Raises:
        CheckpointError: a tensor is missing, or of another shape than the settings say.
    """
    prefix = _PREFIX if f"{_PREFIX}embed_tokens.weight" in state else ""
    activations = inference_dtype(PLANNER_ACTIVATIONS, device) if dtype == torch.bfloat16 else torch.float32
    loader = _LayerLoader(TensorLoader(state, device, prefix, dtype=activations), config, dtype)
    size = (config.vocab_size, config.hidden_size)
    embedding = loader.load_matrix("embed_tokens.weight", *size)
    layers = tuple(loader.load_layer(index) for index in range(config.num_layers))
    norm = loader.tensor("norm.weight", config.hidden_size)
    head = embedding if config.is_tied else TensorLoader(state, device, dtype=dtype)("lm_head.weight", *size)
    num_text, num_codes = vocabulary.num_text, vocabulary.num_codes
    text_head = build_linear(head[:num_text])
    code_head = build_linear(head[num_text : num_text + num_codes])
    shares_memory = config.is_tied and embedding.device.type != "cpu"  # on a CPU they may be packed copies
    nbytes = loader.tensor.nbytes + (0 if shares_memory else text_head.nbytes + code_head.nbytes)
    return LanguageModel(
        config=config,
        embedding=embedding,
        layers=layers,
        norm=norm,
        text_head=text_head,
        code_head=code_head,
        num_text=num_text,
        num_codes=num_codes,
        cache_dtype=choose_cache_dtype(embedding.device, dtype),
        nbytes=nbytes,
    )


class _LayerLoader:
    """Makes layers of a checkpoint's tensors, in the device's form.

    Args:
        tensor: hands out the norms in the type of activations.
        dtype: of the matrices.
    """

    def __init__(self, tensor: TensorLoader, config: PlannerConfig, dtype: torch.dtype) -> None:
        self.tensor, self._config, self._dtype = tensor, config, dtype

    def load_matrix(self, name: str, outer: int, inner: int) -> torch.Tensor:
        return self.tensor(name, outer, inner, dtype=self._dtype)

    def load_layer(self, index: int) -> Layer:
        config, name = self._config, f"layers.{index}"
        hidden, inner = config.hidden_size, config.intermediate_size
        queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        qkv = torch.cat(
            [
                _pair_up(self.load_matrix(f"{name}.self_attn.q_proj.weight", queries, hidden), config.head_dim),
                _pair_up(self.load_matrix(f"{name}.self_attn.k_proj.weight", keys, hidden), config.head_dim),
                self.load_matrix(f"{name}.self_attn.v_proj.weight", keys, hidden),
            ]
        )
        gate_up = torch.cat(
            [self.load_matrix(f"{name}.mlp.{part}_proj.weight", inner, hidden) for part in ("gate", "up")]
        )
        return Layer(
            norm=self.tensor(f"{name}.input_layernorm.weight", hidden),
            qkv=build_linear(qkv),
            norm_heads=self._load_head_norms(f"{name}.self_attn"),
            out=build_linear(self.load_matrix(f"{name}.self_attn.o_proj.weight", hidden, queries)),
            norm_mlp=self.tensor(f"{name}.post_attention_layernorm.weight", hidden),
            gate_up=build_linear(gate_up),
            down=build_linear(self.load_matrix(f"{name}.mlp.down_proj.weight", hidden, inner)),
        )

    def _load_head_norms(self, name: str) -> torch.Tensor:
        config, dim = self._config, self._config.head_dim
        query = self.tensor(f"{name}.q_norm.weight", dim, dtype=torch.float32) * dim**-0.5
        key = self.tensor(f"{name}.k_norm.weight", dim, dtype=torch.float32)
        query, key = _pair_up(query, dim), _pair_up(key, dim)
        return torch.cat([query.expand(config.num_heads, -1), key.expand(config.num_kv_heads, -1)])


def _pair_up(weight: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Reorders the first dimension of a weight so that numbers half a head apart become neighbours."""
    halves = weight.view(-1, 2, head_dim // 2, *weight.shape[1:])
    return halves.transpose(1, 2).reshape(weight.shape)
