"""A fresh process whose first jobs come all at once: their engines and libraries are loaded without a race."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import soundfile

from testing import tiny_demucs
from testing.processes import build_environment
from testing.repository import ROOT
from testing.tiny_musicgen import write_checkpoint
from testing.tiny_rvc import write_hubert_file, write_rmvpe, write_voice
from testing.vocals import make_vocal

PROGRAM = """
import json, sys, threading
from concurrent.futures import ThreadPoolExecutor
from handler import handler

jobs = json.load(sys.stdin)
arrived = threading.Barrier(len(jobs))

def run(job):
    arrived.wait()
    return handler(job)

with ThreadPoolExecutor(len(jobs)) as pool:
    print(json.dumps([reply.get("error") for reply in pool.map(run, jobs)]))
"""


def encode_wav() -> str:
    file = io.BytesIO()
    soundfile.write(file, make_vocal(0.5), 16_000, format="WAV")
    return base64.b64encode(file.getvalue()).decode()


def write_models(folder: Path) -> None:
    """Tiny random weights of every family, in their real formats."""
    write_checkpoint(folder / "tiny")
    tiny_demucs.save_bag(folder / "demucs", {"955717e8": tiny_demucs.htdemucs()}, name="htdemucs")
    write_hubert_file(folder / "hubert_base.pt")
    write_rmvpe(folder / "rmvpe.pt")
    write_voice(folder / "voices", "alice")


def make_jobs() -> list[dict[str, Any]]:
    wav = encode_wav()
    parts = {"voice_audio": wav, "instrument_audio": wav, "voice_model": "alice", "index_rate": 0.0}
    methods = ("rmvpe", "rmvpe", "pm", "harvest")
    covers = [{"operation": "generate_cover", "f0_method": method, **parts} for method in methods]
    music = [{"operation": "generate_music", "model": "tiny", "prompt": "piano", "duration": 0.5}] * 2
    return [{"input": job} for job in [*covers, *music, *[{"operation": "separate", "audio": wav}] * 2]]


@pytest.mark.slow
def test_eight_jobs_at_once_succeed_as_the_first_of_a_process(tmp_path: Path) -> None:
    write_models(tmp_path)
    settings = {"MODELS_DIR": str(tmp_path), "RVC_MODELS_DIR": str(tmp_path / "voices"), "DEVICE": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env=build_environment(tmp_path, settings | {"HF_HUB_OFFLINE": "1"}),
        input=json.dumps(make_jobs()),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert json.loads(done.stdout.splitlines()[-1]) == [None] * 8, done.stderr
