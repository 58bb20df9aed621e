"""The network against pymss-core's, on the same random weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import librosa
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models.checkpoints.errors import CheckpointError
from models.checkpoints.settings import Settings
from models.roformer.bands import covers_spectrum, group_equal_widths, index_masks, make_mel_bands, split_bins
from models.roformer.config import RoformerConfig, read_config
from models.roformer.network import RoformerNetwork, attend
from models.runtime.dtype import Precision
from testing.roformer_reference import ReferenceNetwork, measure_snr_db
from testing.tiny_roformer import Kind, Shape, State, make_state


@pytest.mark.parametrize(
    ("sample_rate", "n_fft", "num_bands"),
    [(44_100, 2048, 60), (48_000, 2048, 60), (44_100, 4096, 64), (22_050, 512, 8)],
)
def test_mel_bands_are_those_of_librosa(sample_rate: int, n_fft: int, num_bands: int) -> None:
    bank = librosa.filters.mel(sr=sample_rate, n_fft=n_fft, n_mels=num_bands)
    bank[0, 0] = bank[-1, -1] = 1
    expected = [list(np.flatnonzero(band > 0)) for band in bank]
    assert [list(band) for band in make_mel_bands(sample_rate, n_fft, num_bands)] == expected


def test_bands_that_leave_a_gap_do_not_cover_the_spectrum() -> None:
    assert covers_spectrum(split_bins((2, 3, 4)), 9)
    assert covers_spectrum((range(5), range(3, 9)), 9)
    assert not covers_spectrum((range(3), range(4, 9)), 9)
    assert not covers_spectrum(split_bins((2, 3, 4)), 10)
    assert not covers_spectrum(split_bins((2, 3, 4)), 8)
    assert not covers_spectrum(split_bins((2, 0, 7)), 9)
    assert not covers_spectrum((), 9)


def test_masks_of_overlapping_bands_are_averaged_in_each_bin() -> None:
    positions, weights = index_masks((range(3), range(1, 4)), 4)
    masks = np.array([1.0, 2, 3, 30, 40, 50])
    np.testing.assert_allclose((masks[positions] * weights).sum(axis=0), [1, 16, 21.5, 50])
    assert group_equal_widths((range(2), range(2, 4), range(4, 7))) == [slice(0, 2), slice(2, 3)]


@pytest.mark.parametrize("kind", ["mel", "bs"])
@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"num_stems": 3},
        {"stereo": False, "num_stems": 2},
        {"depth": 3, "skip_connection": True},
        {"time_transformer_depth": 2, "freq_transformer_depth": 3},
        {"zero_dc": False},
        {"zero_dc": True},
        {"mask_linears": 1},
        {"mask_linears": 2},
        {"mask_linears": 3},
        {"mask_linears": 4},
        {"mlp_expansion_factor": 1, "stft_hop_length": 512},
        {
            "stft_n_fft": 1024,
            "stft_win_length": 1024,
            "stft_hop_length": 256,
            "heads": 3,
            "dim_head": 4,
            "num_bands": 30,
            "freqs_per_bands": (8,) * 64 + (1,),
        },
    ],
    ids=str,
)
def test_stems_are_those_of_pymss_core(kind: Kind, sizes: Mapping[str, Any]) -> None:
    shape = Shape(kind=kind, **sizes)
    state = make_state(shape, seed=1)
    mix = _make_mix(batch=2)
    expected = ReferenceNetwork(shape, state)(mix)
    actual = _build(shape, state)(mix)
    assert actual.shape == (2, shape.num_stems, 2, mix.shape[-1])
    _check_close(actual, expected)


def test_biases_that_all_layers_share_are_added_whether_each_layer_repeats_them_or_not() -> None:
    shape = Shape(kind="bs", shared_bias=True, depth=2)
    state = make_state(shape)
    expected = ReferenceNetwork(shape, state)(_make_mix())
    _check_close(_build(shape, state)(_make_mix()), expected)
    repeated = (".to_qkv.bias", ".to_out.0.bias")
    bare = {name: tensor for name, tensor in state.items() if not name.endswith(repeated)}
    _check_close(_build(shape, bare)(_make_mix()), expected)


@pytest.mark.parametrize("kind", ["mel", "bs"])
def test_a_mono_mix_on_both_channels_and_a_length_of_no_whole_hops_match_too(kind: Kind) -> None:
    shape = Shape(kind=kind)
    state = make_state(shape)
    mix = _make_mix(length=7001)[:, :1].expand(-1, 2, -1)
    _check_close(_build(shape, state)(mix), ReferenceNetwork(shape, state)(mix))


@pytest.mark.parametrize("kind", ["mel", "bs"])
def test_silence_stays_silent(kind: Kind) -> None:
    shape = Shape(kind=kind, num_stems=2)
    stems = _build(shape, make_state(shape))(torch.zeros(1, 2, 8820))
    assert not stems.any()


@pytest.mark.parametrize("kind", ["mel", "bs"])
def test_the_error_of_bfloat16_is_40_db_below_the_stems(kind: Kind) -> None:
    shape = Shape(kind=kind, depth=2, dim=32, heads=4)
    state = make_state(shape)
    expected = ReferenceNetwork(shape, state)(_make_mix())
    actual = _build(shape, state, precision="bfloat16")(_make_mix())
    assert actual.dtype == torch.float32
    assert measure_snr_db(expected, actual) > 40


@pytest.mark.parametrize(("count", "length"), [(3, 60), (2, 1025), (1, 1500)])
def test_attention_in_bfloat16_on_a_cpu_is_that_of_torch_for_any_number_and_length_of_rows(
    count: int, length: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    queries, keys, values = torch.randn(3, count, 8, length, 16, generator=generator).to(torch.bfloat16)
    expected = F.scaled_dot_product_attention(queries.float(), keys.float(), values.float(), scale=0.25)
    actual = attend(queries * 0.25, keys, values)
    assert actual.shape == expected.shape and actual.dtype == torch.bfloat16
    assert measure_snr_db(expected, actual.float()) > 45
    exact = attend(queries.float() * 0.25, keys.float(), values.float())
    assert measure_snr_db(expected, exact) > 100


def test_only_the_mask_estimators_that_are_asked_for_are_read_and_they_give_what_all_of_them_give() -> None:
    shape = Shape(kind="bs", num_stems=5)
    state = make_state(shape)
    everything = _build(shape, state)(_make_mix())
    read = _Reader(state)
    network = RoformerNetwork(_read_config(shape, state), read, "cpu", "float32")
    trunk = network.memory_bytes
    stems = network(_make_mix(), [3, 1])
    torch.testing.assert_close(stems, everything[:, [3, 1]], rtol=0, atol=0)
    assert read.estimators == ["mask_estimators.3.", "mask_estimators.1."]
    network(_make_mix(), [1])
    assert len(read.estimators) == 2, "what was loaded stays"
    assert trunk < network.memory_bytes


@pytest.mark.parametrize("damage", ["missing", "left over", "shape", "estimator"])
def test_tensors_that_do_not_fit_are_refused_by_name(damage: str) -> None:
    shape = Shape(kind="mel")
    state = make_state(shape)
    config = _read_config(shape, state)
    name = "layers.0.1.layers.0.1.net.4.bias"
    match damage:
        case "missing":
            del state[name]
        case "left over":
            name = "layers.0.1.layers.0.1.net.7.bias"
            state[name] = torch.zeros(3)
        case "shape":
            state[name] = torch.zeros(3)
        case "estimator":
            name = "to_freqs.59.0.4.bias"
            state[f"mask_estimators.0.{name}"] = torch.zeros(3)
    with pytest.raises(CheckpointError, match=name):
        RoformerNetwork(config, _Reader(state), "cpu", "float32").prepare([0])


class _Reader:
    """Reads tensors by the beginnings of their names, and remembers the mask estimators that were read."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.estimators: list[str] = []

    def __call__(self, prefixes: Sequence[str]) -> State:
        self.estimators += [prefix for prefix in prefixes if prefix.startswith("mask_estimators")]
        return {name: tensor for name, tensor in self._state.items() if name.startswith(tuple(prefixes))}


def _read_config(shape: Shape, state: State) -> RoformerConfig:
    stems = [f"stem {index}" for index in range(shape.num_stems)]
    settings = {"model": shape.describe(), "training": {"instruments": stems}}
    return read_config({name: tuple(tensor.shape) for name, tensor in state.items()}, Settings(settings))


def _build(shape: Shape, state: State, precision: Precision = "float32") -> RoformerNetwork:
    return RoformerNetwork(_read_config(shape, state), _Reader(state), "cpu", precision)


def _make_mix(batch: int = 1, length: int = 8820) -> torch.Tensor:
    return torch.randn(batch, 2, length, generator=torch.Generator().manual_seed(5)) * 0.2


def _check_close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
    assert measure_snr_db(expected, actual) > 100
