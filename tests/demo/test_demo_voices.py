"""The demo voices: RVC checkpoints with an index, converted with their own content encoder, that keep the melody."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from audio.types import Audio
from models.demo import CONTENT_ENCODER
from models.f0.praat import Praat
from models.hubert.encoder import load_encoder
from models.runtime.progress import ignore_progress
from models.rvc.checkpoint import read_checkpoint
from models.rvc.converter import ConversionSettings, load_voice_converter
from models.rvc.index import read_index
from models.rvc.preprocess import preprocess
from models.rvc.voices import Voices
from testing.repository import ROOT

WEIGHTS = ROOT / "demo" / "weights"
LINE = ROOT / "examples" / "inputs" / "sung_line.flac"
SECONDS = 1.5
NAMES = ("demo-alto", "demo-baritone")
SEMITONES = {"demo-alto": -2, "demo-baritone": -12}


def list_files(*folders: str) -> list[Path]:
    return [path for folder in folders for path in (WEIGHTS / folder).rglob("*") if path.is_file()]


def test_the_voices_and_their_encoder_take_at_most_15_mb() -> None:
    assert sum(path.stat().st_size for path in list_files("rvc", "hubert")) <= 15_000_000


@pytest.mark.parametrize("name", NAMES)
def test_a_voice_is_in_rvcs_format_with_an_index_and_names_its_content_encoder(name: str) -> None:
    voice = Voices([WEIGHTS / "rvc"]).find(name)
    assert (voice.version, voice.sample_rate, voice.f0, voice.warnings) == ("v2", 32_000, True, ())
    assert voice.embedder == CONTENT_ENCODER and voice.choose_encoder(None) == CONTENT_ENCODER
    assert voice.f0_hz is not None and 80 < voice.f0_hz < 400
    assert voice.index is not None and len(read_index(voice.index, width=768).vectors) >= 200
    package = torch.load(voice.checkpoint, weights_only=True)
    assert {"weight", "config", "info", "sr", "f0", "version"} <= set(package)
    assert {tensor.dtype for tensor in package["weight"].values()} == {torch.half}


@pytest.mark.parametrize("name", NAMES)
def test_a_voice_sings_the_melody_of_a_line_after_the_shift(name: str) -> None:
    audio, rate = soundfile.read(LINE, dtype="float32", frames=round((SECONDS + 1) * 44_100))
    vocal = preprocess(Audio(audio[None, rate:], rate), ignore_progress)
    praat = Praat.load(device="cpu")
    source = praat.estimate(vocal.waveform, hop_length=128, filter_radius=3, progress=ignore_progress)
    voice = Voices([WEIGHTS / "rvc"]).find(name)
    assert voice.index is not None
    converter = load_voice_converter(
        read_checkpoint(voice.checkpoint), read_index(voice.index, width=768), device="cpu"
    )
    encoder = load_encoder(WEIGHTS / "hubert" / CONTENT_ENCODER, device="cpu")
    settings = ConversionSettings(semitones=SEMITONES[name])
    blocks = converter.convert(vocal, source, encoder, settings=settings, progress=ignore_progress)
    converted = np.concatenate([block[0] for block in blocks])
    assert len(converted) == round(SECONDS * 32_000) and np.abs(converted).max() < 1
    heard = preprocess(Audio(converted[None], 32_000), ignore_progress).waveform
    f0 = praat.estimate(heard, hop_length=128, filter_radius=3, progress=ignore_progress)
    voiced = (source > 0) & (f0 > 0)
    assert voiced.sum() > 0.8 * (source > 0).sum() > 40
    cents = 1200 * np.log2(f0[voiced] / source[voiced]) - 100 * SEMITONES[name]
    assert np.median(np.abs(cents)) < 30
