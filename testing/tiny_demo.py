"""Tiny weights in place of the demo models, in the layout of `demo/weights/`."""

from __future__ import annotations

import json
from pathlib import Path

from models import Models
from models.acestep.family import AceStepFamily
from models.checkpoints.locations import WeightLocations
from models.demo import CONTENT_ENCODER
from models.demucs import DemucsFamily
from models.encodec.family import EncodecFamily
from models.f0 import PitchFamily
from models.hubert.family import HubertFamily
from models.musicgen import MusicGenFamily
from models.roformer.family import RoformerFamily
from models.rvc import RvcFamily, Voices
from models.separation_models import SeparationModels
from testing.models import make_models

VOICE = "demo-alto"


def write_demos(folder: Path) -> Path:
    """Writes one demo model of every family that has them; returns the folder."""
    from testing.tiny_acestep import write_tiny_acestep
    from testing.tiny_demucs import htdemucs, save_bag
    from testing.tiny_musicgen import write_checkpoint
    from testing.tiny_roformer import write_roformer

    write_checkpoint(folder / "musicgen")
    save_bag(folder / "demucs" / "demo-htdemucs", {"tiny": htdemucs()})
    write_roformer(folder / "roformer" / "demo-mel-band-roformer")
    write_roformer(folder / "roformer" / "demo-karaoke", stems=("karaoke", "other"), target="karaoke")
    write_tiny_acestep(folder / "acestep", layout="diffusers", name="demo-acestep", is_turbo=False)
    write_demo_voice(folder)
    return folder


def write_demo_voice(folder: Path) -> None:
    """Writes a demo voice and the content encoder that it names."""
    from testing.tiny_rvc import write_hubert_folder, write_voice

    write_hubert_folder(folder / "hubert" / CONTENT_ENCODER)
    voice = write_voice(folder / "rvc", VOICE, index_rows=60)
    (voice / "voice.json").write_text(json.dumps({"f0_hz": 330, "embedder": CONTENT_ENCODER}))


def make_demo_models(folder: Path, *, weights: WeightLocations | None = None, voices: Path | None = None) -> Models:
    """Every family with the demo models in `folder`, and no other unless `weights` or `voices` has them."""
    weights = weights or WeightLocations()
    music = MusicGenFamily(weights, demo=folder / "musicgen")
    return make_models(
        music=music,
        songs=AceStepFamily(weights, demo=folder / "acestep"),
        separation=SeparationModels(
            [DemucsFamily(weights, demo=folder / "demucs"), RoformerFamily(weights, demo=folder / "roformer")]
        ),
        voices=RvcFamily(Voices([voices] if voices else [], demo=folder / "rvc")),
        content_encoders=HubertFamily(weights, demo=folder / "hubert"),
        f0=PitchFamily(weights),
        codecs=EncodecFamily(weights, music),
    )
