"""A whole conversion against rvc-python's own pipeline, on tiny voices of every kind, in float32, with the same noise.

The reference loses the last one or two frames of each chunk. Where sound is compared sample by sample, its padding is
80 samples longer, which mends that and changes nothing else; that it needs mending is tested too. It gives 16-bit
samples, cut off and not rounded: `STEP` is one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from audio import Audio
from models.f0.estimator import F0Estimator
from models.f0.harvest import Harvest
from models.f0.praat import Praat
from models.hubert.encoder import ContentEncoder, read_fairseq
from models.rvc.checkpoint import read_checkpoint
from models.rvc.converter import ConversionSettings, VoiceConverter, load_voice_converter
from models.rvc.excitation import FrameNoise
from models.rvc.index import read_index
from models.rvc.preprocess import preprocess
from testing.rvc_reference import RvcPython, rvc_python
from testing.tiny_rvc import FEATURE_WIDTH, hubert_file, rmvpe_file, sung, voice_folder, write_index

FloatArray = NDArray[np.float32]
STEP = 1 / 32_768
TOLERANCE = 2e-4  # of full scale; truncation alone is 3e-5, twice that where the level is matched
PADDING = 100  # frames of 10 ms that the reference adds on each side
SEED = 7
SECONDS = 1.28
VOCAL = sung(2.88)[-round(SECONDS * 16_000) :]  # with a pause in it
SETTINGS = ConversionSettings(index_rate=0.7, retrieval="ivf", seed=SEED)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rvc")
    hubert_file(folder / "hubert_base.pt")
    rmvpe_file(folder / "rmvpe.pt")
    return folder


@pytest.fixture(scope="module")
def reference(folder: Path) -> RvcPython:
    with rvc_python(folder / "hubert_base.pt", folder / "rmvpe.pt") as loaded:
        return loaded


@pytest.fixture(scope="module")
def encoder(folder: Path) -> ContentEncoder:
    return ContentEncoder(read_fairseq(folder / "hubert_base.pt"), precision=torch.float32)


@pytest.fixture(scope="module")
def voice(folder: Path, reference: RvcPython) -> Callable[..., Path]:
    """Makes voices, each once; their index is of what another sang, sung here with some noise."""

    def make(version: str = "v2", sample_rate: int = 40_000, f0: bool = True) -> Path:
        made = folder / f"{version}-{sample_rate}-{f0}"
        if not made.exists():
            voice_folder(folder, made.name, version=version, sample_rate=sample_rate, f0=f0)
            known = np.repeat(reference.extract_features(sung(6.0, seed=5), version), 2, axis=0)
            noise = np.random.default_rng(0).standard_normal(known.shape).astype(np.float32)
            write_index(made / "added.index", known + 0.05 * noise)
        return made

    return make


def singer_of(folder: Path, **how: Any) -> VoiceConverter:
    checkpoint = read_checkpoint(next(folder.glob("*.pth")))
    index = read_index(folder / "added.index", width=FEATURE_WIDTH[checkpoint.version])
    singer = load_voice_converter(checkpoint, index, device="cpu", precision="float32")
    return singer if not how else VoiceConverter(singer._network, version=checkpoint.version, **how)


def ours(
    singer: VoiceConverter, waveform: FloatArray, f0: FloatArray | None, encoder: Any, settings: ConversionSettings
) -> FloatArray:
    heard = preprocess(Audio(waveform[None], 16_000), lambda fraction: None)
    blocks = singer.convert(
        heard, f0 if singer.uses_f0 else None, encoder, settings=settings, progress=lambda fraction: None
    )
    whole: FloatArray = np.concatenate(list(blocks), axis=1)[0]
    return whole


def noise_of(singer: VoiceConverter) -> Callable[[torch.Tensor], torch.Tensor]:
    """Our noise, as the reference asks for it: the latent's `[1, C, T]`, then the source's `[1, samples, 1]`."""
    channels, hop = singer._network.inter_channels, singer.sample_rate // 100
    latent, source = (
        FrameNoise(SEED, stream, width, torch.device("cpu")) for stream, width in ((0, channels), (1, hop))
    )

    def draw(like: torch.Tensor) -> torch.Tensor:
        if like.shape[2] == 1:
            return source.draw(-PADDING, like.shape[1] // hop).reshape(like.shape)
        return latent.draw(-PADDING, like.shape[2]).T[None]

    return draw


def theirs(
    reference: RvcPython, voice: Path, waveform: FloatArray, *, settings: ConversionSettings, **more: Any
) -> FloatArray:
    made = reference.convert(
        voice,
        waveform,
        index_rate=settings.index_rate,
        protect=settings.protect,
        rms_mix_rate=settings.rms_mix_rate,
        **more,
    )
    return (made * STEP).astype(np.float32)


@pytest.fixture(scope="module")
def curve(reference: RvcPython) -> FloatArray:
    """The pitch of `VOCAL` at 100 Hz, with unvoiced parts."""
    f0 = reference.f0(VOCAL, "pm")[1][: round(SECONDS * 100)]
    assert 0.2 < (f0 > 0).mean() < 0.95
    return f0


VARIANTS: dict[str, dict[str, Any]] = {
    "as by default": {},
    "without the index, at the source's loudness": {"index_rate": 0.0, "rms_mix_rate": 0.0},
    "the index alone, consonants kept, at its own loudness": {"index_rate": 1.0, "protect": 0.0, "rms_mix_rate": 1.0},
    "unprotected, a fifth up": {"protect": 0.5, "semitones": 7.0},
}
CASES = [
    *((version, 40_000, f0, "as by default") for version in ("v1", "v2") for f0 in (True, False)),
    *((version, rate, True, "as by default") for version, rate in (("v1", 32_000), ("v1", 48_000), ("v2", 48_000))),
    *(("v2", 40_000, True, variant) for variant in list(VARIANTS)[1:]),
]


@pytest.mark.parametrize(("version", "sample_rate", "f0", "variant"), CASES)
def test_a_conversion_is_that_of_the_reference(  # noqa: PLR0913
    version: str,
    sample_rate: int,
    f0: bool,
    variant: str,
    *,
    voice: Callable[..., Path],
    reference: RvcPython,
    encoder: ContentEncoder,
    curve: FloatArray,
) -> None:
    chosen, waveform = voice(version, sample_rate, f0), VOCAL
    settings = replace(SETTINGS, **VARIANTS[variant])
    singer = singer_of(chosen)
    padded = np.pad(curve, PADDING, mode="reflect") * np.float32(2 ** (settings.semitones / 12))
    wanted = theirs(reference, chosen, waveform, settings=settings, noise=noise_of(singer), f0=padded, mended=True)
    found = ours(singer, waveform, curve, encoder, settings)
    assert found.shape == wanted.shape == (round(SECONDS * sample_rate),)
    assert np.sqrt(np.mean(wanted**2)) > 0.01
    assert np.abs(found - wanted).max() < TOLERANCE


@pytest.mark.parametrize(("method", "tracker"), [("pm", Praat()), ("harvest", Harvest())])
def test_pitch_without_padding_is_the_references_with_it(
    method: str, tracker: F0Estimator, *, reference: RvcPython
) -> None:
    """But near the ends. (RMVPE hears further: on equal sound it is compared in the tests of pitch.)"""
    heard = preprocess(Audio(VOCAL[None], 16_000), lambda fraction: None).waveform
    found = tracker.estimate(heard, hop_length=160, filter_radius=3, progress=lambda fraction: None)
    wanted = reference.f0(np.pad(heard, 16_000, mode="reflect"), method)[1][PADDING : PADDING + len(found)]
    both = (found > 0) & (wanted > 0)
    alike = np.where(both, np.abs(found - wanted) < 0.001 * wanted, (found > 0) == (wanted > 0))
    assert alike[20:-20].mean() > 0.95


def test_the_reference_loses_its_end_and_ours_does_not(
    voice: Callable[..., Path], reference: RvcPython, encoder: ContentEncoder
) -> None:
    chosen, waveform = voice(f0=False), VOCAL
    settings = replace(SETTINGS, index_rate=0.0)
    singer = singer_of(chosen)
    wanted = theirs(reference, chosen, waveform, settings=settings, noise=noise_of(singer))
    found = ours(singer, waveform, None, encoder, settings)
    assert len(found) == SECONDS * 40_000
    assert 0.01 <= (len(found) - len(wanted)) / 40_000 <= 0.04
    error = found[: len(wanted)] - wanted
    assert 10 * np.log10((wanted**2).sum() / (error**2).sum()) > 30


def test_a_later_chunk_of_the_reference_comes_early_and_ours_does_not(
    folder: Path, voice: Callable[..., Path], encoder: ContentEncoder
) -> None:
    """With chunks of about two seconds in place of 38, and windows of one in place of 30."""
    chosen, waveform = voice(f0=False), sung(7.04, seed=1)
    settings = replace(SETTINGS, index_rate=0.0, rms_mix_rate=1.0)
    with rvc_python(folder / "hubert_base.pt") as reference:
        singer = singer_of(chosen, max_chunk_size=100)
        whole = theirs(reference, chosen, waveform, settings=settings, noise=noise_of(singer), mended=True)
        reference.config.x_query, reference.config.x_center, reference.config.x_max = 1, 2, 3
        chunked = theirs(reference, chosen, waveform, settings=settings)
    found = ours(singer, waveform, None, encoder, settings)
    late = slice(240_000, 275_000)
    assert len(found) == len(whole)
    assert lag(found[late], whole[late]) == 0
    assert -1_000 <= lag(chunked[late], whole[late]) <= -600


def lag(sound: FloatArray, of: FloatArray) -> int:
    """Samples by which `sound` comes later than `of`, by cross-correlation."""
    size = 2 * len(of)
    correlation = np.fft.irfft(np.fft.rfft(sound, size) * np.conj(np.fft.rfft(of, size)), size)
    place = int(np.argmax(correlation))
    return place if place < len(of) else place - size
