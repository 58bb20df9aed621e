"""MusicGen: our engine against audiocraft's own `generate`, on the same random weights of the published shapes.

    python -m benchmarks.musicgen --size small            # also demo, medium, large; --stereo, --batch 8, --threads 1

Prints a table for people; the last line is one JSON object. On a machine that others use too, `--clock cpu` takes the
thread's CPU seconds with one thread, which other processes do not change.
"""

from __future__ import annotations

import argparse
import gc
import json
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

from benchmarks.checkpoints import SIZES, write_checkpoint
from benchmarks.machine import describe_machine
from benchmarks.musicgen_parity import TEXT, Heard, hear, parity
from models.checkpoints.locations import WeightLocations
from models.musicgen.engine import Engine
from models.musicgen.inspect import inspect_checkpoint
from models.musicgen.load import load_engine
from models.musicgen.request import GenerationRequest

ROOT = Path(__file__).parents[1]
WARM = 5.0  # s of music of the first request after loading, and of the next
STAND_UP = """
from pathlib import Path
from models.musicgen.inspect import inspect_checkpoint
from models.musicgen.load import load_engine
from models.checkpoints.locations import WeightLocations
load_engine(inspect_checkpoint(Path("demo/weights/musicgen"), WeightLocations()), device="cpu")
"""
TABLE = (10.0, 30.0, 60.0, 120.0, 300.0)


