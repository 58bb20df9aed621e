"""Records the syllables of the lexicon, spoken by espeak-ng.

espeak-ng carries state from one utterance to the next, so that audio depends on what was spoken before. It therefore
runs in a process of its own and speaks in a fixed order, which repeats to the sample.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from demo.training.singing.lexicon import SYLLABLES

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True, slots=True, eq=False)
class Speech:
    """One spoken syllable.

    Args:
        waveform: `[T]` float32 at `sample_rate`.
        phonemes: symbols in espeak-ng's notation.
        starts: the sample at which each phoneme starts, and the one at which the last ends.
    """

    waveform: NDArray[np.float32]
    sample_rate: int
    phonemes: tuple[str, ...]
    starts: tuple[int, ...]


def record(voice: str) -> dict[str, Speech]:
    """Records every syllable of the lexicon, spoken by espeak-ng's `voice` at a constant pitch."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.npz"
        command = [sys.executable, "-m", "demo.training.singing.espeak", voice, str(path)]
        subprocess.run(command, check=True, timeout=300, stdin=subprocess.DEVNULL, cwd=ROOT)
        with np.load(path) as stored:
            rate = int(stored["sample_rate"])
            return {
                syllable: Speech(
                    stored[f"{number}.waveform"].astype(np.float32) / 32768,
                    rate,
                    phonemes,
                    tuple(int(start) for start in stored[f"{number}.starts"]),
                )
                for number, (syllable, phonemes) in enumerate(SYLLABLES.items())
            }
