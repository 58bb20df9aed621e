"""Our engine against demucs's own `apply_model`, on the same weights in the real files."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from audio import Audio
from errors import CancelledError, InvalidRequestError, ModelError
from models.demucs.bag import Bag, read_bag, select_submodels
from models.demucs.engine import DemucsSeparator, Runtime, SeparationModel
from models.demucs.load import load_network
from models.demucs.network import Network, choose_batch_size
from models.demucs.optimizations import STFT, reduce_precision
from models.demucs.segments import ModelPass, draw_pass_starts
from models.device import cpu_multiplies_bfloat16
from models.runtime.dtype import DEMUCS, convolves_bfloat16, inference_dtype
from models.runtime.normalization import NormalizationStats, measure_normalization
from models.separation import InferenceOptions, Mix
from testing import tiny_demucs as tiny
from testing.convolutions import right_convolutions
from testing.tensors import count_tensor_bytes

RATE = 44_100
Waveform = NDArray[np.float32]


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One safetensors file for each architecture, as demucs 4.1 writes them."""
    folder = tmp_path_factory.mktemp("networks")
    examples = {
        "htdemucs": tiny.htdemucs(),
        "htdemucs_6s": tiny.htdemucs_6s(),
        "htdemucs_any_length": tiny.htdemucs(use_train_segment=False),
        "hdemucs": tiny.hdemucs(segment=2),
        "hdemucs_old": tiny.hdemucs(segment=2, hybrid_old=True),
        "demucs": tiny.demucs(segment=2),
    }
    for name, network in examples.items():
        tiny.save(network, folder / f"{name}.safetensors")
    return {name: folder / f"{name}.safetensors" for name in examples}


def make_noise(num_samples: int, seed: int = 0) -> Waveform:
    """Stereo noise of changing level, so that misplaced segments are detected."""
    generator = np.random.default_rng(seed)
    swell = np.abs(np.sin(np.arange(num_samples) / 9000)) + 0.05
    return (0.2 * generator.standard_normal((2, num_samples)) * swell).astype(np.float32)


def build_separator(
    paths: Sequence[Path], bag: Bag | None = None, loaded: list[int] | None = None, **runtime: Any
) -> DemucsSeparator:
    def load(index: int) -> nn.Module:
        if loaded is not None:
            loaded.append(index)
        return load_network(paths[index])

    stems: Any = load_network(paths[0]).sources
    runtime = {"precision": "float32"} | runtime
    bag = bag or Bag(tuple(str(index) for index in range(len(paths))))
    return DemucsSeparator(SeparationModel(bag, load, tuple(stems), RATE), Runtime(**runtime))


def run_separator(
    engine: DemucsSeparator, mix: Waveform, stems: Sequence[str] | None = None, **options: Any
) -> Waveform:
    sound = Mix(Audio(mix, RATE), RATE)
    blocks = engine.separate(sound, stems or engine.stems, options=InferenceOptions(**options))
    return np.concatenate(list(blocks), axis=-1)


def run_reference(paths: Sequence[Path], mix: Waveform, bag: Bag | None = None, **options: Any) -> Waveform:
    """The stems of demucs's own code from the same files, normalized as its Separator does."""
    from demucs.apply import BagOfModels, apply_model
    from demucs.hf import load_safetensors_model

    bag = bag or Bag(tuple(str(index) for index in range(len(paths))))
    weights = [list(row) for row in bag.weights] if bag.weights else None
    model = BagOfModels([load_safetensors_model(path) for path in paths], weights, bag.segment).eval()
    tensor = torch.from_numpy(mix)
    mono = tensor.mean(0)
    mean, std = mono.mean(), mono.std() + 1e-8
    with torch.no_grad():
        stems = apply_model(model, ((tensor - mean) / std)[None], **{"shifts": 0, "overlap": 0.25} | options)[0]
    result: Waveform = (stems * std + mean).numpy()
    return result


def assert_close(ours: Waveform, theirs: Waveform, tolerance: float = 1e-4) -> None:
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()


@pytest.mark.parametrize("name", ["htdemucs", "htdemucs_6s", "htdemucs_any_length", "hdemucs", "hdemucs_old", "demucs"])
def test_float32_stems_equal_those_of_apply_model(networks: dict[str, Path], name: str) -> None:
    mix = make_noise(int(3.7 * RATE))
    assert_close(run_separator(build_separator([networks[name]]), mix), run_reference([networks[name]], mix), 1e-5)


