"""Makes the beat clock exact for a whole window of 20 s; `clock.py` makes one that is exact for ten.

Sines of all tempi between 70 and 160 bpm span more dimensions over 20 s than the position embedding has frequencies
there, so the two sines of the beat are lost after 10 s. At half the frequency they span half as many. So the three
heads are set to three phases of the half bar, a third of a period apart: their differences give its angle, and their
mean, which depends on how many tokens the caption has, cancels. The beat is the double of this angle. The feed-forward
block behind the heads learns to compute it; its teacher is the old layer with an ideal clock, so the layers above see
what they know.
"""

import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from demo.training.music import clock, lm, text

MORE, MORE_SCALE = 16, 0.5  # dimensions of T5 beside those of `clock.py`, and the size of their entries
HALF_BAR = 0.5
PHASES = (2 * math.pi / 3, -2 * math.pi / 3, 0.0)
SEGMENT = 20 * lm.FRAME_RATE
# The share of a head's attention at the middle of its swing depends on how many other tokens there are. The teacher's
# does not: it is what this number of them gives.
TEACHER_TOKENS = 14
BATCH, PEAK_LR = 4, 2e-3
UNTOLD = 0.15  # share of crops without a caption, as guidance needs them


def extend(steps: int, seed: int = 0) -> None:
    """Replace the clock of lm.pt and its T5 by the one for 20 s, and teach the first layer to make the beat of it."""
    torch.manual_seed(seed)
    old = lm.build(lm.T5_CLOCK).eval()
    old.load_state_dict(torch.load(lm.CHECKPOINT, weights_only=True))
    features, positions = clock.collect_features(old, SEGMENT + 4)
    wanted = torch.stack([clock.fit(features, positions, HALF_BAR, phase, SEGMENT + 4) for phase in PHASES])
    new = _widen(old, lm.T5_WINDOW, wanted)
    _wire(new, wanted)
    distil(old, new, steps, seed)
    torch.save(new.state_dict(), lm.CHECKPOINT)


def _widen(old: Any, folder: Path, wanted: torch.Tensor) -> Any:
    """A copy of the model whose T5 has `MORE` more dimensions, zero but for tempi; the T5 is written to `folder`.

    Args:
        wanted: coefficients of the scores, [heads, dim, tempi]; the new dimensions carry of them what the old do not.
    """
    t5 = old.condition_provider.conditioners["description"].t5
    tokenizer = T5Tokenizer.from_pretrained(lm.T5_CLOCK)
    known = tokenizer.get_vocab()
    tempi = [known[f"▁{tempo}"] for tempo in text.TRAINED_TEMPI]
    size = t5.config.d_model
    with torch.no_grad():
        carried = t5.shared.weight[tempi][:, text.D_MODEL : text.D_MODEL + clock.RANK]
        basis, _ = torch.linalg.qr(carried)
        left_over = wanted.flatten(0, 1) - wanted.flatten(0, 1) @ basis @ basis.T
        _, _, right = torch.linalg.svd(left_over, full_matrices=False)
        codes = MORE_SCALE * right[:MORE].T * math.sqrt(len(tempi))
        wide = T5EncoderModel(T5Config.from_pretrained(lm.T5_CLOCK, d_model=size + MORE))
        for (name, target), source in zip(wide.state_dict().items(), t5.state_dict().values(), strict=True):
            target.zero_()
            target[tuple(slice(n) for n in source.shape)] = source
            if "layer_norm" in name:
                target *= math.sqrt(size / (size + MORE))
        wide.encoder.final_layer_norm.weight[size:] = 1.0
        for tempo in text.TEMPI:
            for mark in ("▁", ""):
                code = codes[text.fold_tempo(tempo) - text.TRAINED_TEMPI[0]]
                wide.shared.weight[known[f"{mark}{tempo}"], size:] = code
    wide.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    new = lm.build(folder).eval()
    state = {name: value for name, value in old.state_dict().items() if ".t5." not in name}
    proj = "condition_provider.conditioners.description.output_proj.weight"
    left, _, _ = torch.linalg.svd(state[proj])
    state[proj] = torch.cat([state[proj], left[:, size:][:, :MORE]], 1)
    new.load_state_dict(state, strict=False)
    return new


def _wire(model: Any, wanted: torch.Tensor) -> None:
    """Set queries and keys of the first cross-attention; `wanted` is [heads, dim, tempi]. Values and output stay."""
    conditioner = model.condition_provider.conditioners["description"]
    with torch.no_grad():
        columns = conditioner.output_proj.weight[:, text.D_MODEL :]
        # Between the old codes and the new lie the tempo's mark and dimensions that are not used.
        free, _ = torch.linalg.qr(torch.cat([columns[:, : clock.RANK], columns[:, clock.EXTRA :]], 1))
        carried = _embed_tempi(conditioner) @ free  # [tempi, rank]
        attention = model.transformer.layers[0].cross_attention
        size = attention.embed_dim // attention.num_heads
        query, key, _ = attention.in_proj_weight.chunk(3)
        for head, coefficients in enumerate(wanted):
            per_code = torch.linalg.lstsq(carried, coefficients.T).solution.T  # [dim, rank]
            left, strength, right = torch.linalg.svd(per_code * math.sqrt(size), full_matrices=False)
            rows = slice(head * size, (head + 1) * size)
            query[rows], key[rows] = 0.0, 0.0
            query[rows][: len(strength)] = strength.sqrt()[:, None] * left.T
            key[rows][: len(strength)] = strength.sqrt()[:, None] * right @ free.T


