"""separate: our engine against demucs's own `Separator`, on the same random weights of the published shapes.

    python -m benchmarks.separate                # htdemucs, and one stem of htdemucs_ft
    python -m benchmarks.separate --sweep        # batch sizes, outer precision and cuDNN's search; ours alone
    python -m benchmarks.separate --memory       # peak memory of 1 minute to 2 hours, each in a process of its own

Both go from a flac file to flac files and take turns; the best run of each counts. Ours is the whole worker, base64 in
and out; the reference writes with demucs's `save_audio`, which calls ffmpeg. On a machine that others use too, `--clock
cpu --threads 1` measures CPU seconds, ffmpeg's included. On CUDA the comparison ends with the sweep, in the device's
own time.
"""

from __future__ import annotations

import argparse
import base64
import itertools
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from audio import Audio
from audio.types import iter_blocks
from benchmarks.checkpoints import write_htdemucs, write_htdemucs_ft
from benchmarks.common import (
    SAMPLE_RATE,
    Clock,
    choose_clock,
    make_parser,
    name_device,
    print_result,
    require_ffmpeg,
    set_up,
    write_song,
)
from benchmarks.memory import Network, measure_memory
from models.checkpoints.locations import WeightLocations
from models.demucs.bag import read_bag
from models.demucs.catalog import FOUR_STEMS
from models.demucs.engine import DemucsSeparator, Runtime
from models.demucs.family import load_separator
from models.demucs.repository import ModelRepository
from models.registry import build
from models.runtime.normalization import NormalizationStats, measure_normalization
from models.separation import Mix
from testing.dispatch import answer
from worker.settings import Settings

LONGEST_WITH_NETWORK_MIN = 1.0


@dataclass(frozen=True, slots=True)
class Case:
    """What both implementations do.

    Args:
        models: folder of both models.
        model: name of one of them.
        song: flac file.
        stem: this stem and the sum of the others are the result; None: all stems.
    """

    models: Path
    model: str
    song: Path
    stem: str | None


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parse_options(arguments)
    if options.memory:
        _measure_memory(options)
        return
    if options.sweep:
        set_up(options)
        with tempfile.TemporaryDirectory() as temporary:
            _sweep_alone(Path(temporary), options)
        return
    require_ffmpeg("demucs's save_audio, the reference, needs it")
    set_up(options)
    with tempfile.TemporaryDirectory() as temporary:
        _compare_all(Path(temporary), options)


def _parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    on_gpu = torch.cuda.is_available()
    parser = make_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=240.0 if on_gpu else 60.0, help="of music for htdemucs")
    parser.add_argument("--ft-seconds", type=float, default=240.0 if on_gpu else 20.0, help="of music for htdemucs_ft")
    parser.add_argument("--runs", type=int, default=5 if on_gpu else 2, help="of each implementation; the best counts")
    parser.add_argument("--sweep", action="store_true", help="only the table of ways to run htdemucs")
    parser.add_argument("--batches", type=int, nargs="*", default=[4, 8, 14], help="its batch sizes")
    parser.add_argument("--memory", action="store_true", help="only the table of peak memory")
    parser.add_argument("--durations", type=float, nargs="*", default=[1, 5, 10, 30, 60, 120], help="its minutes")
    return parser.parse_args(arguments)


def _measure_memory(options: argparse.Namespace) -> None:
    set_up(options)
    jobs: list[tuple[float, Network]] = []
    for minutes in options.durations:
        jobs += [(minutes, "htdemucs")] if minutes <= LONGEST_WITH_NETWORK_MIN else []
        jobs += [(minutes, "stub")]
    rows = measure_memory(jobs, threads=options.threads)
    seconds = rows[-1]["seconds"] if rows else None
    print_result("separate memory", device=name_device(options), ours=seconds, reference=None, rows=rows)


