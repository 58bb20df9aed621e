"""Peak memory of `separate` against duration, flac in and flac out to a volume, each duration in a process of its own.

    python -m benchmarks.memory 120 htdemucs         # minutes; `stand-in` in place of htdemucs runs no network

What grows with duration is decoding, resampling, overlap-add, stems on disk and encoding; the network's own memory does
not. So long durations run with a stand-in, a network that only copies, and htdemucs runs where its time allows.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

ROOT = Path(__file__).parent.parent
SAMPLE_RATE = 44_100
LONGEST_WITH_NETWORK_MIN = 1.0
WATCH_S = 0.02


def memory_table(minutes: Sequence[float]) -> list[dict[str, Any]]:
    """One row a duration, printed as it comes."""
    print(" minutes network     loaded MB  peak MB  added MB  disk MB  seconds")
    rows = []
    for duration in minutes:
        for network in ("htdemucs", "stand-in") if duration <= LONGEST_WITH_NETWORK_MIN else ("stand-in",):
            row = _in_own_process(duration, network)
            print(
                f"{duration:8g} {network:10} {row['loaded_mb']:10.0f} {row['peak_mb']:8.0f} {row['added_mb']:9.0f}"
                f" {row['disk_mb']:8.0f} {row['seconds']:8.1f}",
                flush=True,
            )
            rows.append(row)
    return rows


def _in_own_process(minutes: float, network: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.memory", str(minutes), network]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def write_song(path: Path, seconds: float) -> None:
    """Chords, a beat and some noise, stereo, 16-bit flac, written block by block."""
    generator = np.random.default_rng(0)
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 2, format="FLAC", subtype="PCM_16") as file:
        for start in range(0, int(seconds * SAMPLE_RATE), 1 << 18):
            t = np.arange(start, min(start + (1 << 18), int(seconds * SAMPLE_RATE))) / SAMPLE_RATE
            chord = sum(np.sin(2 * np.pi * f * t) / (k + 2) for k, f in enumerate((220, 277, 330)))
            beat = np.exp(-8 * (t * 2 % 1)) * np.sin(2 * np.pi * 55 * t)
            sides = [0.25 * chord + 0.25 * beat + 0.02 * generator.standard_normal(len(t)) for _ in range(2)]
            file.write(np.stack(sides, axis=1).astype(np.float32))


def measure_one(minutes: float, network: str) -> dict[str, Any]:
    """Runs one job and returns what it took."""
    import torch

    from models.demucs.engine import Model, Runtime, Separator
    from models.registry import build
    from testing.dispatch import answer
    from worker.settings import Settings

    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as temporary:
        volume = Path(temporary)
        write_song(volume / "song.flac", minutes * 60)
        _write_model(volume / "models")
        models = build(device="cpu", models_dir=volume / "models")
        if network == "stand-in":
            family: Any = models.families.separation
            bag = family._folders.fetch("htdemucs").bag
            family.load = lambda name, device: Separator(
                Model(bag, lambda index: _stand_in(), ("drums", "bass", "other", "vocals"), SAMPLE_RATE), Runtime()
            )
        models.preload(["demucs/htdemucs"])
        loaded, disk = resident_mb(), Watch(temporary)
        params = {"audio": str(volume / "song.flac"), "output_format": "flac", "delivery": "volume"}
        started = time.perf_counter()
        reply = answer(
            {"id": "m", "input": {"operation": "separate", "params": params}},
            settings=Settings(
                models_dir=volume / "models",
                volume_dirs=(volume,),
                max_input_bytes=1 << 32,
                max_input_seconds=4 * 3600,
            ),
            models=models,
        )
        seconds = time.perf_counter() - started
        _check(reply, minutes)
        watched = disk.stop()
    return {"minutes": minutes, "network": network, **memory_row(loaded, watched, seconds)}


def memory_row(loaded_mb: float, watched: Mapping[str, float], seconds: float) -> dict[str, float]:
    """What a job took, from the memory before it and what `Watch.stop` says."""
    return {
        "loaded_mb": loaded_mb,
        "peak_mb": watched["resident_mb"],
        "added_mb": watched["resident_mb"] - loaded_mb,
        "high_water_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "disk_mb": watched["disk_mb"],
        "seconds": round(seconds, 2),
    }


class Watch:
    """Looks at memory and free disk space until stopped."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._free = self._lowest = _free_bytes(folder)
        self._highest = resident_mb()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._ended.wait(WATCH_S):
            self._highest = max(self._highest, resident_mb())
            self._lowest = min(self._lowest, _free_bytes(self._folder))

    def stop(self) -> dict[str, float]:
        self._ended.set()
        self._thread.join()
        return {"resident_mb": self._highest, "disk_mb": (self._free - self._lowest) / 1e6}


def _free_bytes(folder: str) -> int:
    import shutil

    return shutil.disk_usage(folder).free


def resident_mb() -> float:
    """What this process holds in memory now."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def _write_model(folder: Path) -> None:
    from benchmarks.separate import htdemucs
    from testing.tiny_demucs import save_bag

    save_bag(folder / "htdemucs", {"h": htdemucs(0)})


def _stand_in() -> Any:
    import torch
    from torch import nn

    class StandIn(nn.Module):
        """In place of a network: every stem is a quarter of the mix."""

        sources = ("drums", "bass", "other", "vocals")
        samplerate = SAMPLE_RATE
        segment = 7.8

        def valid_length(self, length: int) -> int:
            return length

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return (batch / 4)[:, None].expand(-1, 4, -1, -1)

    return StandIn()


def _check(reply: Mapping[str, Any], minutes: float) -> None:
    for stem in reply["stems"].values():
        assert soundfile.info(stem["output_path"]).frames == int(minutes * 60 * SAMPLE_RATE)


if __name__ == "__main__":
    print(json.dumps(measure_one(float(sys.argv[1]), sys.argv[2])))
