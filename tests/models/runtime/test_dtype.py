"""Every network's floating-point type on every kind of device."""

from __future__ import annotations

import pytest
import torch

from models.device import cpu_multiplies_bfloat16
from models.runtime.dtype import (
    ACESTEP,
    CREPE,
    DEMUCS,
    HUBERT,
    MUSICGEN_ACTIVATIONS,
    MUSICGEN_WEIGHTS,
    RMVPE,
    RVC_SYNTHESIZER,
    DtypePolicy,
    convolves_bfloat16,
    inference_dtype,
    kv_cache_dtype,
    tf32_products,
)

FLOAT32, FLOAT16, BFLOAT16 = torch.float32, torch.float16, torch.bfloat16


@pytest.mark.parametrize("has_bfloat16", [True, False])
@pytest.mark.parametrize(
    ("policy", "cuda", "cpu", "mps"),
    [
        (MUSICGEN_WEIGHTS, FLOAT16, BFLOAT16, FLOAT16),
        (MUSICGEN_ACTIVATIONS, FLOAT16, FLOAT32, FLOAT16),
        (RVC_SYNTHESIZER, FLOAT16, BFLOAT16, FLOAT32),
        (HUBERT, FLOAT16, FLOAT32, FLOAT32),
        (RMVPE, FLOAT16, FLOAT32, FLOAT32),
        (CREPE, FLOAT32, BFLOAT16, FLOAT32),
        (DEMUCS, BFLOAT16, BFLOAT16, FLOAT32),
    ],
)
def test_each_network_runs_in_its_policys_type(
    policy: DtypePolicy, cuda: torch.dtype, cpu: torch.dtype, mps: torch.dtype, has_bfloat16: bool
) -> None:
    for device, wanted in (("cuda", cuda), ("cpu", cpu), ("mps", mps)):
        expected = FLOAT32 if wanted == BFLOAT16 and not has_bfloat16 else wanted
        assert inference_dtype(policy, device, has_bfloat16=has_bfloat16) == expected
        assert inference_dtype(policy, torch.device(device), has_bfloat16=has_bfloat16) == expected


def test_a_precision_that_is_asked_for_overrides_the_policy() -> None:
    assert inference_dtype(RVC_SYNTHESIZER, "cuda", "float32") == FLOAT32
    assert inference_dtype(HUBERT, "cpu", "bfloat16") == BFLOAT16
    assert inference_dtype(CREPE, "cuda", "float16") == FLOAT16


def test_a_cpu_is_asked_whether_it_multiplies_bfloat16() -> None:
    assert inference_dtype(ACESTEP, "cpu") == (BFLOAT16 if cpu_multiplies_bfloat16() else FLOAT32)


@pytest.mark.parametrize("policy", [CREPE, RVC_SYNTHESIZER])
def test_networks_with_convolutions_run_in_float32_on_a_cpu_that_computes_them_wrongly(policy: DtypePolicy) -> None:
    is_fit = cpu_multiplies_bfloat16() and convolves_bfloat16(torch.device("cpu"))
    assert policy.convolves and inference_dtype(policy, "cpu") == (BFLOAT16 if is_fit else FLOAT32)


@pytest.mark.parametrize("channels", [2, 4, 6, 8, 12, 16, 24, 32, 48])
@pytest.mark.parametrize("kernel", [3, 4, 8, 16, 64])
@pytest.mark.parametrize("length", [80, 600])
def test_a_type_with_convolutions_gives_the_samples_of_float32(channels: int, kernel: int, length: int) -> None:
    """On a CPU with AMX a part of these fails in bfloat16."""
    dtype = inference_dtype(CREPE, "cpu")
    generator = torch.Generator().manual_seed(1)
    x, weight = (torch.randn(*shape, generator=generator) for shape in ((1, channels, length), (16, channels, kernel)))
    x, weight = x.bfloat16(), weight.bfloat16()
    expected = torch.nn.functional.conv1d(x.double(), weight.double())
    found = torch.nn.functional.conv1d(x.to(dtype), weight.to(dtype))
    assert (found - expected).norm() < 0.01 * expected.norm()


def test_only_float32_weights_on_a_cpu_keep_their_cache_in_float32() -> None:
    assert kv_cache_dtype("cpu", FLOAT32) == FLOAT32
    assert (
        kv_cache_dtype("cpu", BFLOAT16) == kv_cache_dtype("cuda", FLOAT16) == kv_cache_dtype("mps", FLOAT32) == FLOAT16
    )


def test_products_are_in_tf32_within_the_block_only_and_also_after_an_error() -> None:
    with tf32_products(enabled=False):
        assert torch.get_float32_matmul_precision() == "highest"
    with pytest.raises(ValueError, match="no result"), tf32_products(enabled=True):
        assert torch.get_float32_matmul_precision() == "high"
        raise ValueError("no result")
    assert torch.get_float32_matmul_precision() == "highest"
