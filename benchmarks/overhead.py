"""What the worker adds to a job: start, import, and a song in and out.

    python -m benchmarks.overhead

Start and import are compared with `import runpod`, which every worker has to pay; a 4-minute stereo song (base64 flac
in, decoded, encoded, base64 out) with the bare encoder on the same samples. Peak memory is the high-water mark of a
process that does nothing else.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from benchmarks.common import SAMPLE_RATE, compare, print_result, read_peak_bytes, run_python, write_song

HEALTH = '{"input": {"operation": "health_check"}}'
IMPORT = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=240.0, help="length of the song")
    parser.add_argument("--runs", type=int, default=3, help="of which the fastest counts")
    options = parser.parse_args()
    start = measure_start(options.runs)
    print(
        f"\n{options.seconds:.0f} s stereo, base64 flac in"
        f"{'in':>10}{'out':>10}{'bare encoder':>16}{'ratio':>8}{'peak MB':>10}{'bare MB':>10}"
    )
    source = encode_song(options.seconds)
    (ours, reference, peaks), (mp3_ours, mp3_reference, mp3_peaks) = (
        measure_song(output_format, source) for output_format in ("flac", "mp3")
    )
    mp3 = compare(mp3_ours, mp3_reference) | mp3_peaks
    print_result("overhead", device="cpu", ours=ours, reference=reference, **peaks, mp3=mp3, **start)


def measure_start(runs: int) -> dict[str, dict[str, float | None]]:
    """Start and import beside `import runpod`; prints a row for each."""
    runpod = min(_time(lambda: run_python("-c", "import runpod")) for _ in range(runs))
    health = min(_time(lambda: run_python("handler.py", "--test_input", HEALTH)) for _ in range(runs))
    import_handler, import_runpod = (
        min(float(run_python("-c", IMPORT.format(module))) for _ in range(runs)) for module in ("handler", "runpod")
    )
    print(f"{'':34}{'ours':>10}{'import runpod':>16}{'ratio':>8}")
    rows = {"start to first health reply": (health, runpod), "import handler": (import_handler, import_runpod)}
    for name, (ours, reference) in rows.items():
        print(f"{name:34}{ours:9.3f}s{reference:15.3f}s{reference / ours:8.2f}")
    return {name.replace(" ", "_"): compare(*seconds) for name, seconds in rows.items()}


def measure_song(output_format: str, source: str) -> tuple[float, float, dict[str, float]]:
    """Seconds of the worker and of the bare encoder for one song, and the peak memory of both; prints a row."""
    ours = _run_in_own_process("run_worker", output_format, source)
    bare = _run_in_own_process("run_encoder", output_format, source)
    total = ours["in_s"] + ours["out_s"]
    print(
        f"  out as {output_format:20}{ours['in_s']:9.3f}s{ours['out_s']:9.3f}s{bare['out_s']:15.3f}s"
        f"{bare['out_s'] / total:8.2f}{ours['peak_bytes'] / 1e6:10.0f}{bare['peak_bytes'] / 1e6:10.0f}",
        flush=True,
    )
    peaks = {"peak_bytes": ours["peak_bytes"], "reference_peak_bytes": bare["peak_bytes"]}
    return total, bare["out_s"], peaks


def run_worker(output_format: str, source: str) -> dict[str, float]:
    """One song in by base64 and out in `output_format`, as an operation that changes nothing would answer."""
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
        audio_out=AudioOut(output_format=output_format, delivery="inline"),  # type: ignore[arg-type]
        job=job,
        settings=settings,
    )
    dump_json(reply)
    return {"in_s": decoded - started, "out_s": time.perf_counter() - decoded, "peak_bytes": read_peak_bytes()}


def run_encoder(output_format: str, source: str) -> dict[str, float]:
    """The encoder alone, on samples that are already in memory."""
    import soundfile
    from pedalboard.io import AudioFile

    frames, _ = soundfile.read(io.BytesIO(base64.b64decode(source)), dtype="float32")
    started = time.perf_counter()
    file = io.BytesIO()
    if output_format == "flac":
        soundfile.write(file, frames, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    else:
        with AudioFile(file, "w", SAMPLE_RATE, 2, format="mp3", quality=320) as writer:
            writer.write(frames.T)
    return {"out_s": time.perf_counter() - started, "peak_bytes": read_peak_bytes()}


def encode_song(seconds: float) -> str:
    """The test song as flac in base64."""
    file = io.BytesIO()
    write_song(file, seconds)
    return base64.b64encode(file.getvalue()).decode()


def _run_in_own_process(function: str, output_format: str, source: str) -> dict[str, float]:
    """Calls `function` in a new process, so that its memory is its own; a song of one second warms it up."""
    code = (
        "import json, sys; from benchmarks import overhead; "
        f"measure = overhead.{function}; measure({output_format!r}, overhead.encode_song(1.0)); "
        f"print(json.dumps(measure({output_format!r}, sys.stdin.read())))"
    )
    result: dict[str, float] = json.loads(run_python("-c", code, stdin=source).splitlines()[-1])
    return result


def _time(function: Callable[[], Any]) -> float:
    """Seconds of one call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
