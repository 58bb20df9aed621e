"""What a figure was measured on, and with which clock."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch

from models.device import cpu_multiplies_bfloat16

Clock = Callable[[], float]


def describe_machine(device: str, threads: int) -> str:
    """One line: processor, GPU, threads, torch."""
    processor = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        lines = [line.partition(":") for line in info.read_text().splitlines()]
        names = [value.strip() for key, _, value in lines if key.strip() == "model name"]
        processor = f"{names[0]} x {len(names)}" if names else processor
    products = "with" if cpu_multiplies_bfloat16() else "without"
    gpu = torch.cuda.get_device_name() if device == "cuda" else "no GPU"
    return f"{processor}, {products} bfloat16 products, {gpu}, {threads} threads, torch {torch.__version__}"


def choose_clock(name: str) -> Clock:
    """`wall`, or `cpu`: seconds of the process and its children, which other processes hardly change."""

    def cpu_seconds() -> float:
        times = os.times()
        return times.user + times.system + times.children_user + times.children_system

    return time.perf_counter if name == "wall" else cpu_seconds
