"""The family `encodec`: published codecs, local ones, and those of MusicGen checkpoints. Importable without torch."""

from __future__ import annotations

from collections.abc import Hashable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from errors import ErrorCode, ModelError, unknown_name_error
from models.checkpoints.errors import CheckpointError, report_broken
from models.checkpoints.hf_folder import CONFIG_FILE, REQUIRED_FILES, find_weights, measure_weights, read_config
from models.checkpoints.locations import WeightLocations
from models.demo import MUSIC as DEMO
from models.encodec.catalog import CATALOG, DEFAULT_CODEC, UNKNOWN_LICENCE, find_codec_name, hub_id
from models.encodec.spec import CodecSpec, make_spec, read_spec
from models.family import (
    DOWNLOAD,
    LOCAL,
    READY,
    Availability,
    ModelFamily,
    ModelHandle,
    ModelInfo,
    Readiness,
    choose_default,
    describe_each,
    stamp_files,
    unavailable,
)
from models.musicgen.catalog import BY_NAME as MUSIC
from models.musicgen.catalog import find_catalog_name
from models.musicgen.family import MusicGenFamily
from models.musicgen.inspect import CheckpointInfo
from models.runtime.progress import UNATTENDED, Observer

if TYPE_CHECKING:
    from models.encodec.codec import Codec

_MODEL_TYPE = "encodec"  # in config.json
_REMEDY = "Download its files again."


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecModelInfo(ModelInfo):
    """What a codec does. One that cannot be used has only its name and licence.

    Args:
        licence: of the weights.
        spec: None: it cannot be used.
        hub_id: of a published codec.
    """

    licence: str
    spec: CodecSpec | None = None
    hub_id: str = ""

    def to_json(self) -> dict[str, Any]:
        row: dict[str, Any] = {"name": self.name}
        if self.spec is not None:
            row |= {
                "sample_rate": self.spec.sample_rate,
                "channels": self.spec.channels,
                "frame_rate": self.spec.frame_rate,
                "num_codebooks": self.spec.codebooks,
                "codebook_size": self.spec.cardinality,
                "bandwidths": list(self.spec.bandwidths),
            }
        row |= {"licence": self.licence, "available": self.availability.to_json()}
        return row | ({"hub_id": self.hub_id} if self.hub_id else {})


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a codec is.

    Args:
        folder: in transformers' format; None: it is to be downloaded, or the checkpoint's own.
        checkpoint: of MusicGen, whose codec it is.
    """

    spec: CodecSpec
    licence: str
    folder: Path | None = None
    checkpoint: CheckpointInfo | None = None

    @property
    def is_here(self) -> bool:
        if self.checkpoint is None:
            return self.folder is not None
        return self.checkpoint.codec.hub_id is None or self.checkpoint.codec.folder is not None


class EncodecFamily(ModelFamily["Codec"]):
    """EnCodec at 24, 32 and 48 kHz, other codecs in transformers' format, and those of the MusicGen checkpoints here.

    Args:
        weights: where codecs are looked for.
        music: the family whose checkpoints have codecs.
    """

    name = "encodec"
    downloadable = True
    demos = MusicGenFamily.demos

    def __init__(self, weights: WeightLocations, music: MusicGenFamily) -> None:
        self._weights, self._music = weights, music

    def list_models(self) -> list[CodecModelInfo]:
        """The catalogue, then local codecs, then those of local MusicGen checkpoints, under the checkpoints' names."""

        def report(name: str, availability: Availability) -> CodecModelInfo:
            licence = CATALOG[name].licence if name in CATALOG else UNKNOWN_LICENCE
            return CodecModelInfo(name=name, availability=availability, licence=licence)

        return describe_each(self._list_names(), self.describe, report)

    def readiness(self) -> Readiness:
        local = [info.name for info in self.list_models() if info.availability == LOCAL]
        no_model = "no codec is here: set MODELS_DIR, or let the worker download from the Hugging Face hub"
        return self.judge_local(local, otherwise=READY if self._weights.hub else Readiness(no_model))

    def search_paths(self) -> list[str]:
        return self._weights.search_paths()

    def resolve(self, name: str | None) -> ModelHandle[Codec]:
        """The codec called `name`; None: the first of the catalogue that is here, else the demo's. Reads no weights.

        Raises:
            UnknownNameError: there is no such codec.
            ModelError: it is not here and cannot be downloaded, or its files are broken.
        """
        if name is None:
            return self._choose_default()
        codec = find_codec_name(name)
        canonical = codec if codec in CATALOG or self._find_local(codec) else find_catalog_name(name)
        self._require(canonical)
        return ModelHandle(self, canonical)

    def describe(self, name: str) -> CodecModelInfo:
        """What the codec with the canonical `name` does; raises `ModelError` if its files are broken."""
        source = self._find(name)
        here = LOCAL if source.is_here else DOWNLOAD if self._weights.hub else None
        return CodecModelInfo(
            name=name,
            availability=here or unavailable(_missing_error(name).message),
            download_bytes=CATALOG[name].download_bytes if here == DOWNLOAD and name in CATALOG else 0,
            licence=source.licence,
            spec=source.spec,
            hub_id=hub_id(name) if name in CATALOG else "",
        )

    def get_spec(self, name: str) -> CodecSpec:
        """The shape of the codes of the codec with the canonical `name`."""
        return self._find(name).spec

    def version_key(self, name: str) -> Hashable:
        source = self._find(name)
        if source.checkpoint is not None:
            return self._music.version_key(name), _stamp_folder(source.checkpoint.codec.folder)
        return _stamp_folder(source.folder)

    def memory_bytes(self, name: str) -> int:
        source = self._find(name)
        if source.checkpoint is not None:
            return source.checkpoint.codec.nbytes
        return measure_weights(source.folder) if source.folder else CATALOG[name].download_bytes

    def load(self, name: str, *, device: str) -> Codec:
        """The codec on `device`, in float32, after downloading what is missing."""
        from models.device import prepare_device
        from models.encodec.load import load_codec
        from models.musicgen.load import load_codec as load_checkpoint_codec

        source = self._fetch_missing(name)
        prepare_device(device)
        if source.checkpoint is not None:
            return load_checkpoint_codec(source.checkpoint, device)
        assert source.folder is not None, "the files of a codec that was fetched"
        with _report_broken(name):
            return load_codec(source.folder, source.spec, device)

    def engine_bytes(self, engine: Codec) -> int:
        return engine.nbytes

    def warm_up(self, engine: Codec) -> None:
        engine.warm_up()

    def download(self, name: str, observer: Observer = UNATTENDED) -> None:
        self._fetch_missing(name, observer)

    def _list_names(self) -> list[str]:
        found = map(find_codec_name, self._weights.list_folder_names(CONFIG_FILE))
        local = [name for name in found if name not in CATALOG and self._find_local(name)]
        return list(dict.fromkeys([*CATALOG, *local, *self._music.list_local_names()]))

    def _find(self, name: str) -> _Source:
        """Where the codec with the canonical `name` is, or comes from.

        Raises:
            UnknownNameError: there is no such codec.
            ModelError: it is here and broken, or the codec of a checkpoint that is not here.
        """
        if name in CATALOG:
            return self._find_published(name)
        if folder := self._find_local(name):
            return _Source(_read_folder(name, folder), UNKNOWN_LICENCE, folder)
        if checkpoint := self._music.find_checkpoint(name):
            return _describe_checkpoint(name, checkpoint, self._music.describe(name).licence)
        if name in MUSIC:
            raise ModelError(
                f"The codec of '{name}' is not here, because its checkpoint is not. "
                + (
                    f"It is '{DEFAULT_CODEC}': use that one."
                    if MUSIC[name].family == "musicgen"
                    else "Download it first."
                )
            )
        raise unknown_name_error("codec", name, self._list_names())

    def _find_published(self, name: str) -> _Source:
        card = CATALOG[name]
        folder = self._weights.find((name, hub_id(name)), (hub_id(name),), REQUIRED_FILES)
        return _Source(_read_folder(name, folder) if folder else card.spec, card.licence, folder)

    def _find_local(self, name: str) -> Path | None:
        """The folder of this name below the model paths, if it has transformers' EnCodec."""
        folder = self._weights.find_named(name, REQUIRED_FILES)
        if folder is None:
            return None
        try:
            return folder if read_config(folder).get("model_type") == _MODEL_TYPE else None
        except CheckpointError:  # the config of another family's model
            return None

    def _require(self, name: str) -> _Source:
        """`_find`; raises `ModelError`, too, if its files are not here and cannot be downloaded."""
        source = self._find(name)
        if not source.is_here and self._weights.hub is None:
            raise _missing_error(name)
        return source

    def _choose_default(self) -> ModelHandle[Codec]:
        candidates: list[tuple[str, ModelError | None]] = []
        for name in CATALOG:
            try:
                if self._find(name).is_here:
                    candidates.append((name, None))
            except ModelError as error:
                candidates.append((name, error))
        if chosen := choose_default(candidates):
            return ModelHandle(self, *chosen)
        if DEMO.name in self._music.list_local_names():
            return self.resolve(DEMO.name)
        raise ModelError(
            f"No codec is here. Name one to download, such as '{DEFAULT_CODEC}' (list_models shows them), or put its "
            "folder below MODELS_DIR.",
            code=ErrorCode.MODEL_UNAVAILABLE,
        )

    def _fetch_missing(self, name: str, observer: Observer = UNATTENDED) -> _Source:
        """Where the codec is, after downloading it if it is not here."""
        source = self._require(name)
        if source.is_here:
            return source
        assert self._weights.hub is not None, "a codec that can be downloaded"
        self._weights.hub.fetch(hub_id(name if name in CATALOG else DEFAULT_CODEC), REQUIRED_FILES, observer)
        source = self._find(name)
        if not source.is_here:
            raise ModelError(f"The codec '{name}' was downloaded incompletely.", code=ErrorCode.MODEL_INCOMPLETE)
        return source


