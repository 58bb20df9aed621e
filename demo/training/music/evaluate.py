"""Measures what the demo model makes of captions that it never saw, beside real renders of the same captions."""

import dataclasses
import functools
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demo.training import measures
from demo.training.captions import write_captions
from demo.training.compose import Piece, compose
from demo.training.music import instruments
from demo.training.music.pieces import BUILD, PIECES, list_seeds
from demo.training.picture import write_spectrograms
from demo.training.render import SAMPLE_RATE, render
from models.checkpoints.locations import WeightLocations
from models.musicgen.engine import Engine
from models.musicgen.inspect import inspect_checkpoint
from models.musicgen.load import load_engine
from models.musicgen.request import GenerationRequest

FOLDER = Path(__file__).parents[2] / "weights" / "musicgen"
DURATION, LONG_DURATION, STRIDE = 10.0, 40.0, 18.0
# Seeds no training piece comes from: one range to look at while training, one for the numbers that are published.
LOOK_SEED, TEST_SEED = 800_000, 900_000
BAND = ("full", "bass and drums", "piano", "solo")
GROUPS = (("drums", ("drums",), 10), ("pad", ("pad",), 10), ("band", BAND, 30))
LONG_GROUPS = (("drums", ("drums",), 3), ("pad", ("pad",), 3), ("band", BAND, 6))

Clip = NDArray[np.float32]


@dataclass(frozen=True)
class Asked:
    """A caption that names its tempo and all its instruments, and the piece that it was written for."""

    group: str
    caption: str
    piece: Piece


@dataclass(frozen=True)
class Measurement:
    """One clip. Tempi in bpm, onsets a second, levels as parts of full scale, flatness from 0 (tone) to 1 (noise)."""

    asked: Asked
    tempo: float
    onset_rate: float
    peak: float
    rms: float
    flatness: float
    heard: frozenset[str]

    @property
    def follows_tempo(self) -> bool:
        return measures.follows_tempo(self.tempo, self.asked.piece.bpm)

    @property
    def missing(self) -> frozenset[str]:
        """Groups that were asked for and are not heard."""
        return instruments.list_groups(self.asked.piece) - self.heard

    @property
    def extra(self) -> frozenset[str]:
        """Groups that are heard and were not asked for."""
        return self.heard - instruments.list_groups(self.asked.piece)


def draw_unseen(first_seed: int, groups: Sequence[tuple[str, tuple[str, ...], int]] = GROUPS) -> list[Asked]:
    """Captions that training cannot have shown, each group spread evenly over 70-160 bpm."""
    known = list_training_captions()
    picked, seed = [], first_seed
    for group, arrangements, count in groups:
        for slot in range(count):
            low, high = (70 + 90 * (slot + i) / count for i in (0, 1))
            while True:
                seed += 1
                piece = compose(seed)
                if piece.arrangement in arrangements and low <= piece.bpm <= high:
                    caption = _choose_caption(piece)
                    if caption and caption.lower() not in known:
                        picked.append(Asked(group, caption, piece))
                        break
    return picked


def _choose_caption(piece: Piece) -> str:
    """The first caption of a piece that names its tempo and no fewer groups than play in it, or nothing."""
    groups = instruments.list_groups(piece)
    for line in write_captions(piece):
        if str(piece.bpm) in line and instruments.list_named_groups(line) == groups:
            return line
    return ""


@functools.cache
def list_training_captions() -> frozenset[str]:
    """Every caption that training can have shown, in lower case."""
    return frozenset(line.lower() for seed in list_seeds(PIECES) for line in write_captions(compose(seed)))


def load_demo(folder: Path = FOLDER) -> Engine:
    """The worker's own engine; clips are decoded in batches, which takes less time and rounds a little differently."""
    engine = load_engine(inspect_checkpoint(folder, WeightLocations()), device="cpu")
    return dataclasses.replace(engine, max_batch=10)


def generate(engine: Engine, captions: Sequence[str], duration: float, seed: int = 0) -> list[Clip]:
    """A clip `[T]` of each caption with the worker's defaults: top_k 250, temperature 1, cfg_coef 3."""
    request = GenerationRequest(captions, range(seed, seed + len(captions)), duration, stride=STRIDE)
    return [clip.waveform[0] for clip in engine.generate(request).clips]


def render_asked(asked: Sequence[Asked], duration: float) -> list[Clip]:
    """The piece behind each caption, rendered: what a perfect model would make of it."""
    length = round(duration * SAMPLE_RATE)
    return [render(ask.piece.seed)[:length].astype(np.float32) / np.float32(32768) for ask in asked]


def measure(asked: Sequence[Asked], clips: Sequence[Clip]) -> list[Measurement]:
    """One measurement for each clip."""
    heard = instruments.detect_groups(instruments.load(), clips)
    return [
        Measurement(
            ask,
            tempo=measures.estimate_tempo(clip),
            onset_rate=measures.measure_onset_rate(clip),
            peak=float(np.abs(clip).max()),
            rms=float(np.sqrt(np.mean(clip**2))),
            flatness=measures.measure_flatness(clip),
            heard=groups,
        )
        for ask, clip, groups in zip(asked, clips, heard, strict=True)
    ]


