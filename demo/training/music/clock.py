"""Wires a beat clock into a half-trained language model, which would otherwise need far more steps to learn to count.

A sine of the beat over the position is a linear function of MusicGen's own position embedding; its coefficients depend
on the tempo. So the score of one cross-attention head between the current step and the tempo's token can be that sine:
query = position, key = coefficients. This sets the first layer's three heads so, and widens the text encoder by `EXTRA`
values that carry the coefficients through it. The layers above then learn what to play when.
"""

import math
from pathlib import Path
from typing import Any

import torch
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from demo.training.music import lm, text

EXTRA, RANK = 32, 30
# Per head: bars a period, and the phase; scores swing around OFFSET so that softmax over the tokens lets them through.
CLOCKS = ((0.25, 0.0), (0.25, math.pi / 2), (0.5, 0.0))
OFFSET, SWING = 3.0, 2.2
HEAD_NORM, TEMPO_MARK = 6.0, 4.0
TEN_SECONDS = 510  # steps, and a few more


def graft(old_folder: Path, new_folder: Path) -> None:
    """Replace the checkpoint of phase one by the same model with a clock; the wider T5 goes to `new_folder`."""
    old = lm.build(old_folder)
    old.load_state_dict(torch.load(lm.CHECKPOINT, weights_only=True))
    torch.manual_seed(0)
    with torch.no_grad():
        first = old.transformer.layers[0]
        first.self_attn.out_proj.weight.zero_()  # what was played would blur the clock: this layer only tells the time
        first.norm_cross.weight.fill_(1.0)
        first.norm_cross.bias.fill_(1.0)  # layer norm removes the mean; the bias brings a constant back
    features, steps = collect_features(old)
    coefficients = torch.stack([fit(features, steps, bars, phase) for bars, phase in CLOCKS])  # [heads, dim, tempi]
    _, _, right = torch.linalg.svd(coefficients.flatten(0, 1), full_matrices=False)
    codes = right[:RANK].T * math.sqrt(len(text.TRAINED_TEMPI))  # [tempi, RANK], entries around 1
    _widen(old, old_folder, new_folder, codes)
    new = lm.build(new_folder)
    state = {name: value for name, value in old.state_dict().items() if ".t5." not in name}
    proj = "condition_provider.conditioners.description.output_proj.weight"
    left, _, _ = torch.linalg.svd(state[proj])
    free = left[:, text.D_MODEL :][:, :EXTRA]  # directions that no word of the old encoder reaches
    state[proj] = torch.cat([state[proj], free], 1)
    new.load_state_dict(state, strict=False)
    _wire(new, coefficients @ codes / len(text.TRAINED_TEMPI), free)
    torch.save(new.state_dict(), lm.CHECKPOINT)


def collect_features(model: Any, frames: int = 1000) -> tuple[torch.Tensor, torch.Tensor]:
    """What the first cross-attention sees on real crops, [N, dim], and the step each row belongs to, [N]."""
    seen: list[torch.Tensor] = []
    hook = model.transformer.layers[0].norm_cross.register_forward_hook(lambda _m, _i, out: seen.append(out.float()))
    model.eval()
    with torch.no_grad():
        lm.compute_loss(model, *lm.Crops(*lm.load_pieces(), seed=5).batch(16, frames))
    hook.remove()
    rows = seen[0]
    return rows.flatten(0, 1), torch.arange(rows.shape[1]).repeat(rows.shape[0])


def fit(
    features: torch.Tensor, steps: torch.Tensor, bars: float, phase: float, sharp: int = TEN_SECONDS
) -> torch.Tensor:
    """Ridge regression from features to the wanted score, for each tempo: [dim, tempi]. `sharp` steps matter most."""
    tempi = torch.tensor(list(text.TRAINED_TEMPI), dtype=torch.float32)
    frequency = 2 * math.pi * tempi / (60 * lm.FRAME_RATE * 4 * bars)
    wanted = OFFSET + SWING * torch.cos(steps[:, None] * frequency - phase)
    weighted = features * torch.where(steps < sharp, 1.0, 0.15)[:, None]
    gram = weighted.T @ features + 0.003 * len(features) * torch.eye(features.shape[1])
    found: torch.Tensor = torch.linalg.solve(gram, weighted.T @ wanted)
    early = steps < sharp
    left = 1 - (features @ found - wanted)[early].var() / wanted[early].var()
    print(f"clock of {bars} bars: {left:.3f} of the variance", flush=True)
    return found


def _widen(model: Any, old_folder: Path, new_folder: Path, codes: torch.Tensor) -> None:
    """Write the T5 with EXTRA more dimensions: zero for words, `codes` and a mark for tempi. Words stay as they are."""
    t5 = model.condition_provider.conditioners["description"].t5
    tokenizer = T5Tokenizer.from_pretrained(old_folder)
    size, width = text.D_MODEL, text.D_MODEL + EXTRA
    wide = T5EncoderModel(T5Config.from_pretrained(old_folder, d_model=width))
    with torch.no_grad():
        for (name, target), source in zip(wide.state_dict().items(), t5.state_dict().values(), strict=True):
            target.zero_()
            target[tuple(slice(n) for n in source.shape)] = source
            if "layer_norm" in name:
                target *= math.sqrt(size / width)
        wide.encoder.final_layer_norm.weight[size:] = 1.0
        known = tokenizer.get_vocab()
        for tempo in text.TEMPI:
            twin = text.fold_tempo(tempo)
            for mark in ("▁", ""):
                row = wide.shared.weight[known[f"{mark}{tempo}"]]
                row[:size] = t5.shared.weight[known[f"▁{twin}"]]
                row[size : size + RANK], row[size + RANK] = codes[twin - text.TRAINED_TEMPI[0]], TEMPO_MARK
    wide.save_pretrained(new_folder)
    tokenizer.save_pretrained(new_folder)


def _wire(model: Any, per_code: torch.Tensor, free: torch.Tensor) -> None:
    """Set queries, keys, values and output of the first cross-attention; `per_code` is [heads, dim, RANK]."""
    conditioner = model.condition_provider.conditioners["description"]
    conditioner.eval()
    with torch.no_grad():
        embedded, _ = conditioner(conditioner.tokenize(["techno, 100 bpm, drums and bass"]))
        mark = (embedded[0] - conditioner.output_proj.bias) @ free[:, RANK]
        scale = float(mark.max()) / TEMPO_MARK  # what the encoder's last norm does to the new dimensions
        attention = model.transformer.layers[0].cross_attention
        dim, heads = attention.embed_dim, attention.num_heads
        size = dim // heads
        query, key, value = attention.in_proj_weight.chunk(3)
        for head in range(heads):
            rows = slice(head * size, (head + 1) * size)
            left, strength, right = torch.linalg.svd(per_code[head] * math.sqrt(size) / scale, full_matrices=False)
            query[rows], key[rows] = 0.0, 0.0
            query[rows][:RANK] = strength.sqrt()[:, None] * left.T
            key[rows][:RANK] = strength.sqrt()[:, None] * right @ free[:, :RANK].T
            direction = torch.nn.functional.normalize(torch.randn(size), dim=0)
            value[rows] = HEAD_NORM / (TEMPO_MARK * scale) * direction[:, None] * free[:, RANK]
        attention.out_proj.weight.copy_(torch.linalg.qr(torch.randn(dim, dim))[0])
