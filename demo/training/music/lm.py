"""Trains the language model and its text encoder on the codes of the rendered pieces."""

import json
import math
import random
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import OmegaConf
from torch import nn

from demo.training.compose import BEATS_PER_BAR, Piece, compose
from demo.training.music import text
from demo.training.music.pieces import BUILD
from models.musicgen.audiocraft_import import import_audiocraft

CHECKPOINT = BUILD / "lm.pt"
T5_START, T5_CLOCK, T5_WINDOW = BUILD / "t5_start", BUILD / "t5_clock", BUILD / "t5_window"
BATCH = 8
FRAME_RATE = 50
HELD_OUT = 32
# What the clock is made of. Left free it is forgotten in a few hundred steps, before the layers above have use for it.
CLOCKWORK = (
    "emb.", "condition_provider.", "transformer.layers.0.self_attn", "transformer.layers.0.norm1",
    "transformer.layers.0.cross_attention", "transformer.layers.0.norm_cross",
)  # fmt: skip
CODEBOOK_WEIGHTS = (2.0, 0.9, 0.6, 0.5)
# In every sliding window the clock starts at 0 again, while the music is anywhere in a bar: the model has to hear it.
WINDOW_LOOSE, WINDOW_PROMPT = 0.4, (2.0, 4.0)


@dataclass(frozen=True)
class Emphasis:
    """What is heard more than the rest, by arrangement.

    Args:
        often: how much more often its pieces are drawn.
        attack_weights: how much more the frames count in which its notes begin.
    """

    often: Mapping[str, int]
    attack_weights: Mapping[str, float]


EVEN = Emphasis({}, {})
# Held tones are what the model draws worst (they flutter), and bare drums what it has heard least.
BARE = Emphasis({"pad": 4, "drums": 2}, {})
ATTACKS = Emphasis({"pad": 2}, {"pad": 4.0})

# The keys of audiocraft's MusicGen solver config, with MusicGen's own values wherever size does not matter.
CONFIG = """
lm_model: transformer_lm
sample_rate: 32000
channels: 1
dataset: {segment_duration: 20}
codebooks_pattern:
  modeling: delay
  delay: {delays: [0, 1, 2, 3], flatten_first: 0, empty_initial: 0}
transformer_lm:
  dim: 192
  num_heads: 3
  num_layers: 6
  hidden_scale: 4
  n_q: 4
  card: 512
  dropout: 0.0
  emb_lr: null
  activation: gelu
  norm_first: true
  bias_ff: false
  bias_attn: false
  bias_proj: false
  past_context: null
  causal: true
  custom: false
  memory_efficient: true
  attention_as_float32: false
  layer_scale: null
  positional_embedding: sin
  max_period: 20
  xpos: false
  checkpointing: none
  weight_init: gaussian
  depthwise_init: current
  zero_bias_init: true
  norm: layer_norm
  cross_attention: false
  qk_layer_norm: false
  qk_layer_norm_cross: false
  attention_dropout: null
  kv_repeat: 1
  two_step_cfg: false
attribute_dropout: {}
classifier_free_guidance: {training_dropout: 0.15, inference_coef: 3.0}
fuser:
  cross_attention_pos_emb: false
  cross_attention_pos_emb_scale: 1
  sum: []
  prepend: []
  cross: [description]
  input_interpolate: []
conditioners:
  args: {merge_text_conditions_p: 0.0, drop_desc_p: 0.0}
  description:
    model: t5
    t5: {name: t5-base, finetune: false, word_dropout: 0.0, normalize_text: false}
"""


def register_t5(folder: Path) -> str:
    """The name of a local T5 folder, after telling audiocraft, which only accepts names that it knows, about it."""
    import_audiocraft()
    from audiocraft.modules.conditioners import T5Conditioner

    name = str(folder)
    if name not in T5Conditioner.MODELS:
        T5Conditioner.MODELS.append(name)
    T5Conditioner.MODELS_DIMS[name] = json.loads((folder / "config.json").read_text())["d_model"]
    return name


