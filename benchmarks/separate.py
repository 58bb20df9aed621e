"""separate: our engine against demucs's own `Separator`, on the same random weights of the published shapes.

    uv run python -m benchmarks.separate                        # htdemucs, and one stem of htdemucs_ft
    uv run python -m benchmarks.separate --memory               # peak memory, 1 minute to 2 hours, each in a process

Both sides go from a flac file to flac files (the reference by demucs's `save_audio`, which calls ffmpeg; ours by the
whole worker, base64 in and base64 or files out) and take turns. On a machine that others use too, `--clock cpu
--threads 1` takes the process's CPU seconds, its ffmpeg's included, which other processes hardly change. On CUDA the
device's own time is measured as well. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import base64
import json
import math
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import nn

from audio import Audio
from audio.types import iter_blocks
from benchmarks.machine import Clock, choose_clock, describe_machine
from benchmarks.memory import memory_table, write_song
from models.checkpoints.locations import WeightLocations
from models.demucs.bag import read_bag
from models.demucs.catalog import FOUR_STEMS
from models.demucs.engine import Runtime, Separator, Task, measure
from models.demucs.family import load_separator
from models.demucs.repository import ModelRepository
from models.registry import build
from testing.dispatch import answer
from testing.tiny_demucs import save_bag
from worker.settings import Settings

SAMPLE_RATE = 44_100
IDENTITY = [[float(row == column) for column in range(4)] for row in range(4)]


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    print(describe_machine(options.device, options.threads))
    if options.memory:
        print(
            json.dumps({"name": "separate memory", "device": options.device, "rows": memory_table(options.durations)})
        )
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_models(folder / "models")
        print(json.dumps(_measured(folder, options)))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    on_gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=240.0 if on_gpu else 60.0, help="of music, htdemucs")
    parser.add_argument("--ft-seconds", type=float, default=240.0 if on_gpu else 20.0, help="of music, htdemucs_ft")
    parser.add_argument("--runs", type=int, default=5 if on_gpu else 2, help="of each side; the best counts")
    parser.add_argument("--device", default="cuda" if on_gpu else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--memory", action="store_true", help="only the table of peak memory")
    parser.add_argument("--durations", type=float, nargs="*", default=[1, 5, 10, 30, 60, 120], help="minutes, for it")
    return parser.parse_args(arguments)


def write_models(folder: Path) -> None:
    """htdemucs and htdemucs_ft in their published shapes, random weights, in the files that demucs 4.1 publishes."""
    save_bag(folder / "htdemucs", {"h": htdemucs(0)})
    save_bag(folder / "htdemucs_ft", {f"f{seed}": htdemucs(seed) for seed in range(4)}, weights=IDENTITY)


def htdemucs(seed: int) -> nn.Module:
    """As configured for the published htdemucs: 41,984,456 parameters."""
    from demucs.htdemucs import HTDemucs

    torch.manual_seed(seed)
    network: nn.Module = HTDemucs(list(FOUR_STEMS), bottom_channels=512, dconv_mode=3, segment=Fraction(39, 5)).eval()
    assert sum(weight.numel() for weight in network.parameters()) == 41_984_456
    return network


def _measured(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    clock = choose_clock(options.clock)
    song, ft_song = folder / "song.flac", folder / "ft.flac"
    write_song(song, options.seconds)
    write_song(ft_song, options.ft_seconds)
    error = _reduced_precision_db(folder / "models", options)
    whole = _compared(Case(folder / "models", "htdemucs", song, None), options, clock)
    one = _compared(Case(folder / "models", "htdemucs_ft", ft_song, "vocals"), options, clock)
    device = _device_times(folder / "models", song, options) if options.device == "cuda" else {}
    return {
        "name": "separate htdemucs",
        "device": torch.cuda.get_device_name() if options.device == "cuda" else f"cpu, {options.threads} threads",
        "clock": options.clock,
        "seconds_of_music": options.seconds,
        "ours": round(whole["ours"], 4),
        "reference": round(whole["reference"], 4),
        "ratio": round(whole["reference"] / whole["ours"], 2),
        "real_time": round(options.seconds / whole["ours"], 2),
        "breakdown": whole["breakdown"],
        "ft_vocals_seconds_of_music": options.ft_seconds,
        "ft_vocals_ours": round(one["ours"], 4),
        "ft_vocals_reference": round(one["reference"], 4),
        "ft_vocals_ratio": round(one["reference"] / one["ours"], 2),
        "reduced_precision_snr_db": error,
        **device,
    }


@dataclass(frozen=True)
class Case:
    """What both sides are to do.

    Args:
        models: folder of both models.
        model: name of one of them.
        song: flac file.
        stem: that one and the rest; None: all.
    """

    models: Path
    model: str
    song: Path
    stem: str | None


def _compared(case: Case, options: argparse.Namespace, clock: Clock) -> dict[str, Any]:
    """Best times of both sides, which take turns, from file to files."""
    sides = {"ours": _worker(case, options), "reference": _reference(case, options)}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    breakdown: dict[str, float] = {}
    for run in range(options.runs + (options.device == "cuda") * 3):
        for name, side in sides.items():
            started = clock()
            breakdown = side() or breakdown
            seconds[name].append(clock() - started)
            what = f"{case.model:12} {case.stem or 'all':7} run {run + 1} {name:10}"
            print(f"{what} {seconds[name][-1]:9.3f} s", flush=True)
    return {"ours": min(seconds["ours"]), "reference": min(seconds["reference"]), "breakdown": breakdown}


def _worker(case: Case, options: argparse.Namespace) -> Callable[[], dict[str, float]]:
    """A whole job, as the platform sends it; returns its timings."""
    models = build(device=options.device, models_dir=case.models)
    settings = Settings(models_dir=case.models, inline_budget_bytes=1 << 30)
    audio = base64.b64encode(case.song.read_bytes()).decode()
    params = {"audio": audio, "model": case.model, "output_format": "flac", "two_stems": case.stem}
    job = {"id": "benchmark", "input": {"operation": "separate", "params": params}}

    def run() -> dict[str, float]:
        timings: dict[str, float] = answer(job, settings=settings, models=models)["timings"]
        return timings

    return run


def _reference(case: Case, options: argparse.Namespace) -> Callable[[], dict[str, float]]:
    """demucs's own way: `Separator`, then `save_audio` of all stems, or of one and of the rest as its program does."""
    from demucs.api import Separator as Reference
    from demucs.apply import BagOfModels
    from demucs.audio import save_audio
    from demucs.hf import load_safetensors_model

    source = case.models / case.model
    bag = read_bag(source / f"{case.model}.yaml")

    class FromFiles(Reference):
        def _load_model(self) -> None:
            networks = [load_safetensors_model(source / f"{name}.safetensors") for name in bag.signatures]
            weights = [list(row) for row in bag.weights] if bag.weights else None
            self._model = BagOfModels(networks, weights, bag.segment).eval()
            self._audio_channels, self._samplerate = self._model.audio_channels, self._model.samplerate

    separator = FromFiles(model=case.model, device=options.device, shifts=0)

    def run() -> dict[str, float]:
        mix, stems = separator.separate_audio_file(case.song)
        if case.stem is not None:
            stems = {case.stem: stems[case.stem], f"no_{case.stem}": mix - stems[case.stem]}
        with tempfile.TemporaryDirectory() as out:
            for name, waveform in stems.items():
                save_audio(waveform, str(Path(out) / f"{name}.flac"), samplerate=separator.samplerate)
        return {}

    return run


