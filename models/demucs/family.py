"""Demucs as the cache and the operations see it: which models there are, what they can do, how one is loaded."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from errors import ModelError, unknown_name
from models.checkpoints.locations import WeightLocations
from models.demucs.bag import broken
from models.demucs.catalog import CATALOG, DEFAULT_MODEL
from models.demucs.folders import Files, Folders
from models.demucs.header import read_blueprint

if TYPE_CHECKING:
    from models.demucs.engine import Runtime, Separator

logger = logging.getLogger(__name__)

_FLOAT_BYTES: Final = 4
_UNKNOWN_BYTES: Final = 700_000_000
_LOCAL_NOTE: Final = "A model folder of this worker."


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a model does, known without loading it.

    Args:
        stems: in its own order; None where only its weights say so (demucs 4.0's `.th`).
        max_segment: seconds of the longest `segment`; None for no limit.
        sample_rate: in Hz.
        licence: of the weights.
    """

    stems: tuple[str, ...] | None
    max_segment: float | None
    sample_rate: int
    licence: str


class DemucsFamily:
    """The family `demucs`.

    Args:
        weights: where weights are looked for.
    """

    name = "demucs"

    def __init__(self, weights: WeightLocations) -> None:
        self._folders = Folders(weights)

    def rows(self) -> list[dict[str, Any]]:
        """`list_models`' rows, the folders looked at anew."""
        return [self._row(name) for name in self._folders.names()]

    def status(self) -> str:
        """`ready`, or what is missing."""
        missing = [package for package in ("torch", "demucs", "safetensors") if find_spec(package) is None]
        if missing:
            return f"not installed: {', '.join(missing)}"
        if self._folders.weights.hub is None and not any(map(self._is_local, CATALOG)):
            return "no model is here, and downloads are off: put one below MODELS_DIR"
        return "ready"

    def search_paths(self) -> list[str]:
        """The folders that are looked at, in order."""
        return self._folders.weights.search_paths()

    def resolve(self, name: str | None) -> str:
        """`name` if there is such a model (None: htdemucs); else `UnknownNameError`."""
        if name is None or name in CATALOG:
            return name or DEFAULT_MODEL
        if name not in (known := self._folders.names()):
            raise unknown_name("model", name, known)
        return name

    def abilities(self, name: str) -> Abilities:
        """What the model called `name` can do; reads at most a file's header."""
        if (row := CATALOG.get(name)) is not None:
            return Abilities(row.stems, row.max_segment, row.sample_rate, row.licence)
        files = self._folders.fetch(name)
        blueprints = [read_blueprint(path) for path in files.submodels if path and path.suffix == ".safetensors"]
        if not blueprints:
            return Abilities(None, None, 44_100, "unknown")
        limits = [plan.max_segment for plan in blueprints if plan.max_segment is not None]
        return Abilities(blueprints[0].stems, min(limits, default=None), blueprints[0].sample_rate, "unknown")

    def memory_bytes(self, name: str) -> int:
        """What the weights of all submodels take in float32."""
        if (row := CATALOG.get(name)) is not None:
            return row.parameters * _FLOAT_BYTES
        files = self._folders.find(name)
        sizes = [path.stat().st_size for path in files.submodels if path] if files else []
        return 2 * sum(sizes) or _UNKNOWN_BYTES

    def load(self, name: str, *, device: str) -> Separator:
        """The `Separator` of the model; a bag's submodels are fetched and loaded as stems first need them."""
        from models.demucs.engine import Runtime

        return load_separator(self._folders, name, Runtime(device))

    def fetch(self, name: str) -> None:
        """Downloads what the model still lacks, all submodels."""
        bag = self._folders.fetch(name).bag
        self._folders.fetch(name, range(len(bag.signatures)))

    def _row(self, name: str) -> dict[str, Any]:
        row = CATALOG.get(name)
        try:
            can = self.abilities(name)
            local = self._folders.is_local(name)
            available = "local" if local else self._elsewhere(name)
        except ModelError as error:
            can, available = Abilities(row.stems if row else None, None, 44_100, "unknown"), error.message
        return {
            "name": name,
            "stems": list(can.stems or ()),
            "sample_rate": can.sample_rate,
            "channels": 2,
            "max_segment_s": can.max_segment,
            "licence": can.licence,
            "about": row.note if row else _LOCAL_NOTE,
            "available": available,
        }

    def _elsewhere(self, name: str) -> str:
        if name not in CATALOG:
            return "a weights file that its yaml names is missing"
        return "download" if self._folders.weights.hub is not None else "not here, and downloads are off"

    def _is_local(self, name: str) -> bool:
        try:
            return self._folders.is_local(name)
        except ModelError:
            return False


def load_separator(folders: Folders, name: str, runtime: Runtime) -> Separator:
    """The model `name` as a `Separator`; one of a single network is loaded at once."""
    from models.demucs.engine import Model, Separator
    from models.demucs.load import load_network

    files = folders.fetch(name)

    def load(submodel: int) -> Any:
        path = folders.fetch(name, [submodel]).submodels[submodel]
        if path is None:
            raise broken("a weights file that its yaml names is missing")
        logger.info("Loading submodel %d of %s", submodel + 1, name)
        return load_network(path)

    stems, sample_rate = _facts(files, name, load)
    separator = Separator(Model(files.bag, load, stems, sample_rate), runtime)
    if len(files.bag.signatures) == 1:
        separator.prepare()
    return separator


def _facts(files: Files, name: str, load: Any) -> tuple[tuple[str, ...], int]:
    """Stems and sample rate: from the catalog, a header, or (demucs 4.0's files) the first network itself."""
    if (row := CATALOG.get(name)) is not None:
        return row.stems, row.sample_rate
    path = files.submodels[0]
    if path is not None and path.suffix == ".safetensors":
        plan = read_blueprint(path)
        return plan.stems, plan.sample_rate
    network = load(0)
    return tuple(network.sources), int(network.samplerate)
