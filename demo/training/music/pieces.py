"""The pieces that the model is trained on: one int16 file of audio and one JSON file of captions."""

import json
from multiprocessing import Pool

import numpy as np
from numpy.typing import NDArray

from demo.training.captions import write_captions
from demo.training.compose import compose
from demo.training.render import BUILD as BUILD_ROOT
from demo.training.render import SAMPLES, render

BUILD = BUILD_ROOT / "music"
PIECES = 1150


def render_all(count: int, first_seed: int = 0, workers: int = 3) -> None:
    """Write audio.i16 and pieces.json for `count` seeds; continues where an earlier run ended."""
    BUILD.mkdir(parents=True, exist_ok=True)
    path = BUILD / "audio.i16"
    done = path.stat().st_size // (2 * SAMPLES) if path.exists() else 0
    with path.open("r+b" if path.exists() else "wb") as file, Pool(workers) as pool:
        file.seek(done * 2 * SAMPLES)
        for audio in pool.imap(render, range(first_seed + done, first_seed + count), chunksize=2):
            file.write(audio.tobytes())
    write_pieces(count, first_seed)


def write_pieces(count: int, first_seed: int = 0) -> None:
    """Write pieces.json: tempo and captions of each piece, in the order of the audio."""
    pieces = [compose(first_seed + i) for i in range(count)]
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
