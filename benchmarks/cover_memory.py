"""Peak memory and time of `generate_cover` against duration, each duration in a process of its own.

    python -m benchmarks.cover_memory 60         # minutes

flac in, flac out to a volume. The networks are tiny, so that an hour takes minutes: what grows with duration is the
sound, the pitch curve and the features, which are as large as with real ones; the networks' own memory does not grow.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from benchmarks.memory import ROOT, SAMPLE_RATE, Watch, memory_row, resident_mb, write_song

VOICE = "tiny"
INDEX_ROWS = 2_000


def cover_memory_table(minutes: Sequence[float]) -> list[dict[str, Any]]:
    """One row a duration, printed as it comes; time is linear where the last column stays the same."""
    print(" minutes  loaded MB  peak MB  added MB  disk MB  seconds  seconds a minute")
    rows = []
    for duration in minutes:
        row = _in_own_process(duration)
        print(
            f"{duration:8g} {row['loaded_mb']:10.0f} {row['peak_mb']:8.0f} {row['added_mb']:9.0f}"
            f" {row['disk_mb']:8.0f} {row['seconds']:8.1f} {row['seconds'] / duration:17.2f}",
            flush=True,
        )
        rows.append(row)
    return rows


def _in_own_process(minutes: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.cover_memory", str(minutes)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def write_vocal(path: Path, seconds: float) -> None:
    """A minute of singing, again and again: mono, 16-bit flac."""
    from testing.vocals import make_vocal

    minute = np.asarray(make_vocal(60.0, sample_rate=SAMPLE_RATE), np.float32)
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1, format="FLAC", subtype="PCM_16") as file:
        left = round(seconds * SAMPLE_RATE)
        while left:
            file.write(minute[:left])
            left -= min(left, len(minute))


def write_tiny_models(folder: Path) -> None:
    """Base models below `folder / "models"`, a voice with an index below `folder / "voices"`."""
    from testing.tiny_rvc import write_hubert_file, write_rmvpe, write_voice

    write_hubert_file(folder / "models" / "hubert_base.pt")
    write_rmvpe(folder / "models" / "rmvpe.pt")
    write_voice(folder / "voices", VOICE, index_rows=INDEX_ROWS)


def measure_one(minutes: float) -> dict[str, Any]:
    """Runs one job and returns what it took."""
    import torch

    from models.registry import build
    from testing.dispatch import answer
    from worker.settings import Settings

    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as temporary:
        volume = Path(temporary)
        write_tiny_models(volume)
        write_vocal(volume / "vocal.flac", minutes * 60)
        write_song(volume / "song.flac", minutes * 60)
        settings = Settings(
            models_dir=volume / "models",
            rvc_models_dir=volume / "voices",
            volume_dirs=(volume,),
            max_input_bytes=1 << 32,
            max_input_seconds=4 * 3600,
        )
        models = build(device="cpu", models_dir=settings.models_dir, voices_dir=settings.rvc_models_dir)
        models.preload([f"rvc/{VOICE}", "f0/rmvpe", "hubert"])
        loaded, watch = resident_mb(), Watch(temporary)
        params = {
            "voice_audio": str(volume / "vocal.flac"),
            "instrument_audio": str(volume / "song.flac"),
            "voice_model": VOICE,
            "output_format": "flac",
            "delivery": "volume",
        }
        job = {"id": "memory", "input": {"operation": "generate_cover", "params": params}}
        started = time.perf_counter()
        reply = answer(job, settings=settings, models=models)
        seconds = time.perf_counter() - started
        watched = watch.stop()
        frames = soundfile.info(reply["output_path"]).frames
        assert frames == round(minutes * 60 * SAMPLE_RATE), "a cover is as long as its longest part"
    return {"minutes": minutes, **memory_row(loaded, watched, seconds), "timings": reply["timings"]}


if __name__ == "__main__":
    print(json.dumps(measure_one(float(sys.argv[1]))))
