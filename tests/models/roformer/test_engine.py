"""The chunk engine against the published way of separating a whole song, with real and with stub networks."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from audio import Audio
from audio.types import AudioSource
from errors import CancelledError
from models.checkpoints.settings import Settings
from models.roformer.bands import split_bins
from models.roformer.config import RoformerConfig, read_config
from models.roformer.engine import ChunkPlan, RoformerSeparator
from models.roformer.network import RoformerNetwork, TransformerLayer
from models.runtime.progress import ignore_progress
from models.separation import InferenceOptions, Mix, plan_stems, plan_two_stems, separate
from testing.roformer_demix import separate_song
from testing.roformer_reference import ReferenceNetwork
from testing.tiny_roformer import Kind, Shape, make_state

RATE = 44_100
LOW_RATE = 4000
CHUNK = 8000
Waveform = NDArray[np.float32]
CONFIG = RoformerConfig(
    kind="bs",
    dim=8,
    depth=1,
    time_depth=1,
    freq_depth=1,
    num_attention_heads=2,
    head_dim=4,
    channels=2,
    bands=split_bins((33,)),
    mask_linears=2,
    mask_estimators=(0, 1),
    n_fft=64,
    hop_length=16,
    win_length=64,
    normalized=False,
    zero_dc=False,
    skip_connection=False,
    sample_rate=RATE,
    stems=("vocals", "other"),
    complement=None,
    chunk_length=CHUNK,
    num_overlap=2,
    normalize=False,
)


class StubLayer(TransformerLayer):
    """Does nothing."""

    def __init__(self) -> None:
        nn.Module.__init__(self)

    def forward(self, x: torch.Tensor) -> None:
        """Changes nothing."""


class StubNetwork(RoformerNetwork):
    """Gives stems that depend on the position in the chunk, so that misplaced chunks are detected.

    Args:
        largest_batch: chunks that fit into memory.
        **changes: of the configuration.
    """

    def __init__(self, largest_batch: int = 1000, **changes: Any) -> None:
        nn.Module.__init__(self)
        self.config = replace(CONFIG, **changes)
        self.device = torch.device("cpu")
        self.layers = nn.ModuleList([StubLayer(), StubLayer()])
        self.batches: list[int] = []
        self.columns: set[int] = set()
        self._largest_batch = largest_batch

    def forward(self, mix: torch.Tensor, columns: Sequence[int] | None = None) -> torch.Tensor:
        """As the network's."""
        if len(mix) > self._largest_batch:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        self.batches.append(len(mix))
        columns = range(len(self.config.stems)) if columns is None else columns
        self.columns |= set(columns)
        for layer in self.layers:
            layer(mix)
        swell = 1 + torch.linspace(0, 0.5, mix.shape[-1])
        return torch.stack([mix * swell * 0.5 + 0.01 * (column + 1) * mix.roll(3, -1) for column in columns], dim=1)


def make_noise(num_samples: int, seed: int = 0) -> Waveform:
    """Stereo noise of changing level."""
    generator = np.random.default_rng(seed)
    swell = np.abs(np.sin(np.arange(num_samples) / 900)) + 0.05
    return (0.2 * generator.standard_normal((2, num_samples)) * swell + 0.01).astype(np.float32)


def run_engine(
    network: RoformerNetwork,
    song: Waveform,
    stems: Sequence[str] | None = None,
    *,
    batch_size: int | None = None,
    progress: Callable[[float], None] = ignore_progress,
    **options: Any,
) -> Waveform:
    engine = RoformerSeparator(network, batch_size=batch_size)
    mix = Mix(Audio(song, RATE), RATE)
    blocks = engine.separate(mix, stems or engine.stems, options=InferenceOptions(**options), progress=progress)
    return np.concatenate(list(blocks), axis=-1)


def run_reference(network: RoformerNetwork, song: Waveform) -> Waveform:
    config = network.config
    stems = separate_song(
        network,
        torch.from_numpy(song),
        chunk_size=config.chunk_length,
        num_overlap=config.num_overlap,
        normalize=config.normalize,
    )
    result: Waveform = stems.numpy()
    return result


def measure_snr_db(ours: Waveform, theirs: Waveform) -> float:
    assert ours.shape == theirs.shape
    error = float(((ours - theirs).astype(np.float64) ** 2).sum())
    return float(10 * np.log10((theirs.astype(np.float64) ** 2).sum() / max(error, 1e-30)))


