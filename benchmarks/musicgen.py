"""MusicGen: our engine against audiocraft's own `generate`, on the same random weights of the published shapes.

    python -m benchmarks.musicgen --size small     # also demo, medium, large; --stereo, --batch 8, --threads 1, --table

`ours` and `reference` are the seconds in which the language model decodes one second of music, or of each clip of a
batch; the codec is not included. On a GPU, `--attention` also measures the steps with each of the attention kernels.
On a machine that others use too, `--clock cpu --threads 1` measures the thread's CPU seconds, which other processes do
not change.
"""

from __future__ import annotations

import argparse
import gc
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.checkpoints import MUSICGEN_SIZES, write_musicgen
from benchmarks.common import Clock, make_parser, name_device, print_result, read_peak_bytes, set_up
from benchmarks.musicgen_parity import DESCRIPTION, compare_logits, run_teacher_forced
from models.checkpoints.locations import WeightLocations
from models.musicgen.engine import Engine
from models.musicgen.inspect import inspect_checkpoint
from models.musicgen.load import load_engine
from models.musicgen.request import GenerationRequest
from testing.repository import ROOT

STRIDE_S = 18.0
WARM_S = 5.0  # of music in the first requests after loading
TABLE_S = (10.0, 30.0, 60.0, 120.0, 300.0)
LOAD_DEMO = """
from pathlib import Path
from models.musicgen.inspect import inspect_checkpoint
from models.musicgen.load import load_engine
from models.checkpoints.locations import WeightLocations
load_engine(inspect_checkpoint(Path("demo/weights/musicgen"), WeightLocations()), device="cpu")
"""


@dataclass(frozen=True, slots=True)
class StepRate:
    """How fast steps are decoded, without the first one."""

    steps_per_s: float
    median_ms: float


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parse_options(arguments)
    set_up(options)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.folder or temporary) / f"{options.size}{'-stereo' if options.stereo else ''}"
        if not (folder / "state_dict.bin").exists():
            write_musicgen(folder, MUSICGEN_SIZES[options.size], stereo=options.stereo)
        _compare_engines(folder, options)


def _parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    on_gpu = torch.cuda.is_available()
    parser = make_parser(__doc__)
    parser.add_argument("--size", choices=MUSICGEN_SIZES, default="small")
    parser.add_argument("--stereo", action="store_true")
    parser.add_argument("--batch", type=int, default=1, help="clips decoded together")
    parser.add_argument("--seconds", type=float, default=30.0 if on_gpu else 2.0, help="of our music")
    parser.add_argument("--reference-seconds", type=float, help="of audiocraft's; default: as ours; 0: do not run it")
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), help="default: the engine's own choice")
    parser.add_argument("--attention", action="store_true", help="steps per second by attention kernel; on a GPU alone")
    parser.add_argument("--table", action="store_true", help="seconds for durations from 10 s to 300 s")
    parser.add_argument("--no-imports", action="store_true", help="leave out the import times")
    parser.add_argument("--no-parity", action="store_true", help="leave out the comparison of logits and codes")
    parser.add_argument("--folder", help="keeps the checkpoint here for the next run")
    options = parser.parse_args(arguments)
    if options.attention and options.device != "cuda":
        parser.error("--attention needs a GPU: its kernels are CUDA's")
    return options


def _compare_engines(folder: Path, options: argparse.Namespace) -> None:
    clock = time.perf_counter if options.clock == "wall" else time.thread_time
    figures: dict[str, Any] = {} if options.no_imports else _measure_imports()
    dtype = getattr(torch, options.dtype) if options.dtype else None
    engine, load_figures = _measure_loading(folder, options.device, dtype, clock)
    ours, engine_figures = _measure_engine(engine, options, clock)
    figures |= load_figures | engine_figures
    frame_rate, logits = engine.codec.frame_rate, run_teacher_forced(engine)
    del engine  # two of the largest do not fit into memory together
    gc.collect()
    figures |= {} if options.no_parity else compare_logits(folder, logits)
    print(f"ours      {ours.steps_per_s:8.1f} steps/s, median {ours.median_ms:.2f} ms a step")
    figures |= {"steps_per_s": round(ours.steps_per_s, 1), "ms_a_step": round(ours.median_ms, 2)}
    reference_seconds = options.seconds if options.reference_seconds is None else options.reference_seconds
    reference = _measure_audiocraft(folder, options, reference_seconds, clock) if reference_seconds else None
    if reference is not None:
        by_rate, by_median = ours.steps_per_s / reference.steps_per_s, reference.median_ms / ours.median_ms
        print(f"audiocraft{reference.steps_per_s:8.1f} steps/s, median {reference.median_ms:.2f} ms a step")
        print(f"ratio     {by_rate:8.2f} by steps per second, {by_median:.2f} by the median step")
        figures |= {
            "reference_steps_per_s": round(reference.steps_per_s, 1),
            "reference_ms_a_step": round(reference.median_ms, 2),
            "ratio_by_median": round(by_median, 2),
        }
    print_result(
        f"musicgen {options.size}{' stereo' if options.stereo else ''} batch {options.batch}",
        device=name_device(options),
        ours=frame_rate / ours.steps_per_s,
        reference=frame_rate / reference.steps_per_s if reference else None,
        clock=options.clock,
        dtype=options.dtype or "engine's choice",
        seconds_of_music=options.seconds,
        reference_seconds_of_music=reference_seconds,
        **figures,
    )


