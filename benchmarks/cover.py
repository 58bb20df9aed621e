"""generate_cover: our voice conversion against rvc-python's own pipeline, on the same random weights of the real sizes.

    python -m benchmarks.cover                   # a vocal through both sides, stage by stage
    python -m benchmarks.cover --quick           # the same with a few seconds of it and a small index
    python -m benchmarks.cover --whole           # the whole job, from stems to mp3, as the worker runs it
    python -m benchmarks.cover --long            # peak memory and time, vocals of 1 minute to an hour, tiny networks

A vocal as a wav file of 44.1 kHz, f0 by rmvpe, a v2 voice of 40 kHz with an index of 100,000 vectors. Networks are
loaded and warm on both sides, which take turns; the median counts. rvc-python reads its index anew at each call, as it
always does: that is in its `retrieval`. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import base64
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import soundfile
import torch

from benchmarks.cover_memory import cover_memory_table
from benchmarks.cover_parity import parity
from benchmarks.cover_sides import VOICE, Case, Side, our_side, reference_side
from benchmarks.machine import choose_clock, describe_machine
from benchmarks.memory import write_song
from models.registry import build
from testing.dispatch import answer
from testing.tiny_rvc import count_lists, make_index_vectors, write_hubert_file, write_index, write_rmvpe, write_voice
from testing.vocals import make_vocal
from worker.settings import Settings

SAMPLE_RATE = 44_100
INDEX_ROWS = 100_000
CPU_LEAST_RATIO, GPU_LEAST_RATIO = 2.5, 10.0  # times as fast as rvc-python
MOST_RETRIEVAL = 0.1  # of the conversion
GPU_SECONDS, GPU_MOST_S, GPU_MOST_WHOLE_S = 240.0, 0.5, 1.5


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    print(describe_machine(options.device, options.threads))
    if options.long:
        print(json.dumps({"name": "cover memory", "device": "cpu", "rows": cover_memory_table(options.minutes)}))
        return
    with tempfile.TemporaryDirectory() as temporary:
        case = write_case(Path(options.folder or temporary), options)
        print(json.dumps(_whole(case, options) if options.whole else _conversion(case, options)))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    on_gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=GPU_SECONDS if on_gpu else 60.0, help="of the vocal")
    parser.add_argument("--runs", type=int, default=5 if on_gpu else 2, help="of each side, after one to warm up")
    parser.add_argument("--index-rows", type=int, default=INDEX_ROWS, help="vectors in the voice's index")
    parser.add_argument("--retrieval", choices=("exact", "ivf"), default="ivf", help="ours")
    parser.add_argument("--sides", choices=("both", "ours", "reference"), default="both")
    parser.add_argument("--device", default="cuda" if on_gpu else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--quick", action="store_true", help="4 s of vocal, 2000 vectors, one run")
    parser.add_argument("--whole", action="store_true", help="the whole job instead of the conversion; ours alone")
    parser.add_argument("--long", action="store_true", help="only the table of memory and time")
    parser.add_argument("--minutes", type=float, nargs="*", default=[1, 5, 10, 60], help="for it")
    parser.add_argument("--folder", help="keeps checkpoints and index here, for the next run")
    options = parser.parse_args(arguments)
    if options.quick:
        options.seconds, options.index_rows, options.runs = min(options.seconds, 4.0), 2_000, 1
    return options


def write_case(folder: Path, options: argparse.Namespace) -> Case:
    """Full-size base models, one voice with its index, and a vocal; what is there already is kept."""
    models, voices = folder / "models", folder / "voices"
    if not (models / "rmvpe.pt").exists():
        write_hubert_file(models / "hubert_base.pt", tiny=False)
        write_rmvpe(models / "rmvpe.pt", tiny=False)
        write_voice(voices, VOICE, tiny=False)
    name = f"added_IVF{count_lists(options.index_rows)}_Flat_nprobe_1_{VOICE}_v2.index"
    for other in (voices / VOICE).glob("*.index"):
        if other.name != name:
            other.unlink()
    if not (voices / VOICE / name).exists():
        write_index(voices / VOICE / name, make_index_vectors(options.index_rows, width=768), iterations=2)
    vocal = folder / "vocal.wav"
    soundfile.write(vocal, make_vocal(options.seconds, sample_rate=SAMPLE_RATE), SAMPLE_RATE, subtype="PCM_16")
    return Case(models, voices, vocal, options.device, options.retrieval)


def _conversion(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    clock = choose_clock(options.clock)
    makers = {"ours": our_side, "reference": reference_side}
    sides = {name: make(case, clock) for name, make in makers.items() if options.sides in ("both", name)}
    medians = _medians(sides, options.runs)
    _print_table(medians, options.seconds)
    errors = parity(case) if options.sides == "both" else {}
    totals = {name: stages["total"] for name, stages in medians.items()}
    targets = _targets(medians, options) if len(totals) == 2 else {}
    return {
        "name": "voice conversion",
        "device": torch.cuda.get_device_name() if options.device == "cuda" else f"cpu, {options.threads} threads",
        "clock": options.clock,
        "seconds_of_vocal": options.seconds,
        "index_rows": options.index_rows,
        **{name: round(total, 4) for name, total in totals.items()},
        "ratio": round(totals["reference"] / totals["ours"], 2) if len(totals) == 2 else None,
        "stages": {name: {k: round(v, 4) for k, v in stages.items()} for name, stages in medians.items()},
        "targets": targets,
        "parity": {name: float(f"{error:.4g}") for name, error in errors.items()},
    }


def _targets(medians: Mapping[str, Mapping[str, float]], options: argparse.Namespace) -> dict[str, Any]:
    """Every target that this run can tell of: the figure, and whether it is met."""
    ours, reference = medians["ours"], medians["reference"]
    ratio, share = reference["total"] / ours["total"], ours["retrieval"] / ours["total"]
    least = GPU_LEAST_RATIO if options.device == "cuda" else CPU_LEAST_RATIO
    found = {f"at least {least:g} times as fast": (ratio, ratio >= least)}
    if options.index_rows == INDEX_ROWS:
        found[f"retrieval at most {MOST_RETRIEVAL:.0%}"] = (share, share <= MOST_RETRIEVAL)
    if options.device == "cuda" and options.seconds == GPU_SECONDS:
        found[f"at most {GPU_MOST_S} s"] = (ours["total"], ours["total"] <= GPU_MOST_S)
    return _told(found)


def _told(found: Mapping[str, tuple[float, bool]]) -> dict[str, Any]:
    for target, (figure, met) in found.items():
        print(f"{target:32} {figure:8.3f}  {'met' if met else 'MISSED'}")
    return {target: {"figure": round(figure, 4), "met": met} for target, (figure, met) in found.items()}


def _whole(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """A job as the platform sends it: vocal and instrumental as base64 flac in, mp3 as base64 out."""
    clock, stages = choose_clock(options.clock), []
    run = _worker(case, options)
    for number in range(options.runs + 1):
        started = clock()
        timings = run()
        stages.append(timings | {options.clock: clock() - started})
        print(f"run {number or 'to warm up'} {stages[-1][options.clock]:9.3f} s", flush=True)
    medians = {stage: statistics.median(run[stage] for run in stages[1:]) for stage in stages[0]}
    _print_table({"ours": medians}, options.seconds)
    on_target = options.device == "cuda" and options.seconds == GPU_SECONDS
    total = medians[options.clock]
    return {
        "name": "cover from stems",
        "device": torch.cuda.get_device_name() if options.device == "cuda" else f"cpu, {options.threads} threads",
        "clock": options.clock,
        "seconds_of_vocal": options.seconds,
        "ours": round(total, 4),
        "reference": None,
        "ratio": None,
        "stages": {stage: round(seconds, 4) for stage, seconds in medians.items()},
        "targets": _told({f"at most {GPU_MOST_WHOLE_S} s": (total, total <= GPU_MOST_WHOLE_S)}) if on_target else {},
    }


def _worker(case: Case, options: argparse.Namespace) -> Callable[[], dict[str, float]]:
    """Runs a job; returns the reply's timings, which are seconds of wall-clock whatever `--clock` says."""
    instrumental = case.vocal.with_name("instrumental.flac")
    write_song(instrumental, options.seconds)
    settings = Settings(models_dir=case.models, rvc_models_dir=case.voices, inline_budget_bytes=1 << 30)
    models = build(device=case.device, models_dir=case.models, voices_dir=case.voices)
    params = {
        "voice_audio": base64.b64encode(case.vocal.read_bytes()).decode(),
        "instrument_audio": base64.b64encode(instrumental.read_bytes()).decode(),
        "voice_model": VOICE,
        "retrieval": case.retrieval,
        "output_format": "mp3",
    }
    job = {"id": "benchmark", "input": {"operation": "generate_cover", "params": params}}

    def run() -> dict[str, float]:
        timings = answer(job, settings=settings, models=models)["timings"]
        return {stage.removesuffix("_s"): seconds for stage, seconds in timings.items()}

    return run


def _medians(sides: Mapping[str, Side], runs: int) -> dict[str, dict[str, float]]:
    """Median of each stage and of the total, after a run to warm up."""
    seen: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for run in range(runs + 1):
        for name, side in sides.items():
            seen[name].append(side())
            print(f"run {run or 'to warm up'} {name:10} {seen[name][-1]['total']:9.3f} s", flush=True)
    return {
        name: {stage: statistics.median(run[stage] for run in runs_of[1:]) for stage in runs_of[0]}
        for name, runs_of in seen.items()
    }


def _print_table(medians: Mapping[str, Mapping[str, float]], seconds: float) -> None:
    named = dict.fromkeys(stage for side in medians.values() for stage in side)
    stages = sorted(named, key=lambda stage: ("rest", "total").index(stage) if stage in ("rest", "total") else -1)
    print(f"{'stage':12}" + "".join(f"{name:>12} {'x real time':>12}" for name in medians))
    for stage in stages:
        cells = (side.get(stage, 0.0) for side in medians.values())
        print(f"{stage:12}" + "".join(f"{cell:11.3f}s {cell / seconds:12.3f}" for cell in cells))


if __name__ == "__main__":
    main(sys.argv[1:])
