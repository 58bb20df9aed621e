"""The pieces that the model is trained on: one int16 file of audio and one JSON file of captions."""

import json
from collections.abc import Mapping, Sequence
from multiprocessing import Pool
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from demo.training.captions import write_captions
from demo.training.compose import Piece, compose
from demo.training.render import BUILD as BUILD_ROOT
from demo.training.render import SAMPLES, render

BUILD = BUILD_ROOT / "music"
PIECES = 1150
# What the model learns worst, and what a draw of all arrangements has few of: how many pieces of each kind are added.
ADDED: Mapping[str, int] = MappingProxyType(
    {"slow drums": 340, "fast drums": 130, "pad": 200, "slow band": 220, "fast band": 130}
)
SLOW_DRUMS_BPM, SLOW_BAND_BPM = 120, 100
FIRST_ADDED = 10_000


def list_seeds(count: int) -> list[int]:
    """The seeds of all pieces: 0 to `count` - 1, then the first from `FIRST_ADDED` on that make up `ADDED`.

    With fewer pieces than `PIECES` as many fewer are added, at least one of each kind.
    """
    left = {kind: max(1, round(number * count / PIECES)) for kind, number in ADDED.items()}
    seeds, seed = list(range(count)), FIRST_ADDED
    while any(left.values()):
        kind = _name_kind(compose(seed))
        if left[kind]:
            left[kind] -= 1
            seeds.append(seed)
        seed += 1
    return seeds


def _name_kind(piece: Piece) -> str:
    if piece.arrangement == "pad":
        return "pad"
    if piece.arrangement == "drums":
        return "slow drums" if piece.bpm < SLOW_DRUMS_BPM else "fast drums"
    return "slow band" if piece.bpm < SLOW_BAND_BPM else "fast band"


def render_all(count: int, workers: int = 3) -> None:
    """Write pieces.json and audio.i16 for `list_seeds(count)`; continues where a run with the same count ended."""
    BUILD.mkdir(parents=True, exist_ok=True)
    seeds, path = list_seeds(count), BUILD / "audio.i16"
    if _read_seeds() != seeds:  # another count has its added pieces elsewhere
        path.unlink(missing_ok=True)
        write_pieces(seeds)
    done = path.stat().st_size // (2 * SAMPLES) if path.exists() else 0
    with path.open("r+b" if path.exists() else "wb") as file, Pool(workers) as pool:
        file.seek(done * 2 * SAMPLES)
        for audio in pool.imap(render, seeds[done:], chunksize=2):
            file.write(audio.tobytes())


def _read_seeds() -> list[int]:
    path = BUILD / "pieces.json"
    return [piece["seed"] for piece in json.loads(path.read_text())] if path.exists() else []


def write_pieces(seeds: Sequence[int]) -> None:
    """Write pieces.json: tempo and captions of each piece, in the order of the audio."""
    pieces = [compose(seed) for seed in seeds]
    rows = [
        {"seed": p.seed, "bpm": p.bpm, "bars": p.bars, "arrangement": p.arrangement, "captions": write_captions(p)}
        for p in pieces
    ]
    (BUILD / "pieces.json").write_text(json.dumps(rows))


def load_audio() -> NDArray[np.int16]:
    """All rendered audio, [N, SAMPLES] int16, mapped from disk."""
    path = BUILD / "audio.i16"
    count = path.stat().st_size // (2 * SAMPLES)
    return np.memmap(path, dtype=np.int16, mode="r", shape=(count, SAMPLES))
