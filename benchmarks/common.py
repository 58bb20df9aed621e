"""What the benchmarks share: options, clocks, a description of the machine, a test song and the result's JSON line.

torch is imported by the functions that need it, because `overhead` measures the memory of processes without it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile

from testing.repository import ROOT

SAMPLE_RATE = 44_100  # Hz, of the test song
_BLOCK = 1 << 18  # samples
Clock = Callable[[], float]  # seconds


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options of every benchmark that runs a model: --device, --threads and --clock."""
    import torch

    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads of torch")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: CPU seconds of the process")
    return parser


def set_up(options: argparse.Namespace) -> None:
    """Sets the number of threads and prints the processor, the GPU, the threads and torch's version in one line."""
    import torch

    from models.device import cpu_multiplies_bfloat16

    torch.set_num_threads(options.threads)
    processor = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        lines = [line.partition(":") for line in info.read_text().splitlines()]
        names = [value.strip() for key, _, value in lines if key.strip() == "model name"]
        processor = f"{names[0]} x {len(names)}" if names else processor
    bfloat16 = "with" if cpu_multiplies_bfloat16() else "without"
    gpu = torch.cuda.get_device_name() if options.device == "cuda" else "no GPU"
    print(f"{processor}, {bfloat16} bfloat16 products, {gpu}, {options.threads} threads, torch {torch.__version__}")


def name_device(options: argparse.Namespace) -> str:
    """The GPU's name, or `cpu` with the number of threads."""
    import torch

    return torch.cuda.get_device_name() if options.device == "cuda" else f"cpu, {options.threads} threads"


def choose_clock(name: str) -> Clock:
    """`wall`, or `cpu`: CPU seconds of the process and its children, which other processes hardly change."""

    def cpu_seconds() -> float:
        times = os.times()
        return times.user + times.system + times.children_user + times.children_system

    return time.perf_counter if name == "wall" else cpu_seconds


def read_peak_bytes() -> int:
    """The most memory that this process has had so far.

    Linux gives it without what the process that started this one had, which `getrusage` counts.
    """
    if (status := Path("/proc/self/status")).exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024  # bytes of ru_maxrss
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class Stopwatch:
    """Seconds spent in each stage of a run since the last `reset`.

    Args:
        clock: seconds.
        device: if it is `cuda`, every reading waits for the GPU, so that its work counts in the stage that started it.
    """

    def __init__(self, clock: Clock, device: str) -> None:
        self._clock = clock
        self._on_gpu = device == "cuda"
        self.seconds: dict[str, float] = {}

    def read(self) -> float:
        """The clock, once the device has finished its work."""
        if self._on_gpu:
            import torch

            torch.cuda.synchronize()
        return self._clock()

    def reset(self) -> None:
        self.seconds = {}

    def wrap(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, with the time of each call added to `stage`."""

        def call(*args: Any, **kwargs: Any) -> Any:
            started = self.read()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[stage] = self.seconds.get(stage, 0.0) + self.read() - started

        return call


def require_ffmpeg(reason: str) -> None:
    """Ends the process with exit code 1 and one sentence if there is no ffmpeg on PATH."""
    if shutil.which("ffmpeg") is None:
        sys.exit(f"ffmpeg was not found on PATH; {reason}: install ffmpeg and run the benchmark again.")


def write_song(target: Path | BinaryIO, seconds: float) -> None:
    """Chords, a beat and some noise, stereo, 44.1 kHz, 16-bit flac, written block by block.

    It compresses like music, not like silence or noise.
    """
    generator = np.random.default_rng(0)
    total = int(seconds * SAMPLE_RATE)
    with soundfile.SoundFile(target, "w", SAMPLE_RATE, 2, format="FLAC", subtype="PCM_16") as file:
        for start in range(0, total, _BLOCK):
            t = np.arange(start, min(start + _BLOCK, total)) / SAMPLE_RATE
            chord = sum(np.sin(2 * np.pi * f * t) / (k + 2) for k, f in enumerate((220, 277, 330)))
            beat = np.exp(-8 * (t * 2 % 1)) * np.sin(2 * np.pi * 55 * t)
            channels = [0.25 * chord + 0.25 * beat + 0.02 * generator.standard_normal(len(t)) for _ in range(2)]
            file.write(np.stack(channels, axis=1).astype(np.float32))


def run_python(*arguments: str, stdin: str = "") -> str:
    """The standard output of a new Python process, run in the repository's folder."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, input=stdin).stdout


def print_parity(errors: Mapping[str, float | bool], limits: Mapping[str, float]) -> None:
    """Prints each error and its limit, if it has one."""
    for name, error in errors.items():
        limit = f"  (at most {limits[name]:g})" if name in limits else ""
        value = str(error) if isinstance(error, bool) else f"{error:.3g}"
        print(f"{name:36} {value:>12}{limit}", flush=True)


def compare(ours: float | None, reference: float | None) -> dict[str, float | None]:
    """Both times in seconds, and `ratio` = reference / ours; None: not measured."""
    ratio = round(reference / ours, 2) if ours and reference else None
    return {"ours": _round(ours), "reference": _round(reference), "ratio": ratio}


def print_result(name: str, *, device: str, ours: float | None, reference: float | None, **figures: Any) -> None:
    """Prints the result as one JSON object in one line, the last of a benchmark.

    Args:
        ours, reference: seconds for the same work; None: not measured.
        figures: everything else.
    """
    print(json.dumps({"name": name, "device": device, **compare(ours, reference), **figures}))


def _round(seconds: float | None) -> float | None:
    return None if seconds is None else float(f"{seconds:.4g}")
