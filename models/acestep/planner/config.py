"""The sizes of a planner's network, as its `config.json` states them, each checked. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

from models.checkpoints.errors import CheckpointError
from models.checkpoints.settings import Settings

MODEL_TYPE = "qwen3"
CACHE_BYTES = 2 << 30  # of keys and values for the clips whose audio codes are drawn together
_MAX_WIDTH = 1 << 15
_MAX_LAYERS = 256
_MAX_HEADS = 256
_MAX_CONTEXT = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannerConfig:
    """Sizes of a Qwen3 language model.

    Args:
        vocab_size: rows of the embedding.
        num_heads: of queries.
        num_kv_heads: of keys and values; consecutive heads of queries share one.
        context: tokens that the model has positions for.
        is_tied: whether the embedding is the head, too.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rope_theta: float
    rms_norm_eps: float
    context: int
    is_tied: bool

    @property
    def parameters(self) -> int:
        """Number of weights, the embedding among them."""
        hidden, dim = self.hidden_size, self.head_dim
        attention = (2 * self.num_heads + 2 * self.num_kv_heads) * dim * hidden + 2 * dim
        layer = attention + 3 * hidden * self.intermediate_size + 2 * hidden
        return self.num_layers * layer + self.vocab_size * hidden * (1 if self.is_tied else 2) + hidden

    @property
    def cache_numbers(self) -> int:
        """Keys and values of one token."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim

    @classmethod
    def from_settings(cls, settings: Settings) -> PlannerConfig:
        """Reads `config.json`.

        Raises:
            CheckpointError: a setting is missing, cannot be, or asks for what no planner has.
        """
        settings.require("model_type", MODEL_TYPE)
        settings.require("hidden_act", None, "silu")
        settings.require("attention_bias", None, False)
        settings.require("use_sliding_window", None, False)
        settings.require("rope_scaling", None, {})
        settings.require("rope_parameters.rope_type", None, "default")
        num_heads = settings.integer("num_attention_heads", most=_MAX_HEADS)
        hidden_size = settings.integer("hidden_size", most=_MAX_WIDTH)
        config = cls(
            vocab_size=settings.integer("vocab_size"),
            hidden_size=hidden_size,
            intermediate_size=settings.integer("intermediate_size", most=4 * _MAX_WIDTH),
            num_layers=settings.integer("num_hidden_layers", most=_MAX_LAYERS),
            num_heads=num_heads,
            num_kv_heads=settings.integer("num_key_value_heads", num_heads, most=_MAX_HEADS),
            head_dim=settings.integer("head_dim", max(hidden_size // num_heads, 1), most=1024),
            rope_theta=settings.number("rope_theta", settings.number("rope_parameters.rope_theta", 1e6)),
            rms_norm_eps=settings.number("rms_norm_eps", 1e-6, most=1.0),
            context=settings.integer("max_position_embeddings", most=_MAX_CONTEXT),
            is_tied=settings.flag("tie_word_embeddings", True),
        )
        if config.num_heads % config.num_kv_heads or config.head_dim % 2:
            raise CheckpointError(
                f"its sizes do not fit together: {config.num_heads} heads of queries, {config.num_kv_heads} of keys, "
                f"{config.head_dim} numbers in each"
            )
        return config
