"""generate_cover: our voice conversion against rvc-python's own pipeline, on the same random weights of the real sizes.

    python -m benchmarks.cover                   # a vocal through both sides, stage by stage
    python -m benchmarks.cover --quick           # the same with a few seconds of it and a small index

A vocal as a wav file of 44.1 kHz, f0 by rmvpe, a v2 voice of 40 kHz with an index of 100,000 vectors. Networks are
loaded and warm on both sides, which take turns; the median counts. rvc-python reads its index anew at each call, as it
always does: that is in its `retrieval`. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import soundfile
import torch

from benchmarks.cover_sides import VOICE, Case, Side, our_side, reference_side
from benchmarks.machine import choose_clock, describe_machine
from tests.tiny_rvc import hubert_file, index_vectors, list_count, rmvpe_file, sung, voice_folder, write_index

SAMPLE_RATE = 44_100


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    print(describe_machine(options.device, options.threads))
    with tempfile.TemporaryDirectory() as temporary:
        case = write_case(Path(options.folder or temporary), options)
        print(json.dumps(_measured(case, options)))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    on_gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=240.0 if on_gpu else 60.0, help="of the vocal")
    parser.add_argument("--runs", type=int, default=5 if on_gpu else 2, help="of each side, after one to warm up")
    parser.add_argument("--index-rows", type=int, default=100_000, help="vectors in the voice's index")
    parser.add_argument("--retrieval", choices=("exact", "ivf"), default="exact", help="ours")
    parser.add_argument("--sides", choices=("both", "ours", "reference"), default="both")
    parser.add_argument("--device", default="cuda" if on_gpu else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--quick", action="store_true", help="4 s of vocal, 2000 vectors, one run")
    parser.add_argument("--folder", help="keeps checkpoints and index here, for the next run")
    options = parser.parse_args(arguments)
    if options.quick:
        options.seconds, options.index_rows, options.runs = min(options.seconds, 4.0), 2_000, 1
    return options


def write_case(folder: Path, options: argparse.Namespace) -> Case:
    """Full-size base models, one voice with its index, and a vocal; what is there already is kept."""
    models, voices = folder / "models", folder / "voices"
    if not (models / "rmvpe.pt").exists():
        hubert_file(models / "hubert_base.pt", tiny=False)
        rmvpe_file(models / "rmvpe.pt", tiny=False)
        voice_folder(voices, VOICE, tiny=False)
    name = f"added_IVF{list_count(options.index_rows)}_Flat_nprobe_1_{VOICE}_v2.index"
    for other in (voices / VOICE).glob("*.index"):
        if other.name != name:
            other.unlink()
    if not (voices / VOICE / name).exists():
        write_index(voices / VOICE / name, index_vectors(options.index_rows, width=768), iterations=2)
    vocal = folder / "vocal.wav"
    soundfile.write(vocal, sung(options.seconds, sample_rate=SAMPLE_RATE), SAMPLE_RATE, subtype="PCM_16")
    return Case(models, voices, vocal, options.device, options.retrieval)


def _measured(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    clock = choose_clock(options.clock)
    makers = {"ours": our_side, "reference": reference_side}
    sides = {name: make(case, clock) for name, make in makers.items() if options.sides in ("both", name)}
    medians = _medians(sides, options.runs)
    _print_table(medians, options.seconds)
    totals = {name: stages["total"] for name, stages in medians.items()}
    return {
        "name": "voice conversion",
        "device": torch.cuda.get_device_name() if options.device == "cuda" else f"cpu, {options.threads} threads",
        "clock": options.clock,
        "seconds_of_vocal": options.seconds,
        "index_rows": options.index_rows,
        **{name: round(total, 4) for name, total in totals.items()},
        "ratio": round(totals["reference"] / totals["ours"], 2) if len(totals) == 2 else None,
        "stages": {name: {k: round(v, 4) for k, v in stages.items()} for name, stages in medians.items()},
    }


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
    stages = list(dict.fromkeys(stage for side in medians.values() for stage in side))
    print(f"{'stage':12}" + "".join(f"{name:>12} {'x real time':>12}" for name in medians))
    for stage in stages:
        cells = (side.get(stage, 0.0) for side in medians.values())
        print(f"{stage:12}" + "".join(f"{cell:11.3f}s {cell / seconds:12.3f}" for cell in cells))


if __name__ == "__main__":
    main(sys.argv[1:])
