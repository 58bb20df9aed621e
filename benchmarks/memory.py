"""Peak memory of a whole job against the duration of its audio, flac in and flac out to a volume.

    python -m benchmarks.separate --memory
    python -m benchmarks.cover --long
    python -m benchmarks.memory stub 120 2       # one row: network, minutes, threads

Each duration runs in a process of its own. What grows with duration is the audio, its f0 contour and its features, in
memory or on disk; the memory of the networks does not. Long jobs therefore run without the real networks: `separate`
with a stub that copies its input, `generate_cover` with tiny networks.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import soundfile
import torch
from torch import nn

from benchmarks.checkpoints import write_htdemucs
from benchmarks.common import SAMPLE_RATE, read_peak_bytes, run_python, write_song
from models.checkpoints.locations import WeightLocations
from models.demucs.catalog import FOUR_STEMS
from models.demucs.engine import DemucsSeparator, Runtime, SeparationModel
from models.demucs.family import DemucsFamily
from models.demucs.repository import ModelRepository
from models.registry import Models, build
from models.separation_models import SeparationModels
from testing.dispatch import answer
from testing.tiny_rvc import write_hubert_file, write_rmvpe, write_voice
from testing.vocals import make_vocal
from worker.settings import Settings

Network = Literal["htdemucs", "stub", "tiny"]  # the first two for separate, the third for generate_cover
VOICE = "tiny"
INDEX_ROWS = 2_000
SAMPLING_INTERVAL_S = 0.02


def measure_memory(jobs: Iterable[tuple[float, Network]], *, threads: int) -> list[dict[str, Any]]:
    """Runs a job for each pair of minutes and network and prints its row; time is linear if the last column is."""
    print(" minutes network   loaded MB  peak MB  added MB  disk MB  seconds  seconds a minute")
    rows = []
    for minutes, network in jobs:
        output = run_python("-m", "benchmarks.memory", network, str(minutes), str(threads))
        row: dict[str, Any] = json.loads(output.splitlines()[-1])
        print(
            f"{minutes:8g} {network:9} {row['loaded_mb']:9.0f} {row['peak_mb']:8.0f} {row['added_mb']:9.0f}"
            f" {row['disk_mb']:8.0f} {row['seconds']:8.1f} {row['seconds'] / minutes:17.2f}",
            flush=True,
        )
        rows.append(row)
    return rows


def run_job(network: Network, minutes: float) -> dict[str, Any]:
    """Runs one job in this process. Sizes in MB: `added_mb` is the peak minus what the loaded models take."""
    with tempfile.TemporaryDirectory() as temporary:
        volume = Path(temporary)
        settings = Settings(
            models_dir=volume / "models",
            rvc_models_dir=volume / "voices",
            volume_dirs=(volume,),
            max_input_bytes=1 << 32,
            max_input_seconds=4 * 3600,
        )
        operation, params = _write_input(network, volume, minutes * 60)
        models = _load_models(network, volume)
        loaded_mb, monitor = _resident_mb(), _Monitor(volume)
        job = {"id": "memory", "input": {"operation": operation, "params": params | _OUTPUT}}
        started = time.perf_counter()
        reply = answer(job, settings=settings, models=models)
        seconds = time.perf_counter() - started
        peak_mb, disk_mb = monitor.stop()
        _check_lengths(reply, round(minutes * 60 * SAMPLE_RATE))
    return {
        "minutes": minutes,
        "network": network,
        "loaded_mb": loaded_mb,
        "peak_mb": peak_mb,
        "added_mb": peak_mb - loaded_mb,
        "high_water_mb": round(read_peak_bytes() / 2**20),
        "disk_mb": disk_mb,
        "seconds": round(seconds, 2),
        "timings": reply["timings"],
    }


_OUTPUT = {"output_format": "flac", "delivery": "volume"}


def _write_input(network: Network, volume: Path, seconds: float) -> tuple[str, dict[str, str]]:
    """Writes the audio; returns the operation and its parameters."""
    write_song(volume / "song.flac", seconds)
    if network != "tiny":
        return "separate", {"audio": str(volume / "song.flac")}
    _write_vocal(volume / "vocal.flac", seconds)
    params = {"voice_audio": "vocal.flac", "instrument_audio": "song.flac"}
    return "generate_cover", {key: str(volume / name) for key, name in params.items()} | {"voice_model": VOICE}


def _write_vocal(path: Path, seconds: float) -> None:
    """A minute of vocals, repeated: mono, 16-bit flac."""
    minute = np.asarray(make_vocal(60.0, sample_rate=SAMPLE_RATE), np.float32)
    remaining = round(seconds * SAMPLE_RATE)
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1, format="FLAC", subtype="PCM_16") as file:
        while remaining:
            file.write(minute[:remaining])
            remaining -= min(remaining, len(minute))


def _load_models(network: Network, volume: Path) -> Models:
    """Writes the checkpoints below `volume` and loads all that the job needs."""
    models_dir, voices_dir = volume / "models", volume / "voices"
    if network == "tiny":
        write_hubert_file(models_dir / "hubert_base.pt")
        write_rmvpe(models_dir / "rmvpe.pt")
        write_voice(voices_dir, VOICE, index_rows=INDEX_ROWS)
        names = [f"rvc/{VOICE}", "f0/rmvpe", "hubert"]
    else:
        write_htdemucs(models_dir)
        names = ["demucs/htdemucs"]
    models = build(device="cpu", models_dir=models_dir, voices_dir=voices_dir)
    if network == "stub":
        models = Models(
            replace(models.families, separation=SeparationModels([_StubFamily(WeightLocations(models_dir))]))
        )
    for name in names:
        models.preload(name)
    return models


class _StubFamily(DemucsFamily):
    """htdemucs with a stub for its network."""

    def __init__(self, weights: WeightLocations) -> None:
        super().__init__(weights)
        self._bag = ModelRepository(weights).fetch("htdemucs").bag

    def load(self, name: str, *, device: str) -> DemucsSeparator:
        model = SeparationModel(self._bag, lambda index: _Stub(), FOUR_STEMS, SAMPLE_RATE)
        return DemucsSeparator(model, Runtime(device))


class _Stub(nn.Module):
    """A network whose every stem is a quarter of the mix."""

    sources = FOUR_STEMS
    samplerate = SAMPLE_RATE
    segment = 7.8

    def valid_length(self, length: int) -> int:
        return length

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Mixes `[B, 2, T]` to stems `[B, 4, 2, T]`."""
        return (batch / 4)[:, None].expand(-1, 4, -1, -1)