def _embed_tempi(conditioner: Any) -> torch.Tensor:
    """What cross-attention sees of the token of each trained tempo, mean of a few captions, [tempi, dim]."""
    found = []
    for caption in ("techno, {} bpm, drums and bass", "soft pads at {} bpm", "a calm rock song with piano tempo {}"):
        tokens = conditioner.tokenize([caption.format(tempo) for tempo in text.TRAINED_TEMPI])
        embedded, _ = conditioner(tokens)
        places = _find_tempi(conditioner, tokens["input_ids"])[1].argmax(1)
        found.append(embedded[torch.arange(len(embedded)), places])
    return torch.stack(found).mean(0).detach()


def _find_tempi(conditioner: Any, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The folded tempo of each caption, [B] (0: none), and at which of its tokens [B, T] it stands (one-hot)."""
    known = conditioner.t5_tokenizer.get_vocab()
    table = torch.zeros(len(known), dtype=torch.int64)
    for tempo in text.TEMPI:
        for mark in ("▁", ""):
            table[known[f"{mark}{tempo}"]] = text.fold_tempo(tempo)
    tempi = table[tokens]
    return tempi.amax(1), (tempi > 0).int()


class FirstLayer:
    """Runs the first layer of the language model alone: of the student as it is, of the teacher with an ideal clock."""

    def __init__(self, model: Any) -> None:
        self.model, self.layer = model, model.transformer.layers[0]
        self.conditioner = model.condition_provider.conditioners["description"]
        # What the heads pass on of a tempo's token: its mark, which is the same for all tempi.
        self.value = self.layer.cross_attention.in_proj_weight.chunk(3)[2] @ _embed_tempi(self.conditioner).mean(0)

    def embed(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes [B, K, T] as the layer gets them, in the delay pattern: [B, S, dim]."""
        from audiocraft.modules.transformer import create_sin_embedding

        pattern = self.model.pattern_provider.get_pattern(codes.shape[-1])
        steps, _, _ = pattern.build_pattern_sequence(codes, self.model.special_token_id, keep_only_valid_steps=True)
        embedded = sum(table(steps[:, k]) for k, table in enumerate(self.model.emb))
        positions = torch.arange(steps.shape[-1]).view(1, -1, 1)
        period = self.model.transformer.max_period
        found: torch.Tensor = embedded + create_sin_embedding(positions, embedded.shape[-1], max_period=period)
        return found

    def run(self, embedded: torch.Tensor, captions: list[str | None]) -> torch.Tensor:
        """What the layer makes of `embedded` [B, S, dim] and B captions (None: no caption), [B, S, dim]."""
        with torch.no_grad():
            condition, _ = self.conditioner(self.conditioner.tokenize(captions))
        output: torch.Tensor = self.layer(embedded, cross_attention_src=condition, src_mask=None)
        return output

    def run_ideal(self, embedded: torch.Tensor, captions: list[str | None]) -> torch.Tensor:
        """As `run`, with the heads' attention to the tempo's token replaced by what exact sines give it."""
        tokens = self.conditioner.tokenize(captions)
        tempi, _ = _find_tempi(self.conditioner, tokens["input_ids"])
        tempi = tempi * tokens["attention_mask"].amax(1)
        attention = self.layer.cross_attention
        size = attention.embed_dim // attention.num_heads
        steps = torch.arange(embedded.shape[1])
        spoken = torch.zeros_like(embedded)
        for head, (bars, phase) in enumerate(clock.CLOCKS):
            angle = steps * (2 * math.pi * tempi[:, None] / (60 * lm.FRAME_RATE * 4 * bars)) - phase
            score = clock.OFFSET + clock.SWING * angle.cos()
            share = torch.where(tempi[:, None] > 0, torch.sigmoid(score - math.log(TEACHER_TOKENS)), 0.0)
            rows = slice(head * size, (head + 1) * size)
            spoken += share[..., None] * (attention.out_proj.weight[:, rows] @ self.value[rows])
        summed = embedded + spoken
        hidden = nn.functional.gelu(self.layer.linear1(self.layer.norm2(summed)))
        output: torch.Tensor = summed + self.layer.linear2(hidden)
        return output


def distil(old: Any, new: Any, steps: int, seed: int) -> None:
    """Teach the new first layer's output and feed-forward block to give what the old one gives with an ideal clock.

    The loss is the mean square difference in the residual stream: the clock is most of what the layer adds to it.
    """
    codes, pieces = lm.load_pieces()
    crops = lm.Crops(codes[lm.HELD_OUT :], pieces[lm.HELD_OUT :], seed)
    teacher, student = FirstLayer(old), FirstLayer(new)
    layer = student.layer
    blocks = (layer.cross_attention.out_proj, layer.norm2, layer.linear1, layer.linear2)
    taught = [parameter for block in blocks for parameter in block.parameters()]
    optimizer = torch.optim.AdamW(taught, PEAK_LR, weight_decay=0.0)
    start, mean = time.monotonic(), 0.0
    for step in range(steps):
        lm.set_lr(optimizer, step, step / steps)
        found, captions, _ = crops.batch(BATCH, SEGMENT)
        heard = [None if crops.rng.random() < UNTOLD else caption for caption in captions]
        with torch.no_grad():
            embedded = teacher.embed(found)
            target = teacher.run_ideal(embedded, heard)
        error = (student.run(embedded, heard) - target).square().mean()
        optimizer.zero_grad()
        torch.autograd.backward(error)
        nn.utils.clip_grad_norm_(taught, 1.0)
        optimizer.step()
        mean = error.item() if step == 0 else 0.95 * mean + 0.05 * error.item()
        if step % 25 == 0 or step == steps - 1:
            power = (target - embedded).square().mean().item()
            print(f"{step} {time.monotonic() - start:.0f}s error {mean:.4f} of {power:.4f}", flush=True)
