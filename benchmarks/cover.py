"""generate_cover: our voice conversion against rvc-python's own pipeline, on the same random weights of the real sizes.

    python -m benchmarks.cover                   # a vocal through both implementations, stage by stage
    python -m benchmarks.cover --quick           # the same with 4 s of vocal and a small index
    python -m benchmarks.cover --whole           # the whole job, from vocal and instrumental to mp3; ours alone
    python -m benchmarks.cover --long            # peak memory and time, vocals of 1 minute to an hour, tiny networks

A vocal as a wav file of 44.1 kHz, f0 by rmvpe, a v2 voice of 40 kHz with an index of 100,000 vectors. The networks are
loaded and warm, the two implementations take turns, and the median counts. rvc-python reads its index at each call:
that is part of its `retrieval`. `gru` is the serial part of ours in f0 and not counted there.
"""

from __future__ import annotations

import argparse
import base64
import statistics
import tempfile
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import soundfile
import torch

from audio import Audio
from benchmarks.common import (
    SAMPLE_RATE,
    Clock,
    Stopwatch,
    choose_clock,
    make_parser,
    name_device,
    print_result,
    set_up,
    write_song,
)
from benchmarks.cover_parity import compare_networks
from benchmarks.memory import measure_memory
from models.registry import build
from models.runtime.progress import ignore_progress
from models.rvc.converter import ConversionSettings
from models.rvc.preprocess import preprocess
from testing.dispatch import answer
from testing.rvc_reference import rvc_python
from testing.tiny_rvc import count_lists, make_index_vectors, write_hubert_file, write_index, write_rmvpe, write_voice
from testing.vocals import make_vocal
from worker.settings import Settings

VOICE = "bench"
INDEX_ROWS = 100_000
SETTINGS: Mapping[str, Any] = {"index_rate": 0.5, "rms_mix_rate": 0.25, "protect": 0.33}
STAGES = ("preprocess", "f0", "gru", "hubert", "retrieval", "synthesizer", "rms", "rest", "total")
MIN_RATIO = {"cpu": 2.5, "cuda": 10.0}  # times as fast as rvc-python
MAX_RETRIEVAL_SHARE = 0.1  # of the conversion
GPU_OTHER_SECONDS = 213.0
GPU_SECONDS, GPU_MAX_S, GPU_MAX_WHOLE_S = 240.0, 0.5, 1.5  # of the vocal; for its conversion; for the whole job

Seconds = dict[str, float]  # by stage, and `total`
Run = Callable[[], Seconds]


@dataclass(frozen=True, slots=True)
class Case:
    """What both implementations do.

    Args:
        models: folder with `hubert_base.pt` and `rmvpe.pt`.
        voices: folder with the voice `VOICE` and its index.
        vocal: wav file.
        device: `cpu` or `cuda`.
        retrieval: how ours searches the index, `exact` or `ivf`; rvc-python always does the latter.
    """

    models: Path
    voices: Path
    vocal: Path
    device: str
    retrieval: Literal["exact", "ivf"]


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parse_options(arguments)
    set_up(options)
    if options.long:
        rows = measure_memory(((minutes, "tiny") for minutes in options.minutes), threads=options.threads)
        seconds = rows[-1]["seconds"] if rows else None
        print_result("cover memory", device=f"cpu, {options.threads} threads", ours=seconds, reference=None, rows=rows)
        return
    with tempfile.TemporaryDirectory() as temporary:
        case = _write_case(Path(options.folder or temporary), options)
        if options.whole:
            _measure_whole_job(case, options)
        else:
            _compare_conversions(case, options)


def _parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    on_gpu = torch.cuda.is_available()
    parser = make_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=GPU_SECONDS if on_gpu else 60.0, help="of the vocal")
    parser.add_argument("--runs", type=int, default=5 if on_gpu else 2, help="of each, after one to warm up")
    parser.add_argument(
        "--other-seconds",
        type=float,
        default=GPU_OTHER_SECONDS if on_gpu else None,
        help="of a second vocal, which shows what the first one of a new length costs",
    )
    parser.add_argument("--index-rows", type=int, default=INDEX_ROWS, help="vectors in the voice's index")
    parser.add_argument("--retrieval", choices=("exact", "ivf"), default="ivf", help="how ours searches the index")
    parser.add_argument("--only", choices=("ours", "reference"), help="run one implementation")
    parser.add_argument("--quick", action="store_true", help="4 s of vocal, 2000 vectors, one run")
    parser.add_argument("--whole", action="store_true", help="the whole job instead of the conversion; ours alone")
    parser.add_argument("--long", action="store_true", help="only the table of memory and time")
    parser.add_argument("--minutes", type=float, nargs="*", default=[1, 5, 10, 60], help="of that table")
    parser.add_argument("--folder", help="keeps checkpoints and index here for the next run")
    options = parser.parse_args(arguments)
    if options.quick:
        options.seconds, options.index_rows, options.runs = min(options.seconds, 4.0), 2_000, 1
    return options


def _write_case(folder: Path, options: argparse.Namespace) -> Case:
    """Writes full-size base models, one voice with its index, and a vocal; files of an earlier run are kept."""
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


