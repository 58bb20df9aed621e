"""Whether the host's CUDA driver can run this worker's torch. Importable without torch."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass

from errors import ErrorCode, ModelError

MIN_CUDA = (13, 0)  # what the locked torch is built with; a driver that supports less cannot run it
_STARTED, _STUB, _NO_DEVICE = 0, 34, 100  # CUresult
_REMEDY = "Run this worker on a host with a newer driver, or set DEVICE=cpu."


@dataclass(frozen=True, slots=True)
class CudaDriver:
    """The driver that the host gives this process.

    Args:
        cuda: the newest CUDA version that it supports, (major, minor).
        status: what `cuInit` returned, a `CUresult`: 0 if the driver started, 100 if there is no device.
    """

    cuda: tuple[int, int]
    status: int

    @property
    def has_device(self) -> bool:
        """Whether there is a GPU for this process, usable or not. CUDA_VISIBLE_DEVICES can hide all of them."""
        return self.status not in (_STUB, _NO_DEVICE)


def find_cuda_driver() -> CudaDriver | None:
    """Asks the driver for its version and starts it, without a CUDA context; None if there is no driver."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    version = ctypes.c_int()
    library.cuDriverGetVersion(ctypes.byref(version))
    return CudaDriver(cuda=(version.value // 1000, version.value % 1000 // 10), status=int(library.cuInit(0)))


def describe_driver_problem(device: str, driver: CudaDriver | None) -> str:
    """Why `device`, a value of DEVICE, cannot be used with this driver, in sentences; empty if it may work."""
    if device != "auto" and not device.startswith("cuda"):
        return ""
    if driver is None or not driver.has_device:
        return "" if device == "auto" else f"DEVICE is '{device}', but this machine has no NVIDIA GPU. Set DEVICE=cpu."
    if driver.cuda < MIN_CUDA:
        supported, needed = (".".join(map(str, version)) for version in (driver.cuda, MIN_CUDA))
        return f"The host's driver supports CUDA {supported}; this worker needs CUDA {needed} or newer. {_REMEDY}"
    if driver.status != _STARTED:
        return f"The host's CUDA driver does not start (cuInit returned {driver.status}). {_REMEDY}"
    return ""


def check_device(
    device: str,
    *,
    find_driver: Callable[[], CudaDriver | None] = find_cuda_driver,
    can_torch_use_gpu: Callable[[], bool] | None = None,
) -> None:
    """Refuses to start a worker that would fail every job. Imports torch only if there is a GPU.

    Args:
        device: the value of DEVICE.
        find_driver: asks for the driver.
        can_torch_use_gpu: asks torch; None: `torch.cuda.is_available`.

    Raises:
        ModelError: `device_unavailable`: there is a GPU that torch cannot use, or none although one is required.
    """
    driver = find_driver()
    problem = describe_driver_problem(device, driver)
    uses_gpu = driver is not None and driver.has_device and (device == "auto" or device.startswith("cuda"))
    if not problem and uses_gpu and not (can_torch_use_gpu or _ask_torch)():
        problem = f"This machine has a GPU that torch cannot use. {_REMEDY}"
    if problem:
        raise ModelError(problem, code=ErrorCode.DEVICE_UNAVAILABLE)


def _ask_torch() -> bool:
    import torch

    return torch.cuda.is_available()
