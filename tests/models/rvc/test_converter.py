"""A whole conversion: as rvc-python's but exact in time, reproducible, and silent where the source is."""

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
from models.runtime.progress import ignore_progress
from models.rvc.checkpoint import read_checkpoint
from models.rvc.chunks import CONTEXT, FADE, plan_chunks
from models.rvc.converter import ConversionSettings, Execution, VoiceConverter, load_voice_converter
from models.rvc.envelope import RmsEnvelopeMatcher, apply_noise_gate, compute_rms_envelope, detect_activity
from models.rvc.excitation import FrameNoise
from models.rvc.index import read_index
from models.rvc.preprocess import PreprocessedVocal, preprocess
from testing.rvc_reference import RvcPython, rvc_python
from testing.tiny_rvc import write_hubert_file, write_voice

FloatArray = NDArray[np.float32]
RATE = 40_000
HOP = 400
PLAIN = ConversionSettings(index_rate=0.0, rms_mix_rate=1.0)


@dataclass
class SampleEncoder:
    """An encoder whose features are samples: both values of frame i are sample 320 i. Records the batch shapes."""

    batches: list[tuple[int, ...]] = field(default_factory=list)

    def extract_features(self, waveform: torch.Tensor, *, version: str) -> torch.Tensor:
        self.batches.append(tuple(waveform.shape))
        frames = (waveform.shape[1] - 400) // 320 + 1
        return torch.stack([waveform[:, 0 : frames * 320 : 320]] * 2, dim=2)


@dataclass
class HoldSynthesizer:
    """A network whose output is the first feature of each frame, held for the frame, or the bare excitation."""

    outputs_excitation: bool = False
    sample_rate: int = RATE
    hop_length: int = HOP
    inter_channels: int = 1
    device: torch.device = torch.device("cpu")

    @property
    def uses_f0(self) -> bool:
        return self.outputs_excitation

    @property
    def memory_bytes(self) -> int:
        return 0

    def sample_latents(self, features: torch.Tensor, pitch: torch.Tensor | None, noise: torch.Tensor) -> torch.Tensor:
        return features[..., :1].transpose(1, 2)

    def project_excitation(self, sine: torch.Tensor) -> torch.Tensor:
        return sine

    def decode(self, latents: torch.Tensor, excitation: torch.Tensor | None) -> torch.Tensor:
        if excitation is not None:
            return excitation
        return latents[:, 0].repeat_interleave(self.hop_length, dim=1)


def make_converter(
    network: HoldSynthesizer | None = None, *, max_chunk_size: int = 3000, batch_size: int = 1
) -> VoiceConverter:
    execution = Execution(max_chunk_size=max_chunk_size, batch_size=batch_size)
    return VoiceConverter(network or HoldSynthesizer(), version="v2", execution=execution)


def as_preprocessed(waveform: FloatArray) -> PreprocessedVocal:
    """A vocal that is taken as it is."""
    return PreprocessedVocal(waveform, len(waveform) / 16_000)


def convert(
    converter: VoiceConverter,
    vocal: PreprocessedVocal,
    encoder: Any,
    settings: ConversionSettings,
    f0: FloatArray | None = None,
) -> FloatArray:
    parts = list(converter.convert(vocal, f0, encoder, settings=settings, progress=ignore_progress))
    assert all(part.shape[0] == 1 and part.dtype == np.float32 for part in parts)
    return np.concatenate(parts, axis=None)


def make_waveform(seconds: float, seed: int = 0) -> FloatArray:
    t = np.arange(round(seconds * 16_000)) / 16_000
    tone = 0.4 * np.sin(2 * np.pi * (200 * t + 5 * np.sin(2 * t))) * (0.6 + 0.4 * np.sin(3 * t))
    breath = 0.02 * np.random.default_rng(seed).standard_normal(len(t))
    return np.asarray(tone + breath, np.float32)


