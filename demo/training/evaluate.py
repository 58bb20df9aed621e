"""Measures what the demo model makes of captions that it never saw. Tempo is what librosa detects."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import torch
from numpy.typing import NDArray

from demo.training.captions import write_captions
from demo.training.compose import Piece, compose
from demo.training.picture import write_spectrograms
from demo.training.render import BUILD, PIECES, SAMPLE_RATE

HOP = 256
DURATION = 10.0
# Seeds no training piece comes from: one range to look at while training, one for the numbers that are published.
LOOK_SEED, TEST_SEED = 800_000, 900_000
GROUPS = (("drums", ("drums",), 4), ("pad", ("pad",), 4), ("band", ("full", "bass and drums", "piano", "solo"), 12))
TOLERANCE = 0.06


@dataclass(frozen=True)
class Measurement:
    """One clip. Rates in onsets a second, levels as parts of full scale, flatness between 0 (tone) and 1 (noise)."""

    group: str
    caption: str
    bpm: int
    tempo: float
    followed: bool
    onset_rate: float
    peak: float
    rms: float
    clipped: float
    flatness: float


def draw_unseen_captions(first_seed: int, known: set[str]) -> list[tuple[str, str, int]]:
    """Twenty (group, caption, bpm): each group spread evenly over 70-160 bpm, none of the captions in `known`."""
    picked, seed = [], first_seed
    for group, arrangements, count in GROUPS:
        for slot in range(count):
            low, high = (70 + 90 * (slot + i) / count for i in (0, 1))
            while True:
                seed += 1
                piece = compose(seed)
                line = _choose_caption(piece)
                fits = piece.arrangement in arrangements and low <= piece.bpm <= high
                if fits and line and line.lower() not in known:
                    picked.append((group, line, piece.bpm))
                    break
    return picked


def _choose_caption(piece: Piece) -> str:
    """The first caption of a piece that names its tempo, or nothing."""
    return next((line for line in write_captions(piece) if str(piece.bpm) in line), "")


def training_captions() -> set[str]:
    """Every caption that training can have shown, in lower case."""
    return {line.lower() for seed in range(PIECES) for line in write_captions(compose(seed))}


def estimate_tempo(audio: NDArray[np.float32]) -> float:
    """Beats a minute by librosa's beat tracker (onset strength, tempogram with a prior at 120)."""
    envelope = librosa.onset.onset_strength(y=audio, sr=SAMPLE_RATE, hop_length=HOP)
    tempo, _ = librosa.beat.beat_track(onset_envelope=envelope, sr=SAMPLE_RATE, hop_length=HOP)
    return float(np.ravel(tempo)[0])


def follows_tempo(tempo: float, bpm: float) -> bool:
    """Within 6 % of the asked tempo, its half or its double; no other ratio counts."""
    return any(abs(tempo * octave / bpm - 1) <= TOLERANCE for octave in (0.5, 1, 2))


def spectral_flatness(audio: NDArray[np.float32]) -> float:
    """Mean of librosa's spectral flatness (power, 2048 points, hop 512) over frames above -40 dB of the loudest."""
    flatness = librosa.feature.spectral_flatness(y=audio)[0]
    level = librosa.feature.rms(y=audio)[0]
    return float(flatness[level > 0.01 * level.max()].mean())


def measure(group: str, line: str, bpm: int, audio: NDArray[np.float32]) -> Measurement:
    envelope = librosa.onset.onset_strength(y=audio, sr=SAMPLE_RATE, hop_length=HOP)
    onsets = librosa.onset.onset_detect(onset_envelope=envelope, sr=SAMPLE_RATE, hop_length=HOP)
    tempo = estimate_tempo(audio)
    seconds = len(audio) / SAMPLE_RATE
    return Measurement(
        group, line, bpm, round(tempo, 1), follows_tempo(tempo, bpm), len(onsets) / seconds,
        float(np.abs(audio).max()), float(np.sqrt(np.mean(audio**2))), float(np.mean(np.abs(audio) >= 0.999)),
        spectral_flatness(audio),
    )  # fmt: skip


def generate(model: Any, lines: list[str], seed: int = 0) -> NDArray[np.float32]:
    """[N, T] from the product's defaults: top_k 250, temperature 1, cfg_coef 3, 10 s."""
    torch.manual_seed(seed)
    model.set_generation_params(use_sampling=True, top_k=250, temperature=1.0, cfg_coef=3.0, duration=DURATION)
    out: NDArray[np.float32] = model.generate(lines)[:, 0].numpy()
    return out


def evaluate(first_seed: int = TEST_SEED, folder: Path | None = None) -> dict[str, Any]:
    """Generate, measure, print a table and a last line of JSON; return that line."""
    from demo.training.checkpoint import FOLDER, load_musicgen

    asked = draw_unseen_captions(first_seed, training_captions())
    model = load_musicgen(folder or FOLDER)
    started = time.monotonic()
    audio = generate(model, [line for _, line, _ in asked])
    rows = [measure(*ask, clip) for ask, clip in zip(asked, audio, strict=True)]
    print("| caption | asked | detected | followed | onsets/s | peak | rms | flatness |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        print(f"| {row.caption} | {row.bpm} | {row.tempo} | {'yes' if row.followed else 'no'} | {row.onset_rate:.1f} "
              f"| {row.peak:.2f} | {row.rms:.3f} | {row.flatness:.3f} |")  # fmt: skip
    summary = summarise(rows) | {"seconds_for_20": round(time.monotonic() - started, 1), "captions_from": first_seed}
    BUILD.mkdir(exist_ok=True)
    np.save(BUILD / f"evaluated_{first_seed}.npy", audio)
    (BUILD / f"evaluated_{first_seed}.json").write_text(json.dumps([asdict(row) for row in rows]))
    print(json.dumps(summary))
    return summary


def summarise(rows: list[Measurement]) -> dict[str, Any]:
    """The numbers that the model must meet, and whether it does."""
    rate = {group: float(np.mean([row.onset_rate for row in rows if row.group == group])) for group, _, _ in GROUPS}
    tempo = sum(row.followed for row in rows)
    ratio = rate["drums"] / max(rate["pad"], 1e-9)
    worst = max(row.flatness for row in rows)
    sound = all(row.rms > 0.01 and row.clipped < 1e-4 and row.peak <= 1.0 for row in rows)
    return {
        "tempo_followed": tempo, "of": len(rows), "drums_onsets_per_s": round(rate["drums"], 2),
        "pad_onsets_per_s": round(rate["pad"], 2), "onset_ratio": round(ratio, 2), "worst_flatness": round(worst, 3),
        "lowest_rms": round(min(row.rms for row in rows), 3), "highest_peak": round(max(row.peak for row in rows), 3),
        "passed": bool(tempo >= 14 and ratio >= 2 and worst < 0.3 and sound),
    }  # fmt: skip


def draw_picture(path: Path, first_seed: int = TEST_SEED) -> None:
    """Spectrograms of one clip of each kind among the evaluated ones: drums, pad, band."""
    audio = np.load(BUILD / f"evaluated_{first_seed}.npy")
    write_spectrograms(path, [audio[1], audio[5], audio[11]])