class _Monitor:
    """Records the highest memory of this process and the lowest free space of a disk, every 20 ms, until stopped."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._free_before = self._lowest_free = shutil.disk_usage(folder).free
        self._highest_mb = _resident_mb()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._record, daemon=True)
        self._thread.start()

    def _record(self) -> None:
        while not self._stopped.wait(SAMPLING_INTERVAL_S):
            self._highest_mb = max(self._highest_mb, _resident_mb())
            self._lowest_free = min(self._lowest_free, shutil.disk_usage(self._folder).free)

    def stop(self) -> tuple[float, float]:
        """Peak memory and peak use of the disk, both in MB."""
        self._stopped.set()
        self._thread.join()
        return self._highest_mb, (self._free_before - self._lowest_free) / 1e6


def _resident_mb() -> float:
    """Resident memory of this process now."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def _check_lengths(reply: Mapping[str, Any], num_samples: int) -> None:
    for output in reply.get("stems", {"cover": reply}).values():
        frames = soundfile.info(output["output_path"]).frames
        assert frames == num_samples, f"{output['output_path']} has {frames} samples, its input {num_samples}"


if __name__ == "__main__":
    [network] = [network for network in get_args(Network) if network == sys.argv[1]]
    torch.set_num_threads(int(sys.argv[3]))
    print(json.dumps(run_job(network, float(sys.argv[2]))))
