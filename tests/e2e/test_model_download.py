"""The whole worker while a model is downloaded: progress in bytes, a cancel, and the next job with the same model."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import soundfile

from models.checkpoints.revisions import REVISIONS
from testing import tiny_demucs
from testing.control_plane import start_control_plane
from testing.fake_hub import start_fake_hub
from testing.processes import HANDLER, start_worker
from testing.vocals import make_vocal

REPOSITORY = "adefossez/HTDemucs"


def encode_wav() -> str:
    file = io.BytesIO()
    soundfile.write(file, make_vocal(1.0), 16_000, format="WAV")
    return base64.b64encode(file.getvalue()).decode()


def test_a_cancel_during_a_download_ends_the_job_and_the_next_job_gets_the_model(tmp_path: Path) -> None:
    folder = tiny_demucs.save_bag(tmp_path / "served", {"955717e8": tiny_demucs.htdemucs()}, name="htdemucs")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    volume = tmp_path / "volume"
    volume.mkdir()
    separate = {"operation": "separate", "audio": encode_wav(), "model": "htdemucs", "stems": ["vocals"]}
    with start_fake_hub(files) as hub, start_control_plane() as plane:
        hub.commit = REVISIONS[REPOSITORY]
        hub.go_on.clear()
        settings = {"HF_ENDPOINT": hub.endpoint, "VOLUME_DIRS": str(volume), "DEVICE": "cpu"}
        with start_worker(HANDLER, [], home=tmp_path, env=plane.environment() | settings) as worker:
            cancelled = plane.submit(separate)
            update = plane.wait(cancelled, "progress", timeout=60).body["output"]
            assert update["stage"].startswith(f"Downloading {REPOSITORY}: ")
            assert update["download"] == {"model": REPOSITORY, "bytes": 0, "total_bytes": len(files["htdemucs.yaml"])}
            plane.stop(cancelled)
            assert plane.result(plane.submit({"operation": "health_check"}))["output"]["loaded_models"] == []
            assert not plane.find_events(cancelled, "done")
            hub.go_on.set()
            reply = plane.result(plane.submit(separate), timeout=120)["output"]
            lines = worker.read_output().splitlines()
            assert worker.process.poll() is None
    assert reply["success"] is True and reply["model_used"] == "htdemucs"
    assert sorted(hub.sent) == sorted(files)
    snapshots = volume / "huggingface-cache" / "hub" / f"models--{REPOSITORY.replace('/', '--')}" / "snapshots"
    assert {path.name for path in (snapshots / hub.commit).iterdir()} == set(files)
    assert [line for line in lines if "%|" in line] == []  # no progress bars
