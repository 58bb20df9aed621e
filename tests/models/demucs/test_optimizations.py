"""The faster parts compute the same as those of torch and demucs that they replace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from audio import Audio
from models.demucs.bag import Bag
from models.demucs.engine import DemucsSeparator, Runtime, SeparationModel
from models.demucs.load import load_network
from models.demucs.network import Network
from models.demucs.optimizations import (
    Attention,
    ChunkedBatch,
    CrossTransformer,
    attend,
    patch_attention,
    patch_dconv,
    patch_stft,
    patch_transformer,
)
from models.runtime.normalization import NormalizationStats
from models.separation import Mix
from testing import tiny_demucs as tiny

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize(("queries", "keys"), [(700, 300), (5, 900), (256, 256), (1, 1)])
def test_attention_computes_what_torchs_module_computes(queries: int, keys: int) -> None:
    torch.manual_seed(0)
    module = nn.MultiheadAttention(32, 4, batch_first=True).eval()
    query, key = torch.randn(2, queries, 32), torch.randn(2, keys, 32)
    with torch.no_grad():
        expected = module(query, key, key, need_weights=False)[0]
        result, weights = Attention(module)(query, key, key, attn_mask=None, need_weights=False)
    assert weights is None
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("queries", "keys"), [(700, 300), (3, 900), (257, 64)])
def test_attention_in_blocks_differs_from_attention_in_one_go_by_bfloat16_rounding_only(
    queries: int, keys: int
) -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, length, 16) for length in (queries, keys, keys))
    expected = attend(query, key, value)
    blocked = attend(query.bfloat16(), key.bfloat16(), value.bfloat16())
    assert blocked.dtype == torch.bfloat16
    assert (blocked.float() - expected).abs().max() < 0.03 * expected.abs().max()


def test_every_attention_module_of_a_network_is_replaced() -> None:
    network: Any = tiny.htdemucs()
    patch_attention(network)
    kinds = [type(part) for part in network.modules()]
    assert nn.MultiheadAttention not in kinds and kinds.count(Attention) == 6


def test_chunked_residual_branches_compute_the_same() -> None:
    network, same = tiny.htdemucs(), tiny.htdemucs()
    patch_dconv(same)
    assert sum(isinstance(part, ChunkedBatch) for part in same.modules()) == 6
    mix = torch.randn(1, 2, 30_000)
    with torch.no_grad():
        torch.testing.assert_close(same(mix), network(mix), atol=1e-5, rtol=1e-5)


def test_the_chunks_of_a_batch_cover_it() -> None:
    class Doubled(nn.Module):
        sizes: list[int] = []

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.sizes.append(len(x))
            return x * 2

    x = torch.randn(70, 64, 256)
    torch.testing.assert_close(ChunkedBatch(Doubled())(x.transpose(1, 2)), x.transpose(1, 2) * 2)
    assert Doubled.sizes == [32, 32, 6]


def test_the_transformer_computes_its_position_embeddings_once() -> None:
    network: Any = tiny.htdemucs()
    patch_transformer(network)
    assert isinstance(network.crosstransformer, CrossTransformer)
    mix = torch.randn(1, 2, 20_000)
    with torch.inference_mode():
        first = network(mix)
        (tables,) = network.crosstransformer._embeddings.values()
        torch.testing.assert_close(network(mix), first)
    assert tables is next(iter(network.crosstransformer._embeddings.values()))


def test_variants_with_other_framing_or_positions_keep_demucss_own_parts() -> None:
    old: Any = tiny.hdemucs(hybrid_old=True)
    patch_stft(old, torch.device("cpu"))
    assert "_spec" not in vars(old)
    random_positions: Any = tiny.htdemucs(t_sin_random_shift=2)
    patch_transformer(random_positions)
    assert not isinstance(random_positions.crosstransformer, CrossTransformer)


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("make", [tiny.htdemucs, tiny.htdemucs_6s, tiny.hdemucs, tiny.demucs])
def test_float32_and_bfloat16_on_a_gpu_give_the_cpus_result(make: Any) -> None:
    mix = torch.randn(3, 2, 60_000) * 0.2
    exact = Network(make(), torch.device("cpu"), "float32")
    with torch.inference_mode():
        expected = exact(mix)
        for precision, tolerance in (("float32", 1e-2), ("bfloat16", 5e-2)):
            network = Network(make(), torch.device("cuda"), precision)  # type: ignore[arg-type]
            result = network(mix.cuda()).cpu()
            assert (result - expected).abs().max() < tolerance * expected.abs().max()


@pytest.mark.gpu
@needs_cuda
def test_a_whole_mix_on_a_gpu_gives_the_cpus_result(tmp_path: Path) -> None:
    tiny.save(tiny.htdemucs(), tmp_path / "a.safetensors")
    generator = np.random.default_rng(0)
    sound = Audio((0.2 * generator.standard_normal((2, 500_000))).astype(np.float32), 44_100)
    stats = NormalizationStats(0.0, 0.2)
    results = []
    for device, window_s in (("cpu", None), ("cuda", None), ("cuda", 3.0)):
        model = SeparationModel(
            Bag(("a",)), lambda index: load_network(tmp_path / "a.safetensors"), tuple(tiny.FOUR), 44_100
        )
        separator = DemucsSeparator(model, Runtime(device, "float32", window_s))
        results.append(np.concatenate(list(separator.separate(Mix(sound, 44_100), tiny.FOUR, stats=stats)), axis=-1))
    for result in results[1:]:
        assert np.abs(result - results[0]).max() < 1e-2 * np.abs(results[0]).max()
