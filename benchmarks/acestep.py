"""ACE-Step: our engine against diffusers' `AceStepPipeline`, on the same random weights of the published sizes.

    python -m benchmarks.acestep                                    10 s of music on a CPU, 60 s on a GPU
    python -m benchmarks.acestep --seconds 240 --device cuda
    python -m benchmarks.acestep --planner                          and the planner against transformers' `generate`
    python -m benchmarks.acestep --folder /tmp/acestep              keeps the checkpoint (6.3 GB) for the next run
    python -m benchmarks.acestep --tiny                             tiny networks, to see that it runs

Both make the same song from the same noise, in the precision that the device calls for, one after the other in one
process that holds the weights once. The stages are those of one request; loading is measured apart. The last line is
one JSON object.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.acestep_checkpoint import NAME, load_acestep, write_acestep
from benchmarks.acestep_planner import measure_planner, write_planner
from benchmarks.common import Stopwatch, choose_clock, make_parser, name_device, print_result, read_peak_bytes, set_up
from models.acestep.engine import AceStepEngine
from models.acestep.metas import Metas
from models.acestep.planner.engine import CODE_RATE
from models.acestep.request import DiffusionSampling, Song, SongRequest
from testing.acestep_reference import build_published_pipeline
from testing.tiny_acestep import write_tiny_acestep
from testing.tiny_planner import write_tiny_planner

CPU_TARGET, GPU_TARGET = 2.0, 1.5  # times as fast as the pipeline
TINY_SECONDS = 6.0
PLANNER = "acestep-5Hz-lm-0.6B"
SHIFT = 3.0
STAGES = ("text", "conditions", "steps", "vae")
SONG = Song(
    caption="Upbeat synth pop with a driving bass line, bright arpeggios and a female singer",
    seed=0,
    lyrics="[Verse]\nNeon rivers in the rain\nCarry me to you again\n\n[Chorus]\nWe are running, we are light\n" * 4,
    metas=Metas(bpm=118, key="A minor", time_signature=4),
)


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one of the two took for a song.

    Args:
        seconds: of the best run.
        stages: seconds of its stages.
        all_seconds: of every run.
        peak_gb: of memory: on a GPU of tensors, on a CPU of the process.
        waveform: `[2, T]`, brought to a peak of -1 dBFS, as the pipeline brings it.
    """

    seconds: float
    stages: Mapping[str, float]
    all_seconds: Sequence[float]
    peak_gb: float
    waveform: NDArray[np.float32]


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parse_options(arguments)
    set_up(options)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(options.folder or temporary)
        if not (root / NAME).exists():
            (write_tiny_acestep if options.tiny else write_acestep)(root)
        _compare(root, options)


def _parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    on_gpu = torch.cuda.is_available()
    parser = make_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=60.0 if on_gpu else 10.0, help="of music")
    parser.add_argument("--steps", type=int, default=8, help="of the sampler")
    parser.add_argument("--runs", type=int, default=5 if on_gpu else 1, help="of each implementation; the best counts")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), help="of all networks; default: as the device runs")
    parser.add_argument("--planner", action="store_true", help="also the planner (0.6B), for the music's codes")
    parser.add_argument("--no-reference", action="store_true", help="only ours")
    parser.add_argument("--tiny", action="store_true", help="tiny networks")
    parser.add_argument("--folder", help="keeps the checkpoint here for the next run")
    options = parser.parse_args(arguments)
    options.seconds = TINY_SECONDS if options.tiny else options.seconds
    return options


def _compare(root: Path, options: argparse.Namespace) -> None:
    stopwatch = Stopwatch(choose_clock(options.clock), options.device)
    started = stopwatch.read()
    dtype = getattr(torch, options.dtype) if options.dtype else None
    components = load_acestep(root, options.device, dtype=dtype, vae_dtype=dtype)
    pipeline = None if options.no_reference else build_published_pipeline(components)
    engine = AceStepEngine(components)
    figures: dict[str, Any] = {"load_s": round(stopwatch.read() - started, 2)}
    vae_dtype = str(engine.codec.dtype).removeprefix("torch.")
    figures |= {"dtype": str(components.config.dtype).removeprefix("torch."), "vae_dtype": vae_dtype}
    print(f"load {figures['load_s']:.2f} s; {components.memory_bytes / 1e9:.2f} GB of weights", flush=True)
    ours = _measure("ours", _prepare_ours(engine, stopwatch, options), stopwatch, options)
    reference = None
    if pipeline is not None:
        reference = _measure("diffusers", _prepare_reference(pipeline, stopwatch, options), stopwatch, options)
        figures |= {
            "reference_stages_s": reference.stages,
            "all_reference": reference.all_seconds,
            "reference_peak_gb": reference.peak_gb,
            "snr_db": round(_measure_snr_db(reference.waveform, ours.waveform), 1),
        }
        ratio, target = reference.seconds / ours.seconds, GPU_TARGET if options.device == "cuda" else CPU_TARGET
        figures |= {"target_met": ratio >= target}
        print(f"{ratio:.2f} times as fast as diffusers (target {target:g}); signal to error {figures['snr_db']} dB")
    if options.planner:
        del engine, pipeline, components
        figures["planner"] = _measure_planner(root, stopwatch, options)
    print_result(
        f"acestep {'tiny' if options.tiny else 'turbo 2B'}",
        device=name_device(options),
        ours=ours.seconds,
        reference=reference.seconds if reference else None,
        clock=options.clock,
        seconds_of_music=options.seconds,
        steps=options.steps,
        real_time=round(options.seconds / ours.seconds, 3),
        stages_s=ours.stages,
        all_ours=ours.all_seconds,
        peak_gb=ours.peak_gb,
        **figures,
    )


