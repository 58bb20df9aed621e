"""Which device there is, how much memory it has, and whether it has failed. Importable without torch.

The CUDA driver and NVML are called by ctypes: nvidia-ml-py and psutil are not dependencies, NVML alone does not honour
CUDA_VISIBLE_DEVICES, and psutil does not know a container's memory limit.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from errors import DeviceError, ErrorCode

logger = logging.getLogger(__name__)

GIBIBYTE = 1024**3
GPU_RESERVE_BYTES = 3 * GIBIBYTE // 2  # CUDA context, cuBLAS and cuDNN workspaces, activations of the largest step
RAM_FRACTION = 0.8
BFLOAT16_CAPABILITY = (8, 0)  # Ampere
_PCI_ID_LENGTH = 32
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # CUdevice_attribute
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "alloc_failed", "not enough memory")
# In the messages of torch and its libraries, in lower case. After most of these errors every later call fails as well,
# and the others cannot be told from them.
_FAILURES = (
    "cuda error",
    "device-side assert",
    "illegal memory access",
    "unspecified launch failure",
    "cudnn error",
    "cudnn_status_",
    "cublas_status_",
    "cufft_status",
    "cusolver_status",
    "gpu is lost",
)


@dataclass(frozen=True)
class Gpu:
    """The first CUDA device that this process may use; sizes in bytes, `free_bytes` as of now.

    Args:
        capability: CUDA compute capability, (major, minor).
    """

    name: str
    total_bytes: int
    free_bytes: int
    capability: tuple[int, int] = BFLOAT16_CAPABILITY

    @property
    def multiplies_bfloat16(self) -> bool:
        """Whether it has instructions for products in bfloat16; networks in that type run in float32 without them."""
        return self.capability >= BFLOAT16_CAPABILITY


class _NvmlMemory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class _DriverError(OSError):
    """A driver call that did not return 0."""


def find_gpu() -> Gpu | None:
    """Asks the CUDA driver (so CUDA_VISIBLE_DEVICES counts) for its first device, and NVML for what is free there.

    Creates no CUDA context. None if there is no driver or no device, or the driver does not start.
    """
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
        _call(cuda, "cuInit", 0)
        device = ctypes.c_int()
        _call(cuda, "cuDeviceGet", ctypes.byref(device), 0)
        name = ctypes.create_string_buffer(128)
        _call(cuda, "cuDeviceGetName", name, len(name), device)
        total = ctypes.c_size_t()
        _call(cuda, "cuDeviceTotalMem_v2", ctypes.byref(total), device)
        bus_id = ctypes.create_string_buffer(_PCI_ID_LENGTH)
        _call(cuda, "cuDeviceGetPCIBusId", bus_id, len(bus_id), device)
        major, minor = ctypes.c_int(), ctypes.c_int()
        _call(cuda, "cuDeviceGetAttribute", ctypes.byref(major), _CAPABILITY_MAJOR, device)
        _call(cuda, "cuDeviceGetAttribute", ctypes.byref(minor), _CAPABILITY_MINOR, device)
    except (OSError, AttributeError) as error:
        logger.debug("No CUDA device: %s", error)
        return None
    return Gpu(
        name=name.value.decode(errors="replace"),
        total_bytes=total.value,
        free_bytes=_measure_free(bus_id, total.value),
        capability=(major.value, minor.value),
    )


def _measure_free(bus_id: ctypes.Array[ctypes.c_char], total_bytes: int) -> int:
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
        _call(nvml, "nvmlInit_v2")
        try:
            handle = ctypes.c_void_p()
            _call(nvml, "nvmlDeviceGetHandleByPciBusId_v2", bus_id, ctypes.byref(handle))
            memory = _NvmlMemory()
            _call(nvml, "nvmlDeviceGetMemoryInfo", handle, ctypes.byref(memory))
            return int(memory.free)
        finally:
            nvml.nvmlShutdown()
    except (OSError, AttributeError) as error:
        logger.debug("NVML does not report free memory: %s", error)
        return total_bytes


def _call(library: ctypes.CDLL, function: str, *arguments: object) -> None:
    status = getattr(library, function)(*arguments)
    if status != 0:
        raise _DriverError(f"{function} returned {status}")


def resolve_device(device: str, gpu: Gpu | None) -> str:
    """`auto` becomes `cuda`, `mps` or `cpu`, whichever is present; anything else stays as it is."""
    if device != "auto":
        return device
    if gpu is not None:
        return "cuda"
    return "mps" if platform.system() == "Darwin" and platform.machine() == "arm64" else "cpu"


def prepare_device(device: str) -> None:
    """Every loader's first step: sets torch up for the device, for the whole process. Imports torch.

    On a GPU, attention is not computed by cuDNN, which torch 2.11 prefers on the H100 and later: it builds an execution
    plan for each new shape, and has not been measured here.

    Raises:
        DeviceError: torch cannot use the GPU that was found.
    """
    import torch

    if not device.startswith("cuda"):
        return
    torch.backends.cuda.enable_cudnn_sdp(False)
    if not torch.cuda.is_available():
        raise DeviceError(
            f"This machine has a GPU, but torch {torch.__version__} cannot use it: the driver is too old, or the "
            "container has no access to the GPU. Use a newer driver, or set DEVICE=cpu.",
            code=ErrorCode.DEVICE_UNAVAILABLE,
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that the memory of the device or the machine did not suffice."""
    return isinstance(error, MemoryError) or any(mark in str(error).lower() for mark in _OUT_OF_MEMORY)