@dataclass(frozen=True)
class Rates:
    """Of decoding, the first step left out."""

    steps_per_s: float
    median_ms: float


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.folder or temporary) / f"{options.size}{'-stereo' if options.stereo else ''}"
        if not (folder / "state_dict.bin").exists():
            write_checkpoint(folder, SIZES[options.size], stereo=options.stereo)
        results = _measured(folder, options)
    print(json.dumps(results))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    on_gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--stereo", action="store_true")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=30.0 if on_gpu else 2.0, help="of music, ours")
    parser.add_argument("--reference-seconds", type=float, help="of music, audiocraft's; default: as ours; 0: none")
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), help="default: the engine's own choice")
    parser.add_argument("--device", default="cuda" if on_gpu else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--table", action="store_true", help="cost over durations from 10 s to 300 s")
    parser.add_argument("--no-imports", action="store_true", help="leave out the import times")
    parser.add_argument("--no-parity", action="store_true", help="leave out the comparison of logits and codes")
    parser.add_argument("--folder", help="keeps the checkpoint here, for the next run")
    return parser.parse_args(arguments)


def _measured(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    clock = time.perf_counter if options.clock == "wall" else time.thread_time
    _say(describe_machine(options.device, options.threads))
    imports = {} if options.no_imports else _import_times()
    ours, figures, heard = _ours(folder, options, clock)
    gc.collect()  # the largest engines do not fit into the memory together
    error = {} if options.no_parity else parity(folder, heard)
    reference_seconds = options.seconds if options.reference_seconds is None else options.reference_seconds
    reference = _audiocraft(folder, options, reference_seconds, clock) if reference_seconds else None
    return {
        "name": f"musicgen {options.size}{' stereo' if options.stereo else ''} batch {options.batch}",
        "device": torch.cuda.get_device_name() if options.device == "cuda" else f"cpu, {options.threads} threads",
        "clock": options.clock,
        "dtype": options.dtype or "engine's choice",
        "seconds_of_music": options.seconds,
        "reference_seconds_of_music": reference_seconds,
        **(_compared(ours, reference) | figures | imports | error),
    }


def _compared(ours: Rates, reference: Rates | None) -> dict[str, float]:
    """Both sides' steps, and how many times as many of them we take."""
    figures = {"steps_per_s": round(ours.steps_per_s, 1), "ms_a_step": round(ours.median_ms, 2)}
    _say(f"ours      {ours.steps_per_s:8.1f} steps/s, median {ours.median_ms:.2f} ms a step")
    if reference is None:
        return figures
    _say(f"audiocraft{reference.steps_per_s:8.1f} steps/s, median {reference.median_ms:.2f} ms a step")
    ratio, by_median = ours.steps_per_s / reference.steps_per_s, reference.median_ms / ours.median_ms
    _say(f"ratio     {ratio:8.2f} by steps per second, {by_median:.2f} by the median step")
    return figures | {
        "reference_steps_per_s": round(reference.steps_per_s, 1),
        "reference_ms_a_step": round(reference.median_ms, 2),
        "ratio": round(ratio, 2),
        "ratio_by_median": round(by_median, 2),
    }


def _ours(folder: Path, options: argparse.Namespace, clock: Callable[[], float]) -> tuple[Rates, dict[str, Any], Heard]:
    """Our steps, all other figures, and the logits; the engine is gone afterwards."""
    dtype = getattr(torch, options.dtype) if options.dtype else None
    engine, load = _loaded(folder, options.device, dtype, clock)
    order = GenerationRequest([TEXT] * options.batch, list(range(options.batch)), options.seconds, 18.0)
    short = replace(order, duration=min(WARM, options.seconds))
    # On a GPU the first request records every graph that the timed ones replay; on a CPU a short one warms as well.
    cold = order if options.device == "cuda" else short
    first, warm = (_timed(lambda request=request: engine.generate(request), clock) for request in (cold, short))  # type: ignore[misc]
    _say(f"first request, {cold.duration:g} s of music: {first:.2f} s; the next, {short.duration:g} s: {warm:.2f} s")
    rates, total = _generated(engine, order, clock)
    figures = {
        "first_request_s": round(first, 3),
        "first_request_seconds_of_music": cold.duration,
        "warm_request_s": round(warm, 3),
        "request_s": round(total, 3),
        "aggregate_steps_per_s": round(rates.steps_per_s * options.batch, 1),
        "codec_30_s": _codec(engine, clock),
        "peak_memory_gb": _peak_memory(options.device),
    }
    if options.batch > 1:
        figures |= _gain_of_batch(engine, order, rates, clock)
    table = _table(engine, clock) if options.table else {}
    return rates, figures | load | table, hear(engine)


def _gain_of_batch(
    engine: Engine, order: GenerationRequest, rates: Rates, clock: Callable[[], float]
) -> dict[str, float]:
    """How many times the steps of one clip all clips together make, by the same engine."""
    single = replace(order, descriptions=order.descriptions[:1], seeds=order.seeds[:1])
    if engine.lm.device.type == "cuda":
        engine.generate(single)  # records its graphs
    one, _ = _generated(engine, single, clock)
    gain = rates.steps_per_s * len(order.descriptions) / one.steps_per_s
    _say(
        f"{len(order.descriptions)} clips at once: {gain:.2f} times the steps of one, which makes {one.steps_per_s:.1f}"
    )
    return {"batch_gain": round(gain, 2), "single_steps_per_s": round(one.steps_per_s, 1)}


def _generated(engine: Engine, order: GenerationRequest, clock: Callable[[], float]) -> tuple[Rates, float]:
    """The steps, and the seconds of the whole."""
    ticks: list[float] = []
    started = clock()
    generation = engine.generate(order, progress=lambda fraction: ticks.append(clock()))
    total = clock() - started
    return _rates(ticks[: generation.steps], captured=engine.lm.device.type == "cuda"), total


def _rates(ticks: list[float], *, captured: bool) -> Rates:
    """Steps per second over all steps after the first, and the median step; captured steps come several at a time."""
    mean = (ticks[-1] - ticks[1]) / (len(ticks) - 2)
    steps = [after - before for before, after in zip(ticks[1:], ticks[2:], strict=False)]
    return Rates(steps_per_s=1 / mean, median_ms=1000 * (mean if captured else statistics.median(steps)))


def _audiocraft(folder: Path, options: argparse.Namespace, seconds: float, clock: Callable[[], float]) -> Rates:
    from testing.audiocraft_reference import audiocraft_musicgen

    model = audiocraft_musicgen(folder, device=options.device)
    model.set_generation_params(duration=seconds)
    ticks: list[float] = []
    model.set_custom_progress_callback(lambda done, of: ticks.append(clock()))
    model.generate([TEXT] * options.batch, progress=True)
    if options.device == "cuda":
        torch.cuda.synchronize()
        ticks.append(clock())
    return _rates(ticks, captured=options.device == "cuda")


def _loaded(
    folder: Path, device: str, dtype: torch.dtype | None, clock: Callable[[], float]
) -> tuple[Engine, dict[str, float]]:
    files = [folder / "state_dict.bin", folder / "compression_state_dict.bin"]
    size = sum(file.stat().st_size for file in files)
    reading = _timed(lambda: [_read(file) for file in files], time.perf_counter)
    started, wall = clock(), time.perf_counter()
    engine = load_engine(inspect_checkpoint(folder, WeightLocations()), device=device, dtype=dtype)
    seconds, wall = clock() - started, time.perf_counter() - wall
    _say(f"load {seconds:.2f} s; {size / 1e9:.2f} GB are read alone in {reading:.2f} s")
    return engine, {"load_s": round(seconds, 2), "load_share_of_read_bandwidth": round(reading / wall, 2)}


def _read(file: Path) -> int:
    with file.open("rb", buffering=0) as opened:
        return sum(len(block) for block in iter(lambda: opened.read(1 << 24), b""))


def _codec(engine: Engine, clock: Callable[[], float]) -> float:
    card = engine.lm.config.card
    codes = torch.randint(card, (1, engine.codec.codebooks, 1500), device=engine.lm.device)

    @torch.inference_mode()
    def decode() -> None:
        engine.codec.decode(codes).cpu()

    seconds = min(_timed(decode, clock) for _ in range(2))
    _say(f"codec, 30 s of sound: {seconds:.2f} s")
    return round(seconds, 3)


def _table(engine: Engine, clock: Callable[[], float]) -> dict[str, dict[str, float]]:
    """Seconds for durations; linear where the last column stays the same."""
    rows = {}
    for seconds in TABLE:
        cost = _timed(lambda seconds=seconds: engine.generate(GenerationRequest([TEXT], [0], seconds, 18.0)), clock)  # type: ignore[misc]
        rows[f"{seconds:g}"] = round(cost, 2)
        _say(f"{seconds:5.0f} s of music: {cost:8.2f} s, {cost / seconds:.3f} s a second")
    return {"cost_s_by_duration": rows}


def _import_times() -> dict[str, float]:
    """CPU seconds from process start until our engine stands, all that its parts import and the demo's weights
    included; beside them those of two bare imports. The best of three, alternating."""
    programs = {"plain": "import torch, transformers", "engine": STAND_UP}
    best = dict.fromkeys(programs, float("inf"))
    for _ in range(3):
        for name, program in programs.items():
            best[name] = min(best[name], _cpu_seconds(program))
    ratio = best["engine"] / best["plain"]
    _say(f"CPU seconds until torch and transformers are imported {best['plain']:.2f}")
    _say(f"CPU seconds until the demo's engine is loaded {best['engine']:.2f} ({ratio:.2f}x, at most 1.6)")
    return {"import_s": round(best["engine"], 2), "import_ratio": round(ratio, 2)}


def _cpu_seconds(program: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, cwd=ROOT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _peak_memory(device: str) -> float:
    if device == "cuda":
        return round(torch.cuda.max_memory_allocated() / 1e9, 2)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2)


def _timed(action: Callable[[], object], clock: Callable[[], float]) -> float:
    started = clock()
    action()
    return clock() - started


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
