"""A volume with tiny weights of every family and a voice, in the real formats: enough for every operation."""

from __future__ import annotations

import shutil
from pathlib import Path

VOICE = "my_voice"
MUSIC = "tiny"
SEPARATION = "htdemucs"
ROFORMER = "tiny-roformer"
SONGS = "tiny-acestep"
PLANNER = "tiny-planner"


def write_volume(volume: Path) -> Path:
    """Writes `models/`, `rvc_models/my_voice` and `uploads/`, a voice's files that `add_voice` can install."""
    from testing.tiny_acestep import write_tiny_acestep
    from testing.tiny_demucs import htdemucs, save_bag
    from testing.tiny_musicgen import write_checkpoint
    from testing.tiny_planner import write_tiny_planner
    from testing.tiny_roformer import write_roformer
    from testing.tiny_rvc import write_hubert_file, write_rmvpe, write_voice

    models, uploads = volume / "models", volume / "uploads"
    write_checkpoint(models / MUSIC)
    save_bag(models / SEPARATION, {"tiny": htdemucs()})
    write_roformer(models / ROFORMER)
    write_tiny_acestep(models, name=SONGS, is_turbo=False)
    write_tiny_planner(models, PLANNER)
    write_hubert_file(models / "hubert_base.pt")
    write_rmvpe(models / "rmvpe.pt")
    write_voice(volume / "rvc_models", VOICE, index_rows=60)
    write_voice(uploads, "new", index_rows=60)
    shutil.make_archive(str(uploads / "new"), "zip", uploads / "new")
    return volume


def list_settings(volume: Path) -> dict[str, str]:
    """The environment of a worker that uses the volume."""
    return {
        "MODELS_DIR": str(volume / "models"),
        "RVC_MODELS_DIR": str(volume / "rvc_models"),
        "VOLUME_DIRS": str(volume),
        "ALLOW_VOICE_UPLOAD": "1",
        "HF_HUB_OFFLINE": "1",
    }