def _prepare_ours(
    engine: AceStepEngine, stopwatch: Stopwatch, options: argparse.Namespace
) -> Callable[[], NDArray[np.float32]]:
    """A function that makes the song and returns `[2, T]`; its stages are timed."""
    _time(engine.text, "encode", "text", stopwatch)
    for name in ("encode_timbre", "encode_lyrics", "join"):
        _time(engine.conditions, name, "conditions", stopwatch)
    _time(engine.backend.transformer, "compute_cross_kv", "conditions", stopwatch)
    _time(engine.codec, "decode", "vae", stopwatch)
    sampling = DiffusionSampling(num_steps=options.steps, cfg_coef=1.0, shift=SHIFT)
    metas = Metas(
        bpm=SONG.metas.bpm,
        key=SONG.metas.key,
        time_signature=SONG.metas.time_signature,
        duration=options.seconds,
    )
    song = Song(caption=SONG.caption, seed=SONG.seed, lyrics=SONG.lyrics, metas=metas)
    request = SongRequest(songs=[song], duration=options.seconds, sampling=sampling)

    def run() -> NDArray[np.float32]:
        return engine.generate(request).clips[0].waveform

    return run


def _prepare_reference(
    pipeline: Any, stopwatch: Stopwatch, options: argparse.Namespace
) -> Callable[[], NDArray[np.float32]]:
    """As `_prepare_ours`, with the pipeline and the same noise."""
    _time(pipeline, "encode_prompt", "text", stopwatch)
    _time(pipeline.condition_encoder, "forward", "conditions", stopwatch)
    _time(pipeline.transformer, "forward", "steps", stopwatch)
    _time(pipeline.vae, "decode", "vae", stopwatch)
    channels = pipeline.transformer.config.audio_acoustic_hidden_dim
    shape = (1, round(options.seconds * pipeline.latents_per_second), channels)

    def run() -> NDArray[np.float32]:
        audio: NDArray[np.float32] = pipeline(
            prompt=SONG.caption,
            lyrics=SONG.lyrics,
            audio_duration=options.seconds,
            vocal_language=SONG.language,
            num_inference_steps=options.steps,
            guidance_scale=1.0,
            shift=SHIFT,
            latents=torch.randn(shape, generator=torch.Generator().manual_seed(SONG.seed)),
            bpm=SONG.metas.bpm,
            keyscale=SONG.metas.key,
            timesignature=str(SONG.metas.time_signature),
            output_type="np",
        ).audios[0]
        return audio

    return run


def _measure_planner(root: Path, stopwatch: Stopwatch, options: argparse.Namespace) -> dict[str, float | None]:
    """Seconds for the audio codes of the music, of the prompt before them, and of loading; ours and the reference's."""
    gc.collect()
    folder = root / PLANNER
    if not folder.exists():
        (write_tiny_planner if options.tiny else write_planner)(root, PLANNER)
    codes, turns = int(options.seconds * CODE_RATE), 0 if options.no_reference else 1
    times = measure_planner(folder, stopwatch, device=options.device, codes=codes, turns=turns)
    figures = {
        "codes_s": codes * times.code,
        "reference_codes_s": codes * times.reference_code if times.reference_code else None,
        "prompt_s": times.prompt,
        "load_s": times.load,
    }
    ratio = times.reference_code / times.code if times.reference_code else None
    listed = f", {ratio:.2f} times as fast as generate" if ratio else ""
    print(f"planner    {figures['codes_s']:9.3f} s for {codes} audio codes{listed}", flush=True)
    return {name: None if seconds is None else round(seconds, 5) for name, seconds in figures.items()}


def _time(owner: Any, method: str, stage: str, stopwatch: Stopwatch) -> None:
    setattr(owner, method, stopwatch.wrap(stage, getattr(owner, method)))


def _measure(
    name: str, make_song: Callable[[], NDArray[np.float32]], stopwatch: Stopwatch, options: argparse.Namespace
) -> Measurement:
    gc.collect()
    if options.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    all_seconds: list[float] = []
    all_stages = []
    for run in range(options.runs + (options.device == "cuda") * 2):  # a GPU's first runs choose kernels
        stopwatch.reset()
        started = stopwatch.read()
        waveform = make_song()
        all_seconds.append(stopwatch.read() - started)
        stages = dict(stopwatch.seconds)
        # Ours are launched, or replayed as a graph, between the other stages.
        stages.setdefault("steps", all_seconds[-1] - sum(stages.values()))
        all_stages.append({stage: round(stages[stage], 3) for stage in STAGES})
        listed = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in all_stages[-1].items())
        print(f"{name:10} run {run + 1} {all_seconds[-1]:9.3f} s: {listed}", flush=True)
    best = int(np.argmin(all_seconds))
    return Measurement(
        seconds=all_seconds[best],
        stages=all_stages[best],
        all_seconds=[round(seconds, 3) for seconds in all_seconds],
        peak_gb=_measure_peak_gb(options.device),
        waveform=waveform * (10 ** (-1 / 20) / np.abs(waveform).max()),
    )


def _measure_peak_gb(device: str) -> float:
    return round((torch.cuda.max_memory_allocated() if device == "cuda" else read_peak_bytes()) / 1e9, 2)


def _measure_snr_db(expected: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """The level of what is expected against that of the difference."""
    assert expected.shape == found.shape, f"ours has {found.shape} samples, the reference {expected.shape}"
    error = np.square(expected - found, dtype=np.float64).sum()
    return float(10 * np.log10(np.square(expected, dtype=np.float64).sum() / max(error, 1e-30)))


if __name__ == "__main__":
    main()
