"""A whole conversion: rvc-python's but for its timing, exact in time, reproducible, silent in silence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.signal import butter, filtfilt

from audio.types import Audio
from models.f0.contour import quantize_f0
from models.hubert.encoder import ContentEncoder, read_fairseq
from models.runtime.chunks import reflect_pad
from models.rvc.checkpoint import read_checkpoint
from models.rvc.chunks import CONTEXT, FADE, plan_chunks
from models.rvc.converter import ConversionSettings, VoiceConverter, load_voice_converter
from models.rvc.envelope import RmsEnvelopeMatcher, apply_noise_gate, detect_activity, rms_envelope
from models.rvc.excitation import FrameNoise
from models.rvc.index import read_index
from models.rvc.preprocess import PreprocessedVocal, preprocess
from testing.rvc_reference import RvcPython, rvc_python
from testing.tiny_rvc import hubert_file, voice_folder

FloatArray = NDArray[np.float32]
RATE = 40_000
HOP = 400
PLAIN = ConversionSettings(index_rate=0.0, rms_mix_rate=1.0)


def unheard(_: float) -> None:
    """Progress that nobody looks at."""


@dataclass
class Echo:
    """An encoder whose features are the sound itself: frame i has the samples 320 i and 320 i + 160."""

    batches: list[tuple[int, ...]] = field(default_factory=list)

    def extract_features(self, waveform: torch.Tensor, *, version: str) -> torch.Tensor:
        self.batches.append(tuple(waveform.shape))
        frames = (waveform.shape[1] - 400) // 320 + 1
        return torch.stack([waveform[:, 0 : frames * 320 : 320]] * 2, dim=2)


@dataclass
class Repeater:
    """A network that holds the feature of each frame for the frame, or sings the bare source."""

    sings_source: bool = False
    sample_rate: int = RATE
    hop_length: int = HOP
    inter_channels: int = 1
    device: torch.device = torch.device("cpu")

    @property
    def uses_f0(self) -> bool:
        return self.sings_source

    @property
    def memory_bytes(self) -> int:
        return 0

    def sample_latents(self, features: torch.Tensor, pitch: torch.Tensor | None, noise: torch.Tensor) -> torch.Tensor:
        return features[..., :1].transpose(1, 2)

    def project_excitation(self, tone: torch.Tensor) -> torch.Tensor:
        return tone

    def decode(self, latent: torch.Tensor, source: torch.Tensor | None) -> torch.Tensor:
        return latent[:, 0].repeat_interleave(self.hop_length, dim=1) if source is None else source


def stub(network: Repeater | None = None, *, max_chunk_size: int = 3000, batch_size: int = 1) -> VoiceConverter:
    return VoiceConverter(network or Repeater(), version="v2", max_chunk_size=max_chunk_size, batch_size=batch_size)


def heard_as(waveform: FloatArray) -> PreprocessedVocal:
    return PreprocessedVocal(waveform, len(waveform) / 16_000)


def converted(
    singer: VoiceConverter,
    heard: PreprocessedVocal,
    encoder: Any,
    chosen: ConversionSettings,
    f0: FloatArray | None = None,
) -> FloatArray:
    parts = list(singer.convert(heard, f0, encoder, settings=chosen, progress=unheard))
    assert all(part.shape[0] == 1 and part.dtype == np.float32 for part in parts)
    return np.concatenate(parts, axis=None)


def vocal(seconds: float, seed: int = 0) -> FloatArray:
    t = np.arange(round(seconds * 16_000)) / 16_000
    tone = 0.4 * np.sin(2 * np.pi * (200 * t + 5 * np.sin(2 * t))) * (0.6 + 0.4 * np.sin(3 * t))
    breath = 0.02 * np.random.default_rng(seed).standard_normal(len(t))
    return np.asarray(tone + breath, np.float32)


def melody(frames: int) -> FloatArray:
    f0 = (200 + 10 * np.cos(np.arange(frames) / 50)).astype(np.float32)
    f0[frames // 6 : frames // 4] = 0
    f0[frames // 2 : frames // 2 + 30] = 0
    return f0


@dataclass(frozen=True)
class Loaded:
    folder: Path
    hubert: Path
    encoder: ContentEncoder
    singer: VoiceConverter
    inter_channels: int


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    root = tmp_path_factory.mktemp("rvc")
    folder, hubert = voice_folder(root, "tiny", index_rows=400), hubert_file(root / "hubert_base.pt")
    checkpoint = read_checkpoint(folder / "tiny.pth")
    index = read_index(next(folder.glob("*.index")), width=768)
    singer = load_voice_converter(checkpoint, index, device="cpu", precision="float32")
    encoder = ContentEncoder(read_fairseq(hubert), precision=torch.float32)
    return Loaded(folder, hubert, encoder, singer, checkpoint.config.inter_channels)


@pytest.fixture(scope="module")
def reference(loaded: Loaded) -> Iterator[RvcPython]:
    with rvc_python(loaded.hubert) as oracle:
        oracle.load(loaded.folder)
        yield oracle


# The whole conversion against rvc-python's own pipeline.


def same_noise(seed: int, inter_channels: int) -> Callable[[torch.Tensor], torch.Tensor]:
    latent = FrameNoise(seed, 0, inter_channels, torch.device("cpu"))
    source = FrameNoise(seed, 1, HOP, torch.device("cpu"))

    def draw(like: torch.Tensor) -> torch.Tensor:
        if like.shape[1] == inter_channels:
            return latent.draw(-CONTEXT, like.shape[2]).T[None]
        return source.draw(-CONTEXT, like.shape[1] // HOP).reshape(1, -1, 1)

    return draw


def both(loaded: Loaded, reference: RvcPython, *, timing_fixed: bool, **chosen: float) -> tuple[FloatArray, FloatArray]:
    """Ours and rvc-python's sound for the same f0 and noise, the reference's in full scale before its peak limit."""
    waveform = vocal(2.0)
    heard, f0 = preprocess(Audio(waveform[None], 16_000), unheard), melody(200)
    ours = converted(loaded.singer, heard, loaded.encoder, ConversionSettings(seed=3, retrieval="ivf", **chosen), f0)  # type: ignore[arg-type]
    pipeline = reference.vc.pipeline
    around = reflect_pad(f0, -CONTEXT, len(f0) + CONTEXT)
    pipeline.get_f0 = lambda *_: (quantize_f0(around), around)
    pipeline.vc = type(pipeline).vc.__get__(pipeline)
    if timing_fixed:
        # The reference's last HuBERT frame is missing for want of 80 samples; here it gets them.
        after = reflect_pad(heard.waveform, len(waveform) + 16_000, len(waveform) + 16_080)
        whole = pipeline.vc
        pipeline.vc = lambda model, network, sid, audio, *rest: whole(
            model, network, sid, np.concatenate([audio, after]), *rest
        )
    theirs = reference.convert(None, waveform, noise=same_noise(3, loaded.inter_channels), **chosen)  # type: ignore[arg-type]
    level = max(float(np.abs(ours).max()) / 0.99, 1.0)
    return ours, (theirs * (level / 32768)).astype(np.float32)


SETTINGS = [
    {"index_rate": 0.0, "protect": 0.5, "rms_mix_rate": 1.0},
    {"index_rate": 0.7, "protect": 0.2, "rms_mix_rate": 1.0},
    {"index_rate": 1.0, "protect": 0.0, "rms_mix_rate": 0.25},
]


@pytest.mark.parametrize("chosen", SETTINGS, ids=str)
def test_a_conversion_is_that_of_rvc_python_once_its_timing_is_right(
    chosen: dict[str, float], loaded: Loaded, reference: RvcPython
) -> None:
    ours, theirs = both(loaded, reference, timing_fixed=True, **chosen)
    assert len(ours) == len(theirs) == 2 * RATE
    assert np.abs(theirs).max() > 0.3
    # Two steps of 16 bits, which is what the reference rounds to.
    np.testing.assert_allclose(ours, theirs, atol=2e-4)


def test_rvc_python_itself_comes_20_ms_short_and_close(loaded: Loaded, reference: RvcPython) -> None:
    ours, theirs = both(loaded, reference, timing_fixed=False, **SETTINGS[0])
    assert len(theirs) == len(ours) - 2 * HOP
    apart = ours[: len(theirs)] - theirs
    assert 10 * np.log10(np.square(theirs).sum() / np.square(apart).sum()) > 35


def test_the_loudness_curve_is_applied_as_rvc_python_does(reference: RvcPython) -> None:
    change_rms: Any = reference.modules["pipeline"].change_rms
    source, sound = vocal(5.3), np.random.default_rng(1).standard_normal(round(5.3 * RATE)).astype(np.float32)
    sound *= np.linspace(0.1, 1, len(sound), dtype=np.float32)
    expected = change_rms(source, 16_000, sound.copy(), RATE, 0.3)
    match = RmsEnvelopeMatcher(rms_envelope(source, 16_000), 0.3, RATE, len(sound))
    parts = np.split(sound, [7, 30_000, 30_001, 150_000])
    got = np.concatenate(list(match.match(parts)))
    np.testing.assert_allclose(got, expected, atol=1e-5, rtol=1e-4)


# Time.


@pytest.mark.parametrize(("num_samples", "sample_rate"), [(1, 44_100), (1, 8000), (882, 44_100), (100_001, 48_000)])
def test_the_result_has_exactly_the_length_of_the_source(num_samples: int, sample_rate: int, loaded: Loaded) -> None:
    tone = 0.3 * np.sin(np.arange(num_samples) / 30).astype(np.float32)
    heard = preprocess(Audio(np.stack([tone, tone]), sample_rate), unheard)
    f0 = np.full(len(heard.waveform) // 160, 220, np.float32)
    made = converted(loaded.singer, heard, loaded.encoder, ConversionSettings(), f0)
    assert len(made) == round(num_samples / sample_rate * RATE)
    assert np.isfinite(made).all()


@given(frames=st.integers(1, 1200), longest=st.integers(20, 300), formant=st.sampled_from([0.0, 3.0, -5.0]))
@settings(max_examples=40, deadline=None)
def test_any_length_in_any_windows_comes_out_whole(frames: int, longest: int, formant: float) -> None:
    waveform = np.full(frames * 160 - 7, 0.25, np.float32)
    chosen = ConversionSettings(index_rate=0.0, rms_mix_rate=1.0, formant_shift=formant)
    made = converted(stub(max_chunk_size=2 * longest), heard_as(waveform), Echo(), chosen)
    assert len(made) == round(len(waveform) / 16_000 * RATE)
    np.testing.assert_allclose(made[HOP:-HOP], 0.25, atol=1e-3)


def test_impulses_stay_where_they_are_over_an_hour() -> None:
    seconds = 3600
    waveform = np.full(seconds * 16_000, 0.01, np.float32)
    times = np.arange(0, seconds, 9)
    waveform[times * 16_000] = 0.9
    coming = stub().convert(heard_as(waveform), None, Echo(), settings=PLAIN, progress=unheard)
    position, found = 0, []
    for part in coming:
        found.append(position + np.flatnonzero(part[0] > 0.3))
        position += part.shape[1]
    places = np.concatenate(found)
    assert position == seconds * RATE
    # Each impulse fills one frame of HuBERT's, 20 ms from its moment on.
    np.testing.assert_array_equal(places, (times[:, None] * RATE + np.arange(2 * HOP)).ravel())


def test_windows_are_of_one_shape_and_no_more_than_the_song_needs() -> None:
    echo = Echo()
    converted(stub(max_chunk_size=300), heard_as(np.full(160 * 1000, 0.5, np.float32)), echo, PLAIN)
    assert echo.batches == [(1, (250 + 2 * CONTEXT) * 160 + 80)] * 4


def test_a_batch_of_windows_gives_what_single_ones_give() -> None:
    heard = heard_as(vocal(8))
    echo = Echo()
    single = converted(stub(max_chunk_size=200), heard, Echo(), PLAIN)
    batched = converted(stub(max_chunk_size=200, batch_size=3), heard, echo, PLAIN)
    assert [shape[0] for shape in echo.batches] == [3, 1]
    np.testing.assert_array_equal(single, batched)


def test_where_a_song_is_cut_is_hardly_heard(loaded: Loaded) -> None:
    checkpoint = read_checkpoint(loaded.folder / "tiny.pth")
    one = load_voice_converter(checkpoint, None, device="cpu", precision="float32")
    many = VoiceConverter(one._network, version="v2", max_chunk_size=150)
    heard, f0 = preprocess(Audio(vocal(4)[None], 16_000), unheard), melody(400)
    whole, cut_up = (converted(singer, heard, loaded.encoder, PLAIN, f0) for singer in (one, many))
    assert 10 * np.log10(np.square(whole).sum() / np.square(whole - cut_up).sum()) > 10


# Reproducible, silent, cancellable.


def test_the_same_request_gives_the_same_bytes_and_another_seed_other_ones(loaded: Loaded) -> None:
    heard, f0 = preprocess(Audio(vocal(1)[None], 16_000), unheard), melody(100)
    seen: list[float] = []
    first = converted(loaded.singer, heard, loaded.encoder, ConversionSettings(seed=1), f0)
    parts = list(
        loaded.singer.convert(heard, f0, loaded.encoder, settings=ConversionSettings(seed=1), progress=seen.append)
    )
    other = converted(loaded.singer, heard, loaded.encoder, ConversionSettings(seed=2), f0)
    assert first.tobytes() == np.concatenate(parts, axis=1)[0].tobytes()
    assert not np.array_equal(first, other)
    assert seen[0] == 0.0 and seen[-1] == 1.0 and seen == sorted(seen)


def test_silence_is_sung_as_silence_and_costs_no_network() -> None:
    echo = Echo()
    made = converted(stub(), heard_as(np.zeros(160_000, np.float32)), echo, ConversionSettings())
    assert len(made) == 10 * RATE and not made.any() and not echo.batches


def test_pauses_are_exactly_silent_and_the_sound_around_them_is_whole(loaded: Loaded) -> None:
    waveform = vocal(4)
    waveform[20_000:44_000] = 0
    heard = preprocess(Audio(waveform[None], 16_000), unheard)
    made = converted(loaded.singer, heard, loaded.encoder, ConversionSettings(), melody(400))
    start, end = 20_000 * RATE // 16_000, 44_000 * RATE // 16_000
    assert not made[start + RATE // 2 : end - RATE // 5].any()
    assert np.abs(made[: start - HOP]).max() > 0.05 and np.abs(made[end + HOP :]).max() > 0.05


def test_the_gate_lets_pass_what_is_open_unchanged() -> None:
    sounding = np.zeros(16_000, np.float32)
    sounding[8000:8160] = 0.1
    is_open = detect_activity(sounding)
    assert np.flatnonzero(is_open).tolist() == list(range(40, 76))
    sound = np.ones(100 * HOP, np.float32)
    made = np.concatenate(list(apply_noise_gate(np.split(sound, [333, 20_001]), is_open, HOP)))
    assert (made[42 * HOP : 74 * HOP] == 1).all()
    assert not made[: 40 * HOP].any() and not made[76 * HOP :].any()
    assert np.abs(np.diff(made)).max() < 0.01


def test_blocks_come_while_the_song_goes_on() -> None:
    echo = Echo()
    coming = stub(max_chunk_size=200).convert(
        heard_as(vocal(20)), None, echo, settings=ConversionSettings(), progress=unheard
    )
    next(coming)
    assert len(echo.batches) <= 3


def test_what_progress_raises_ends_the_work() -> None:
    def stop(_: float) -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        list(stub().convert(heard_as(vocal(1)), None, Echo(), settings=PLAIN, progress=stop))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_sings_in_half_precision_what_a_processor_sings_and_repeats_itself(loaded: Loaded) -> None:
    checkpoint = read_checkpoint(loaded.folder / "tiny.pth")
    encoder = ContentEncoder(read_fairseq(loaded.hubert), device="cuda")
    singer = load_voice_converter(checkpoint, None, device="cuda")
    heard, f0 = preprocess(Audio(vocal(3)[None], 16_000), unheard), melody(300)
    first, second = (converted(singer, heard, encoder, PLAIN, f0) for _ in range(2))
    assert first.tobytes() == second.tobytes() and len(first) == 3 * RATE
    exact, half = load_voice_converter(checkpoint, None, device="cpu", precision="float32")._network, singer._network
    latent, source = torch.randn(1, loaded.inter_channels, 80), 0.1 * torch.randn(1, 80 * HOP)
    with torch.inference_mode():
        wanted, got = exact.decode(latent, source), half.decode(latent.cuda(), source.cuda()).cpu()
    assert 10 * torch.log10(wanted.square().sum() / (wanted - got).square().sum()) > 30


# Pitch and formants.


def strongest_hz(waveform: FloatArray) -> float:
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
    return float(np.argmax(spectrum)) * RATE / len(waveform)


@pytest.mark.parametrize(("semitones", "formant"), [(0, 0), (12, 0), (0, 4), (0, -7.3), (-5, 2.5)])
def test_the_pitch_is_that_of_f0_and_the_semitones_whatever_the_formants(semitones: float, formant: float) -> None:
    f0 = np.full(400, 220, np.float32)
    chosen = ConversionSettings(semitones=semitones, formant_shift=formant, index_rate=0.0, rms_mix_rate=1.0)
    made = converted(stub(Repeater(sings_source=True), max_chunk_size=150), heard_as(vocal(4)), Echo(), chosen, f0)
    assert len(made) == 4 * RATE
    assert strongest_hz(made) == pytest.approx(220 * 2 ** (semitones / 12), abs=0.3)


class Vowel(Repeater):
    """A network with one resonance, at 1000 Hz, on whatever source there is."""

    def decode(self, latent: torch.Tensor, source: torch.Tensor | None) -> torch.Tensor:
        assert source is not None
        taps = torch.arange(2000) / RATE
        ringing = torch.exp(-taps * 400) * torch.sin(2 * torch.pi * 1000 * taps)
        excited = torch.nn.functional.pad((source - source.roll(1, 1)).clamp(min=0) ** 4 * 1e7, (1999, 0))
        return torch.nn.functional.conv1d(excited[:, None], ringing.flip(0)[None, None])[:, 0]


@pytest.mark.parametrize("formant", [5.0, -4.0])
def test_the_resonances_move_by_the_formant_shift(formant: float) -> None:
    noise_like = np.zeros(400, np.float32)  # unvoiced: the source is noise, which shows the whole envelope
    plain, moved = (
        converted(stub(Vowel(sings_source=True)), heard_as(vocal(4)), Echo(), ConversionSettings(
            formant_shift=shift, index_rate=0.0, rms_mix_rate=1.0), noise_like)
        for shift in (0.0, formant)
    )  # fmt: skip

    def resonance(waveform: FloatArray) -> float:
        power = np.abs(np.fft.rfft(waveform.reshape(-1, 4000), axis=1)) ** 2
        smooth = np.convolve(power.mean(axis=0), np.ones(9), "same")
        return float(np.argmax(smooth)) * RATE / 4000

    assert resonance(plain) == pytest.approx(1000, rel=0.06)
    assert resonance(moved) / resonance(plain) == pytest.approx(2 ** (formant / 12), rel=0.06)


# What the networks hear, and the pieces that windows are made with.


def test_what_is_heard_is_high_passed_as_scipy_does_it_and_no_louder_than_the_limit() -> None:
    waveform = vocal(40) * 3 + np.float32(0.2)
    heard = preprocess(Audio(waveform[None], 16_000), unheard).waveform
    expected = filtfilt(*butter(5, 48, btype="high", fs=16_000), waveform * (0.95 / np.abs(waveform).max()))
    np.testing.assert_allclose(heard, expected, atol=1e-5)


@pytest.mark.parametrize(("sample_rate", "channels"), [(44_100, 2), (48_000, 1), (16_000, 2), (8000, 1)])
def test_an_impulse_is_heard_at_its_moment(sample_rate: int, channels: int) -> None:
    waveform = np.zeros((channels, 3 * sample_rate), np.float32)
    waveform[:, 2 * sample_rate] = 0.9
    heard = preprocess(Audio(waveform, sample_rate), unheard)
    assert heard.duration == 3.0 and heard.waveform.shape == (48_000,)
    assert np.argmax(np.abs(heard.waveform)) == 32_000


@given(frames=st.integers(1, 100_000), longest=st.integers(20, 1500))
def test_windows_cover_the_song_and_keep_to_their_bound(frames: int, longest: int) -> None:
    windows = plan_chunks(frames, 2 * longest)
    assert windows.size * windows.count >= windows.num_frames >= frames
    assert windows.size <= max(2 * longest, 2 * FADE) and windows.size % 2 == 0
    assert (windows.count - 1) * windows.size < windows.num_frames


def test_a_pitch_drawn_through_gaps_sounds_there_and_leaves_consonants_protected(loaded: Loaded) -> None:
    heard, f0 = heard_as(vocal(2.0)), melody(200)
    assert (f0 == 0).any()

    def sung(**changes: Any) -> FloatArray:
        return converted(loaded.singer, heard, loaded.encoder, ConversionSettings(index_rate=1.0, **changes), f0)

    assert not np.array_equal(sung(fill_gaps=True, protect=0.0), sung(fill_gaps=True, protect=0.5))
    tone = converted(stub(Repeater(sings_source=True)), heard, Echo(), replace(PLAIN, fill_gaps=True), f0)
    rests = converted(stub(Repeater(sings_source=True)), heard, Echo(), PLAIN, f0)
    gap = slice(100 * HOP, 129 * HOP)
    assert np.std(tone[gap]) > 1.5 * np.std(rests[gap])