def measure_allocated() -> int:
    """Returns the bytes of GPU memory that torch's tensors take now; 0 as long as torch uses no GPU."""
    torch = sys.modules.get("torch")
    return int(torch.cuda.memory_allocated()) if torch is not None and torch.cuda.is_initialized() else 0


def is_device_failure(error: BaseException) -> bool:
    """Whether `error` is one of CUDA, cuDNN or cuBLAS, after which the process cannot use the GPU any more."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(error, RuntimeError) or is_out_of_memory(error):
        return False
    return isinstance(error, torch.AcceleratorError) or any(mark in str(error).lower() for mark in _FAILURES)


def is_gpu_alive() -> bool:
    """Whether the GPU still answers; True if this process has not used one."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return True
    try:
        torch.cuda.synchronize()
    except RuntimeError as error:
        logger.error("The GPU does not answer any more: %s", type(error).__name__)
        return False
    return True


class DeviceFailureGuard:
    """A `with` block that ends with `DeviceError` if whatever ends it has left the GPU unusable.

    A library or a reader may have turned the GPU's error into one of its own, so the GPU is asked after every error.

    Args:
        what: what runs in the block, for the message.
        is_alive: asks the GPU; replaced in tests.
    """

    def __init__(self, what: str, is_alive: Callable[[], bool] = is_gpu_alive) -> None:
        self._what = what
        self._is_alive = is_alive

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is None or isinstance(error, DeviceError):
            return
        if is_device_failure(error) or not self._is_alive():
            logger.error("The GPU failed in %s: %s", self._what, type(error).__name__)
            raise DeviceError(
                f"The GPU failed while it ran {self._what}, so this worker restarts. Send the request again. If it "
                "fails in the same way again, ask for less, or set CUDA_GRAPHS=0."
            ) from error


def measure_budget(device: str, gpu: Gpu | None) -> int:
    """Bytes that loaded models may take: the GPU's memory less a reserve, or a fraction of the available RAM."""
    if device.startswith("cuda") and gpu is not None:
        return max(gpu.total_bytes - GPU_RESERVE_BYTES, GIBIBYTE)
    return int(RAM_FRACTION * measure_available_ram())


def measure_available_ram(root: Path = Path("/")) -> int:
    """Bytes of RAM that this process can still take: the kernel's estimate, or less if a container limits it."""
    limits = [_read_meminfo_available(root / "proc/meminfo"), _read_cgroup_available(root / "sys/fs/cgroup")]
    known = [limit for limit in limits if limit is not None]
    return max(min(known), 0) if known else 4 * GIBIBYTE


def _read_meminfo_available(meminfo: Path) -> int | None:
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def _read_cgroup_available(root: Path) -> int | None:
    """The container's limit less its use, from cgroup v2 or v1. Page cache can be dropped, so it counts as free."""
    for limit, used, cache in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            bytes_limit = int((root / limit).read_text())
            bytes_used = int((root / used).read_text())
            stat = (root / limit).with_name("memory.stat").read_text()
        except (OSError, ValueError):  # absent, or "max": no limit
            continue
        reclaimable = dict(line.split() for line in stat.splitlines()).get(cache, "0")
        return bytes_limit - bytes_used + int(reclaimable)
    return None


@functools.cache
def cpu_multiplies_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the CPU has instructions for products in bfloat16 (AVX-512 BF16 or AMX); False if unknown."""
    try:
        flags = next((line for line in cpuinfo.read_text().splitlines() if line.startswith("flags")), "")
    except OSError:
        return False
    return bool({"avx512_bf16", "amx_bf16"} & set(flags.split()))
