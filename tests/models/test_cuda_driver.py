"""A worker whose driver cannot run its torch does not start."""

from __future__ import annotations

import ctypes

import pytest
import torch

from errors import ErrorCode, ModelError
from models.cuda_driver import MIN_CUDA, CudaDriver, check_device, describe_driver_problem, find_cuda_driver
from testing.image import read_environment

CURRENT = CudaDriver(cuda=MIN_CUDA, status=0)
OLD = CudaDriver(cuda=(12, 8), status=0)
HIDDEN = CudaDriver(cuda=MIN_CUDA, status=100)
BROKEN = CudaDriver(cuda=MIN_CUDA, status=999)


def refuse_to_answer() -> bool:
    raise AssertionError("torch must not be imported")


@pytest.mark.parametrize(
    ("device", "driver", "expected"),
    [
        ("auto", OLD, "supports CUDA 12.8; this worker needs CUDA 13.0 or newer"),
        ("cuda:0", OLD, "supports CUDA 12.8"),
        ("auto", BROKEN, "cuInit returned 999"),
        ("cuda", None, "has no NVIDIA GPU"),
        ("cuda", HIDDEN, "has no NVIDIA GPU"),
    ],
)
def test_a_device_that_the_driver_cannot_serve_is_refused_without_torch(
    device: str, driver: CudaDriver | None, expected: str
) -> None:
    with pytest.raises(ModelError, match=expected) as caught:
        check_device(device, find_driver=lambda: driver, can_torch_use_gpu=refuse_to_answer)
    assert caught.value.error_code == ErrorCode.DEVICE_UNAVAILABLE and "DEVICE=cpu" in caught.value.message


@pytest.mark.parametrize("driver", [None, HIDDEN, CudaDriver(cuda=(0, 0), status=34)], ids=["none", "hidden", "stub"])
def test_without_a_gpu_the_worker_starts_on_the_cpu_and_does_not_import_torch(driver: CudaDriver | None) -> None:
    check_device("auto", find_driver=lambda: driver, can_torch_use_gpu=refuse_to_answer)


@pytest.mark.parametrize("driver", [OLD, BROKEN])
def test_device_cpu_starts_on_any_host(driver: CudaDriver) -> None:
    check_device("cpu", find_driver=lambda: driver, can_torch_use_gpu=refuse_to_answer)


def test_torch_has_the_last_word_on_a_gpu() -> None:
    check_device("auto", find_driver=lambda: CURRENT, can_torch_use_gpu=lambda: True)
    with pytest.raises(ModelError, match="torch cannot use"):
        check_device("auto", find_driver=lambda: CURRENT, can_torch_use_gpu=lambda: False)


def test_the_driver_of_this_machine_is_found_as_torch_finds_it() -> None:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        assert find_cuda_driver() is None
    else:
        driver = find_cuda_driver()
        assert driver is not None
        assert torch.cuda.is_available() == (driver.has_device and not describe_driver_problem("auto", driver))


def test_the_least_cuda_version_is_the_one_that_torch_is_built_with() -> None:
    needed = ".".join(map(str, MIN_CUDA))
    assert (torch.version.cuda or needed).startswith(needed)
    assert read_environment()["RUNPOD_MIN_CUDA_VERSION"] == needed