def _compare_conversions(case: Case, options: argparse.Namespace) -> None:
    clock = choose_clock(options.clock)
    loaders = {"ours": _load_ours, "reference": _load_reference}
    runs = {name: load(case, clock) for name, load in loaders.items() if options.only in (None, name)}
    medians = _find_medians(runs, options.runs)
    _print_table(medians, options.seconds)
    figures: dict[str, Any] = {"stages": {name: _round_all(stages) for name, stages in medians.items()}}
    if options.only is None:
        errors = compare_networks(case.models, case.voices / VOICE, case.device)
        figures["targets"] = _check_targets(medians, options)
        figures["parity"] = {name: float(f"{error:.4g}") for name, error in errors.items()}
    if options.other_seconds and "ours" in runs:
        figures["other_length"] = _measure_other_length(case, runs["ours"], options.other_seconds)
    totals = {name: stages["total"] for name, stages in medians.items()}
    print_result(
        "voice conversion",
        device=name_device(options),
        ours=totals.get("ours"),
        reference=totals.get("reference"),
        clock=options.clock,
        seconds_of_vocal=options.seconds,
        index_rows=options.index_rows,
        **figures,
    )


def _measure_other_length(case: Case, run: Run, seconds: float) -> Seconds:
    """Seconds of the first and of the second conversion of a vocal whose length has not come before."""
    soundfile.write(case.vocal, make_vocal(seconds, sample_rate=SAMPLE_RATE), SAMPLE_RATE, subtype="PCM_16")
    first, second = run()["total"], run()["total"]
    print(f"a vocal of {seconds:g} s: {first:.3f} s, and again {second:.3f} s")
    return {"seconds_of_vocal": seconds, "first": round(first, 4), "second": round(second, 4)}


def _load_ours(case: Case, clock: Clock) -> Run:
    """Our conversion, by the engines as the worker loads them."""
    families = build(device=case.device, models_dir=case.models, voices_dir=case.voices).families
    encoder = families.content_encoders.load(families.content_encoders.resolve(None).name, device=case.device)
    estimator: Any = families.f0.load("rmvpe", device=case.device)
    converter: Any = families.voices.load(VOICE, device=case.device)
    settings = ConversionSettings(**SETTINGS, retrieval=case.retrieval)

    stopwatch = Stopwatch(clock, case.device)
    time_preprocess = stopwatch.wrap("preprocess", preprocess)
    time_f0 = stopwatch.wrap("f0", estimator.estimate)
    _wrap_method(stopwatch, "gru", estimator._network, "_run_gru")
    _wrap_method(stopwatch, "hubert", encoder, "extract_features")
    for method in ("sample_latents", "project_excitation", "decode"):
        _wrap_method(stopwatch, "synthesizer", converter._network, method)
    _wrap_method(stopwatch, "retrieval", converter._retrieval, "blend_nearest")

    def run() -> Seconds:
        stopwatch.reset()
        started = stopwatch.read()
        samples, sample_rate = soundfile.read(case.vocal, dtype="float32")
        vocal = time_preprocess(Audio(samples[None], sample_rate), ignore_progress)
        f0 = time_f0(vocal.waveform, hop_length=160, filter_radius=3, progress=ignore_progress)
        for _ in converter.convert(vocal, f0, encoder, settings=settings, progress=ignore_progress):
            pass
        total, stages = stopwatch.read() - started, stopwatch.seconds
        return _order_stages(stages | {"f0": stages["f0"] - stages["gru"]}, total)

    return run


def _load_reference(case: Case, clock: Clock) -> Run:
    """rvc-python's conversion, with its networks loaded."""
    with rvc_python(case.models / "hubert_base.pt", case.models / "rmvpe.pt", device=case.device) as reference:
        pass
    voice = reference.load(case.voices / VOICE)
    pipeline, module = voice.pipeline, reference.modules["pipeline"]

    stopwatch = Stopwatch(clock, case.device)
    load_audio = stopwatch.wrap("preprocess", reference.modules["modules"].load_audio)
    _wrap_method(stopwatch, "hubert", reference.hubert, "extract_features")
    _wrap_method(stopwatch, "f0", pipeline, "get_f0")
    _wrap_method(stopwatch, "chunks", pipeline, "vc")
    _wrap_method(stopwatch, "synthesizer", voice.net_g, "infer")
    _wrap_method(stopwatch, "rms", module, "change_rms")
    read_index, read_stage = module.faiss.read_index, "read index"

    def read_timed_index(path: str) -> types.SimpleNamespace:
        index = read_index(path)
        reconstruct = stopwatch.wrap(read_stage, index.reconstruct_n)
        return types.SimpleNamespace(ntotal=index.ntotal, reconstruct_n=reconstruct, search=index.search)

    module.faiss = types.SimpleNamespace(read_index=stopwatch.wrap(read_stage, read_timed_index))

    def run() -> Seconds:
        stopwatch.reset()
        started = stopwatch.read()
        reference.convert(None, load_audio(str(case.vocal), 16_000), f0_method="rmvpe", **SETTINGS)
        total, stages = stopwatch.read() - started, stopwatch.seconds
        # Besides its two networks, rvc-python's `vc` does nothing but the retrieval.
        searching = stages.pop("chunks") - stages["hubert"] - stages["synthesizer"]
        return _order_stages(stages | {"retrieval": searching + stages.pop(read_stage, 0.0)}, total)

    return run