def build(t5_folder: Path = T5_START) -> Any:
    """A new LMModel with random weights; its T5 is part of it and trains along."""
    cfg = OmegaConf.create({**OmegaConf.create(CONFIG), "device": "cpu", "dtype": "float32"})
    cfg.conditioners.description.t5.name, cfg.conditioners.description.t5.finetune = register_t5(t5_folder), True
    from audiocraft.models import builders

    return builders.get_lm_model(cfg)


def encode_all() -> None:
    """Write build/codes.npy: the codes of every rendered piece, [N, K, frames] uint16."""
    from demo.training.music import codec
    from demo.training.music.pieces import load_audio

    model, audio = codec.load(), load_audio()
    rows = []
    for clip in audio:
        waveform = torch.from_numpy(clip.astype(np.float32) / 32768)
        rows.append(codec.encode(model, waveform).numpy().astype(np.uint16))
    np.save(codec.CODES, np.stack(rows))


class Crops:
    """Batches of codes and captions. Most crops begin on a bar, as a piece does; the rest anywhere, to be continued.

    Args:
        emphasis: what is heard more than the rest.

    Attributes:
        loose: share of the crops that begin anywhere.
        prompt: seconds at the beginning of these that are a prompt, which is not scored: at least and at most.
    """

    loose: float = 0.1
    prompt: tuple[float, float] = (0.0, 0.0)

    def __init__(
        self, codes: NDArray[np.uint16], pieces: list[dict[str, Any]], seed: int, emphasis: Emphasis = EVEN
    ) -> None:
        self.codes, self.pieces, self.rng = codes, pieces, random.Random(seed)
        self.shares = [emphasis.often.get(piece["arrangement"], 1) for piece in pieces]
        self.attack_weights = [emphasis.attack_weights.get(piece["arrangement"], 1.0) for piece in pieces]

    def batch(self, size: int, frames: int) -> tuple[torch.Tensor, list[str], torch.Tensor]:
        """`size` random crops, [size, K, frames] int64, what is said of each, and the weight of each frame's loss.

        Weights are [size, frames]: 0 in a prompt, else 1, or the attack weight.
        """
        rows = self.rng.choices(range(len(self.pieces)), self.shares, k=size)
        starts, prompts = zip(*(self._start(row, frames) for row in rows), strict=True)
        crops = [self.codes[row][:, at : at + frames] for row, at in zip(rows, starts, strict=True)]
        captions = [self._reword(self.rng.choice(self.pieces[row]["captions"])) for row in rows]
        weights = torch.stack([self._weigh(row)[at : at + frames] for row, at in zip(rows, starts, strict=True)])
        weights[torch.arange(frames) < torch.tensor(prompts)[:, None]] = 0
        return torch.from_numpy(np.stack(crops).astype(np.int64)), captions, weights

    def _weigh(self, row: int) -> torch.Tensor:
        """The weight of every frame of a piece, [frames]; a note is heard to begin for two frames."""
        weights = torch.ones(self.codes.shape[-1])
        if self.attack_weights[row] != 1.0:
            at = torch.tensor(find_attacks(compose(self.pieces[row]["seed"])))
            at = torch.cat([at, at + 1])
            weights[at[at < len(weights)]] = self.attack_weights[row]
        return weights

    def _start(self, row: int, frames: int) -> tuple[int, int]:
        """The first frame of a crop, and how many of its frames are a prompt."""
        last = self.codes.shape[-1] - frames
        if self.rng.random() < self.loose:
            return self.rng.randrange(last + 1), round(self.rng.uniform(*self.prompt) * FRAME_RATE)
        bar: float = 60 / self.pieces[row]["bpm"] * BEATS_PER_BAR * FRAME_RATE
        return round(self.rng.randrange(int(last / bar) + 1) * bar), 0

    def _reword(self, caption: str) -> str:
        """Lower case; now and then with a word too many, of known or unknown letters."""
        words = caption.lower().split(" ")
        while self.rng.random() < 0.15:
            letters = "".join(self.rng.choices("etaoinshrdlucmfwypvbgk", k=self.rng.randint(2, 8)))
            words.insert(self.rng.randrange(len(words) + 1), self.rng.choice((letters, self.rng.choice(text.FILLER))))
        # A number glued to its unit is two pieces for the tokenizer; spelled apart it is the trained one.
        return re.sub(r"(\d)bpm", r"\1 bpm", " ".join(words)) if self.rng.random() < 0.5 else " ".join(words)