@pytest.mark.parametrize("name", ["htdemucs", "hdemucs", "demucs"])
@pytest.mark.parametrize("num_samples", [2, 1000])
def test_stems_of_audio_shorter_than_a_frame_equal_those_of_apply_model(
    networks: dict[str, Path], name: str, num_samples: int
) -> None:
    mix = make_noise(num_samples)
    assert_close(run_separator(build_separator([networks[name]]), mix), run_reference([networks[name]], mix))


def test_one_sample_and_silence_give_finite_stems_of_their_length(networks: dict[str, Path]) -> None:
    engine = build_separator([networks["htdemucs"]])
    for mix in (np.full((2, 1), 0.5, np.float32), np.zeros((2, 3000), np.float32)):
        stems = run_separator(engine, mix)
        assert stems.shape == (4, *mix.shape) and np.isfinite(stems).all()


@pytest.mark.parametrize("overlap", [0.0, 0.1, 0.6])
def test_overlapping_segments_are_weighted_as_demucs_weights_them(networks: dict[str, Path], overlap: float) -> None:
    mix, path = make_noise(3 * RATE), networks["htdemucs"]
    assert_close(
        run_separator(build_separator([path]), mix, overlap=overlap), run_reference([path], mix, overlap=overlap)
    )


@pytest.mark.parametrize(("name", "segment"), [("htdemucs", 1.0), ("hdemucs", 1.3), ("demucs", 1.3)])
def test_segments_of_a_requested_length_are_padded_as_demucs_pads_them(
    networks: dict[str, Path], name: str, segment: float
) -> None:
    mix, path = make_noise(2 * RATE), networks[name]
    assert_close(
        run_separator(build_separator([path]), mix, segment=segment), run_reference([path], mix, segment=segment)
    )


def test_short_windows_give_the_same_stems_as_one_window(networks: dict[str, Path]) -> None:
    mix = make_noise(5 * RATE)
    whole = run_separator(build_separator([networks["htdemucs"]], window_s=100), mix, shifts=2, seed=3)
    for window_s in (0.5, 2.0):
        cut = run_separator(build_separator([networks["htdemucs"]], window_s=window_s), mix, shifts=2, seed=3)
        assert_close(cut, whole, 1e-6)


def test_a_bag_of_two_architectures_is_averaged_as_demucs_averages_it(networks: dict[str, Path]) -> None:
    """Like the bag `mdx`: two architectures, uneven weights, one segment length for all."""
    paths = [networks["demucs"], networks["hdemucs"]]
    bag = Bag(("a", "b"), ((1.0, 1.0, 0.0, 0.0), (1.0, 0.0, 3.0, 1.0)), segment=1.5)
    mix = make_noise(int(2.2 * RATE))
    assert_close(run_separator(build_separator(paths, bag), mix), run_reference(paths, mix, bag))


def test_a_bags_segment_does_not_lengthen_a_network_of_fixed_length(networks: dict[str, Path]) -> None:
    bag, path, mix = Bag(("a",), segment=44.0), networks["htdemucs"], make_noise(2 * RATE)
    assert_close(run_separator(build_separator([path], bag), mix), run_reference([path], mix, bag))


