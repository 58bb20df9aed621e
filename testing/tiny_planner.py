"""Writes tiny random planners of ACE-Step (5 Hz language models) as they are published: Qwen3 folders.

The tokenizer is Qwen3's in small: bytes, the pieces of words that a plan is made of, the special tokens, and as many
audio codes as asked for. Ends of lines and of turns are likely tokens, so that texts are short.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

NUM_CODES = 200
HIDDEN_SIZE = 32
_CONTEXT = 40_960
_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_THINK = ("<think>", "</think>")  # not special in Qwen3's tokenizer either
_LIKELY = {"Ċ": 6.0, ".Ċ": 5.5, "<|im_end|>": 9.0}  # by how much their logits are raised
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# fmt: off
_PIECES = (  # in an order in which each of them is one token
    "Ġla", "language", "pm", "caption", "duration", "genres", "keys", "cale", "ignature", "Ġmajor", "Ġminor", "ĠA",
    "ĠC", "ĠG", "Ġen", "Ġzh", "Ġunknown", "Ġa", "Ġthe", "Ġsong", "Ġwith", "Ġpiano", "Ġand", "Ġslow", "Ġdrums", "Lyric",
    "Caption", "Instruction", "Chorus", "system", "times", "user", "assistant", "instrumental", "Ġtrue", "Ġfalse",
    "Verse", ".Ċ", "ĊĊ", ":Ċ", "]Ċ", "la", "ing",
)
# fmt: on


def write_tiny_planner(  # noqa: PLR0913  (the axes along which checkpoints differ)
    folder: Path,
    name: str = "acestep-5Hz-lm-0.6B",
    seed: int = 0,
    *,
    num_codes: int = NUM_CODES,
    prefixed: bool = True,
    num_shards: int = 1,
    context: int = _CONTEXT,
) -> Path:
    """Writes a planner with random weights in float32 to `folder / name`, which it returns.

    Args:
        num_codes: audio codes that the vocabulary has; the published ones have 65,535, of which 64,000 are used.
        prefixed: whether the names of the tensors begin with `model.`, which those of some files do not.
        num_shards: files that the weights are divided among.
        context: tokens that the model states to have positions for.
    """
    target = folder / name
    target.mkdir(parents=True, exist_ok=True)
    tokenizer = make_planner_tokenizer(num_codes)
    tokenizer.save(str(target / "tokenizer.json"))
    config = make_config(tokenizer, context=context)
    (target / "config.json").write_text(json.dumps(config, indent=2))
    state = make_weights(config, tokenizer, seed)
    if not prefixed:
        state = {key.removeprefix("model."): value for key, value in state.items()}
    _save_weights(state, target, num_shards)
    return target


def make_planner_tokenizer(num_codes: int = NUM_CODES, *, num_text: int = 0) -> tokenizers.Tokenizer:
    """Makes a byte-level BPE tokenizer that splits text as Qwen3's does.

    Args:
        num_text: ids before those of the audio codes; tokens that no text has fill them up.
    """
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: index for index, letter in enumerate(letters)}
    merges: dict[tuple[str, str], None] = {}
    for piece in _PIECES:
        for end in range(1, len(piece)):
            merges[piece[:end], piece[end]] = None
            vocabulary.setdefault(piece[: end + 1], len(vocabulary))
    for index in range(len(vocabulary), num_text - len(_SPECIAL) - len(_THINK)):
        vocabulary[f"<unused {index}>"] = index
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=list(merges)))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in _SPECIAL])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in _THINK])
    codes = (f"<|audio_code_{code}|>" for code in range(num_codes))
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in codes])
    return tokenizer


def make_config(tokenizer: tokenizers.Tokenizer, *, context: int = _CONTEXT) -> dict[str, Any]:
    """The `config.json` of a tiny planner with this tokenizer."""
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": tokenizer.token_to_id("<|endoftext|>"),
        "eos_token_id": tokenizer.token_to_id("<|im_end|>"),
        "head_dim": 8,
        "hidden_act": "silu",
        "hidden_size": HIDDEN_SIZE,
        "initializer_range": 0.02,
        "intermediate_size": 64,
        "max_position_embeddings": context,
        "max_window_layers": 2,
        "model_type": "qwen3",
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": tokenizer.get_vocab_size(),
    }


def make_weights(config: Mapping[str, Any], tokenizer: tokenizers.Tokenizer, seed: int) -> dict[str, torch.Tensor]:
    """Random weights that make every part of the network count, by the names of Qwen3ForCausalLM."""
    generator = torch.Generator().manual_seed(seed)
    hidden, inner, head = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head

    def matrix(rows: int, columns: int) -> torch.Tensor:
        return torch.randn(rows, columns, generator=generator).mul_(columns**-0.5)

    def norm(size: int) -> torch.Tensor:
        return 1 + 0.2 * torch.randn(size, generator=generator)

    # The signs keep a token from predicting itself, for the embedding is the head, too. All rows share a direction,
    # which the residual stream keeps: the logit of a row with some of it behind the signs is larger.
    signs = torch.randint(0, 2, (hidden,), generator=generator) * 2.0 - 1
    embedding = 0.25 * torch.randn(config["vocab_size"], hidden, generator=generator) + 0.5
    for token, raised in _LIKELY.items():
        embedding[tokenizer.token_to_id(token)] += signs * raised / hidden
    state = {"model.embed_tokens.weight": embedding, "model.norm.weight": signs * norm(hidden)}
    for layer in range(config["num_hidden_layers"]):
        state |= {
            f"model.layers.{layer}.{name}": value
            for name, value in {
                "input_layernorm.weight": norm(hidden),
                "self_attn.q_proj.weight": matrix(queries, hidden),
                "self_attn.k_proj.weight": matrix(keys, hidden),
                "self_attn.v_proj.weight": matrix(keys, hidden),
                "self_attn.o_proj.weight": matrix(hidden, queries),
                "self_attn.q_norm.weight": norm(head),
                "self_attn.k_norm.weight": norm(head),
                "post_attention_layernorm.weight": norm(hidden),
                "mlp.gate_proj.weight": matrix(inner, hidden),
                "mlp.up_proj.weight": matrix(inner, hidden),
                "mlp.down_proj.weight": matrix(hidden, inner),
            }.items()
        }
    return state


def _save_weights(state: Mapping[str, torch.Tensor], folder: Path, num_shards: int) -> None:
    if num_shards == 1:
        save_file(dict(state), folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = sorted(state)
    files = {
        name: f"model-{index % num_shards + 1:05}-of-{num_shards:05}.safetensors" for index, name in enumerate(names)
    }
    for file in sorted(set(files.values())):
        save_file(
            {name: state[name] for name in names if files[name] == file}, folder / file, metadata={"format": "pt"}
        )
    total = sum(tensor.nbytes for tensor in state.values())
    index = {"metadata": {"total_size": total}, "weight_map": files}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