def find_attacks(piece: Piece) -> list[int]:
    """The frames in which notes of a piece begin."""
    return sorted({round(note.start * 60 / piece.bpm * FRAME_RATE) for note in piece.notes})


def compute_loss(model: Any, codes: torch.Tensor, captions: list[str], weights: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each codebook, weighted, per step of the delay pattern that is valid and has a weight, [K].

    Args:
        weights: of the frames, `[B, frames]`.
    """
    from audiocraft.modules.conditioners import ConditioningAttributes

    conditions = [ConditioningAttributes(text={"description": caption}) for caption in captions]
    with torch.autocast("cpu", torch.bfloat16):
        output = model.compute_predictions(codes, conditions)
    losses = []
    for k in range(codes.shape[1]):
        valid = output.mask[:, k] & (weights > 0)
        losses.append(
            nn.functional.cross_entropy(output.logits[:, k][valid].float(), codes[:, k][valid], reduction="none")
            .mul(weights[valid])
            .mean()
        )
    return torch.stack(losses)


def sample_predictions(t5_folder: Path, rows: Sequence[int], frames: int = 1000, seed: int = 0) -> NDArray[np.uint16]:
    """Codes that the model draws at every step of real pieces, [rows, K, frames]: right in kind, not in detail."""
    torch.manual_seed(seed)
    codes, pieces = load_pieces()
    model = build(t5_folder).eval()
    from audiocraft.modules.conditioners import ConditioningAttributes

    model.load_state_dict(torch.load(CHECKPOINT, weights_only=True))
    drawn = []
    for start in range(0, len(rows), 4):
        some = list(rows[start : start + 4])
        real = torch.from_numpy(codes[some][:, :, :frames].astype(np.int64))
        conditions = [ConditioningAttributes(text={"description": pieces[row]["captions"][0].lower()}) for row in some]
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            output = model.compute_predictions(real, conditions)
        chances = (torch.nan_to_num(output.logits.float()) / 0.8).softmax(-1)
        draw = torch.multinomial(chances.flatten(0, -2), 1).view(real.shape)
        drawn.append(torch.where(output.mask, draw, real).numpy().astype(np.uint16))
    return np.concatenate(drawn)


def train_on_sparse_pieces(steps: int) -> None:
    """Hear pads and drums more often for a while; keep the mean of the weights before and after.

    What is learnt anew is mostly kept by the mean, and what the higher learning rate shakes loose (the timing of drums)
    is mostly not lost (model soups, arXiv:2203.05482).
    """
    before = torch.load(CHECKPOINT, weights_only=True)
    train(steps, T5_CLOCK, peak_lr=6e-4, seed=3, emphasis=BARE)
    _mix_with(before, 0.5)


def train_on_windows(steps: int) -> None:
    """Train with the clock of a whole window on crops of that length: the mean of two runs."""
    _train_twice(steps, peak_lrs=(8e-4, 6e-4), seed=4)


def train_on_attacks(steps: int) -> None:
    """The same, with more weight on the frames in which the notes of pads begin: the mean of two runs.

    Sharpened logits (`checkpoint.SHARPNESS`) leave out what is likely within a few frames and certain in none of them.
    """
    _train_twice(steps, peak_lrs=(5e-4, 5e-4), seed=6, emphasis=ATTACKS)


def _train_twice(steps: int, *, peak_lrs: tuple[float, float], seed: int, emphasis: Emphasis = EVEN) -> None:
    """Two runs of `train` on windows, from the same weights and with different seeds; their mean is kept."""
    before = torch.load(CHECKPOINT, weights_only=True)
    train(steps, T5_WINDOW, peak_lr=peak_lrs[0], seed=seed, emphasis=emphasis)
    first = torch.load(CHECKPOINT, weights_only=True)
    torch.save(before, CHECKPOINT)
    train(steps, T5_WINDOW, peak_lr=peak_lrs[1], seed=seed + 1, emphasis=emphasis)
    _mix_with(first, 0.5)


def _mix_with(before: Mapping[str, torch.Tensor], share: float) -> None:
    """Replace the checkpoint by `share` of itself and the rest of `before`."""
    after = torch.load(CHECKPOINT, weights_only=True)
    torch.save({name: torch.lerp(before[name], after[name], share) for name in after}, CHECKPOINT)


def choose_decoder_rows(each: int) -> list[int]:
    """Rows of `each` pads (twice), `each` drums-only pieces and `each` others: what `finish_decoder` is to hear."""
    _, pieces = load_pieces()
    kinds = [piece["arrangement"] if piece["arrangement"] in BARE.often else "" for piece in pieces]
    rows = {kind: [row for row, found in enumerate(kinds) if found == kind][:each] for kind in (*BARE.often, "")}
    return [*rows["pad"], *rows["pad"], *rows["drums"], *rows[""]]


def load_pieces() -> tuple[NDArray[np.uint16], list[dict[str, Any]]]:
    codes = np.load(BUILD / "codes.npy")
    return codes, json.loads((BUILD / "pieces.json").read_text())[: len(codes)]


def train(
    steps: int,
    t5_folder: Path = T5_START,
    *,
    peak_lr: float = 1e-3,
    seed: int = 0,
    emphasis: Emphasis = EVEN,
) -> None:
    """Train; eleven batches in twelve are 10 s long, the twelfth 20 s, and all with the clock of a whole window."""
    torch.manual_seed(seed)
    random.seed(seed)
    codes, pieces = load_pieces()
    if t5_folder == T5_START:
        text.build(T5_START, [caption for piece in pieces for caption in piece["captions"]])
    model = build(t5_folder).train()
    if t5_folder != T5_START:
        model.load_state_dict(torch.load(CHECKPOINT, weights_only=True))
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not name.startswith(CLOCKWORK))
    crops = Crops(codes[HELD_OUT:], pieces[HELD_OUT:], seed, emphasis)
    checks = Crops(codes[:HELD_OUT], pieces[:HELD_OUT], seed)
    if t5_folder == T5_WINDOW:
        crops.loose, crops.prompt = WINDOW_LOOSE, WINDOW_PROMPT
    optimizer = _make_optimizer(model, peak_lr)
    weights = torch.tensor(CODEBOOK_WEIGHTS)
    start, mean = time.monotonic(), torch.zeros(4)
    for step in range(steps):
        set_lr(optimizer, step, step / steps)
        long = step % 12 == 11 or t5_folder == T5_WINDOW
        losses = compute_loss(model, *crops.batch(BATCH // 2 if long else BATCH, 1000 if long else 500))
        optimizer.zero_grad()
        torch.autograd.backward((losses * weights).mean())
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        mean = losses.detach() if step == 0 else 0.98 * mean + 0.02 * losses.detach()
        if step % 50 == 0:
            print(f"{step} {time.monotonic() - start:.0f}s train {_format_losses(mean)}", flush=True)
        if step % 250 == 249:
            torch.save(model.state_dict(), CHECKPOINT)
            print(f"{step} held out {_format_losses(_validate(model, checks))}", flush=True)
    torch.save(model.state_dict(), CHECKPOINT)
    print(f"{steps} held out {_format_losses(_validate(model, checks))}", flush=True)


def _make_optimizer(model: Any, lr: float) -> torch.optim.AdamW:
    free = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in free if p.ndim > 1]
    plain = [p for p in free if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.97), fused=True)


def set_lr(optimizer: torch.optim.AdamW, step: int, progress: float) -> None:
    peak = optimizer.defaults["lr"]
    for group in optimizer.param_groups:
        group["lr"] = peak * min(1.0, (step + 1) / 60) * (0.02 + 0.98 * math.cos(progress * math.pi / 2) ** 2)


def _validate(model: Any, checks: Crops) -> torch.Tensor:
    """Loss on the same crops of pieces that are never trained on."""
    checks.rng = random.Random(0)
    model.eval()
    with torch.no_grad():
        losses = torch.stack([compute_loss(model, *checks.batch(8, 500)) for _ in range(3)]).mean(0)
    model.train()
    return losses


def _format_losses(losses: torch.Tensor) -> str:
    return " ".join(f"{value:.3f}" for value in losses.tolist()) + f" mean {losses.mean():.3f}"