@pytest.mark.parametrize("num_overlap", [2, 3, 4, 8])
@pytest.mark.parametrize("num_samples", [1, 700, CHUNK // 2 + 1, CHUNK - 1, 16_001, 24_000, 31_999, 100_003])
def test_a_whole_song_is_separated_as_published(num_samples: int, num_overlap: int) -> None:
    network, song = StubNetwork(num_overlap=num_overlap), make_noise(num_samples)
    assert measure_snr_db(run_engine(network, song), run_reference(network, song)) > 100


@pytest.mark.parametrize("kind", ["mel", "bs"])
def test_a_real_network_separates_a_song_as_the_reference_library_with_the_published_chunks(kind: Kind) -> None:
    shape = Shape(kind=kind, num_stems=2)
    state = make_state(shape)
    reference = ReferenceNetwork(shape, state)
    settings = Settings(
        {
            "audio": {"chunk_size": 20_000, "sample_rate": RATE},
            "model": shape.describe(),
            "training": {"instruments": ["vocals", "other"]},
            "inference": {"num_overlap": 3},
        }
    )
    config = read_config({name: tuple(tensor.shape) for name, tensor in state.items()}, settings)
    network = RoformerNetwork(
        config,
        lambda prefixes: {name: value for name, value in state.items() if name.startswith(tuple(prefixes))},
        "cpu",
        "float32",
    )
    song = make_noise(70_001)
    expected = separate_song(reference, torch.from_numpy(song), chunk_size=20_000, num_overlap=3).numpy()
    assert measure_snr_db(run_engine(network, song), expected) > 60


def test_a_normalized_song_is_separated_as_published() -> None:
    network, song = StubNetwork(normalize=True), make_noise(100_003)
    assert measure_snr_db(run_engine(network, song), run_reference(network, song)) > 100


@pytest.mark.parametrize("batch_size", [2, 3, 64])
def test_batches_give_the_same_stems_as_single_chunks(batch_size: int) -> None:
    song = make_noise(100_003)
    one, many = StubNetwork(), StubNetwork()
    expected = run_engine(one, song, batch_size=1)
    assert np.allclose(run_engine(many, song, batch_size=batch_size), expected, atol=1e-7)
    assert max(many.batches) == min(batch_size, len(one.batches)) and sum(many.batches) == len(one.batches)


def test_out_of_memory_halves_the_batches_and_gives_the_same_stems() -> None:
    song, network = make_noise(100_003), StubNetwork(largest_batch=2)
    assert np.allclose(run_engine(network, song, batch_size=8), run_engine(StubNetwork(), song), atol=1e-7)
    assert max(network.batches) == 2


def test_the_complement_of_a_target_is_the_mix_without_it() -> None:
    network = StubNetwork(stems=("vocals",), complement="other", mask_estimators=(0,))
    song = make_noise(50_000)
    vocals, other = run_engine(network, song)
    assert RoformerSeparator(network).stems == ("vocals", "other")
    assert np.abs(vocals + other - song).max() < 1e-6 and np.abs(vocals).max() > 0.1
    assert np.array_equal(run_engine(network, song, ["other"])[0], other) and network.columns == {0}


def test_only_the_requested_stems_are_computed() -> None:
    network, song = StubNetwork(), make_noise(50_000)
    other = run_engine(network, song, ["other"])
    assert network.columns == {1}
    assert np.array_equal(other[0], run_engine(StubNetwork(), song)[1])


def test_silent_chunks_are_not_computed() -> None:
    song = make_noise(20 * CHUNK)
    song[:, 4 * CHUNK : 14 * CHUNK] = 0
    network, fractions = StubNetwork(normalize=True), list[float]()
    stems = run_engine(network, song, progress=fractions.append)
    assert sum(network.batches) < 25 and not stems[:, :, 6 * CHUNK : 12 * CHUNK].any()
    assert fractions == sorted(fractions) and fractions[-1] == 1.0
    assert not run_engine(StubNetwork(), np.zeros((2, 30_000), np.float32)).any()


@pytest.mark.parametrize("overlap", [0.0, 0.01, 0.25, 0.95])
def test_any_overlap_and_shift_weights_every_sample(overlap: float) -> None:
    """A network that returns its input returns the mix, whatever the chunks are."""

    class Identity(StubNetwork):
        def forward(self, mix: torch.Tensor, columns: Sequence[int] | None = None) -> torch.Tensor:
            """`[B, 2, T]` as one stem."""
            return mix[:, None]

    network = Identity(stems=("vocals",), mask_estimators=(0,))
    for num_samples in (1, 9000, 60_001):
        song = make_noise(num_samples)
        for shifts in (0, 3):
            stems = run_engine(network, song, overlap=overlap, shifts=shifts)
            assert np.allclose(stems[0], song, atol=1e-6)
        assert np.allclose(run_engine(network, song, overlap=overlap, segment=0.3)[0], song, atol=1e-6)


def test_shifts_average_different_passes_that_the_seed_decides() -> None:
    song = make_noise(60_000)
    plain, first = run_engine(StubNetwork(), song), run_engine(StubNetwork(), song, shifts=2)
    again, second = run_engine(StubNetwork(), song, shifts=2), run_engine(StubNetwork(), song, shifts=2, seed=1)
    assert np.array_equal(first, again)
    assert not np.allclose(first, plain, atol=1e-4) and not np.allclose(first, second, atol=1e-4)


def test_a_cancel_is_seen_within_a_chunk() -> None:
    """The second layer of the first chunk is not begun."""
    network, calls = StubNetwork(), list[float]()

    def progress(fraction: float) -> None:
        calls.append(fraction)
        if len(calls) > 2:
            raise CancelledError("cancelled")

    with pytest.raises(CancelledError):
        run_engine(network, make_noise(50_000), progress=progress)
    assert calls == [0.0, 0.0, 0.0]
    calls.clear()
    assert run_engine(network, make_noise(50_000)).any() and not calls  # nothing of the cancelled work stays


@pytest.mark.parametrize(("channels", "sample_rate"), [(1, RATE), (2, 8000), (1, 48_000), (2, RATE)])
@pytest.mark.parametrize("duration", [0.1, 1.3])
def test_length_rate_and_channels_of_the_input_are_kept(channels: int, sample_rate: int, duration: float) -> None:
    song = Audio(make_noise(round(duration * sample_rate))[:channels], sample_rate)
    engine = RoformerSeparator(StubNetwork())
    plan = plan_stems(engine.stems, stems=None, residual=True)
    blocks = list(separate(engine, song, plan, InferenceOptions(), ignore_progress))
    stems = {name: np.concatenate([block[name] for block in blocks], axis=-1) for name in engine.stems}
    assert stems["vocals"].shape == song.waveform.shape
    assert np.abs(stems["vocals"] + stems["other"] - song.waveform).max() < 1e-6


def test_the_complement_of_a_model_of_one_stem_is_the_mix_without_it() -> None:
    engine = RoformerSeparator(StubNetwork(stems=("vocals",), mask_estimators=(0,)))
    song = Audio(make_noise(20_000), RATE)
    assert not plan_stems(engine.stems, stems=None, residual=True).residual
    plan = plan_two_stems(engine.stems, "vocals", residual=False)
    blocks = list(separate(engine, song, plan, InferenceOptions(), ignore_progress))
    total = np.concatenate([block["vocals"] + block["no_vocals"] for block in blocks], axis=-1)
    assert np.abs(total - song.waveform).max() < 1e-6


class LongSong(AudioSource):
    """An hour of a repeated second, made when it is read."""

    def __init__(self) -> None:
        super().__init__(LOW_RATE, 2, 3600 * LOW_RATE)
        self._second = make_noise(LOW_RATE)

    def read(self, start: int, count: int) -> Waveform:
        count = max(min(count, self.num_samples - start), 0)
        return self._second[:, np.arange(start, start + count) % LOW_RATE]


def test_an_hour_of_audio_is_held_a_batch_at_a_time() -> None:
    engine = RoformerSeparator(StubNetwork(chunk_length=10 * LOW_RATE), batch_size=2)
    blocks = engine.separate(Mix(LongSong(), LOW_RATE), engine.stems)
    total, longest = 0, 0
    tracemalloc.start()
    for block in blocks:
        total += block.shape[-1]
        longest = max(longest, block.shape[-1])
        if total > 1800 * LOW_RATE:
            break
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert longest <= 2 * 10 * LOW_RATE
    assert peak < 8e6, "what is held grows with the song: half an hour of two stereo stems are 115 MB"


def test_every_sample_of_an_hour_is_given_once() -> None:
    engine = RoformerSeparator(StubNetwork(chunk_length=60 * LOW_RATE))
    assert sum(block.shape[-1] for block in engine.separate(Mix(LongSong(), LOW_RATE), ["vocals"])) == 3600 * LOW_RATE


def test_chunks_of_a_pass_have_fades_only_between_neighbours() -> None:
    plan = ChunkPlan(num_samples=30_000, length=8000, step=4000)
    assert plan.border == 4000 and plan.starts[0] == -4000
    first, middle, last = (plan.weights(plan.starts[index]) for index in (0, 1, -1))
    assert first[0] == 1 and first[-1] == 0 and last[0] == 0 and last[-1] == 1
    assert middle[0] == 0 == middle[-1] and middle[800] == 1