def _compare_all(folder: Path, options: argparse.Namespace) -> None:
    clock = choose_clock(options.clock)
    models, song, ft_song = folder / "models", folder / "song.flac", folder / "ft.flac"
    write_htdemucs(models)
    write_htdemucs_ft(models)
    write_song(song, options.seconds)
    write_song(ft_song, options.ft_seconds)
    snr_db = _measure_reduced_precision(models, options)
    print(f"default precision: {snr_db or 'exact'} dB signal to error against float32")
    ours, reference, timings = _compare(Case(models, "htdemucs", song, None), options, clock)
    ft_ours, ft_reference, _ = _compare(Case(models, "htdemucs_ft", ft_song, "vocals"), options, clock)
    sweep = {"sweep": _sweep(models, song, options)} if options.device == "cuda" else {}
    print(f"htdemucs            {ours:9.3f} s, demucs {reference:9.3f} s, {reference / ours:6.2f} times as fast")
    print(f"htdemucs_ft, vocals {ft_ours:9.3f} s, demucs {ft_reference:9.3f} s, {ft_reference / ft_ours:6.2f} times")
    print_result(
        "separate htdemucs",
        device=name_device(options),
        ours=ours,
        reference=reference,
        clock=options.clock,
        seconds_of_music=options.seconds,
        real_time=round(options.seconds / ours, 2),
        breakdown=timings,
        ft_vocals_seconds_of_music=options.ft_seconds,
        ft_vocals_ours=round(ft_ours, 4),
        ft_vocals_reference=round(ft_reference, 4),
        ft_vocals_ratio=round(ft_reference / ft_ours, 2),
        reduced_precision_snr_db=snr_db,
        **sweep,
    )


def _compare(case: Case, options: argparse.Namespace, clock: Clock) -> tuple[float, float, dict[str, float]]:
    """Seconds of our best run and of the reference's, and the timings in our last reply."""
    separate, separate_with_demucs = _load_worker(case, options), _load_reference(case, options)
    seconds: dict[str, list[float]] = {"ours": [], "reference": []}
    timings: dict[str, float] = {}

    def run_ours() -> None:
        timings.update(separate())

    for run in range(options.runs + (options.device == "cuda") * 3):
        for name, function in (("ours", run_ours), ("reference", separate_with_demucs)):
            started = clock()
            function()
            seconds[name].append(clock() - started)
            what = f"{case.model:12} {case.stem or 'all':7} run {run + 1} {name:10}"
            print(f"{what} {seconds[name][-1]:9.3f} s", flush=True)
    return min(seconds["ours"]), min(seconds["reference"]), timings


def _load_worker(case: Case, options: argparse.Namespace) -> Callable[[], dict[str, float]]:
    """A function that runs a whole job as RunPod sends it and returns the timings in its reply."""
    models = build(device=options.device, models_dir=case.models)
    settings = Settings(models_dir=case.models, inline_budget_bytes=1 << 30)
    audio = base64.b64encode(case.song.read_bytes()).decode()
    params = {"audio": audio, "model": case.model, "output_format": "flac", "two_stems": case.stem}
    job = {"id": "benchmark", "input": {"operation": "separate", "params": params}}

    def run() -> dict[str, float]:
        timings: dict[str, float] = answer(job, settings=settings, models=models)["timings"]
        return timings

    return run


def _load_reference(case: Case, options: argparse.Namespace) -> Callable[[], None]:
    """demucs's `Separator`, then `save_audio` of all stems, or of one and the rest as demucs's own program does."""
    from demucs.api import Separator as ReferenceSeparator
    from demucs.apply import BagOfModels
    from demucs.audio import save_audio
    from demucs.hf import load_safetensors_model

    source = case.models / case.model
    bag = read_bag(source / f"{case.model}.yaml")

    class LocalSeparator(ReferenceSeparator):
        def _load_model(self) -> None:
            networks = [load_safetensors_model(source / f"{name}.safetensors") for name in bag.signatures]
            weights = [list(row) for row in bag.weights] if bag.weights else None
            self._model = BagOfModels(networks, weights, bag.segment).eval()
            self._audio_channels, self._samplerate = self._model.audio_channels, self._model.samplerate

    separator = LocalSeparator(model=case.model, device=options.device, shifts=0)

    def run() -> None:
        mix, stems = separator.separate_audio_file(case.song)
        if case.stem is not None:
            stems = {case.stem: stems[case.stem], f"no_{case.stem}": mix - stems[case.stem]}
        with tempfile.TemporaryDirectory() as out:
            for name, waveform in stems.items():
                save_audio(waveform, str(Path(out) / f"{name}.flac"), samplerate=separator.samplerate)

    return run


