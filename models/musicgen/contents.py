"""What the files of a checkpoint folder hold, seen without torch and kept while they stay as they are."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from errors import ErrorCode, ModelError
from models.checkpoints.locations import LM_FILE
from models.musicgen.peek import UnreadableCheckpointError, UnsafeCheckpointError, peek


@dataclass(frozen=True, eq=False)
class Contents:
    """What lies in a torch file; not to be changed, since it is kept.

    Args:
        package: shapes in place of tensors.
    """

    package: Mapping[str, Any]

    @functools.cached_property
    def settings(self) -> Mapping[str, Any]:
        """`xp.cfg` as plain values; raises `ValueError` or `TypeError` where there are none."""
        return _plain(self.package.get("xp.cfg"))


@functools.lru_cache(maxsize=32)
def _peeked(path: Path, stamp: tuple[int, int, int]) -> Contents:
    """Kept while the file stays as it is: a request asks several times, at 10 to 30 ms each."""
    return Contents(peek(path))


def read_contents(folder: Path, file: str) -> Contents:
    """Of a checkpoint's file; raises `ModelError` where it is missing, broken, or carries code."""
    if not (folder / file).is_file():
        raise broken(folder, file, "it is missing")
    status = (folder / file).stat()
    try:
        return _peeked(folder / file, (status.st_ino, status.st_mtime_ns, status.st_size))
    except UnsafeCheckpointError as error:
        raise ModelError(
            f"The checkpoint '{_label(folder)}' is refused: its {file} carries code ({error}), and only tensors and "
            "settings are loaded. Export it again with audiocraft.utils.export.",
            code=ErrorCode.UNSAFE_CHECKPOINT,
        ) from error
    except UnreadableCheckpointError as error:
        raise broken(folder, file, str(error)) from error


def settings_of(contents: Contents, folder: Path, file: str) -> Mapping[str, Any]:
    """Of a file that was read; raises `ModelError` where it has none."""
    try:
        return contents.settings
    except (ValueError, TypeError) as error:
        raise broken(folder, file, "its settings ('xp.cfg') cannot be read") from error


def _plain(config: Any) -> Mapping[str, Any]:
    """From YAML (as exported) or omegaconf (as older exports have it)."""
    import yaml  # type: ignore[import-untyped]

    if isinstance(config, str) and "${" not in config:
        try:
            config = yaml.safe_load(config)
        except yaml.YAMLError as error:
            raise ValueError("no YAML") from error
    elif config is not None:
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException

        try:
            config = OmegaConf.to_container(OmegaConf.create(config), resolve=True)
        except (OmegaConfBaseException, yaml.YAMLError) as error:
            raise ValueError("no settings") from error
    if not isinstance(config, Mapping):
        raise ValueError("no mapping")
    return config


def get(settings: Mapping[str, Any], path: str) -> Any:
    """The setting at a dotted path; None where there is none."""
    value: Any = settings
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def need(settings: Mapping[str, Any], path: str, folder: Path, file: str = LM_FILE) -> Any:
    """The number above zero at a dotted path; raises `ModelError` where there is none."""
    value = get(settings, path)
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise broken(folder, file, f"its settings lack '{path}'")
    return value


def broken(folder: Path, part: str, why: str) -> ModelError:
    """The error of a checkpoint with a part that cannot be used."""
    return ModelError(
        f"The checkpoint '{_label(folder)}' cannot be used. Part {part}: {why}.",
        code=ErrorCode.BROKEN_CHECKPOINT,
        details={"part": part},
    )


def _label(folder: Path) -> str:
    """The folder's name; the repository's for a snapshot in a hub cache."""
    return folder.parent.parent.name if folder.parent.name == "snapshots" else folder.name
