"""Which floating-point type each network runs in on each device: the choices of all families, with their reasons."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional as F

from models.device import BFLOAT16_CAPABILITY, cpu_multiplies_bfloat16

Precision = Literal["auto", "float32", "bfloat16", "float16"]
"""What a caller may ask for; `auto` leaves it to the network's policy."""


@dataclass(frozen=True, slots=True)
class DtypePolicy:
    """The type a network runs in, by kind of device.

    bfloat16 stands for float32 on a device without instructions for it, which would emulate it, slower than float32.

    Args:
        convolves: whether the network has convolutions in this type, which a CPU may compute wrongly
            (`convolves_bfloat16`).
    """

    cuda: torch.dtype = torch.float32
    cpu: torch.dtype = torch.float32
    mps: torch.dtype = torch.float32
    convolves: bool = False


# As audiocraft runs it on a GPU. Its CPU path is bound by reading the weights, which bfloat16 halves.
MUSICGEN_WEIGHTS = DtypePolicy(cuda=torch.float16, cpu=torch.bfloat16, mps=torch.float16)
# The residual stream. On a CPU it costs next to nothing beside the weights, so it is not rounded.
MUSICGEN_ACTIVATIONS = DtypePolicy(cuda=torch.float16, cpu=torch.float32, mps=torch.float16)
# RVC has always run its synthesizer in half precision on GPUs.
RVC_SYNTHESIZER = DtypePolicy(cuda=torch.float16, cpu=torch.bfloat16, convolves=True)
# No bfloat16: its error of 2 % stays in the sound 42 dB below it, for a fifth of a conversion's time.
HUBERT = DtypePolicy(cuda=torch.float16)
# float16 on CUDA, as RVC has always run it. bfloat16 would save a second a minute on a CPU, and frames in which two
# octaves are nearly alike would flip.
RMVPE = DtypePolicy(cuda=torch.float16)
# bfloat16 moves f0 by about a cent. torchcrepe runs in float32 on CUDA.
CREPE = DtypePolicy(cpu=torch.bfloat16, convolves=True)
# Only the inner layers: see `models.demucs.optimizations.reduce_precision`.
DEMUCS = DtypePolicy(cuda=torch.bfloat16, cpu=torch.bfloat16)
# Its linear layers and attention only: spectrograms, norms, the residual stream and the masks' sums are float32.
ROFORMER = DtypePolicy(cuda=torch.bfloat16, cpu=torch.bfloat16)
# As it was trained, and as its weights are stored.
ACESTEP = DtypePolicy(cuda=torch.bfloat16, cpu=torch.bfloat16)
# Its waveform has the quiet parts of the music, too. On a GPU it is bound by memory, which bfloat16 halves.
ACESTEP_VAE = DtypePolicy(cuda=torch.bfloat16)
# As it was trained. Its audio codes do not survive coarser types.
PLANNER_WEIGHTS = DtypePolicy(cuda=torch.bfloat16, cpu=torch.bfloat16)
# The residual stream, for the reason given for MusicGen.
PLANNER_ACTIVATIONS = DtypePolicy(cuda=torch.bfloat16)

_BY_NAME = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def inference_dtype(
    policy: DtypePolicy, device: torch.device | str, precision: Precision = "auto", *, has_bfloat16: bool | None = None
) -> torch.dtype:
    """The type that a network with this policy runs in on `device`.

    Decided by the device alone, so that it is the same at every start.

    Args:
        precision: any other than `auto` overrides the policy.
        has_bfloat16: whether the device is fit for the network in bfloat16; None asks it.
    """
    if precision != "auto":
        return _BY_NAME[precision]
    device = torch.device(device)
    dtype = {"cuda": policy.cuda, "cpu": policy.cpu, "mps": policy.mps}.get(device.type, torch.float32)
    if dtype != torch.bfloat16:
        return dtype
    if has_bfloat16 is None:
        has_bfloat16 = multiplies_bfloat16(device) and (not policy.convolves or convolves_bfloat16(device))
    return dtype if has_bfloat16 else torch.float32


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for products in bfloat16."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= BFLOAT16_CAPABILITY
    return device.type == "cpu" and cpu_multiplies_bfloat16()


def convolves_bfloat16(device: torch.device) -> bool:
    """Whether torch's convolutions in bfloat16 are right on the device.

    On CPUs with AMX, torch 2.11's (oneDNN) are wrong for some shapes: with an error as large as the result for even
    numbers of channels below 32 and kernels of a multiple of 4, and hundreds of times as large for 96 channels and a
    kernel of 512 (https://github.com/pytorch/pytorch/issues/163347 and 169688 have other cases). Linear layers are
    right. No rule tells which shapes are wrong (CREPE's are, those of `htdemucs` are not), so one is enough.
    """
    return device.type != "cpu" or _cpu_convolves_bfloat16()


@functools.cache
def _cpu_convolves_bfloat16() -> bool:
    generator = torch.Generator().manual_seed(0)
    for channels, kernel, stride in ((4, 16, 1), (8, 8, 1), (16, 8, 4), (24, 4, 1)):
        x, weight = (
            torch.randn(*shape, generator=generator).to(torch.bfloat16)
            for shape in ((1, channels, 200), (16, channels, kernel))
        )
        expected = F.conv1d(x.float(), weight.float(), stride=stride)
        if (F.conv1d(x, weight, stride=stride) - expected).norm() > 0.05 * expected.norm():
            return False
    return True


@contextmanager
def tf32_products(enabled: bool) -> Iterator[None]:
    """Within the block, float32 matrix products on a GPU round their factors to TF32 (10 bits), if `enabled`.

    torch's setting is one for the process, and on some CPUs it reduces products there, too. So it is set for as short
    as possible, and only for work on a GPU, one piece of which runs at a time.
    """
    if not enabled:
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def float32_convolutions() -> Iterator[None]:
    """Within the block, convolutions and LSTMs on a GPU multiply in float32; torch's default rounds them to TF32."""
    cudnn = torch.backends.cudnn
    before = cudnn.allow_tf32
    cudnn.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.allow_tf32 = before


def kv_cache_dtype(device: torch.device | str, weights: torch.dtype) -> torch.dtype:
    """The type of MusicGen's cached keys and values.

    float16 beside bfloat16 weights: it holds the products of bfloat16 exactly, except those next to zero, and a CPU's
    `embedding_bag` reads it at the memory's full speed.
    """
    exact = torch.device(device).type == "cpu" and weights == torch.float32
    return torch.float32 if exact else torch.float16