@pytest.fixture(scope="module")
def single_stem_networks(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four networks, each for one stem, as in htdemucs_ft."""
    folder = tmp_path_factory.mktemp("single_stem_networks")
    for seed in range(4):
        tiny.save(tiny.htdemucs(seed=seed), folder / f"{seed}.safetensors")
    return [folder / f"{seed}.safetensors" for seed in range(4)]


IDENTITY = Bag(("a", "b", "c", "d"), tuple(tuple(float(row == column) for column in range(4)) for row in range(4)))


def test_one_stem_of_a_bag_of_single_stem_networks_runs_one_network_and_gives_the_same_samples(
    single_stem_networks: list[Path],
) -> None:
    mix, loaded = make_noise(2 * RATE), list[int]()
    whole = run_separator(build_separator(single_stem_networks, IDENTITY), mix)
    vocals = run_separator(build_separator(single_stem_networks, IDENTITY, loaded), mix, ["vocals"])
    assert loaded == [3]
    np.testing.assert_array_equal(vocals[0], whole[3])
    assert_close(whole, run_reference(single_stem_networks, mix, IDENTITY))


def test_shifts_of_a_stem_do_not_depend_on_which_other_stems_are_requested(single_stem_networks: list[Path]) -> None:
    mix = make_noise(RATE)
    whole = run_separator(build_separator(single_stem_networks, IDENTITY), mix, shifts=1, seed=5)
    np.testing.assert_array_equal(
        run_separator(build_separator(single_stem_networks, IDENTITY), mix, ["bass"], shifts=1, seed=5)[0], whole[1]
    )


def test_networks_are_loaded_only_once(single_stem_networks: list[Path]) -> None:
    loaded = list[int]()
    engine = build_separator(single_stem_networks, IDENTITY, loaded)
    assert engine.memory_bytes == 0
    for _ in range(2):
        run_separator(engine, make_noise(RATE), ["drums"])
    assert loaded == [0] and engine.memory_bytes > 0


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_reported_memory_is_that_of_all_weights(networks: dict[str, Path], precision: str) -> None:
    engine = build_separator([networks["htdemucs"]], precision=precision)
    engine.prepare()
    assert engine.memory_bytes == count_tensor_bytes(engine._networks, without=(STFT,))


def test_shifts_equal_those_of_demucs_with_the_same_seed(networks: dict[str, Path]) -> None:
    """hdemucs, because htdemucs itself draws from the global generator in between."""
    mix, path = make_noise(RATE), networks["hdemucs"]
    random.seed(11)
    theirs = run_reference([path], mix, shifts=2)
    assert_close(run_separator(build_separator([path]), mix, shifts=2, seed=11), theirs)


def test_shifts_depend_on_the_seed_and_do_not_use_the_global_generator(networks: dict[str, Path]) -> None:
    engine, mix = build_separator([networks["htdemucs"]]), make_noise(RATE)
    random.seed(1)
    state = random.getstate()
    first, again, other = (run_separator(engine, mix, shifts=1, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert random.getstate() == state


@pytest.mark.parametrize("name", ["htdemucs", "htdemucs_6s", "hdemucs", "demucs"])
@pytest.mark.parametrize("reduces_outer", [False, True])
def test_the_error_of_reduced_precision_is_at_least_40_db_below_the_signal(
    networks: dict[str, Path], name: str, reduces_outer: bool
) -> None:
    mix = make_noise(2 * RATE)
    exact = run_separator(build_separator([networks[name]]), mix).astype(np.float64)
    engine = build_separator([networks[name]], precision="bfloat16", reduces_outer=reduces_outer)
    with right_convolutions():
        reduced = run_separator(engine, mix)
    ratio_db = 10 * np.log10((exact**2).sum() / ((reduced - exact) ** 2).sum())
    assert 40 <= ratio_db < 120, "precision is reduced"


@pytest.mark.parametrize("name", ["htdemucs", "hdemucs", "demucs"])
@pytest.mark.parametrize("convolutions", [False, True])
def test_convolutions_keep_their_type_if_they_are_not_to_be_reduced(
    networks: dict[str, Path], name: str, convolutions: bool
) -> None:
    network: Any = load_network(networks[name])
    reduce_precision(network, convolutions=convolutions)
    found = {part.weight.dtype for part in network.modules() if isinstance(part, nn.Conv1d | nn.Conv2d)}
    assert (torch.bfloat16 in found) == convolutions
    if name == "htdemucs":
        assert {
            part.weight.dtype for part in network.crosstransformer.layers.modules() if isinstance(part, nn.Linear)
        } == {torch.bfloat16}


def test_by_itself_a_network_reduces_convolutions_only_on_a_cpu_that_computes_them_rightly(
    networks: dict[str, Path],
) -> None:
    network: Any = Network(load_network(networks["htdemucs"]), torch.device("cpu"))._module
    found = {part.weight.dtype for part in network.modules() if isinstance(part, nn.Conv1d | nn.Conv2d)}
    is_fit = cpu_multiplies_bfloat16() and convolves_bfloat16(torch.device("cpu"))
    assert (torch.bfloat16 in found) == is_fit


def test_precision_depends_on_the_processor_alone() -> None:
    assert inference_dtype(DEMUCS, "cpu", "float32") == torch.float32
    assert inference_dtype(DEMUCS, "cpu", "bfloat16") == torch.bfloat16
    assert inference_dtype(DEMUCS, "cpu") == (torch.bfloat16 if cpu_multiplies_bfloat16() else torch.float32)
    assert inference_dtype(DEMUCS, "mps") == torch.float32


@pytest.mark.parametrize("num_samples", [1, 5, 1536, 3000, 20_000])
def test_the_stft_computes_what_demucss_own_computes(networks: dict[str, Path], num_samples: int) -> None:
    network: Any = load_network(networks["hdemucs"])
    ours, x = STFT(4096, torch.device("cpu")), torch.randn(2, 2, num_samples)
    z = network._spec(x)
    torch.testing.assert_close(ours.forward(x), z)
    torch.testing.assert_close(ours.inverse(z, num_samples), network._ispec(z, num_samples), atol=1e-5, rtol=1e-5)


class Gains(nn.Module):
    """A stub network: stem k is the mix times k + 1. A batch larger than `max_batch` runs out of memory."""

    sources = ("a", "b", "c")
    samplerate = 100
    segment = 2.0

    def __init__(self, max_batch: int = 1000) -> None:
        super().__init__()
        self.max_batch = max_batch
        self.batches: list[int] = []

    def valid_length(self, length: int) -> int:
        return length + 4

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        if len(batch) > self.max_batch:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        self.batches.append(len(batch))
        return torch.stack([batch * (index + 1) for index in range(3)], dim=1)


def build_gains_separator(module: Gains, batch: int = 1, window_s: float = 7.0) -> DemucsSeparator:
    model = SeparationModel(Bag(("x",)), lambda index: module, Gains.sources, Gains.samplerate)
    return DemucsSeparator(model, Runtime(window_s=window_s, batch_size=batch))


def separate_with_gains(
    engine: DemucsSeparator, num_samples: int, progress: Callable[[float], None] = lambda f: None
) -> Waveform:
    sound = Mix(Audio(make_noise(num_samples), Gains.samplerate), Gains.samplerate)
    blocks = engine.separate(sound, Gains.sources, stats=NormalizationStats(0.01, 0.3), progress=progress)
    return np.concatenate(list(blocks), axis=-1)


def test_batches_of_segments_give_the_same_stems_as_single_segments() -> None:
    one, many = Gains(), Gains()
    assert_close(
        separate_with_gains(build_gains_separator(many, 4), 2345),
        separate_with_gains(build_gains_separator(one), 2345),
        1e-6,
    )
    assert max(one.batches) == 1 and max(many.batches) == 4
    assert sum(one.batches) == sum(many.batches)


def test_a_separation_that_runs_out_of_memory_halves_its_batches_and_gives_the_same_stems() -> None:
    module = Gains(max_batch=3)
    engine = build_gains_separator(module, 8, window_s=100.0)
    stems = separate_with_gains(engine, 2345)
    assert max(module.batches) == 2
    assert_close(stems, separate_with_gains(build_gains_separator(Gains()), 2345), 1e-6)


def test_the_separation_after_one_that_ran_out_of_memory_begins_with_whole_batches() -> None:
    module = Gains(max_batch=3)
    engine = build_gains_separator(module, 8, window_s=100.0)
    separate_with_gains(engine, 2345)
    module.max_batch = 8
    module.batches.clear()
    separate_with_gains(engine, 2345)
    assert max(module.batches) == 8


def test_warming_up_runs_one_whole_batch_through_every_network(networks: dict[str, Path]) -> None:
    modules = [Gains(), Gains(max_batch=5)]
    model = SeparationModel(Bag(("x", "y")), lambda index: modules[index], Gains.sources, Gains.samplerate)
    DemucsSeparator(model, Runtime(batch_size=8)).warm_up()
    assert [module.batches for module in modules] == [[8], [4, 4]]
    engine, mix = build_separator([networks["htdemucs"]]), make_noise(RATE)
    before = run_separator(engine, mix)
    engine.warm_up()
    np.testing.assert_array_equal(run_separator(engine, mix), before)


def test_an_out_of_memory_error_of_a_single_segment_is_raised() -> None:
    with pytest.raises(RuntimeError, match="out of memory"):
        separate_with_gains(build_gains_separator(Gains(max_batch=0), 8), 2345)


def test_songs_of_all_lengths_share_a_few_batch_sizes_on_a_gpu() -> None:
    for num_samples in range(2000, 9000, 500):
        module = Gains()
        separate_with_gains(build_gains_separator(module, 8, window_s=1000.0), num_samples)
        assert sum(size != 8 for size in module.batches) <= 3, "the rest, and segments at the end, which are shorter"


@pytest.mark.parametrize(
    ("gibibytes", "seconds", "size"), [(4, 7.8, 1), (12, 7.8, 2), (24, 7.8, 5), (80, 7.8, 8), (80, 44, 3)]
)
def test_the_batch_size_follows_from_the_memory_of_the_gpu(gibibytes: int, seconds: float, size: int) -> None:
    assert choose_batch_size(gibibytes << 30, seconds) == size


def test_progress_rises_to_one_after_every_batch() -> None:
    seen: list[float] = []
    module = Gains()
    separate_with_gains(build_gains_separator(module, 2), 3000, seen.append)
    assert seen == sorted(seen) and seen[0] == 0.0 and seen[-1] == pytest.approx(1.0)
    assert len(seen) == len(module.batches) + 1


def test_an_exception_of_the_progress_callback_ends_the_work_between_batches() -> None:
    module = Gains()

    def cancel(fraction: float) -> None:
        if fraction > 0.3:
            raise CancelledError("The job was cancelled.")

    with pytest.raises(CancelledError):
        separate_with_gains(build_gains_separator(module), 3000, cancel)
    assert 0 < len(module.batches) < 10


def test_a_segment_longer_than_the_training_length_is_refused(networks: dict[str, Path]) -> None:
    with pytest.raises(InvalidRequestError, match="at most 1.56 s"):
        run_separator(build_separator([networks["htdemucs"]]), make_noise(1000), segment=7.8)


def test_submodels_with_different_stems_are_refused(networks: dict[str, Path]) -> None:
    engine = build_separator([networks["htdemucs"], networks["htdemucs_6s"]], Bag(("a", "b")))
    with pytest.raises(ModelError, match="same stems"):
        run_separator(engine, make_noise(1000))


@settings(deadline=None, max_examples=60)
@given(
    end=st.integers(1, 5000),
    segment_length=st.integers(2, 700),
    overlap=st.floats(0, 0.95),
    start=st.integers(-300, 0),
)
def test_the_weights_of_all_segments_sum_to_one_at_every_sample(
    end: int, segment_length: int, overlap: float, start: int
) -> None:
    model_pass = ModelPass(0, start, end, segment_length, max(int((1 - overlap) * segment_length), 1))
    total = np.zeros(end - start)
    for index in range(model_pass.num_segments):
        segment = model_pass.segment(index)
        total[segment.start - start :][: segment.length] += model_pass.overlap(index).weights()
    np.testing.assert_allclose(total, 1.0, atol=1e-5)


@settings(deadline=None, max_examples=60)
@given(end=st.integers(1, 3000), stride=st.integers(1, 400), window=st.integers(1, 900), start=st.integers(-300, 0))
def test_every_segment_starts_in_exactly_one_window(end: int, stride: int, window: int, start: int) -> None:
    model_pass = ModelPass(0, start, end, 500, stride)
    begins = range(0, end, window)
    indices = [index for b in begins for index in model_pass.indices_between(b if b else start, min(b + window, end))]
    assert indices == list(range(model_pass.num_segments))


def test_normalization_stats_are_the_mono_mean_and_deviation_for_blocks_of_any_size() -> None:
    mix = make_noise(10_001) + np.float32(0.1)
    mono = torch.from_numpy(mix).mean(0)
    for size in (1, 7, 5000, 20_000):
        stats = measure_normalization(mix[:, start : start + size] for start in range(0, 10_001, size))
        assert stats.mean == pytest.approx(mono.mean().item(), abs=1e-6)
        assert stats.std == pytest.approx(mono.std().item(), rel=1e-5)


def test_shifted_passes_start_at_most_half_a_second_before_the_mix() -> None:
    starts = draw_pass_starts(3, InferenceOptions(shifts=10, seed=4), RATE)
    assert [len(row) for row in starts] == [10, 10, 10]
    assert all(-RATE // 2 <= start <= 0 for row in starts for start in row)
    assert draw_pass_starts(2, InferenceOptions(), RATE) == [[0], [0]]


def test_select_submodels_are_those_with_a_weight_in_a_requested_stem(tmp_path: Path) -> None:
    mdx = tmp_path / "mdx.yaml"
    mdx.write_text(
        "models: ['a', 'b', 'c', 'd']\nsegment: 44\n"
        "weights: [[1., 1., 0., 0.], [0., 1., 0., 0.], [1., 0., 1., 1.], [1., 0., 1., 1.]]\n"
    )
    bag = read_bag(mdx)
    weights = bag.weights_for(4)
    assert select_submodels(weights, tiny.FOUR, ["vocals"]) == [2, 3]
    assert select_submodels(weights, tiny.FOUR, ["bass"]) == [0, 1]
    assert [sum(column) for column in zip(*weights, strict=True)] == pytest.approx([1, 1, 1, 1])
    assert bag.segment == 44
