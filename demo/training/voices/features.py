"""Content features of every training line, by the exported encoder and the worker's own code."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from demo.training.voices.data import BUILD, INPUT_RATE, SECONDS, load_lines
from demo.training.voices.encoder import FOLDER, WIDTH

PATH = BUILD / "features.f16"
FRAMES = round(SECONDS * INPUT_RATE - 400) // 320 + 1


def extract_features() -> None:
    """Writes `[P, S, FRAMES, WIDTH]` float16 for all lines, 50 frames/s."""
    from models.hubert.encoder import load_encoder

    encoder = load_encoder(FOLDER, device="cpu")
    audio = load_lines().input_audio
    with PATH.open("wb") as file:
        for rows in audio:
            waveforms = torch.from_numpy(np.asarray(rows, np.float32) / 32768)
            file.write(encoder.extract_features(waveforms, version="v2").half().numpy().tobytes())


def load_features() -> NDArray[np.float16]:
    """What `extract_features` wrote."""
    lines = load_lines()
    pieces = PATH.stat().st_size // (2 * lines.input_audio.shape[1] * FRAMES * WIDTH)
    return np.memmap(PATH, np.float16, "r", shape=(pieces, lines.input_audio.shape[1], FRAMES, WIDTH))