def _load_htdemucs(models: Path, options: argparse.Namespace, **runtime: Any) -> DemucsSeparator:
    return load_separator(ModelRepository(WeightLocations(models)), "htdemucs", Runtime(options.device, **runtime))


def _measure_reduced_precision(models: Path, options: argparse.Namespace, **runtime: Any) -> float | None:
    """Signal-to-error ratio in dB of the default precision against float32; None if the default is float32."""
    generator = np.random.default_rng(0)
    mix = Audio((0.2 * generator.standard_normal((2, 12 * SAMPLE_RATE))).astype(np.float32), SAMPLE_RATE)
    exact, default = (
        np.concatenate(
            list(_load_htdemucs(models, options, **changes).separate(Mix(mix, SAMPLE_RATE), FOUR_STEMS)), axis=-1
        )
        for changes in ({"precision": "float32"}, runtime)
    )
    error = float(((default - exact).astype(np.float64) ** 2).sum())
    if error == 0:
        return None
    return round(10 * math.log10(float((exact.astype(np.float64) ** 2).sum()) / error), 1)


def _sweep_alone(folder: Path, options: argparse.Namespace) -> None:
    write_htdemucs(folder)
    write_song(folder / "song.flac", options.seconds)
    rows = _sweep(folder, folder / "song.flac", options)
    best = min(row["seconds"] for row in rows)
    print_result(
        "separate sweep",
        device=name_device(options),
        ours=best,
        reference=None,
        seconds_of_music=options.seconds,
        rows=rows,
    )


def _sweep(models: Path, song: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Times of a whole separation, transfers included, with every batch size, outer precision and cuDNN setting.

    `first_s` includes the selection of kernels for these shapes; `snr_db` is the error of the precision.
    """
    waveform, _ = soundfile.read(song, dtype="float32")
    mix = Audio(np.ascontiguousarray(waveform.T), SAMPLE_RATE)
    stats = measure_normalization(iter_blocks(mix))
    on_gpu, rows = options.device == "cuda", []
    print(f"{'outer layers':>12} {'SNR in dB':>10} {'cudnn.benchmark':>16} {'batch':>6} {'first':>9} {'best':>9}")
    for reduces_outer in (False, True):
        snr_db = _measure_reduced_precision(models, options, reduces_outer=reduces_outer)
        for searches, batch_size in itertools.product((False, True) if on_gpu else (False,), options.batches):
            torch.backends.cudnn.benchmark = searches
            separator = _load_htdemucs(models, options, batch_size=batch_size, reduces_outer=reduces_outer)
            times = list(_time_separations(separator, mix, stats, runs=7 if on_gpu else 2))
            outer, first, best = "bfloat16" if reduces_outer else "float32", times[0], min(times[1:])
            row = f"{outer:>12} {snr_db!s:>10} {searches!s:>16} {batch_size:6} {first:8.3f}s {best:8.3f}s"
            print(row, flush=True)
            figures = {"first_s": round(first, 4), "seconds": round(best, 4), "snr_db": snr_db}
            rows.append({"outer": outer, "cudnn_benchmark": searches, "batch": batch_size, **figures})
    torch.backends.cudnn.benchmark = False
    return rows


def _time_separations(
    separator: DemucsSeparator, mix: Audio, stats: NormalizationStats, *, runs: int
) -> Iterator[float]:
    """Seconds of each run: on a GPU between two events on the device, otherwise by the wall clock."""
    for _ in range(runs):
        if separator.device.type != "cuda":
            started = time.perf_counter()
            for _ in separator.separate(Mix(mix, SAMPLE_RATE), FOUR_STEMS, stats=stats):
                pass
            yield time.perf_counter() - started
            continue
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        for _ in separator.separate(Mix(mix, SAMPLE_RATE), FOUR_STEMS, stats=stats):
            pass
        end.record()
        torch.cuda.synchronize()
        yield float(begin.elapsed_time(end)) / 1000


if __name__ == "__main__":
    main()
