"""What a family of models offers the engine cache and the operations, as typed values. Imports no model library."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Generic, Literal, TypeVar

from errors import ModelError
from models.demo import DemoCard
from models.runtime.progress import UNATTENDED, Observer

EngineT = TypeVar("EngineT")
InfoT = TypeVar("InfoT", bound="ModelInfo")


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether a model can be used on this worker.

    Args:
        source: `local`: its files are on this machine; `download`: they are fetched on first use; `remote`: a provider
            runs it; None: it cannot be used.
        reason: why it cannot be used; empty if it can.
    """

    source: Literal["local", "download", "remote"] | None
    reason: str = ""

    @property
    def is_usable(self) -> bool:
        return self.source is not None

    def to_json(self) -> str:
        """The value of `available` in a reply of list_models: the source, or the reason."""
        return self.source or self.reason


LOCAL = Availability("local")
DOWNLOAD = Availability("download")
REMOTE = Availability("remote")


def unavailable(reason: str) -> Availability:
    """The availability of a model that cannot be used because of `reason`."""
    return Availability(None, reason)


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether a family or an operation can work.

    Args:
        reason: why it cannot; empty if it can.
        is_demo: it can, and a request that names no model is answered by a demo model.
    """

    reason: str = ""
    is_demo: bool = False

    @property
    def is_ready(self) -> bool:
        return not self.reason

    def to_json(self) -> str:
        """The value in a reply of health_check: `ready`, `ready (demo)`, or the reason."""
        return self.reason or ("ready (demo)" if self.is_demo else "ready")


READY = Readiness()
READY_AS_DEMO = Readiness(is_demo=True)


def choose_readiness(found: Sequence[Readiness]) -> Readiness:
    """The readiness of what one of several families can do: ready if one is, else by its demo, else the first's."""
    ready = [one for one in found if one.is_ready]
    return next((one for one in ready if not one.is_demo), (ready or found)[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo(ABC):
    """What is known of a model without loading it; each family adds its own fields.

    Args:
        name: as a request gives it.
        availability: whether it can be used here.
        download_bytes: about what its first use downloads; 0: nothing, or it is not known.
    """

    name: str
    availability: Availability
    download_bytes: int = 0

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """The model's row in a reply of list_models."""


def describe_each(
    names: Iterable[str], describe: Callable[[str], InfoT], report: Callable[[str, Availability], InfoT]
) -> list[InfoT]:
    """The row of every model: from `describe`, or from `report`, with the reason, if its files are broken."""
    rows = []
    for name in names:
        try:
            rows.append(describe(name))
        except ModelError as error:
            rows.append(report(name, unavailable(error.message)))
    return rows


FileStamp = tuple[Path, int, int, int]


def stamp_file(path: Path) -> FileStamp | None:
    """Path, inode, time of change and size in bytes of a file; None if it does not exist."""
    try:
        status = path.stat()
    except OSError:
        return None
    return path, status.st_ino, status.st_mtime_ns, status.st_size


def stamp_files(paths: Iterable[Path]) -> tuple[FileStamp, ...]:
    """A value that changes whenever one of the files does, for `ModelFamily.version_key`; files that are gone are left
    out, because reading them is the error."""
    return tuple(stamp for path in paths if (stamp := stamp_file(path)) is not None)


class ModelFamily(ABC, Generic[EngineT]):
    """Models that are found, described and loaded in one way. Everything but `load` answers at once, without torch.

    Attributes:
        name: as PRELOAD and `loaded_models` spell it, `<name>/<model>`.
        downloadable: whether `download` can fetch models.
        demos: its demo models by name, whether their files are here or not.
    """

    name: str
    downloadable: ClassVar[bool] = False
    demos: Mapping[str, DemoCard] = MappingProxyType({})

    @abstractmethod
    def list_models(self) -> Sequence[ModelInfo]:
        """Every model that can be named in a request; looks at the folders anew at each call."""

    @abstractmethod
    def readiness(self) -> Readiness:
        """Whether the family can work at all."""

    def judge_local(self, names: Sequence[str], *, otherwise: Readiness) -> Readiness:
        """The readiness of a family with these models on the worker: a demo model alone is less than a real one."""
        if any(self.find_demo(name) is None for name in names):
            return READY
        return READY_AS_DEMO if names else otherwise

    def find_demo(self, name: str) -> DemoCard | None:
        """What is known of a model as a demo model; None: it is a real one."""
        return self.demos.get(name)

    @abstractmethod
    def search_paths(self) -> Sequence[str]:
        """The folders in which files are looked for, in order."""

    @abstractmethod
    def resolve(self, name: str | None) -> ModelHandle[EngineT]:
        """The model called `name`; None: the default. Reads at most headers of files.

        Raises:
            UnknownNameError: there is no such model.
            ModelError: it cannot be used here.
        """

    @abstractmethod
    def memory_bytes(self, name: str) -> int:
        """Estimate, before loading, of the device memory that the engine will take."""

    @abstractmethod
    def load(self, name: str, *, device: str) -> EngineT:
        """Loads the engine onto `device` (`cpu`, `cuda` or `mps`), after downloading what is missing."""

    def engine_bytes(self, engine: EngineT) -> int | None:
        """Device memory that a loaded engine takes now; None: the estimate of `memory_bytes` stands."""
        return None

    def needs_restart(self, engine: EngineT) -> bool:
        """Whether the engine has left the process in a state that only a restart mends: a CUDA graph whose capture
        failed, after which torch never frees cached memory again. The worker then restarts after the job."""
        return False

    def free_memory(self, engine: EngineT) -> None:
        """Drops what a loaded engine keeps besides its weights, such as buffers that make the next call faster.

        Called with the device held, when memory did not suffice.
        """

    def version_key(self, name: str) -> Hashable:
        """Changes when the model's files do; an engine that was loaded under another key is not used any more."""
        return None

    def warm_up(self, engine: EngineT) -> None:
        """Runs the engine once on a small input, so that the first job does not wait for kernels to be loaded, chosen
        and captured. `PRELOAD` calls it, with the device held; the engine must give the same results afterwards.
        """

    def download(self, name: str, observer: Observer = UNATTENDED) -> None:
        """Downloads every file of the model that is missing; nothing for a family whose models are always local.

        Args:
            name: canonical.
            observer: is told of the bytes that have arrived; what its `check` raises ends the wait for them.

        Raises:
            ModelError: the files cannot be had.
        """


@dataclass(frozen=True, slots=True)
class ModelHandle(Generic[EngineT]):
    """A model that `ModelFamily.resolve` found: what `Models.run` takes.

    Args:
        family: loads the engine.
        name: canonical.
        warnings: sentences for the reply: what was in the way of a better default.
    """

    family: ModelFamily[EngineT]
    name: str
    warnings: tuple[str, ...] = field(default=(), compare=False)

    @property
    def demo(self) -> DemoCard | None:
        """What is known of it as a demo model; None: it is a real one."""
        return self.family.find_demo(self.name)

    def __str__(self) -> str:
        return f"{self.family.name}/{self.name}"


def choose_default(candidates: Iterable[tuple[str, ModelError | None]]) -> tuple[str, tuple[str, ...]] | None:
    """Chooses the model of a request that names none. Files that are here but cannot be used are never passed over
    silently.

    Args:
        candidates: the models whose files are here, the best first, each with the error that using it would raise.

    Returns:
        The first that can be used, and a warning for each one before it; None if there are no candidates.

    Raises:
        ModelError: there are candidates, and none can be used; the message names the first.
    """
    refused: list[tuple[str, ModelError]] = []
    for name, error in candidates:
        if error is None:
            return name, tuple(
                f"The model '{better}' is here but cannot be used, so '{name}' was used: {why.message}"
                for better, why in refused
            )
        refused.append((name, error))
    if not refused:
        return None
    name, error = refused[0]
    raise ModelError(
        f"The request names no model, and the best one here, '{name}', cannot be used: {error.message} Or name another "
        "model; list_models shows them.",
        code=error.error_code,
        details={**error.details, "model": name},
    ) from error
