"""The codec of the demo MusicGen gives codes that stand for what was encoded."""

from typing import Any

import pytest
import soundfile
import torch

from demo.training import measures
from demo.training.render import SAMPLE_RATE
from testing.repository import ROOT

SECONDS, FRAME_RATE = 4, 50


@pytest.fixture(scope="module")
def codec() -> Any:
    from demo.training.music.checkpoint import load_musicgen

    return load_musicgen(ROOT / "demo/weights/musicgen").compression_model


def test_codes_of_music_are_decoded_to_the_same_music(codec: Any) -> None:
    """9 dB; in bfloat16 on a processor with AMX it is 1 dB."""
    from demo.training.music.codec import encode

    samples = SECONDS * SAMPLE_RATE
    music, rate = soundfile.read(ROOT / "docs/audio/techno.mp3", frames=samples, dtype="float32")
    assert rate == SAMPLE_RATE
    clip = torch.from_numpy(music)
    codes = encode(codec, clip)
    assert codes.shape == (4, SECONDS * FRAME_RATE)
    with torch.inference_mode():
        decoded = codec.decode(codes[None])[0, 0, :samples]
    assert measures.measure_si_sdr_db(decoded.numpy(), clip.numpy()) > 6
