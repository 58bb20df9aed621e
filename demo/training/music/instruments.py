"""Which groups of instruments are in a clip: a small classifier of our own, and what a caption asks for.

The classifier is trained on rendered training pieces, as they are and through the codec, so that it hears a timbre and
not the codec. Half of its examples are sums of two pieces: else it would learn which instruments a style brings along
and report those, heard or not.
"""

from collections.abc import Sequence

import librosa
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from demo.training.compose import Piece, compose
from demo.training.music import codec
from demo.training.music.lm import load_pieces
from demo.training.music.pieces import BUILD, FIRST_ADDED, load_audio
from demo.training.render import SAMPLE_RATE
from demo.training.styles import INSTRUMENTS, STYLES

GROUPS: dict[str, tuple[str, ...]] = {
    "drums": ("drums",),
    "bass": ("double bass", "bass guitar", "slap bass", "synth bass", "sub bass"),
    "pad": (
        "strings", "synth strings", "new age pad", "choir pad", "bowed pad", "voices", "polysynth pad",
    ),
    "keys": ("piano", "electric piano", "vibraphone", "marimba", "organ"),
    "guitar": ("acoustic guitar", "clean guitar", "muted guitar", "distorted guitar"),
    "brass": ("trumpet", "brass", "saxophone", "flute"),
    "lead": ("square lead", "saw lead", "pluck"),
}  # fmt: skip
GROUP_OF = {part: group for group, parts in GROUPS.items() for part in parts}
CHECKPOINT = BUILD / "instruments.pt"
_BANDS, _HOP, _FFT = 96, 640, 2048
_SILENCE, _LOUDEST = 1e-3, 6.5e4
_HELD_OUT = 60
_EXAMPLES, _BATCH = 5000, 50
_PATCH = 300  # frames of a training example, 6 s
_LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
_CHANGES = (0.05, 0.5, 0.9, 0.98)


class InstrumentClassifier(nn.Module):
    """Two hidden layers over the statistics of a log mel spectrogram; one logit for each of `GROUPS`."""

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        size = _BANDS * (len(_LEVELS) + len(_CHANGES) + 1)
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("deviation", torch.ones(size))
        self.layers = nn.Sequential(
            nn.Dropout(0.15), nn.Linear(size, width), nn.ReLU(),
            nn.Dropout(0.3), nn.Linear(width, width), nn.ReLU(),
            nn.Dropout(0.3), nn.Linear(width, len(GROUPS)),
        )  # fmt: skip

    def forward(self, statistics: torch.Tensor) -> torch.Tensor:
        """Statistics `[B, D]` to logits `[B, 7]`."""
        out: torch.Tensor = self.layers((statistics - self.mean) / self.deviation)
        return out


def list_groups(piece: Piece) -> frozenset[str]:
    """The groups of the instruments that play in a piece."""
    return frozenset(GROUP_OF[part] for part in piece.parts)


def list_named_groups(caption: str) -> frozenset[str]:
    """The groups of the instruments that a caption names; names of styles ("drum and bass") are not instruments."""
    text = caption.lower()
    for name in sorted((name for style in STYLES.values() for name in style.names), key=len, reverse=True):
        text = text.replace(name, " ")
    words = {word: GROUP_OF[part] for part, (_, spellings) in INSTRUMENTS.items() for word in spellings}
    words |= {"drum": "drums", "ambient": "pad"}
    found = set()
    for word in sorted(words, key=len, reverse=True):
        if word in text:
            found.add(words[word])
            text = text.replace(word, " ")
    return frozenset(found)


def compute_mel(clip: NDArray[np.float32]) -> torch.Tensor:
    """Log mel spectrogram of a clip of any level, `[96, T]`."""
    level = clip / max(float(np.sqrt(np.mean(clip**2))), 1e-5)
    mel = librosa.feature.melspectrogram(y=level, sr=SAMPLE_RATE, n_fft=_FFT, hop_length=_HOP, n_mels=_BANDS)
    return torch.from_numpy(np.log(np.minimum(mel, _LOUDEST) + _SILENCE).astype(np.float32) / 4)