def _wrap_method(stopwatch: Stopwatch, stage: str, owner: Any, method: str) -> None:
    """Replaces a method, or a function of a module, by one whose time is added to `stage`."""
    setattr(owner, method, stopwatch.wrap(stage, getattr(owner, method)))


def _order_stages(seconds: Seconds, total: float) -> Seconds:
    stages = {stage: seconds[stage] for stage in STAGES if stage in seconds}
    return stages | {"rest": total - sum(stages.values()), "total": total}


def _find_medians(runs: Mapping[str, Run], count: int) -> dict[str, Seconds]:
    """The median of each stage and of the total, after a run to warm up."""
    results: dict[str, list[Seconds]] = {name: [] for name in runs}
    for number in range(count + 1):
        for name, run in runs.items():
            results[name].append(run())
            print(f"run {number or 'to warm up'} {name:10} {results[name][-1]['total']:9.3f} s", flush=True)
    return {name: _find_median(stages[1:]) for name, stages in results.items()}


def _find_median(runs: Sequence[Seconds]) -> Seconds:
    return {stage: statistics.median(run[stage] for run in runs) for stage in runs[0]}


def _check_targets(medians: Mapping[str, Seconds], options: argparse.Namespace) -> dict[str, Any]:
    """Every target that applies to this run."""
    ours, reference = medians["ours"], medians["reference"]
    ratio, share = reference["total"] / ours["total"], ours["retrieval"] / ours["total"]
    min_ratio = MIN_RATIO[options.device]
    targets = [_check_target(f"at least {min_ratio:g} times as fast", ratio, is_met=ratio >= min_ratio)]
    if options.index_rows == INDEX_ROWS:
        targets.append(
            _check_target(f"retrieval at most {MAX_RETRIEVAL_SHARE:.0%}", share, is_met=share <= MAX_RETRIEVAL_SHARE)
        )
    if options.device == "cuda" and options.seconds == GPU_SECONDS:
        targets.append(_check_target(f"at most {GPU_MAX_S} s", ours["total"], is_met=ours["total"] <= GPU_MAX_S))
    return dict(targets)


def _check_target(target: str, figure: float, *, is_met: bool) -> tuple[str, dict[str, Any]]:
    """Prints the figure and whether it meets the target; returns both by the target's name."""
    print(f"{target:32} {figure:8.3f}  {'met' if is_met else 'MISSED'}")
    return target, {"figure": round(figure, 4), "met": is_met}


def _measure_whole_job(case: Case, options: argparse.Namespace) -> None:
    """A job as RunPod sends it: vocal and instrumental as base64 in, mp3 as base64 out.

    The stages are the timings in the reply, which are wall-clock seconds whatever `--clock` is.
    """
    clock, run_job = choose_clock(options.clock), _load_worker(case, options)

    def run() -> Seconds:
        started = clock()
        timings = run_job()
        return timings | {"total": clock() - started}

    medians = _find_medians({"ours": run}, options.runs)
    _print_table(medians, options.seconds)
    total = medians["ours"]["total"]
    has_target = options.device == "cuda" and options.seconds == GPU_SECONDS
    target = f"at most {GPU_MAX_WHOLE_S} s"
    print_result(
        "cover from stems",
        device=name_device(options),
        ours=total,
        reference=None,
        clock=options.clock,
        seconds_of_vocal=options.seconds,
        stages=_round_all(medians["ours"]),
        targets=dict([_check_target(target, total, is_met=total <= GPU_MAX_WHOLE_S)] if has_target else []),
    )


def _load_worker(case: Case, options: argparse.Namespace) -> Run:
    """A function that runs a job and returns the timings in its reply."""
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

    def run() -> Seconds:
        timings = answer(job, settings=settings, models=models)["timings"]
        return {stage.removesuffix("_s"): seconds for stage, seconds in timings.items()}

    return run


def _print_table(medians: Mapping[str, Seconds], seconds: float) -> None:
    """Seconds of each stage, also for each second of the vocal."""
    stages = sorted(dict.fromkeys(stage for column in medians.values() for stage in column), key=_rank)
    print(f"{'stage':12}" + "".join(f"{name:>12} {'x real time':>12}" for name in medians))
    for stage in stages:
        cells = (column.get(stage, 0.0) for column in medians.values())
        print(f"{stage:12}" + "".join(f"{cell:11.3f}s {cell / seconds:12.3f}" for cell in cells))


def _rank(stage: str) -> int:
    return STAGES.index(stage) if stage in STAGES else 0


def _round_all(seconds: Seconds) -> Seconds:
    return {stage: round(value, 4) for stage, value in seconds.items()}


if __name__ == "__main__":
    main()
