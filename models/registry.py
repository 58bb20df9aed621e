"""Assembles every family of models from plain values; a new family is one line in `build`. Reads no environment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from models.cache import Family, Models
from models.checkpoints.locations import HuggingFaceHub, WeightLocations
from models.demucs import DemucsFamily
from models.demucs.catalog import CATALOG as DEMUCS
from models.device import Gpu, find_gpu, resolve_device
from models.f0 import PitchFamily
from models.f0.catalog import CATALOG as PITCH
from models.hubert.family import DEFAULT as CONTENT_ENCODER
from models.hubert.family import LICENCE as CONTENT_ENCODER_LICENCE
from models.hubert.family import HubertFamily
from models.musicgen import MusicGenFamily
from models.musicgen.catalog import CATALOG, DEMO, DEMO_LICENCE, NON_COMMERCIAL
from models.rvc import RvcFamily, Voices
from models.suno import SunoConfig, SunoFamily

ROOT = Path(__file__).resolve().parent.parent
BAKED = ROOT / "weights"  # where the Docker build puts models that it was told to bake in
VOICES = "rvc_models"
PLATFORM_CACHE = Path("huggingface-cache") / "hub"  # below a volume: RunPod's cached models


def build(  # noqa: PLR0913  (one argument a setting)
    *,
    device: str = "auto",
    budget_bytes: int | None = None,
    models_dir: Path | None = None,
    volume_dirs: Sequence[Path] = (),
    download_dir: Path | None = None,
    voices_dir: Path | None = None,
    voice_uploads: bool = False,
    suno: SunoFamily | None = None,
    gpu_finder: Callable[[], Gpu | None] = find_gpu,
) -> Models:
    """Every family, in one `Models`. Looks at nothing yet: folders, hub cache and devices are looked at when asked for.

    Args:
        device: as `Models` takes it.
        budget_bytes: as `Models` takes it.
        models_dir: the explicit folder of weights; comes before every other place.
        volume_dirs: mounted volumes; weights are looked for in their `models` folder, and in the platform's cache of
            models on them.
        download_dir: where the hub's files go; None: the hub client's own cache.
        voices_dir: the folder of RVC voices; None: the first `rvc_models` that exists, on a volume or here.
        voice_uploads: whether a request may add a voice.
        suno: the Suno provider with its HTTP client; None: there is none.
    """
    weights = find_weights(models_dir=models_dir, volume_dirs=volume_dirs, download_dir=download_dir)

    def on_gpu() -> bool:
        return not resolve_device(device, gpu_finder() if device == "auto" else None).startswith("cpu")

    families: list[Family] = [
        suno or SunoFamily(SunoConfig(token="")),
        MusicGenFamily(weights, demo=ROOT / "demo" / "weights" / "musicgen", on_gpu=on_gpu),
        DemucsFamily(weights),
        RvcFamily(find_voices(voices_dir=voices_dir, volume_dirs=volume_dirs), uploads=voice_uploads),
        HubertFamily(weights),
        PitchFamily(weights),
    ]
    by_name = {family.name: family for family in families}
    return Models(by_name, device=device, budget_bytes=budget_bytes, gpu_finder=gpu_finder)


def catalog_rows() -> list[dict[str, str]]:
    """Every published model, as the README's table shows it: name, the operation that runs it, licence, what it is."""
    return (
        [
            {
                "name": entry.name,
                "engine": "generate_music",
                "licence": NON_COMMERCIAL,
                "about": f"not run: {entry.unsupported}" if entry.unsupported else entry.about,
            }
            for entry in CATALOG
        ]
        + [
            {
                "name": DEMO,
                "engine": "generate_music",
                "licence": DEMO_LICENCE,
                "about": "small, rough, ours, in the box",
            },
        ]
        + [
            {"name": name, "engine": "separate", "licence": row.licence, "about": row.note}
            for name, row in DEMUCS.items()
        ]
        + [
            {
                "name": CONTENT_ENCODER,
                "engine": "generate_cover",
                "licence": CONTENT_ENCODER_LICENCE,
                "about": "content encoder (HuBERT-base) that RVC voices hear with",
            },
        ]
        + [
            {"name": method.name, "engine": "generate_cover", "licence": method.licence, "about": method.about}
            for method in PITCH.values()
        ]
    )


def find_voices(*, voices_dir: Path | None, volume_dirs: Sequence[Path]) -> Voices:
    """The places for voices: RVC_MODELS_DIR alone where it is set, else the volumes, then the working folder."""
    return Voices([voices_dir] if voices_dir else [*(volume / VOICES for volume in volume_dirs), Path(VOICES)])


def find_weights(
    *, models_dir: Path | None, volume_dirs: Sequence[Path], download_dir: Path | None = None
) -> WeightLocations:
    """The places for weights, in order: MODELS_DIR, hub cache, platform's cache, volumes, baked in."""
    from huggingface_hub import constants

    folders = [*([models_dir] if models_dir else []), *(volume / "models" for volume in volume_dirs), BAKED]
    caches = [Path(constants.HF_HUB_CACHE), *(volume / PLATFORM_CACHE for volume in volume_dirs), BAKED]
    return WeightLocations(
        explicit=models_dir,
        hub_caches=tuple(caches),
        folders=tuple(folders[1:] if models_dir else folders),
        hub=None if constants.HF_HUB_OFFLINE else HuggingFaceHub(cache=download_dir),
    )