def _read_folder(name: str, folder: Path) -> CodecSpec:
    with _report_broken(name):
        return read_spec(read_config(folder))


def _describe_checkpoint(name: str, checkpoint: CheckpointInfo, licence: str) -> _Source:
    with _report_broken(name):
        spec = make_spec(
            sample_rate=checkpoint.sample_rate,
            channels=checkpoint.channels,
            hop_length=checkpoint.codec.hop_length,
            codebooks=checkpoint.codebooks,
            cardinality=checkpoint.cardinality,
            group=2 if checkpoint.is_interleaved else 1,
        )
    return _Source(spec, licence, checkpoint=checkpoint)


def _report_broken(name: str) -> AbstractContextManager[None]:
    return report_broken(f"The codec '{name}'", _REMEDY, details={"model": name})


def _stamp_folder(folder: Path | None) -> Hashable:
    return None if folder is None else stamp_files((folder / CONFIG_FILE, find_weights(folder)))


def _missing_error(name: str) -> ModelError:
    return ModelError(
        f"The codec '{name}' is not here and cannot be downloaded: the worker is offline (HF_HUB_OFFLINE). Put its "
        "config.json and model.safetensors into a folder of that name below MODELS_DIR, or choose one that list_models "
        "shows as local.",
        code=ErrorCode.MODEL_UNAVAILABLE,
    )