def make_f0(frames: int) -> FloatArray:
    f0 = (200 + 10 * np.cos(np.arange(frames) / 50)).astype(np.float32)
    f0[frames // 6 : frames // 4] = 0
    f0[frames // 2 : frames // 2 + 30] = 0
    return f0


@dataclass(frozen=True)
class Loaded:
    folder: Path
    hubert: Path
    encoder: ContentEncoder
    converter: VoiceConverter
    inter_channels: int


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    root = tmp_path_factory.mktemp("rvc")
    folder, hubert = write_voice(root, "tiny", index_rows=400), write_hubert_file(root / "hubert_base.pt")
    checkpoint = read_checkpoint(folder / "tiny.pth")
    index = read_index(next(folder.glob("*.index")), width=768)
    converter = load_voice_converter(checkpoint, index, device="cpu", precision="float32")
    encoder = ContentEncoder(read_fairseq(hubert), precision=torch.float32)
    return Loaded(folder, hubert, encoder, converter, checkpoint.config.inter_channels)


@pytest.fixture(scope="module")
def reference(loaded: Loaded) -> Iterator[RvcPython]:
    with rvc_python(loaded.hubert) as rvc:
        rvc.load(loaded.folder)
        yield rvc


def draw_same_noise(seed: int, inter_channels: int) -> Callable[[torch.Tensor], torch.Tensor]:
    latent = FrameNoise(seed, 0, inter_channels, torch.device("cpu"))
    source = FrameNoise(seed, 1, HOP, torch.device("cpu"))

    def draw(like: torch.Tensor) -> torch.Tensor:
        if like.shape[1] == inter_channels:
            return latent.draw(-CONTEXT, like.shape[2]).T[None]
        return source.draw(-CONTEXT, like.shape[1] // HOP).reshape(1, -1, 1)

    return draw


def convert_both(
    loaded: Loaded, reference: RvcPython, *, timing_fixed: bool, **settings: float
) -> tuple[FloatArray, FloatArray]:
    """Our and rvc-python's result for the same f0 and noise; the reference's peak limit is undone."""
    waveform = make_waveform(2.0)
    vocal, f0 = preprocess(Audio(waveform[None], 16_000), ignore_progress), make_f0(200)
    ours = convert(loaded.converter, vocal, loaded.encoder, ConversionSettings(seed=3, **settings), f0)  # type: ignore[arg-type]
    pipeline = reference.vc.pipeline
    around = reflect_pad(f0, -CONTEXT, len(f0) + CONTEXT)
    pipeline.get_f0 = lambda *_: (quantize_f0(around), around)
    pipeline.vc = type(pipeline).vc.__get__(pipeline)
    if timing_fixed:
        # The reference lacks 80 samples for its last HuBERT frame; here it gets them.
        after = reflect_pad(vocal.waveform, len(waveform) + 16_000, len(waveform) + 16_080)
        whole = pipeline.vc
        pipeline.vc = lambda model, network, sid, audio, *rest: whole(
            model, network, sid, np.concatenate([audio, after]), *rest
        )
    noise = draw_same_noise(3, loaded.inter_channels)
    theirs = reference.convert(None, waveform, noise=noise, **settings)  # type: ignore[arg-type]
    level = max(float(np.abs(ours).max()) / 0.99, 1.0)
    return ours, (theirs * (level / 32768)).astype(np.float32)


SETTINGS = [
    {"index_rate": 0.0, "protect": 0.5, "rms_mix_rate": 1.0},
    {"index_rate": 0.7, "protect": 0.2, "rms_mix_rate": 1.0},
    {"index_rate": 1.0, "protect": 0.0, "rms_mix_rate": 0.25},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_conversion_is_that_of_rvc_python_with_its_timing_corrected(
    settings: dict[str, float], loaded: Loaded, reference: RvcPython
) -> None:
    ours, theirs = convert_both(loaded, reference, timing_fixed=True, **settings)
    assert len(ours) == len(theirs) == 2 * RATE
    assert np.abs(theirs).max() > 0.3
    # Two steps of 16 bits, which is what the reference rounds to.
    np.testing.assert_allclose(ours, theirs, atol=2e-4)


def test_rvc_pythons_uncorrected_result_is_20_ms_short_and_close(loaded: Loaded, reference: RvcPython) -> None:
    ours, theirs = convert_both(loaded, reference, timing_fixed=False, **SETTINGS[0])
    assert len(theirs) == len(ours) - 2 * HOP
    error = ours[: len(theirs)] - theirs
    assert 10 * np.log10(np.square(theirs).sum() / np.square(error).sum()) > 35


def test_the_rms_envelope_is_applied_as_in_rvc_python(reference: RvcPython) -> None:
    change_rms: Any = reference.modules["pipeline"].change_rms
    source, sound = make_waveform(5.3), np.random.default_rng(1).standard_normal(round(5.3 * RATE)).astype(np.float32)
    sound *= np.linspace(0.1, 1, len(sound), dtype=np.float32)
    expected = change_rms(source, 16_000, sound.copy(), RATE, 0.3)
    match = RmsEnvelopeMatcher(compute_rms_envelope(source, 16_000), 0.3, RATE, len(sound))
    parts = np.split(sound, [7, 30_000, 30_001, 150_000])
    got = np.concatenate(list(match.match(parts)))
    np.testing.assert_allclose(got, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("num_samples", "sample_rate"), [(1, 44_100), (1, 8000), (882, 44_100), (100_001, 48_000)])
def test_the_result_has_exactly_the_length_of_the_source(num_samples: int, sample_rate: int, loaded: Loaded) -> None:
    tone = 0.3 * np.sin(np.arange(num_samples) / 30).astype(np.float32)
    vocal = preprocess(Audio(np.stack([tone, tone]), sample_rate), ignore_progress)
    f0 = np.full(len(vocal.waveform) // 160, 220, np.float32)
    result = convert(loaded.converter, vocal, loaded.encoder, ConversionSettings(), f0)
    assert len(result) == round(num_samples / sample_rate * RATE)
    assert np.isfinite(result).all()


@given(frames=st.integers(1, 1200), longest=st.integers(20, 300), formant=st.sampled_from([0.0, 3.0, -5.0]))
@settings(max_examples=40, deadline=None)
def test_any_length_in_chunks_of_any_size_is_converted_completely(frames: int, longest: int, formant: float) -> None:
    waveform = np.full(frames * 160 - 7, 0.25, np.float32)
    settings = ConversionSettings(index_rate=0.0, rms_mix_rate=1.0, formant_shift=formant)
    result = convert(make_converter(max_chunk_size=2 * longest), as_preprocessed(waveform), SampleEncoder(), settings)
    assert len(result) == round(len(waveform) / 16_000 * RATE)
    np.testing.assert_allclose(result[HOP:-HOP], 0.25, atol=1e-3)


def test_impulses_keep_their_times_over_an_hour() -> None:
    seconds = 3600
    waveform = np.full(seconds * 16_000, 0.01, np.float32)
    times = np.arange(0, seconds, 9)
    waveform[times * 16_000] = 0.9
    blocks = make_converter().convert(
        as_preprocessed(waveform), None, SampleEncoder(), settings=PLAIN, progress=ignore_progress
    )
    position, found = 0, []
    for part in blocks:
        found.append(position + np.flatnonzero(part[0] > 0.3))
        position += part.shape[1]
    places = np.concatenate(found)
    assert position == seconds * RATE
    # Each impulse fills one frame of HuBERT, the 20 ms after it.
    np.testing.assert_array_equal(places, (times[:, None] * RATE + np.arange(2 * HOP)).ravel())


def test_chunks_have_one_shape_and_are_as_few_as_possible() -> None:
    encoder = SampleEncoder()
    convert(make_converter(max_chunk_size=300), as_preprocessed(np.full(160 * 1000, 0.5, np.float32)), encoder, PLAIN)
    assert encoder.batches == [(1, (250 + 2 * CONTEXT) * 160 + 80)] * 4


def test_chunks_in_a_batch_give_the_result_of_single_chunks() -> None:
    vocal = as_preprocessed(make_waveform(8))
    encoder = SampleEncoder()
    single = convert(make_converter(max_chunk_size=200), vocal, SampleEncoder(), PLAIN)
    batched = convert(make_converter(max_chunk_size=200, batch_size=3), vocal, encoder, PLAIN)
    assert [shape[0] for shape in encoder.batches] == [3, 1]
    np.testing.assert_array_equal(single, batched)


class SmallSynthesizer(HoldSynthesizer):
    """A network on a device that runs out of memory with more than `capacity` chunks."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self.batches: list[int] = []

    def decode(self, latents: torch.Tensor, excitation: torch.Tensor | None) -> torch.Tensor:
        if len(latents) > self.capacity:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        self.batches.append(len(latents))
        return super().decode(latents, excitation)


def test_a_conversion_that_runs_out_of_memory_halves_its_batches_and_gives_the_same_samples() -> None:
    vocal, network = as_preprocessed(make_waveform(16)), SmallSynthesizer(capacity=1)
    converter = make_converter(network, max_chunk_size=200, batch_size=4)
    halved = convert(converter, vocal, SampleEncoder(), PLAIN)
    assert network.batches == [1] * 8
    np.testing.assert_array_equal(halved, convert(make_converter(max_chunk_size=200), vocal, SampleEncoder(), PLAIN))
    network.capacity = 4
    network.batches.clear()
    convert(converter, vocal, SampleEncoder(), PLAIN)
    assert network.batches == [4, 4], "the next conversion begins with whole batches"


def test_a_chunk_that_does_not_fit_into_memory_by_itself_is_an_error() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        convert(
            make_converter(SmallSynthesizer(0), batch_size=4), as_preprocessed(make_waveform(1)), SampleEncoder(), PLAIN
        )


class PrecisionRecorder(HoldSynthesizer):
    """Records the precision of matrix products at each call of the network."""

    def __init__(self) -> None:
        super().__init__(outputs_excitation=True)
        self.seen: list[str] = []

    def sample_latents(self, features: torch.Tensor, pitch: torch.Tensor | None, noise: torch.Tensor) -> torch.Tensor:
        self.seen.append(torch.get_float32_matmul_precision())
        return super().sample_latents(features, pitch, noise)

    def decode(self, latents: torch.Tensor, excitation: torch.Tensor | None) -> torch.Tensor:
        self.seen.append(torch.get_float32_matmul_precision())
        return super().decode(latents, excitation)


@pytest.mark.parametrize(("tf32", "expected"), [(True, "high"), (False, "highest")])
def test_the_synthesizer_runs_in_tf32_only_if_its_execution_says_so_and_nothing_else_does(
    tf32: bool, expected: str
) -> None:
    network, outside = PrecisionRecorder(), list[str]()
    converter = VoiceConverter(network, version="v2", execution=Execution(max_chunk_size=100, tf32=tf32))
    for _ in converter.convert(
        as_preprocessed(make_waveform(2)),
        make_f0(200),
        SampleEncoder(),
        settings=PLAIN,
        progress=lambda _: outside.append(torch.get_float32_matmul_precision()),
    ):
        outside.append(torch.get_float32_matmul_precision())
    assert set(network.seen) == {expected}
    assert {*outside, torch.get_float32_matmul_precision()} == {"highest"}


@pytest.mark.parametrize(("looks_ahead", "batches_at_first_block"), [(False, 1), (True, 2)])
def test_the_next_batch_is_started_before_the_last_one_is_used_if_the_execution_says_so(
    looks_ahead: bool, batches_at_first_block: int
) -> None:
    vocal, network = as_preprocessed(make_waveform(16)), SmallSynthesizer(capacity=2)
    execution = Execution(max_chunk_size=200, batch_size=2, looks_ahead=looks_ahead)
    blocks = VoiceConverter(network, version="v2", execution=execution).convert(
        vocal, None, SampleEncoder(), settings=PLAIN, progress=ignore_progress
    )
    first = next(blocks)
    assert network.batches == [2] * batches_at_first_block
    result = np.concatenate([first, *blocks], axis=None)
    np.testing.assert_array_equal(result, convert(make_converter(max_chunk_size=200), vocal, SampleEncoder(), PLAIN))


def test_warming_up_converts_a_whole_batch_and_leaves_the_voice_as_it_was(loaded: Loaded) -> None:
    network = SmallSynthesizer(capacity=4)
    execution = Execution(max_chunk_size=200, batch_size=4, warm_up_size=800)
    VoiceConverter(network, version="v2", execution=execution).warm_up()
    assert network.batches == [4]
    vocal, f0 = preprocess(Audio(make_waveform(1)[None], 16_000), ignore_progress), make_f0(100)
    before = convert(loaded.converter, vocal, loaded.encoder, ConversionSettings(), f0)
    loaded.converter.warm_up()
    loaded.encoder.warm_up()
    after = convert(loaded.converter, vocal, loaded.encoder, ConversionSettings(), f0)
    assert before.tobytes() == after.tobytes()


def test_a_gpu_sees_the_same_few_chunk_lengths_for_vocals_of_any_length() -> None:
    execution, lengths = Execution(chunk_multiple=500, batch_size=4, tf32=True), set()
    for frames in (130, 480, 1234, 2801, 3002, 10_007, 25_100):
        encoder, vocal = SampleEncoder(), as_preprocessed(np.full(frames * 160, 0.25, np.float32))
        result = convert(VoiceConverter(HoldSynthesizer(), version="v2", execution=execution), vocal, encoder, PLAIN)
        assert len(result) == frames * HOP
        np.testing.assert_allclose(result[HOP:-HOP], 0.25, atol=1e-3)
        lengths |= {shape[1] for shape in encoder.batches}
    assert lengths <= {(size + 2 * CONTEXT) * 160 + 80 for size in (500, 1000, 1500, 2000, 2500, 3000)}


def test_frames_added_to_the_last_chunk_change_the_result_as_little_as_a_seam(loaded: Loaded) -> None:
    even = VoiceConverter(loaded.converter._network, version="v2")
    padded = VoiceConverter(loaded.converter._network, version="v2", execution=Execution(chunk_multiple=500))
    vocal, f0 = preprocess(Audio(make_waveform(4)[None], 16_000), ignore_progress), make_f0(400)
    wanted, got = (convert(converter, vocal, loaded.encoder, PLAIN, f0) for converter in (even, padded))
    assert 10 * np.log10(np.square(wanted).sum() / np.square(wanted - got).sum()) > 10


def test_chunk_boundaries_change_the_result_little(loaded: Loaded) -> None:
    checkpoint = read_checkpoint(loaded.folder / "tiny.pth")
    one = load_voice_converter(checkpoint, None, device="cpu", precision="float32")
    many = VoiceConverter(one._network, version="v2", execution=Execution(max_chunk_size=150))
    vocal, f0 = preprocess(Audio(make_waveform(4)[None], 16_000), ignore_progress), make_f0(400)
    whole, chunked = (convert(converter, vocal, loaded.encoder, PLAIN, f0) for converter in (one, many))
    assert 10 * np.log10(np.square(whole).sum() / np.square(whole - chunked).sum()) > 10


def test_the_same_arguments_give_the_same_bytes_and_another_seed_gives_others(loaded: Loaded) -> None:
    vocal, f0 = preprocess(Audio(make_waveform(1)[None], 16_000), ignore_progress), make_f0(100)
    seen: list[float] = []
    first = convert(loaded.converter, vocal, loaded.encoder, ConversionSettings(seed=1), f0)
    parts = list(
        loaded.converter.convert(vocal, f0, loaded.encoder, settings=ConversionSettings(seed=1), progress=seen.append)
    )
    other = convert(loaded.converter, vocal, loaded.encoder, ConversionSettings(seed=2), f0)
    assert first.tobytes() == np.concatenate(parts, axis=1)[0].tobytes()
    assert not np.array_equal(first, other)
    assert seen[0] == 0.0 and seen[-1] == 1.0 and seen == sorted(seen)


def test_silence_is_converted_to_silence_without_running_a_network() -> None:
    encoder = SampleEncoder()
    result = convert(make_converter(), as_preprocessed(np.zeros(160_000, np.float32)), encoder, ConversionSettings())
    assert len(result) == 10 * RATE and not result.any() and not encoder.batches


def test_pauses_are_exactly_silent_and_the_sound_around_them_is_complete(loaded: Loaded) -> None:
    waveform = make_waveform(4)
    waveform[20_000:44_000] = 0
    vocal = preprocess(Audio(waveform[None], 16_000), ignore_progress)
    result = convert(loaded.converter, vocal, loaded.encoder, ConversionSettings(), make_f0(400))
    start, end = 20_000 * RATE // 16_000, 44_000 * RATE // 16_000
    assert not result[start + RATE // 2 : end - RATE // 5].any()
    assert np.abs(result[: start - HOP]).max() > 0.05 and np.abs(result[end + HOP :]).max() > 0.05


def test_the_noise_gate_passes_active_frames_unchanged() -> None:
    waveform = np.zeros(16_000, np.float32)
    waveform[8000:8160] = 0.1
    active = detect_activity(waveform)
    assert np.flatnonzero(active).tolist() == list(range(40, 76))
    sound = np.ones(100 * HOP, np.float32)
    result = np.concatenate(list(apply_noise_gate(np.split(sound, [333, 20_001]), active, HOP)))
    assert (result[42 * HOP : 74 * HOP] == 1).all()
    assert not result[: 40 * HOP].any() and not result[76 * HOP :].any()
    assert np.abs(np.diff(result)).max() < 0.01


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.lists(st.integers(1, 90), max_size=12))
def test_the_noise_gate_interpolates_its_gain_between_the_middles_of_frames(
    active: list[bool], lengths: list[int]
) -> None:
    hop, activity = 10, np.array(active)
    sound = np.ones(len(active) * hop, np.float32)
    padded = np.concatenate([activity[:1], activity, activity[-1:]])
    gains = np.minimum(padded[1:-1], np.minimum(padded[:-2], padded[2:])).astype(np.float64)
    times = (np.arange(len(sound)) + 0.5) / hop - 0.5
    expected = np.interp(times, np.arange(len(gains)), gains) * np.repeat(activity, hop)
    result = np.concatenate(list(apply_noise_gate(np.split(sound, np.cumsum(lengths)), activity, hop)))
    np.testing.assert_allclose(result, expected, atol=1e-6)


def test_blocks_are_returned_before_the_whole_vocal_is_converted() -> None:
    encoder = SampleEncoder()
    blocks = make_converter(max_chunk_size=200).convert(
        as_preprocessed(make_waveform(20)), None, encoder, settings=ConversionSettings(), progress=ignore_progress
    )
    next(blocks)
    assert len(encoder.batches) <= 3


def test_an_error_raised_by_progress_ends_the_work() -> None:
    def stop(_: float) -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        list(
            make_converter().convert(
                as_preprocessed(make_waveform(1)), None, SampleEncoder(), settings=PLAIN, progress=stop
            )
        )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_in_half_precision_gives_the_result_of_a_cpu_and_is_reproducible(loaded: Loaded) -> None:
    checkpoint = read_checkpoint(loaded.folder / "tiny.pth")
    encoder = ContentEncoder(read_fairseq(loaded.hubert), device="cuda")
    converter = load_voice_converter(checkpoint, None, device="cuda")
    vocal, f0 = preprocess(Audio(make_waveform(3)[None], 16_000), ignore_progress), make_f0(300)
    first, second = (convert(converter, vocal, encoder, PLAIN, f0) for _ in range(2))
    assert first.tobytes() == second.tobytes() and len(first) == 3 * RATE
    exact, half = load_voice_converter(checkpoint, None, device="cpu", precision="float32")._network, converter._network
    latent, source = torch.randn(1, loaded.inter_channels, 80), 0.1 * torch.randn(1, 80 * HOP)
    with torch.inference_mode():
        wanted, got = exact.decode(latent, source), half.decode(latent.cuda(), source.cuda()).cpu()
    assert 10 * torch.log10(wanted.square().sum() / (wanted - got).square().sum()) > 30


def strongest_hz(waveform: FloatArray) -> float:
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
    return float(np.argmax(spectrum)) * RATE / len(waveform)


@pytest.mark.parametrize(("semitones", "formant"), [(0, 0), (12, 0), (0, 4), (0, -7.3), (-5, 2.5)])
def test_the_pitch_follows_f0_and_semitones_for_any_formant_shift(semitones: float, formant: float) -> None:
    f0 = np.full(400, 220, np.float32)
    settings = ConversionSettings(semitones=semitones, formant_shift=formant, index_rate=0.0, rms_mix_rate=1.0)
    result = convert(
        make_converter(HoldSynthesizer(outputs_excitation=True), max_chunk_size=150),
        as_preprocessed(make_waveform(4)),
        SampleEncoder(),
        settings,
        f0,
    )
    assert len(result) == 4 * RATE
    assert strongest_hz(result) == pytest.approx(220 * 2 ** (semitones / 12), abs=0.3)


class ResonantSynthesizer(HoldSynthesizer):
    """A network with one resonance, at 1000 Hz, driven by the excitation."""

    def decode(self, latents: torch.Tensor, excitation: torch.Tensor | None) -> torch.Tensor:
        assert excitation is not None
        taps = torch.arange(2000) / RATE
        ringing = torch.exp(-taps * 400) * torch.sin(2 * torch.pi * 1000 * taps)
        excited = torch.nn.functional.pad((excitation - excitation.roll(1, 1)).clamp(min=0) ** 4 * 1e7, (1999, 0))
        return torch.nn.functional.conv1d(excited[:, None], ringing.flip(0)[None, None])[:, 0]


@pytest.mark.parametrize("formant", [5.0, -4.0])
def test_resonances_move_by_the_formant_shift(formant: float) -> None:
    unvoiced = np.zeros(400, np.float32)  # the excitation is then noise, which shows the whole spectrum
    converter = make_converter(ResonantSynthesizer(outputs_excitation=True))
    vocal = as_preprocessed(make_waveform(4))
    plain, moved = (
        convert(converter, vocal, SampleEncoder(), replace(PLAIN, formant_shift=shift), unvoiced)
        for shift in (0.0, formant)
    )

    def resonance(waveform: FloatArray) -> float:
        power = np.abs(np.fft.rfft(waveform.reshape(-1, 4000), axis=1)) ** 2
        smooth = np.convolve(power.mean(axis=0), np.ones(9), "same")
        return float(np.argmax(smooth)) * RATE / 4000

    assert resonance(plain) == pytest.approx(1000, rel=0.06)
    assert resonance(moved) / resonance(plain) == pytest.approx(2 ** (formant / 12), rel=0.06)


def test_preprocessing_high_passes_as_scipy_does_and_limits_the_peak() -> None:
    waveform = make_waveform(40) * 3 + np.float32(0.2)
    vocal = preprocess(Audio(waveform[None], 16_000), ignore_progress).waveform
    expected = filtfilt(*butter(5, 48, btype="high", fs=16_000), waveform * (0.95 / np.abs(waveform).max()))
    np.testing.assert_allclose(vocal, expected, atol=1e-5)


@pytest.mark.parametrize(("sample_rate", "channels"), [(44_100, 2), (48_000, 1), (16_000, 2), (8000, 1)])
def test_preprocessing_keeps_the_time_of_an_impulse(sample_rate: int, channels: int) -> None:
    waveform = np.zeros((channels, 3 * sample_rate), np.float32)
    waveform[:, 2 * sample_rate] = 0.9
    vocal = preprocess(Audio(waveform, sample_rate), ignore_progress)
    assert vocal.duration == 3.0 and vocal.waveform.shape == (48_000,)
    assert np.argmax(np.abs(vocal.waveform)) == 32_000


@given(frames=st.integers(1, 100_000), longest=st.integers(10, 300), multiple=st.sampled_from([2, 6, 500]))
def test_chunks_cover_the_vocal_and_respect_the_maximum_size(frames: int, longest: int, multiple: int) -> None:
    plan = plan_chunks(frames, multiple * longest, multiple=multiple)
    assert plan.size * plan.count >= plan.num_frames >= frames
    assert plan.size <= max(multiple * longest, 2 * FADE)
    assert plan.size % multiple == 0 or plan.size == 2 * FADE
    assert (plan.count - 1) * plan.size < plan.num_frames


def test_f0_interpolated_through_gaps_is_audible_and_leaves_consonants_protected(loaded: Loaded) -> None:
    vocal, f0 = as_preprocessed(make_waveform(2.0)), make_f0(200)
    assert (f0 == 0).any()

    def convert_with(**changes: Any) -> FloatArray:
        return convert(loaded.converter, vocal, loaded.encoder, ConversionSettings(index_rate=1.0, **changes), f0)

    assert not np.array_equal(convert_with(fill_gaps=True, protect=0.0), convert_with(fill_gaps=True, protect=0.5))
    converter = make_converter(HoldSynthesizer(outputs_excitation=True))
    tone = convert(converter, vocal, SampleEncoder(), replace(PLAIN, fill_gaps=True), f0)
    rests = convert(converter, vocal, SampleEncoder(), PLAIN, f0)
    gap = slice(100 * HOP, 129 * HOP)
    assert np.std(tone[gap]) > 1.5 * np.std(rests[gap])