def _measure_engine(engine: Engine, options: argparse.Namespace, clock: Clock) -> tuple[StepRate, dict[str, Any]]:
    """Our steps, and all other figures of a loaded engine."""
    request = GenerationRequest([DESCRIPTION] * options.batch, list(range(options.batch)), options.seconds, STRIDE_S)
    short = replace(request, duration=min(WARM_S, options.seconds))
    # On a GPU the first request captures every graph that the timed ones replay; on a CPU a short one warms up as well.
    cold = request if options.device == "cuda" else short
    first = _time(lambda: engine.generate(cold), clock)
    warm = _time(lambda: engine.generate(short), clock)
    print(f"first request, {cold.duration:g} s of music: {first:.2f} s; the next, {short.duration:g} s: {warm:.2f} s")
    rate, total = _time_steps(engine, request, clock)
    figures = {
        "first_request_s": round(first, 3),
        "first_request_seconds_of_music": cold.duration,
        "warm_request_s": round(warm, 3),
        "request_s": round(total, 3),
        "aggregate_steps_per_s": round(rate.steps_per_s * options.batch, 1),
        "codec_30_s": _measure_codec(engine, clock),
        "peak_memory_gb": _measure_peak_memory(options.device),
    }
    if options.batch > 1:
        figures |= _measure_batch_gain(engine, request, rate, clock)
    if options.attention:
        figures["steps_per_s_by_attention"] = _measure_attention(engine, request, clock)
    return rate, figures | (_measure_durations(engine, clock) if options.table else {})


def _measure_batch_gain(engine: Engine, request: GenerationRequest, rate: StepRate, clock: Clock) -> dict[str, float]:
    """How many times the steps of a single clip all clips of the batch make together."""
    single = replace(request, descriptions=request.descriptions[:1], seeds=request.seeds[:1])
    if engine.lm.device.type == "cuda":
        engine.generate(single)  # captures its graphs
    alone, _ = _time_steps(engine, single, clock)
    gain = rate.steps_per_s * len(request.descriptions) / alone.steps_per_s
    print(f"batch of {len(request.descriptions)}: {gain:.2f} times the steps of one clip")
    return {"batch_gain": round(gain, 2), "single_steps_per_s": round(alone.steps_per_s, 1)}


def _measure_attention(engine: Engine, request: GenerationRequest, clock: Clock) -> dict[str, float]:
    """Steps per second with each choice of attention kernels; a graph holds the kernels that it was captured with."""
    kernels = SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH
    choices = {
        "torch's choice": [SDPBackend.CUDNN_ATTENTION, *kernels],
        "without cuDNN": list(kernels),
        "efficient alone": [SDPBackend.EFFICIENT_ATTENTION],
    }
    rates = {}
    for name, choice in choices.items():
        with sdpa_kernel(choice):
            engine.backend.free_memory()
            first = _time(lambda: engine.generate(request), clock)
            rate, _ = _time_steps(engine, request, clock)
        rates[name] = round(rate.steps_per_s, 1)
        print(f"attention {name}: {rate.steps_per_s:8.1f} steps/s; the first request took {first:.2f} s", flush=True)
    engine.backend.free_memory()
    return rates


def _time_steps(engine: Engine, request: GenerationRequest, clock: Clock) -> tuple[StepRate, float]:
    """The rate of the steps, and the seconds of the whole request."""
    times: list[float] = []
    started = clock()
    generation = engine.generate(request, progress=lambda fraction: times.append(clock()))
    total = clock() - started
    return _rate_steps(times[: generation.steps], captured=engine.lm.device.type == "cuda"), total


