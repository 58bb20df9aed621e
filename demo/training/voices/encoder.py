"""Trains the content encoder: a small HuBERT that hears which phoneme is sung, and not by whom.

Three losses on pairs of singers with the same words: the phoneme of every frame; the mel spectrum that one singer, the
alto, has there, which keeps loudness and the transitions between phonemes; and the difference between the features of
the two singers.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from demo.training.singing.lexicon import PHONEMES
from demo.training.voices.augment import Crops, draw_crops, label_crops
from demo.training.voices.data import BUILD, INPUT_RATE, NAMES, Lines, load_lines
from demo.training.voices.mel import log_mel
from models.demo import CONTENT_ENCODER

CHECKPOINT = BUILD / "encoder.pt"
FOLDER = Path(__file__).parents[2] / "weights" / "hubert" / CONTENT_ENCODER
WIDTH = 768  # of the features, as voices of version v2 take them
CONFIG: dict[str, Any] = {
    "architectures": ["HubertModelWithFinalProj"],
    "model_type": "hubert",
    "conv_bias": False,
    "conv_dim": [32, 64, 96, 96, 96, 96, 96],
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "do_stable_layer_norm": False,
    "feat_extract_norm": "group",
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_attention_heads": 2,
    "num_conv_pos_embedding_groups": 16,
    "num_conv_pos_embeddings": 32,
    "num_hidden_layers": 3,
    "classifier_proj_size": WIDTH,
}
BANDS = 40
CANONICAL = "alto"
_CROPS = ((64, 16), (128, 8), (256, 4))  # frames and pairs of a batch
_DROPOUTS = ("hidden_dropout", "attention_dropout", "activation_dropout")
_NO_DROPOUTS = ("layerdrop", "feat_proj_dropout", "final_dropout")
_SAVE_EVERY = 100


class Network(nn.Module):
    """The encoder and the heads that only training uses."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import HubertConfig, HubertModel

        settings: dict[str, Any] = dict.fromkeys(_DROPOUTS, 0.05) | dict.fromkeys(_NO_DROPOUTS, 0.0)
        self.hubert: Any = HubertModel(HubertConfig(**CONFIG, **settings, apply_spec_augment=False))
        self.final_proj = nn.Linear(CONFIG["hidden_size"], WIDTH)
        self.phoneme = nn.Linear(WIDTH, len(PHONEMES))
        self.mel = nn.Linear(WIDTH, BANDS)

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """`[B, T]` at 16 kHz -> features `[B, frames, WIDTH]`."""
        features: torch.Tensor = self.final_proj(self.hubert(waveforms).last_hidden_state)
        return features


def compute_canonical_mel(lines: Lines) -> torch.Tensor:
    """The alto's log-mel spectrum of every piece, `[P, BANDS, F]` at 100 frames/s, with mean 0 and variance 1."""
    rows = torch.from_numpy(np.asarray(lines.input_audio[:, NAMES.index(CANONICAL)], np.float32) / 32768)
    mel = log_mel(rows, sample_rate=INPUT_RATE, size=512, hop_length=INPUT_RATE // 100, bands=BANDS)
    return (mel - mel.mean()) / mel.std()


def _look_up(mel: torch.Tensor, crops: Crops) -> torch.Tensor:
    """The canonical spectrum at each frame of the crops, `[B, frames, BANDS]`."""
    columns = torch.from_numpy(np.round(crops.times * 100).astype(np.int64)).clamp(0, mel.shape[2] - 1)
    return mel[torch.from_numpy(crops.pieces)[:, None], :, columns]


def train(steps: int, *, peak_lr: float = 2e-3, seed: int = 0) -> None:
    """Trains for `steps` steps and saves the weights to `CHECKPOINT`."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    lines = load_lines()
    target = compute_canonical_mel(lines)
    network = Network().train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=peak_lr, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak_lr, total_steps=steps, pct_start=0.15)
    start = time.process_time()
    for step in range(1, steps + 1):
        frames, pairs = _CROPS[rng.integers(len(_CROPS))]
        crops = draw_crops(lines, rng, pairs=pairs, frames=frames)
        labels = label_crops(lines, crops)
        with torch.autocast("cpu", torch.bfloat16):
            features = network(crops.waveforms)
            logits, mel = network.phoneme(features), network.mel(features)
        features = features.float()
        phoneme_loss = F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), label_smoothing=0.05)
        mel_loss = F.l1_loss(mel.float(), _look_up(target, crops))
        first, second = features.chunk(2)
        spread = features.detach().flatten(0, 1).var(0).mean()
        pair_loss = (first - second).square().mean() / spread
        loss = phoneme_loss + mel_loss + 0.3 * pair_loss
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 20 == 0 or step == 1:
            accuracy = (logits.argmax(-1) == labels).float().mean()
            print(
                f"step {step}: phonemes {phoneme_loss:.3f} ({accuracy:.3f} right), mel {mel_loss:.3f}, "
                f"pairs {pair_loss:.3f}, {time.process_time() - start:.0f} CPU s",
                flush=True,
            )
        if step % _SAVE_EVERY == 0 or step == steps:
            torch.save(network.state_dict(), CHECKPOINT)


def export(folder: Path = FOLDER) -> None:
    """Writes the encoder in the layout of Hugging Face, in half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    state = torch.load(CHECKPOINT, weights_only=True)
    kept = {
        name.removeprefix("hubert."): tensor.half().contiguous()
        for name, tensor in state.items()
        if name.startswith(("hubert.", "final_proj.")) and not name.endswith("masked_spec_embed")
    }
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG | {"torch_dtype": "float16"}, indent=2) + "\n")
