"""Renders the inputs of the requests in examples/: a song, a sung line, and the codes of the song.

    python -m demo.inputs

Needs Debian's fluidsynth, fluid-soundfont-gm and espeak-ng. Its seeds belong to no piece of any training.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

import handler
from demo.training.compose import BEATS_PER_BAR, compose
from demo.training.render import render_stems
from demo.training.singing import SAMPLE_RATE, SINGERS, compose_melody, sing
from demo.training.stems.vocals import render_vocals

INPUTS = Path(__file__).resolve().parent.parent / "examples" / "inputs"
SONG_SEED = 700_051  # pop in G major with drums, bass guitar, piano and a soprano
SONG_BARS = 3
LINE_SEED, LINE_SINGER, LINE_SECONDS = 700_065, "mezzo", 6.0
PEAK = 0.6
FADE_S = 0.05


def render_song() -> NDArray[np.float32]:
    """Whole bars of a band with vocals, `[2, T]` at 44.1 kHz."""
    seconds = SONG_BARS * BEATS_PER_BAR * 60 / compose(SONG_SEED, "full").bpm
    stems = [*render_stems(SONG_SEED, seconds=seconds).values(), *render_vocals(SONG_SEED, seconds=seconds).values()]
    length = min(stem.shape[1] for stem in stems)
    return _finish(np.sum([stem[:, :length] for stem in stems], axis=0))


def render_line() -> NDArray[np.float32]:
    """A line of one singer alone, `[1, T]` at 44.1 kHz."""
    singer = SINGERS[LINE_SINGER]
    notes = compose_melody(compose(LINE_SEED, "full"), singer)
    return _finish(sing(notes, singer, seed=LINE_SEED, seconds=LINE_SECONDS).audio[None])


def _finish(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    """The waveform at one peak, faded out."""
    waveform = waveform * np.float32(PEAK / np.abs(waveform).max())
    fade = round(FADE_S * SAMPLE_RATE)
    waveform[:, -fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
    return waveform


def encode_flac(waveform: NDArray[np.float32]) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, waveform.T, SAMPLE_RATE, format="FLAC", subtype="PCM_16", compression_level=1.0)
    return file.getvalue()


def encode_codes(song: bytes) -> bytes:
    """The codes of the song by the demo's codec, as `encode_audio` returns them in a file."""
    params = {"audio": base64.b64encode(song).decode(), "model": "demo", "codes_format": "npz"}
    reply = handler.handler({"id": "inputs", "input": {"operation": "encode_audio", "params": params}})
    return base64.b64decode(reply["files"]["codes"]["output_file"])


def main() -> None:
    """Writes every input."""
    INPUTS.mkdir(parents=True, exist_ok=True)
    for name, waveform in (("song", render_song()), ("sung_line", render_line())):
        path = INPUTS / f"{name}.flac"
        path.write_bytes(encode_flac(waveform))
        print(f"{path.name}: {waveform.shape[1] / SAMPLE_RATE:.2f} s, {path.stat().st_size} bytes")
    (INPUTS / "codes.npz").write_bytes(encode_codes((INPUTS / "song.flac").read_bytes()))


if __name__ == "__main__":
    main()