def _rate_steps(times: list[float], *, captured: bool) -> StepRate:
    """From the time after each step. Steps of captured graphs end several at a time, so they have no median."""
    mean = (times[-1] - times[1]) / (len(times) - 2)
    steps = [after - before for before, after in zip(times[1:], times[2:], strict=False)]
    return StepRate(steps_per_s=1 / mean, median_ms=1000 * (mean if captured else statistics.median(steps)))


def _measure_audiocraft(folder: Path, options: argparse.Namespace, seconds: float, clock: Clock) -> StepRate:
    from testing.audiocraft_reference import load_audiocraft_musicgen

    model = load_audiocraft_musicgen(folder, device=options.device)
    model.set_generation_params(duration=seconds)
    times: list[float] = []
    model.set_custom_progress_callback(lambda done, total: times.append(clock()))
    model.generate([DESCRIPTION] * options.batch, progress=True)
    if options.device == "cuda":
        torch.cuda.synchronize()
        times.append(clock())
    return _rate_steps(times, captured=options.device == "cuda")


def _measure_loading(
    folder: Path, device: str, dtype: torch.dtype | None, clock: Clock
) -> tuple[Engine, dict[str, float]]:
    files = [folder / "state_dict.bin", folder / "compression_state_dict.bin"]
    size = sum(file.stat().st_size for file in files)
    reading = _time(lambda: _read(files), time.perf_counter)
    started, wall = clock(), time.perf_counter()
    engine = load_engine(inspect_checkpoint(folder, WeightLocations()), device=device, dtype=dtype)
    seconds, wall = clock() - started, time.perf_counter() - wall
    print(f"load {seconds:.2f} s; reading the {size / 1e9:.2f} GB alone takes {reading:.2f} s", flush=True)
    return engine, {"load_s": round(seconds, 2), "load_share_of_read_bandwidth": round(reading / wall, 2)}


def _read(paths: Sequence[Path]) -> None:
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.read(1 << 24):
                pass


def _measure_codec(engine: Engine, clock: Clock) -> float:
    """Seconds in which 30 s of music are decoded from codes; the better of two runs."""
    codes = torch.randint(engine.lm.config.card, (1, engine.codec.codebooks, 1500), device=engine.lm.device)

    @torch.inference_mode()
    def decode() -> None:
        engine.codec.decode(codes).cpu()

    seconds = min(_time(decode, clock) for _ in range(2))
    print(f"codec, 30 s of music: {seconds:.2f} s", flush=True)
    return round(seconds, 3)


def _measure_durations(engine: Engine, clock: Clock) -> dict[str, dict[str, float]]:
    """Seconds for each duration; the cost is linear if the last column stays the same."""
    rows = {}
    for duration in TABLE_S:
        request = GenerationRequest([DESCRIPTION], [0], duration, STRIDE_S)
        started = clock()
        engine.generate(request)
        cost = clock() - started
        rows[f"{duration:g}"] = round(cost, 2)
        print(f"{duration:5.0f} s of music: {cost:8.2f} s, {cost / duration:.3f} s a second", flush=True)
    return {"cost_s_by_duration": rows}


def _measure_imports() -> dict[str, float]:
    """CPU seconds from the start of a process until the demo's engine is loaded, and until torch and transformers are
    imported; the best of three, alternating."""
    programs = {"libraries": "import torch, transformers", "engine": LOAD_DEMO}
    best = dict.fromkeys(programs, float("inf"))
    for _ in range(3):
        for name, program in programs.items():
            best[name] = min(best[name], _measure_cpu_seconds(program))
    ratio = best["engine"] / best["libraries"]
    print(f"CPU seconds until torch and transformers are imported {best['libraries']:.2f}")
    print(f"CPU seconds until the demo's engine is loaded {best['engine']:.2f} ({ratio:.2f}x, at most 1.6)", flush=True)
    return {"import_s": round(best["engine"], 2), "import_ratio": round(ratio, 2)}


def _measure_cpu_seconds(program: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, cwd=ROOT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _measure_peak_memory(device: str) -> float:
    """Gigabytes: on a GPU of all tensors, on a CPU of the process."""
    if device == "cuda":
        return round(torch.cuda.max_memory_allocated() / 1e9, 2)
    return round(read_peak_bytes() / 1e9, 2)


def _time(function: Callable[[], object], clock: Clock) -> float:
    """Seconds of one call."""
    started = clock()
    function()
    return clock() - started


if __name__ == "__main__":
    main()
