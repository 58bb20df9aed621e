"""MusicGen: our engine against audiocraft's own `generate`, on the same random weights of the published shapes.

    python -m benchmarks.musicgen --size small            # also demo, medium, large; --stereo, --batch 8, --threads 1

Prints a table for people; the last line is one JSON object. On a machine that others use too, `--clock cpu` takes the
thread's CPU seconds with one thread, which other processes do not change.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.checkpoints import SIZES, write_checkpoint
from models.musicgen.decode import StepByStep, Window
from models.musicgen.describe import describe
from models.musicgen.generate import Engine
from models.musicgen.load import load_engine
from models.musicgen.order import Order, Sampling
from models.musicgen.step import prefill
from models.weights import Weights

TEXT = "slow techno with piano and drums"
PREFIX_FRAMES = 40  # of random codes, after which logits are compared
TABLE = (10.0, 30.0, 60.0, 120.0, 300.0)


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
    parser.add_argument("--folder", help="keeps the checkpoint here, for the next run")
    return parser.parse_args(arguments)


def _measured(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    clock = time.perf_counter if options.clock == "wall" else time.thread_time
    dtype = getattr(torch, options.dtype) if options.dtype else None
    _say(f"{platform.machine()}, {options.device}, {options.threads} threads, torch {torch.__version__}")
    imports = {} if options.no_imports else _import_times()
    engine, load = _loaded(folder, options.device, dtype, clock)
    order = Order([TEXT] * options.batch, list(range(options.batch)), options.seconds, 18.0)
    first = _timed(lambda: engine.generate(replace(order, duration=min(5.0, options.seconds))), clock)
    ours = _ours(engine, order, clock)
    codec = _codec(engine, clock)
    memory = _peak_memory(options.device)
    table = _table(engine, clock) if options.table else {}
    error = _logits_errors(engine, folder) if options.size != "large" or options.device != "cpu" else {}
    reference_seconds = options.seconds if options.reference_seconds is None else options.reference_seconds
    reference = _audiocraft(folder, options, reference_seconds, clock) if reference_seconds else {}
    _say(f"ours      {ours['steps_per_s']:8.1f} steps/s, median {ours['median_ms']:.2f} ms a step")
    if reference:
        _say(f"audiocraft{reference['steps_per_s']:8.1f} steps/s, median {reference['median_ms']:.2f} ms a step")
    return {
        "name": f"musicgen {options.size}{' stereo' if options.stereo else ''} batch {options.batch}",
        "device": torch.cuda.get_device_name() if options.device == "cuda" else f"cpu, {options.threads} threads",
        "clock": options.clock,
        "dtype": str(dtype or "engine's choice"),
        "seconds_of_music": options.seconds,
        "ours": ours["median_ms"] / 1000,
        "reference": reference["median_ms"] / 1000 if reference else None,
        "ratio": round(reference["median_ms"] / ours["median_ms"], 2) if reference else None,
        "steps_per_s": round(ours["steps_per_s"], 1),
        "reference_steps_per_s": round(reference["steps_per_s"], 1) if reference else None,
        "aggregate_steps_per_s": round(ours["steps_per_s"] * options.batch, 1),
        "first_request_s": round(first, 3),
        "request_s": round(ours["total_s"], 3),
        "peak_memory_gb": memory,
        **{"codec_30_s": codec} | load | imports | error | table,
    }


def _ours(engine: Engine, order: Order, clock: Callable[[], float]) -> dict[str, float]:
    ticks: list[float] = []
    started = clock()
    generation = engine.generate(order, progress=lambda fraction: ticks.append(clock()))
    total = clock() - started
    return _rates(ticks[: generation.steps], captured=engine.lm.device.type == "cuda") | {"total_s": total}


def _rates(ticks: list[float], *, captured: bool) -> dict[str, float]:
    """Steps per second over all steps after the first, and the median step; captured steps come several at a time."""
    mean = (ticks[-1] - ticks[1]) / (len(ticks) - 2)
    steps = [after - before for before, after in zip(ticks[1:], ticks[2:], strict=False)]
    return {"steps_per_s": 1 / mean, "median_ms": 1000 * (mean if captured else statistics.median(steps))}


def _audiocraft(
    folder: Path, options: argparse.Namespace, seconds: float, clock: Callable[[], float]
) -> dict[str, float]:
    from tests.audiocraft_oracle import audiocraft_musicgen

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
    engine = load_engine(describe(folder, Weights()), device=device, dtype=dtype)
    seconds, wall = clock() - started, time.perf_counter() - wall
    _say(f"load {seconds:.2f} s; {size / 1e9:.2f} GB are read alone in {reading:.2f} s")
    return engine, {"load_s": round(seconds, 2), "load_share_of_read_bandwidth": round(reading / wall, 2)}


def _read(file: Path) -> int:
    with file.open("rb", buffering=0) as opened:
        return sum(len(block) for block in iter(lambda: opened.read(1 << 24), b""))


def _codec(engine: Engine, clock: Callable[[], float]) -> float:
    card = engine.lm.shape.card
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
        cost = _timed(lambda seconds=seconds: engine.generate(Order([TEXT], [0], seconds, 18.0)), clock)  # type: ignore[misc]
        rows[f"{seconds:g}"] = round(cost, 2)
        _say(f"{seconds:5.0f} s of music: {cost:8.2f} s, {cost / seconds:.3f} s a second")
    return {"cost_s_by_duration": rows}


def _logits_errors(engine: Engine, folder: Path) -> dict[str, float]:
    """Relative error of the plain and of the guided logits against the engine in float32 on the CPU, which is itself
    within 1e-4 of audiocraft's (tests/test_musicgen_parity.py)."""
    exact = load_engine(describe(folder, Weights()), device="cpu", dtype=torch.float32)
    wanted, found = _logits(exact), _logits(engine)
    plain, guided = ((a - b).norm() / b.norm() for a, b in zip(found, wanted, strict=True))
    _say(f"relative error of logits against float32: {plain:.2e} plain, {guided:.2e} guided")
    return {"logits_error": round(float(plain), 6), "guided_logits_error": round(float(guided), 6)}


