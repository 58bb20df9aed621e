"""A whole conversion compared with rvc-python's pipeline: tiny voices of every kind, in float32, with the same noise.

The reference loses the last one or two frames of each chunk. Tests that compare samples make its padding 80 samples
longer, which corrects that and changes nothing else; that it needs this correction is tested, too. The reference gives
16-bit samples, truncated and not rounded: `STEP` is one of them.
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
from models.runtime.progress import ignore_progress
from models.rvc.checkpoint import read_checkpoint
from models.rvc.converter import ConversionSettings, Execution, VoiceConverter, load_voice_converter
from models.rvc.excitation import FrameNoise
from models.rvc.index import read_index
from models.rvc.preprocess import preprocess
from testing.rvc_reference import RvcPython, rvc_python
from testing.tiny_rvc import FEATURE_WIDTH, write_hubert_file, write_index, write_rmvpe, write_voice
from testing.vocals import make_vocal

FloatArray = NDArray[np.float32]
STEP = 1 / 32_768
TOLERANCE = 2e-4  # of full scale; truncation alone is 3e-5, twice that where the level is matched
PADDING = 100  # frames of 10 ms that the reference adds on each side
SEED = 7
SECONDS = 1.28
VOCAL = make_vocal(2.88)[-round(SECONDS * 16_000) :]  # with a pause in it
SETTINGS = ConversionSettings(index_rate=0.7, retrieval="ivf", seed=SEED)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rvc")
    write_hubert_file(folder / "hubert_base.pt")
    write_rmvpe(folder / "rmvpe.pt")
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
    """Writes voices, each once. Their index holds the features of another vocal, with some noise."""

    def write(version: str = "v2", sample_rate: int = 40_000, f0: bool = True) -> Path:
        path = folder / f"{version}-{sample_rate}-{f0}"
        if not path.exists():
            write_voice(folder, path.name, version=version, sample_rate=sample_rate, f0=f0)
            known = np.repeat(reference.extract_features(make_vocal(6.0, seed=5), version), 2, axis=0)
            noise = np.random.default_rng(0).standard_normal(known.shape).astype(np.float32)
            write_index(path / "added.index", known + 0.05 * noise)
        return path

    return write


def load_converter(folder: Path, execution: Execution | None = None) -> VoiceConverter:
    checkpoint = read_checkpoint(next(folder.glob("*.pth")))
    index = read_index(folder / "added.index", width=FEATURE_WIDTH[checkpoint.version])
    converter = load_voice_converter(checkpoint, index, device="cpu", precision="float32")
    if execution is None:
        return converter
    return VoiceConverter(converter._network, version=checkpoint.version, execution=execution)


def convert(
    converter: VoiceConverter, waveform: FloatArray, f0: FloatArray | None, encoder: Any, settings: ConversionSettings
) -> FloatArray:
    vocal = preprocess(Audio(waveform[None], 16_000), ignore_progress)
    blocks = converter.convert(
        vocal, f0 if converter.uses_f0 else None, encoder, settings=settings, progress=ignore_progress
    )
    whole: FloatArray = np.concatenate(list(blocks), axis=1)[0]
    return whole


def make_noise(converter: VoiceConverter) -> Callable[[torch.Tensor], torch.Tensor]:
    """The converter's noise, in the order of the reference: latents `[1, C, T]`, then excitation `[1, samples, 1]`."""
    channels, hop = converter._network.inter_channels, converter.sample_rate // 100
    latent, source = (
        FrameNoise(SEED, stream, width, torch.device("cpu")) for stream, width in ((0, channels), (1, hop))
    )

    def draw(like: torch.Tensor) -> torch.Tensor:
        if like.shape[2] == 1:
            return source.draw(-PADDING, like.shape[1] // hop).reshape(like.shape)
        return latent.draw(-PADDING, like.shape[2]).T[None]

    return draw


def convert_by_reference(
    reference: RvcPython, voice: Path, waveform: FloatArray, *, settings: ConversionSettings, **options: Any
) -> FloatArray:
    samples = reference.convert(
        voice,
        waveform,
        index_rate=settings.index_rate,
        protect=settings.protect,
        rms_mix_rate=settings.rms_mix_rate,
        **options,
    )
    return (samples * STEP).astype(np.float32)


@pytest.fixture(scope="module")
def f0_contour(reference: RvcPython) -> FloatArray:
    """f0 of `VOCAL` at 100 frames/s, with unvoiced parts."""
    f0 = reference.f0(VOCAL, "pm")[1][: round(SECONDS * 100)]
    assert 0.2 < (f0 > 0).mean() < 0.95
    return f0


VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "without the index, with the source's RMS envelope": {"index_rate": 0.0, "rms_mix_rate": 0.0},
    "index only, consonants protected, own RMS envelope": {"index_rate": 1.0, "protect": 0.0, "rms_mix_rate": 1.0},
    "not protected, a fifth higher": {"protect": 0.5, "semitones": 7.0},
}
CASES = [
    *((version, 40_000, f0, "default") for version in ("v1", "v2") for f0 in (True, False)),
    *((version, rate, True, "default") for version, rate in (("v1", 32_000), ("v1", 48_000), ("v2", 48_000))),
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
    f0_contour: FloatArray,
) -> None:
    voice_folder, waveform = voice(version, sample_rate, f0), VOCAL
    settings = replace(SETTINGS, **VARIANTS[variant])
    converter = load_converter(voice_folder)
    padded = np.pad(f0_contour, PADDING, mode="reflect") * np.float32(2 ** (settings.semitones / 12))
    expected = convert_by_reference(
        reference,
        voice_folder,
        waveform,
        settings=settings,
        noise=make_noise(converter),
        f0=padded,
        pad_last_frame=True,
    )
    result = convert(converter, waveform, f0_contour, encoder, settings)
    assert result.shape == expected.shape == (round(SECONDS * sample_rate),)
    assert np.sqrt(np.mean(expected**2)) > 0.01
    assert np.abs(result - expected).max() < TOLERANCE


