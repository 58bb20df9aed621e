"""Networks that judge conversions: a recogniser of phonemes and a classifier of singers, on log-mel spectra.

They are trained on sung lines alone, never on converted ones, and share nothing with the content encoder.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from demo.training.singing.lexicon import PHONEMES
from demo.training.voices.augment import draw_crops, label_crops
from demo.training.voices.data import BUILD, INPUT_RATE, NAMES, load_lines
from demo.training.voices.mel import log_mel

BANDS = 64
HOP_LENGTH = 320
WIDTH = 128
RECOGNISER, CLASSIFIER = BUILD / "recogniser.pt", BUILD / "classifier.pt"
_PAIRS, _FRAMES = 12, 64
_PEAK_LR = 2e-3

Waveform = NDArray[np.float32]


class Judge(nn.Module):
    """Dilated convolutions over a log-mel spectrum.

    Args:
        classes: number of labels.
        pools: whether there is one label for the whole input, and not one for each frame.
    """

    def __init__(self, classes: int, *, pools: bool) -> None:
        super().__init__()
        self.pools = pools
        self.first = nn.Conv1d(BANDS, WIDTH, 5, padding=2)
        self.layers = nn.ModuleList(
            nn.Conv1d(WIDTH, WIDTH, 3, padding=dilation, dilation=dilation) for dilation in (1, 2, 4)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(1, WIDTH) for _ in self.layers)
        self.last = nn.Conv1d(WIDTH, classes, 1)

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """`[B, T]` at 16 kHz -> logits `[B, classes, frames]` at 50 frames/s, or `[B, classes]`."""
        mel = log_mel(waveforms, sample_rate=INPUT_RATE, size=512, hop_length=HOP_LENGTH, bands=BANDS)
        x = self.first((mel - mel.mean((1, 2), keepdim=True)) / 2)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = x + F.gelu(layer(norm(x)))
        logits: torch.Tensor = self.last(x.mean(2, keepdim=True) if self.pools else x)
        return logits[..., 0] if self.pools else logits


def train(steps: int, *, seed: int = 0) -> None:
    """Trains both for `steps` steps."""
    _train_recogniser(steps, seed)
    _train_classifier(steps, seed)


def _train_recogniser(steps: int, seed: int) -> None:
    rng, lines = np.random.default_rng([seed, 1]), load_lines()

    def draw() -> tuple[torch.Tensor, torch.Tensor]:
        crops = draw_crops(lines, rng, pairs=_PAIRS, frames=_FRAMES)
        return crops.waveforms, label_crops(lines, crops, offset=0)

    _train_judge("recogniser", Judge(len(PHONEMES), pools=False), draw, steps=steps, path=RECOGNISER)


def _train_classifier(steps: int, seed: int) -> None:
    rng, lines = np.random.default_rng([seed, 2]), load_lines()

    def draw() -> tuple[torch.Tensor, torch.Tensor]:
        crops = draw_crops(lines, rng, pairs=_PAIRS, frames=_FRAMES, speeds=(1.0, 1.0), color_db=1.0)
        return crops.waveforms, torch.from_numpy(crops.singers)

    _train_judge("classifier", Judge(len(NAMES), pools=True), draw, steps=steps, path=CLASSIFIER)


def _train_judge(
    name: str, judge: Judge, draw: Callable[[], tuple[torch.Tensor, torch.Tensor]], *, steps: int, path: Path
) -> None:
    optimizer = torch.optim.AdamW(judge.parameters(), lr=_PEAK_LR)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _PEAK_LR, total_steps=steps, pct_start=0.1)
    for step in range(1, steps + 1):
        waveforms, labels = draw()
        logits = judge(waveforms)
        if not judge.pools:
            logits = logits[..., :_FRAMES]
        loss = F.cross_entropy(logits, labels, label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            right = (logits.argmax(1) == labels).float().mean()
            print(f"{name}, step {step}: loss {loss:.3f}, {right:.3f} right", flush=True)
    torch.save(judge.state_dict(), path)


def load_judges() -> tuple[Judge, Judge]:
    """The trained recogniser and classifier."""
    judges = Judge(len(PHONEMES), pools=False), Judge(len(NAMES), pools=True)
    for judge, path in zip(judges, (RECOGNISER, CLASSIFIER), strict=True):
        judge.load_state_dict(torch.load(path, weights_only=True))
        judge.eval()
    return judges


@torch.inference_mode()
def recognise(recogniser: Judge, waveform: Waveform) -> NDArray[np.int64]:
    """The number of the phoneme at sample 320 i of `[T]` at 16 kHz, `[T // 320 + 1]`."""
    return recogniser(torch.from_numpy(waveform)[None])[0].argmax(0).numpy()  # type: ignore[no-any-return]


@torch.inference_mode()
def classify(classifier: Judge, waveform: Waveform) -> str:
    """The name of the singer of `[T]` at 16 kHz."""
    return NAMES[int(classifier(torch.from_numpy(waveform)[None])[0].argmax())]