def _logits(engine: Engine) -> tuple[torch.Tensor, torch.Tensor]:
    """Conditional, and guided, logits after `PREFIX_FRAMES` random frames."""
    lm = engine.lm
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(lm.shape.card, (1, lm.shape.codebooks, PREFIX_FRAMES), generator=generator)
    order = Order([TEXT], [0], 1.0, 18.0, Sampling())
    seen: list[torch.Tensor] = []
    with torch.inference_mode():
        conditions = engine.listener.to(order, None).conditions([0], 0.0)
        window = Window(
            codes.to(lm.device), PREFIX_FRAMES + 1, conditions, order.sampling, [generator], lambda *_: None
        )
        runner = StepByStep(lm)
        state = runner.begin(window)
        hook = replace(lm, head=_Kept(lm.head, seen))
        prefill(hook, state, window.rule, prefix=conditions.prefix, known=window.known)
    conditional, null = seen[0].float().cpu()
    return conditional, null + 3.0 * (conditional - null)


class _Kept:
    """A linear layer that keeps what it gave."""

    def __init__(self, inner: Any, seen: list[torch.Tensor]) -> None:
        self._inner, self._seen, self.nbytes = inner, seen, inner.nbytes

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        self._seen.append(self._inner(x))
        return self._seen[-1]

    def plus(self, residual: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return residual + self(x)


def _import_times() -> dict[str, float]:
    """Seconds from process start until imported; the best of three, alternating."""
    programs = {"plain": "import torch, transformers", "engine": "import models.musicgen.load"}
    best = dict.fromkeys(programs, float("inf"))
    for _ in range(3):
        for name, program in programs.items():
            best[name] = min(best[name], _cpu_seconds(program))
    ratio = best["engine"] / best["plain"]
    _say(f"CPU seconds of imports: torch, transformers {best['plain']:.2f}, engine {best['engine']:.2f} ({ratio:.2f}x)")
    return {"import_s": round(best["engine"], 2), "import_ratio": round(ratio, 2)}


def _cpu_seconds(program: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
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