@pytest.mark.parametrize(("method", "estimator"), [("pm", Praat()), ("harvest", Harvest())])
def test_f0_without_padding_is_that_of_the_reference_with_padding(
    method: str, estimator: F0Estimator, *, reference: RvcPython
) -> None:
    """Except near the ends. (RMVPE sees further; the tests of f0 compare it on equal audio.)"""
    vocal = preprocess(Audio(VOCAL[None], 16_000), ignore_progress).waveform
    result = estimator.estimate(vocal, hop_length=160, filter_radius=3, progress=ignore_progress)
    expected = reference.f0(np.pad(vocal, 16_000, mode="reflect"), method)[1][PADDING : PADDING + len(result)]
    both = (result > 0) & (expected > 0)
    alike = np.where(both, np.abs(result - expected) < 0.001 * expected, (result > 0) == (expected > 0))
    assert alike[20:-20].mean() > 0.95


def test_the_reference_loses_the_end_of_a_vocal_and_our_converter_does_not(
    voice: Callable[..., Path], reference: RvcPython, encoder: ContentEncoder
) -> None:
    voice_folder, waveform = voice(f0=False), VOCAL
    settings = replace(SETTINGS, index_rate=0.0)
    converter = load_converter(voice_folder)
    expected = convert_by_reference(reference, voice_folder, waveform, settings=settings, noise=make_noise(converter))
    result = convert(converter, waveform, None, encoder, settings)
    assert len(result) == SECONDS * 40_000
    assert 0.01 <= (len(result) - len(expected)) / 40_000 <= 0.04
    error = result[: len(expected)] - expected
    assert 10 * np.log10((expected**2).sum() / (error**2).sum()) > 30


def test_later_chunks_of_the_reference_come_early_and_ours_do_not(
    folder: Path, voice: Callable[..., Path], encoder: ContentEncoder
) -> None:
    """With chunks of about two seconds instead of 38 for the reference, and of one second instead of 30 for ours."""
    voice_folder, waveform = voice(f0=False), make_vocal(7.04, seed=1)
    settings = replace(SETTINGS, index_rate=0.0, rms_mix_rate=1.0)
    with rvc_python(folder / "hubert_base.pt") as reference:
        converter = load_converter(voice_folder, Execution(max_chunk_size=100))
        whole = convert_by_reference(
            reference, voice_folder, waveform, settings=settings, noise=make_noise(converter), pad_last_frame=True
        )
        reference.config.x_query, reference.config.x_center, reference.config.x_max = 1, 2, 3
        chunked = convert_by_reference(reference, voice_folder, waveform, settings=settings)
    result = convert(converter, waveform, None, encoder, settings)
    later = slice(240_000, 275_000)
    assert len(result) == len(whole)
    assert measure_lag(result[later], whole[later]) == 0
    assert -1_000 <= measure_lag(chunked[later], whole[later]) <= -600


def measure_lag(sound: FloatArray, of: FloatArray) -> int:
    """Samples by which `sound` is later than `of`, by cross-correlation."""
    size = 2 * len(of)
    correlation = np.fft.irfft(np.fft.rfft(sound, size) * np.conj(np.fft.rfft(of, size)), size)
    peak = int(np.argmax(correlation))
    return peak if peak < len(of) else peak - size
