"""What the worker adds to a job: start, import, and a song in and out, as ratios to the parts that nobody can spare.

    uv run python -m benchmarks.overhead

Start and import are held against `import runpod`, which every worker pays; a 4-minute stereo song (base64 flac in,
decoded, encoded, base64 out) against the bare encoder on the same samples. Peak memory is the process's high-water
mark.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from audio.types import Waveform

ROOT = Path(__file__).parent.parent
SAMPLE_RATE = 44_100
HEALTH = '{"input": {"operation": "health_check"}}'


def song(seconds: float) -> Waveform:
    """Chords, a beat and a little noise, `[2, T]`: compresses like music, not like silence or noise."""
    t = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    generator = np.random.default_rng(0)
    chord = sum(np.sin(2 * np.pi * f * t + p) / (k + 2) for k, (f, p) in enumerate([(220, 0), (277, 1), (330, 2)]))
    beat = np.exp(-8 * (t * 2 % 1)) * np.sin(2 * np.pi * 55 * t)
    sides = [0.4 * chord + 0.4 * beat + 0.02 * generator.standard_normal(len(t)) for _ in range(2)]
    return (np.stack(sides) * 0.6).astype(np.float32)


def best(runs: int, action: Callable[[], Any]) -> float:
    """Seconds of the fastest of `runs`: the others measure the machine's neighbours."""
    seconds = []
    for _ in range(runs):
        started = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def run_python(*arguments: str, stdin: str = "") -> str:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, input=stdin).stdout


def peak_bytes() -> int:
    """High-water mark of this process's memory (VmHWM)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def through_the_worker(form: str, source: str) -> dict[str, float]:
    """One song in by base64 and out in `form`, as an operation that changes nothing would answer."""
    from worker.input.load import load_audio
    from worker.job import Job
    from worker.output.deliver import deliver
    from worker.output.strict_json import dump_json
    from worker.reply import AudioOut, Output, Reply
    from worker.settings import Settings

    settings = replace(Settings(), inline_budget_bytes=1_000_000_000)
    started = time.perf_counter()
    job = Job("benchmark")
    audio = load_audio(source, field="audio", job=job, settings=settings)
    decoded = time.perf_counter()
    reply = deliver(
        Reply(outputs=[Output(audio, "song")]),
        operation="none",
        used={},
        audio_out=AudioOut(output_format=form, delivery="inline"),  # type: ignore[arg-type]
        job=job,
        settings=settings,
    )
    dump_json(reply)
    return {"in_s": decoded - started, "out_s": time.perf_counter() - decoded, "peak": peak_bytes()}


def bare_encoder(form: str, source: str) -> dict[str, float]:
    """The encoder alone, on samples that are already in memory."""
    import soundfile
    from pedalboard.io import AudioFile

    frames, _ = soundfile.read(io.BytesIO(base64.b64decode(source)), dtype="float32")
    started = time.perf_counter()
    file = io.BytesIO()
    if form == "flac":
        soundfile.write(file, frames, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    else:
        with AudioFile(file, "w", SAMPLE_RATE, 2, format="mp3", quality=320) as writer:
            writer.write(frames.T)
    return {"out_s": time.perf_counter() - started, "peak": peak_bytes()}


def flac_base64(seconds: float) -> str:
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, song(seconds).T, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return base64.b64encode(file.getvalue()).decode()


def in_own_process(function: str, form: str, source: str) -> dict[str, float]:
    """A measurement in a fresh process, so that its memory is its own; a short song goes before to warm it up."""
    code = (
        "import json, sys; from benchmarks import overhead; "
        f"measure = overhead.{function}; measure({form!r}, overhead.flac_base64(1.0)); "
        f"print(json.dumps(measure({form!r}, sys.stdin.read())))"
    )
    result: dict[str, float] = json.loads(run_python("-c", code, stdin=source).splitlines()[-1])
    return result


def start_rows(runs: int) -> list[tuple[str, float, float]]:
    """(what, ours, reference) in seconds."""
    runpod = best(runs, lambda: run_python("-c", "import runpod"))
    health = best(runs, lambda: run_python("handler.py", "--test_input", HEALTH))
    timed = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"
    imports = [min(float(run_python("-c", timed.format(name))) for _ in range(runs)) for name in ("handler", "runpod")]
    return [("start to first health reply", health, runpod), ("import handler", imports[0], imports[1])]


def song_row(form: str, source: str) -> dict[str, float]:
    """Measures one song and prints its line of the table."""
    ours = in_own_process("through_the_worker", form, source)
    bare = in_own_process("bare_encoder", form, source)
    total = ours["in_s"] + ours["out_s"]
    print(
        f"  out as {form:20}{ours['in_s']:9.3f}s{ours['out_s']:9.3f}s{bare['out_s']:15.3f}s"
        f"{bare['out_s'] / total:8.2f}{ours['peak'] / 1e6:10.0f}{bare['peak'] / 1e6:10.0f}"
    )
    return {
        "ours": total,
        "reference": bare["out_s"],
        "ratio": bare["out_s"] / total,
        "peak_bytes": ours["peak"],
        "reference_peak_bytes": bare["peak"],
    }


def main() -> None:
    """Prints the tables and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=240.0, help="length of the song")
    parser.add_argument("--runs", type=int, default=3, help="of which the fastest counts")
    options = parser.parse_args()
    print(f"{'':34}{'ours':>10}{'import runpod':>16}{'ratio':>8}")
    start = start_rows(options.runs)
    for what, ours, reference in start:
        print(f"{what:34}{ours:9.3f}s{reference:15.3f}s{reference / ours:8.2f}")
    print(
        f"\n{options.seconds:.0f} s stereo, base64 flac in"
        f"{'in':>10}{'out':>10}{'bare encoder':>16}{'ratio':>8}{'peak MB':>10}{'bare MB':>10}"
    )
    source = flac_base64(options.seconds)
    songs = {form: song_row(form, source) for form in ("flac", "mp3")}
    line = {"name": "overhead", "device": "cpu", **songs["flac"], "mp3": songs["mp3"]}
    print(json.dumps(line | {what.replace(" ", "_"): {"ours": a, "reference": b} for what, a, b in start}))


if __name__ == "__main__":
    main()
