"""Every family of models, built from plain values. A new family is a field of `Families` and a line in `build`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from errors import unknown_name_error
from models.acestep.catalog import CATALOG as SONGS
from models.acestep.catalog import LICENCE as SONG_LICENCE
from models.acestep.family import AceStepFamily
from models.acestep.planner.catalog import CATALOG as PLANNERS
from models.acestep.planner.family import PlannerFamily
from models.beat_this import BeatThisFamily
from models.beat_this.catalog import CATALOG as BEATS
from models.beat_this.catalog import LICENCE as BEATS_LICENCE
from models.cache import EngineCache
from models.checkpoints.hub import VOLUME_CACHE, HuggingFaceHub
from models.checkpoints.locations import WeightLocations
from models.checkpoints.releases import GitHubReleases
from models.checkpoints.revisions import REVISIONS
from models.demo import CATALOG as DEMOS
from models.demo import LICENCE as DEMO_LICENCE
from models.demucs import DemucsFamily
from models.demucs.catalog import CATALOG as DEMUCS
from models.device import Gpu, find_gpu, is_out_of_memory, resolve_device
from models.encodec.catalog import CATALOG as CODECS
from models.encodec.family import EncodecFamily
from models.f0 import PitchFamily
from models.f0.catalog import CATALOG as PITCH
from models.family import ModelFamily
from models.hubert.catalog import DEFAULT_ENCODER
from models.hubert.family import LICENCE, HubertFamily
from models.musicgen import MusicGenFamily
from models.musicgen.catalog import CATALOG, NON_COMMERCIAL
from models.roformer.catalog import CATALOG as ROFORMER
from models.roformer.family import RoformerFamily
from models.rvc import RvcFamily, Voices
from models.separation_models import SeparationModels
from models.suno import SunoConfig, SunoFamily

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parent.parent
BAKED = ROOT / "weights"  # models that the Docker build bakes into the image
VOICES = "rvc_models"
DEMO = ROOT / "demo" / "weights"  # a folder for each family that has demo models


@dataclass(frozen=True, slots=True, kw_only=True)
class Families:
    """Every family of models, in the order in which a name without a family is looked up."""

    suno: SunoFamily
    music: MusicGenFamily
    songs: AceStepFamily
    planners: PlannerFamily
    separation: SeparationModels
    voices: RvcFamily
    content_encoders: HubertFamily
    f0: PitchFamily
    codecs: EncodecFamily
    beats: BeatThisFamily

    def __iter__(self) -> Iterator[ModelFamily[Any]]:
        """Every family, whatever its engines are."""
        for field in fields(self):
            value = getattr(self, field.name)
            yield from value.families if isinstance(value, SeparationModels) else (value,)

    def find(self, name: str) -> ModelFamily[Any]:
        """The family that PRELOAD calls `name`; raises `UnknownNameError`, which suggests the nearest."""
        by_name = {family.name: family for family in self}
        if name not in by_name:
            raise unknown_name_error("model family", name, by_name)
        return by_name[name]


class Models(EngineCache):
    """Every model of the process: the families, and the cache of their engines. Made once and passed down.

    Args:
        families: what there is.
        device, budget_bytes, out_of_memory, gpu_finder: as `EngineCache` takes them.
    """

    def __init__(
        self,
        families: Families,
        *,
        device: str = "cpu",
        budget_bytes: int | None = None,
        out_of_memory: Callable[[BaseException], bool] = is_out_of_memory,
        gpu_finder: Callable[[], Gpu | None] = find_gpu,
    ) -> None:
        super().__init__(device=device, budget_bytes=budget_bytes, out_of_memory=out_of_memory, gpu_finder=gpu_finder)
        self.families = families

    def preload(self, full_name: str) -> None:
        """Downloads, loads and warms up `family/name` (or `family` alone: its default model)."""
        family, _, name = full_name.partition("/")
        handle = self.families.find(family).resolve(name or None)
        self.run(handle, handle.family.warm_up)
        logger.info("Preloaded %s", handle)


def build(  # noqa: PLR0913  (one argument a setting)
    *,
    device: str = "auto",
    budget_bytes: int | None = None,
    models_dir: Path | None = None,
    volume_dirs: Sequence[Path] = (),
    download_dir: Path | None = None,
    pin_models: bool = True,
    torch_home: Path | None = None,
    voices_dir: Path | None = None,
    voice_uploads: bool = False,
    cuda_graphs: bool = True,
    suno: SunoFamily | None = None,
    demo_dir: Path | None = DEMO,
    gpu_finder: Callable[[], Gpu | None] = find_gpu,
) -> Models:
    """Every family, in one `Models`. Nothing is read yet: folders, hub cache and devices are read when they are needed.

    Args:
        device: as `Models` takes it.
        budget_bytes: as `Models` takes it.
        models_dir: folder of weights that is searched before every other.
        volume_dirs: mounted volumes; their `models` folder and the platform's model cache on them are searched.
        download_dir: hub cache that downloads go to; None: the one on the first volume that can be written, else the
            hub client's own.
        pin_models: whether the tested revision of a published model is downloaded; False: the newest.
        torch_home: torch's cache, in which `torch.hub` keeps the checkpoints that demucs 4.0 and beat-this downloaded;
            None: there is none.
        voices_dir: the folder of RVC voices; None: the first `rvc_models` that exists, on a volume or here.
        voice_uploads: whether a request may add a voice.
        cuda_graphs: whether a GPU replays the steps of decoding as CUDA graphs.
        suno: the Suno provider with its HTTP client; None: there is none.
        demo_dir: the folder of the demo models; None: there are none.
    """
    weights = find_weights(
        models_dir=models_dir, volume_dirs=volume_dirs, download_dir=download_dir, pin_models=pin_models
    )

    def on_gpu() -> bool:
        return not resolve_device(device, gpu_finder() if device == "auto" else None).startswith("cpu")

    def find_demos(family: str) -> Path | None:
        return demo_dir / family if demo_dir else None

    def find_used_gpu() -> Gpu | None:
        return gpu_finder() if on_gpu() else None

    def is_hub_reachable() -> bool:
        return isinstance(weights.hub, HuggingFaceHub) and weights.hub.is_reachable()

    torch_cache = torch_home / "hub" / "checkpoints" if torch_home else None
    music = MusicGenFamily(weights, demo=find_demos("musicgen"), on_gpu=on_gpu, cuda_graphs=cuda_graphs)
    families = Families(
        suno=suno or SunoFamily(SunoConfig(token="")),
        music=music,
        songs=AceStepFamily(weights, demo=find_demos("acestep"), gpu_finder=find_used_gpu, cuda_graphs=cuda_graphs),
        planners=PlannerFamily(weights, gpu_finder=find_used_gpu, cuda_graphs=cuda_graphs),
        separation=SeparationModels(
            [
                DemucsFamily(weights, demo=find_demos("demucs"), torch_cache=torch_cache),
                RoformerFamily(weights, demo=find_demos("roformer")),
            ],
            is_hub_reachable=is_hub_reachable,
        ),
        voices=RvcFamily(
            find_voices(voices_dir=voices_dir, volume_dirs=volume_dirs, demo=find_demos("rvc")),
            uploads=voice_uploads,
            hub=_make_hub(volume_dirs, download_dir, {}),
        ),
        content_encoders=HubertFamily(weights, demo=find_demos("hubert")),
        f0=PitchFamily(weights),
        codecs=EncodecFamily(weights, music),
        beats=BeatThisFamily(weights, torch_cache=torch_cache, on_gpu=on_gpu),
    )
    return Models(families, device=device, budget_bytes=budget_bytes, gpu_finder=gpu_finder)


def list_published_models() -> list[dict[str, str]]:
    """Every published model for the documentation: its name, the operation that runs it, its licence, what it is."""

    def row(name: str, operation: str, licence: str, about: str) -> dict[str, str]:
        return {"name": name, "engine": operation, "licence": licence, "about": about}

    return [
        *(
            row(
                card.name,
                "generate_music",
                NON_COMMERCIAL,
                f"not run: {why}" if (why := card.unsupported) else card.about,
            )
            for card in CATALOG
        ),
        *(row(card.name, "generate_music, edit_music", SONG_LICENCE, card.about) for card in SONGS),
        *(row(card.name, "plan_music", SONG_LICENCE, card.about) for card in PLANNERS),
        *(
            row(name, "separate", card.licence, f"not run: {why}" if (why := card.unsupported) else card.about)
            for name, card in DEMUCS.items()
        ),
        *(row(name, "separate", f"{card.licence}: {card.licence_note}", card.about) for name, card in ROFORMER.items()),
        row(DEFAULT_ENCODER, "generate_cover", LICENCE, "content encoder (HuBERT-base) of RVC voices"),
        *(row(card.name, "generate_cover", card.licence, card.about) for card in PITCH.values()),
        *(row(name, "encode_audio", card.licence, card.about) for name, card in CODECS.items()),
        *(row(name, "analyze", BEATS_LICENCE, card.about) for name, card in BEATS.items()),
        *(row(card.name, card.operations, DEMO_LICENCE, card.about) for card in DEMOS),
    ]


def find_voices(*, voices_dir: Path | None, volume_dirs: Sequence[Path], demo: Path | None = None) -> Voices:
    """The folders of voices: RVC_MODELS_DIR alone if it is set, else on the volumes, then in the working folder.

    Args:
        demo: the folder of the demo voices.
    """
    folders = [voices_dir] if voices_dir else [*(volume / VOICES for volume in volume_dirs), Path(VOICES)]
    return Voices(folders, demo=demo)


def find_weights(
    *, models_dir: Path | None, volume_dirs: Sequence[Path], download_dir: Path | None = None, pin_models: bool = True
) -> WeightLocations:
    """The folders of weights in order: MODELS_DIR, hub cache, the platform's cache, volumes, baked into the image."""
    from huggingface_hub import constants

    folders = [*([models_dir] if models_dir else []), *(volume / "models" for volume in volume_dirs), BAKED]
    on_volumes = (volume / VOLUME_CACHE for volume in volume_dirs)
    revisions = REVISIONS if pin_models else {}
    return WeightLocations(
        explicit=models_dir,
        hub_caches=(Path(constants.HF_HUB_CACHE), *on_volumes, BAKED),
        folders=tuple(folders[1:] if models_dir else folders),
        hub=_make_hub(volume_dirs, download_dir, revisions),
        revisions=revisions,
        releases=None if constants.HF_HUB_OFFLINE else GitHubReleases(cache=download_dir, volumes=volume_dirs),
    )


def _make_hub(
    volume_dirs: Sequence[Path], download_dir: Path | None, revisions: Mapping[str, str]
) -> HuggingFaceHub | None:
    """The hub; None if the worker is set to work offline."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return None
    return HuggingFaceHub(cache=download_dir, volumes=volume_dirs, revisions=revisions)
