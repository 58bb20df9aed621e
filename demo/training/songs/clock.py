"""Wires a bar clock into the transformer, which would otherwise need far more steps to learn to count.

The latents of silence, which a song is made from, tell the time: they are sines of 16 frequencies in the range of bars
a second. A sine of any bar is nearly a linear function of them; its coefficients depend on the tempo. They are put into
the embedding of the tempo's token, and from there into the keys of the first cross-attention, whose queries are those
sines. So the share of attention that the tempo's token gets swings with the bar, and the layers above learn what to
play when. The four heads are an eighth of a bar apart.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from demo.training.songs.networks import CONFIG, SongNetworks
from demo.training.songs.text import TEMPI, fold_tempo
from models.acestep.checkpoint import SILENCE_FRAMES

if TYPE_CHECKING:
    import tokenizers

BEATS_PER_BAR = 4
TOKEN_SECONDS = CONFIG.patch_size / 25
CYCLE_TOKENS = 384  # 30.7 s: then the clock starts again
_BANK = CONFIG.latent_channels
_FREQUENCIES = torch.linspace(0.28, 0.68, _BANK, dtype=torch.float64)  # bars a second at 67 to 163 beats a minute
_FITTED_SECONDS = 31.0
_RIDGE = 1e-3
_TIME, _ONE, _CLOCKS = slice(0, 2 * _BANK), 2 * _BANK, slice(2 * _BANK + 1, 2 * _BANK + 5)  # of the residual stream
_MARK = 2 * _BANK  # of texts and conditions: not 0 for the token of a tempo
_BIAS = 2 * _BANK + 1  # of conditions: 1 for every token
_RESERVED = slice(0, 2 * _BANK + 1)  # of texts
_PHASES = (0.0, 0.5, 0.25, 0.75)  # of a head, in units of pi
_EMBEDDED_SWING, _EMBEDDED_MARK = 6.0, 4.0
_QUERY_OFFSET, _KEY_OFFSET = 2.0, 0.5
_NORM_WEIGHT = math.sqrt(1.5)


def make_silence() -> torch.Tensor:
    """Makes the latents of silence, `[1, 15000, C]`: cosines in even frames, sines in odd ones."""
    tokens = torch.arange(SILENCE_FRAMES // 2) % CYCLE_TOKENS
    angles = 2 * math.pi * torch.outer(tokens.double() * TOKEN_SECONDS, _FREQUENCIES)
    return torch.stack([angles.cos(), angles.sin()], dim=1).flatten(0, 1)[None].float()


def compute_bar_angle(num_tokens: int, bpm: torch.Tensor, first_token: torch.Tensor) -> torch.Tensor:
    """Computes the angle of the bar at each token, `[B, L]`: 0 where a bar begins.

    Args:
        bpm, first_token: `[B]`.
    """
    tokens = (first_token[:, None] + torch.arange(num_tokens)) % CYCLE_TOKENS
    return 2 * math.pi * tokens * TOKEN_SECONDS * bpm[:, None] / (60 * BEATS_PER_BAR)


class Clockwork:
    """The weights that make the clock. They are set at first, and set again after every step of training."""

    def __init__(self, networks: SongNetworks, tokenizer: tokenizers.Tokenizer) -> None:
        self._fixed: list[tuple[torch.Tensor, Any, torch.Tensor]] = []
        self._wire_text(networks, tokenizer)
        self._wire_conditions(networks)
        self._wire_transformer(networks.transformer)

    @torch.no_grad()
    def restore(self) -> None:
        """Undoes what a step has changed of them."""
        for tensor, where, values in self._fixed:
            tensor[where] = values

    @torch.no_grad()
    def _fix(self, tensor: torch.Tensor, where: Any, values: torch.Tensor | float) -> None:
        tensor[where] = values
        self._fixed.append((tensor, where, tensor[where].clone()))

    def _wire_text(self, networks: SongNetworks, tokenizer: tokenizers.Tokenizer) -> None:
        """Gives every tempo its coefficients and a mark, which pass the text encoder unchanged but for a scale."""
        encoder = networks.text_encoder
        embedding = encoder.get_input_embeddings().weight
        rows = torch.zeros(len(embedding), _RESERVED.stop)
        seconds = torch.arange(0, _FITTED_SECONDS, TOKEN_SECONDS, dtype=torch.float64)
        bank = torch.exp(2j * math.pi * torch.outer(seconds, _FREQUENCIES))
        gram = bank.mH @ bank + _RIDGE * len(seconds) * torch.eye(_BANK)
        for tempo in TEMPI:
            bar = torch.exp(2j * math.pi * seconds * fold_tempo(tempo) / (60 * BEATS_PER_BAR))
            found = torch.linalg.solve(gram, bank.mH @ bar)
            row = rows[tokenizer.token_to_id(str(tempo))]
            row[_TIME] = _EMBEDDED_SWING * torch.cat([found.real, -found.imag]).float()
            row[_MARK] = _EMBEDDED_MARK
        self._fix(embedding, (slice(None), _RESERVED), rows)
        for layer in encoder.layers:
            self._fix(layer.self_attn.o_proj.weight, _RESERVED, 0.0)
            self._fix(layer.mlp.down_proj.weight, _RESERVED, 0.0)
        self._fix(encoder.norm.weight, _RESERVED, 1.0)

    def _wire_conditions(self, networks: SongNetworks) -> None:
        encoder, embedder = networks.condition_encoder, networks.transformer.condition_embedder
        size = _RESERVED.stop
        self._fix(encoder.text_projector.weight, _RESERVED, torch.eye(size, CONFIG.text_hidden_size))
        for part in (encoder.lyric_encoder, encoder.timbre_encoder):
            self._fix(part.norm.weight, _RESERVED, 0.0)
        self._fix(encoder.null_condition_emb, (..., _RESERVED), 0.0)
        self._fix(embedder.weight, _RESERVED, torch.eye(size, CONFIG.encoder.hidden_size))
        self._fix(embedder.weight, _BIAS, 0.0)
        self._fix(embedder.bias, slice(0, size + 1), torch.tensor([0.0] * size + [1.0]))

    def _wire_transformer(self, transformer: Any) -> None:
        patch, layer = transformer.proj_in_conv, transformer.layers[0]
        kept = slice(0, _CLOCKS.stop)
        weight = torch.zeros(kept.stop, *patch.weight.shape[1:])
        for channel in range(_BANK):
            weight[channel, channel, 0] = 1.0
            weight[_BANK + channel, channel, 1] = 1.0
        weight[_ONE, CONFIG.latent_channels, 0] = 1.0  # the mask
        self._fix(patch.weight, kept, weight)
        self._fix(patch.bias, kept, 0.0)
        self._fix(layer.self_attn.to_out[0].weight, kept, 0.0)
        self._fix(layer.cross_attn_norm.weight, slice(0, _ONE + 1), 1.0)
        self._wire_attention(layer.cross_attn)

    def _wire_attention(self, attention: Any) -> None:
        size = CONFIG.head_dim
        query, output = torch.zeros_like(attention.to_q.weight), torch.zeros_like(attention.to_out[0].weight)
        for head, phase in enumerate(_PHASES):
            cosine, sine = math.cos(math.pi * phase), math.sin(math.pi * phase)
            one = torch.eye(_BANK)
            rows = query[head * size : (head + 1) * size]
            rows[:_BANK, :_BANK], rows[:_BANK, _BANK : 2 * _BANK] = cosine * one, sine * one
            rows[_BANK : 2 * _BANK, :_BANK], rows[_BANK : 2 * _BANK, _BANK : 2 * _BANK] = -sine * one, cosine * one
            rows[2 * _BANK, _ONE] = _QUERY_OFFSET
            output[_CLOCKS.start + head, head * size] = 1.0
        key, value = torch.zeros_like(attention.to_k.weight), torch.zeros_like(attention.to_v.weight)
        for head in range(CONFIG.transformer.num_kv_heads):
            rows = key[head * size : (head + 1) * size]
            rows[: 2 * _BANK, : 2 * _BANK] = torch.eye(2 * _BANK)
            rows[2 * _BANK, _MARK], rows[2 * _BANK, _BIAS] = _KEY_OFFSET, -1.0
            value[head * size, _MARK] = 1.0
        self._fix(attention.to_q.weight, slice(None), query)
        self._fix(attention.to_k.weight, slice(None), key)
        self._fix(attention.to_v.weight, slice(None), value)
        self._fix(attention.to_out[0].weight, slice(None), output)
        for norm in (attention.norm_q, attention.norm_k):
            self._fix(norm.weight, slice(None), _NORM_WEIGHT)