def _separator(folder: Path, options: argparse.Namespace, **runtime: Any) -> Separator:
    return load_separator(ModelRepository(WeightLocations(folder)), "htdemucs", Runtime(options.device, **runtime))


def _reduced_precision_db(folder: Path, options: argparse.Namespace) -> float | None:
    """Signal-to-error ratio of what runs by default against float32; None where that is float32 itself."""
    generator = np.random.default_rng(0)
    sound = Audio((0.2 * generator.standard_normal((2, 12 * SAMPLE_RATE))).astype(np.float32), SAMPLE_RATE)
    task = Task(FOUR_STEMS, measure(iter_blocks(sound)))
    exact, usual = (
        np.concatenate(list(_separator(folder, options, precision=precision).separate(sound, task, lambda f: None)), -1)
        for precision in ("float32", "auto")
    )
    error = float(((usual - exact).astype(np.float64) ** 2).sum())
    if error == 0:
        return None
    ratio = 10 * math.log10(float((exact.astype(np.float64) ** 2).sum()) / error)
    print(f"reduced precision: {ratio:.1f} dB signal to error against float32")
    return round(ratio, 1)


def _device_times(folder: Path, song: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds between two events on the device around a whole separation, transfers included; best of ten."""
    waveform, _ = soundfile.read(song, dtype="float32")
    sound = Audio(np.ascontiguousarray(waveform.T), SAMPLE_RATE)
    task = Task(FOUR_STEMS, measure(iter_blocks(sound)))
    separator = _separator(folder, options)
    spent = list(_device_runs(separator, sound, task, runs=10))
    best = min(spent[3:])
    print(f"device time of a {options.seconds:.0f} s song: {best:.1f} ms (first runs: {spent[0]:.0f}, {spent[1]:.0f})")
    return {"device_ms": round(best, 2), "first_device_ms": round(spent[0], 1)}


def _device_runs(separator: Separator, sound: Audio, task: Task, *, runs: int) -> Iterator[float]:
    for _ in range(runs):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        for _ in separator.separate(sound, task, lambda fraction: None):
            pass
        end.record()
        torch.cuda.synchronize()
        yield float(begin.elapsed_time(end))


if __name__ == "__main__":
    main(sys.argv[1:])
