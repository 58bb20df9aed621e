"""Sets torch up for training on a CPU."""

import os

import torch


def prepare_cpu(threads: int) -> None:
    """Sets the number of threads, and keeps oneDNN from AMX; to be called before torch computes anything.

    With AMX, torch 2.11's convolutions in bfloat16 are wrong for some shapes (`models.runtime.dtype`), among them those
    of the codec and of the content encoder. oneDNN reads the variable when it is first used.
    """
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_FP16")
    torch.set_num_threads(threads)