def summarise(rows: Sequence[Measurement], drums_distance: float) -> dict[str, float]:
    """The figures of the page. Shares are parts of the clips, or of the pairs of a clip and a group."""
    wanted = [instruments.list_groups(row.asked.piece) for row in rows]
    pairs = sum(len(groups) for groups in wanted)
    rates = {group: np.mean([row.onset_rate for row in rows if row.asked.group == group]) for group, _, _ in GROUPS}
    figures: dict[str, Any] = {
        "tempo followed": np.mean([row.follows_tempo for row in rows]),
        "asked groups present": 1 - sum(len(row.missing) for row in rows) / pairs,
        "other groups absent": 1 - sum(len(row.extra) for row in rows) / (len(rows) * len(instruments.GROUPS) - pairs),
        "clips without a missing group": np.mean([not row.missing for row in rows]),
        "clips without an extra group": np.mean([not row.extra for row in rows]),
        "clips with exactly the asked groups": np.mean([not row.missing and not row.extra for row in rows]),
        "onsets/s of pads": rates["pad"],
        "onsets/s of drums": rates["drums"],
        "spectral distance of drums, dB": drums_distance,
        "lowest RMS": min(row.rms for row in rows),
        "highest peak": max(row.peak for row in rows),
        "highest flatness": max(row.flatness for row in rows),
    }
    return {name: round(float(value), 3) for name, value in figures.items()}


def summarise_long(asked: Sequence[Asked], clips: Sequence[Clip]) -> dict[str, float]:
    """Whether every 10 s of long clips has the asked tempo, and whether their beats lie on one grid."""
    parts = [measures.estimate_tempo_of_parts(clip) for clip in clips]
    right = [
        [measures.follows_tempo(tempo, ask.piece.bpm) for tempo in row] for ask, row in zip(asked, parts, strict=True)
    ]
    coherence = [measures.measure_beat_coherence(clip, ask.piece.bpm) for ask, clip in zip(asked, clips, strict=True)]
    figures = {
        "tempo kept in every 10 s": np.mean([all(row) for row in right]),
        "parts of 10 s with the tempo": np.mean([hit for row in right for hit in row]),
        "coherence of the beats": np.mean(coherence),
    }
    return {name: round(float(value), 3) for name, value in figures.items()}


def evaluate(first_seed: int = TEST_SEED, folder: Path = FOLDER, share: float = 1.0) -> dict[str, Any]:
    """Generate, measure, print tables and a last line of JSON; return that line.

    With a `share` below 1 there are fewer captions of each group, at least one, and they are others. The classifier
    of instruments is trained first if it is not there (`instruments`), which needs the rendered pieces.
    """
    if not instruments.CHECKPOINT.exists():
        instruments.train()
    groups, long_groups = (
        [(name, kinds, max(1, round(count * share))) for name, kinds, count in some] for some in (GROUPS, LONG_GROUPS)
    )
    asked, long_asked = draw_unseen(first_seed, groups), draw_unseen(first_seed + 50_000, long_groups)
    drums = [index for index, ask in enumerate(asked) if ask.group == "drums"]
    engine = load_demo(folder)
    started = time.monotonic()
    clips = generate(engine, [ask.caption for ask in asked], DURATION)
    long_clips = generate(engine, [ask.caption for ask in long_asked], LONG_DURATION)
    seconds = time.monotonic() - started
    real, long_real = render_asked(asked, DURATION), render_asked(long_asked, LONG_DURATION)
    other_drums = render_asked(draw_unseen(first_seed + 70_000, groups[:1]), DURATION)
    columns = {}
    for name, made, long_made, reference in (
        ("real renders", real, long_real, other_drums), ("generated", clips, long_clips, [real[i] for i in drums]),
    ):  # fmt: skip
        rows = measure(asked, made)
        distance = measures.compare_spectra([made[index] for index in drums], reference)
        columns[name] = summarise(rows, distance) | summarise_long(long_asked, long_made)
        print_clips(name, rows)
    print_table(columns)
    np.save(BUILD / f"evaluated_{first_seed}.npy", np.stack(clips))
    summary = columns["generated"] | {"seconds": round(seconds, 1), "captions_from": first_seed}
    print(json.dumps(summary))
    return summary


def print_clips(name: str, rows: Sequence[Measurement]) -> None:
    """One line for each clip."""
    print(f"\n{name}\n\n| caption | asked | tempo | followed | missing | extra | onsets/s | RMS | flatness |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        followed = "yes" if row.follows_tempo else "no"
        print(f"| {row.asked.caption} | {row.asked.piece.bpm} | {row.tempo:.1f} | {followed} "
              f"| {', '.join(sorted(row.missing))} | {', '.join(sorted(row.extra))} | {row.onset_rate:.1f} "
              f"| {row.rms:.3f} | {row.flatness:.3f} |")  # fmt: skip


def print_table(columns: dict[str, dict[str, float]]) -> None:
    """One line for each figure, one column for each set of clips."""
    print(f"\n| measure | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for name in next(iter(columns.values())):
        print(f"| {name} | {' | '.join(f'{figures[name]:g}' for figures in columns.values())} |")


def draw_picture(path: Path, first_seed: int = TEST_SEED) -> None:
    """Spectrograms of one clip of each kind among the evaluated ones: drums, pad, band."""
    clips = np.load(BUILD / f"evaluated_{first_seed}.npy")
    write_spectrograms(path, [clips[4], clips[14], clips[35]])