def compute_statistics(mel: torch.Tensor) -> torch.Tensor:
    """Quantiles over time of each band's level and of its change from frame to frame, `[960]`, of `[96, T]`."""
    change = mel.diff(dim=-1)
    levels = torch.quantile(mel, torch.tensor(_LEVELS), dim=1)
    changes = torch.quantile(change, torch.tensor(_CHANGES), dim=1)
    return torch.cat([levels.flatten(), changes.flatten(), change.abs().mean(1)])


def train(epochs: int = 40, seed: int = 0) -> None:
    """Train on the rendered pieces and print the accuracy on pieces that were held out."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    mels, labels = _load_examples()
    inputs, targets = _draw_examples(mels[_HELD_OUT:], labels[_HELD_OUT:], rng)
    model = InstrumentClassifier().train()
    model.mean, model.deviation = inputs.mean(0), inputs.std(0) + 1e-3
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, epochs * (_EXAMPLES // _BATCH))
    for _ in range(epochs):
        for rows in torch.randperm(_EXAMPLES).view(-1, _BATCH):
            loss = F.binary_cross_entropy_with_logits(model(inputs[rows]), targets[rows])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
    torch.save(model.state_dict(), CHECKPOINT)
    model.eval()
    held_out = mels[:_HELD_OUT].flatten(0, 1).float()
    with torch.no_grad():
        hits = (model(torch.stack([compute_statistics(mel) for mel in held_out])) > 0).view(_HELD_OUT, 2, -1)
        hits = hits == labels[:_HELD_OUT, None].bool()
    print("held out, right:", {name: round(float(hits[..., i].float().mean()), 3) for i, name in enumerate(GROUPS)},
          f"all groups of a clip: {hits.all(2).float().mean():.3f}", flush=True)  # fmt: skip


def load() -> InstrumentClassifier:
    """The trained classifier in eval mode."""
    model = InstrumentClassifier()
    model.load_state_dict(torch.load(CHECKPOINT, weights_only=True))
    return model.eval()


def detect_groups(model: InstrumentClassifier, clips: Sequence[NDArray[np.float32]]) -> list[frozenset[str]]:
    """The groups heard in each clip."""
    with torch.inference_mode():
        rows = [model(compute_statistics(compute_mel(clip))[None])[0] > 0 for clip in clips]
    return [frozenset(name for name, heard in zip(GROUPS, row.tolist(), strict=True) if heard) for row in rows]


def _load_examples() -> tuple[torch.Tensor, torch.Tensor]:
    """Log mel spectrograms `[pieces, 2, 96, T]`, a piece as it is and through the codec, and labels `[pieces, 7]`."""
    codes, pieces = load_pieces()
    audio, model = load_audio(), codec.load()
    mels, labels = [], []
    for row, piece in enumerate(pieces):
        if piece["seed"] >= FIRST_ADDED:  # mostly drums and pads, which it hears well
            continue
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            crop = torch.from_numpy(codes[row][None, :, 200:700].astype(np.int64))
            decoded = model.decoder(model.quantizer.decode(crop)).float()[0, 0].numpy()
        original = audio[row, 200 * _HOP : 700 * _HOP].astype(np.float32) / np.float32(32768)
        mels.append(torch.stack([compute_mel(clip) for clip in (original, decoded[: len(original)])]))
        groups = list_groups(compose(piece["seed"]))
        labels.append(torch.tensor([float(name in groups) for name in GROUPS]))
    return torch.stack(mels).half(), torch.stack(labels)


def _draw_examples(
    mels: torch.Tensor, labels: torch.Tensor, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Statistics `[N, D]` of random patches and their labels `[N, 7]`; every other one is the sum of two pieces."""
    examples, targets = [], []
    for index in range(_EXAMPLES):
        rows = rng.integers(0, len(mels), 1 + index % 2)
        gains = 10 ** (rng.uniform(-5, 5, len(rows)) / 10) if len(rows) > 1 else np.ones(1)
        power = torch.zeros(_BANDS, _PATCH)
        for row, gain in zip(rows, gains, strict=True):
            start = rng.integers(0, mels.shape[3] - _PATCH)
            power += gain * (4 * mels[row, rng.integers(0, 2), :, start : start + _PATCH].float()).exp()
        examples.append(compute_statistics(torch.log(power + _SILENCE) / 4))
        targets.append(labels[torch.from_numpy(rows)].amax(0))
    return torch.stack(examples), torch.stack(targets)
