"""Downloads the files of a GitHub release whose SHA-256 is on record. Importable without torch.

A file that arrives is compared with its SHA-256 before it gets its name, so whatever answers can only fail.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from errors import ErrorCode, ModelError
from models.checkpoints.downloads import PARTIAL, RETRY_S, Download, Downloads, choose_cache, measure_free_bytes
from models.checkpoints.hub import list_caches
from models.checkpoints.hub_errors import is_disk_full
from models.runtime.progress import UNATTENDED, Observer

logger = logging.getLogger(__name__)

FOLDER = "releases"  # below a hub cache; in it, a folder for each model
GITHUB = "https://github.com"
TIMEOUT_S = 20.0  # without a byte
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """A file as it was published.

    Args:
        size: in bytes.
        sha256: of its content, in hexadecimal digits.
    """

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Release:
    """A release on GitHub.

    Args:
        repository: `<owner>/<name>`.
        tag: of the release.
    """

    repository: str
    tag: str

    @property
    def page(self) -> str:
        """Its address."""
        return f"{GITHUB}/{self.repository}/releases/tag/{self.tag}"


class Releases(Protocol):
    """Fetches files of a release into a folder of a model's own."""

    def fetch(
        self, model: str, release: Release, files: Sequence[PublishedFile], observer: Observer = UNATTENDED
    ) -> Path:
        """Returns the folder with the files; raises `ModelError` if they cannot be downloaded.

        Args:
            model: its name, which is that of the folder.
            observer: is told how many bytes have arrived; what its `check` raises ends the wait.
        """


class WrongContentError(OSError):
    """What arrived is not the file that was published."""


@dataclass
class GitHubReleases:
    """Releases on GitHub.

    Args:
        cache, volumes, free_bytes, retry_s: as `HuggingFaceHub` takes them.
        endpoint: address of GitHub.
    """

    cache: Path | None = None
    volumes: Sequence[Path] = ()
    endpoint: str = GITHUB
    free_bytes: Callable[[Path], int] = measure_free_bytes
    retry_s: float = RETRY_S
    _downloads: Downloads = field(default_factory=lambda: Downloads(to_model_error))

    def fetch(
        self, model: str, release: Release, files: Sequence[PublishedFile], observer: Observer = UNATTENDED
    ) -> Path:
        wanted = tuple(files)

        def work(download: Download[Path]) -> Path:
            return self._download(model, release, wanted, download)

        return self._downloads.run(model, (model, wanted), work, retry_s=self.retry_s, observer=observer)

    def _download(
        self, model: str, release: Release, files: tuple[PublishedFile, ...], download: Download[Path]
    ) -> Path:
        part = Path(FOLDER, model)

        def find_missing(cache: Path) -> list[PublishedFile]:
            return [file for file in files if not (cache / part / file.name).is_file()]

        cache = choose_cache(
            model,
            list_caches(self.cache, self.volumes),
            part,
            measure_missing=lambda cache: sum(file.size for file in find_missing(cache)),
            free_bytes=self.free_bytes,
        )
        missing = sorted(find_missing(cache), key=lambda file: file.size)
        download.total_bytes = max(download.total_bytes, sum(file.size for file in missing))
        download.done_bytes = download.total_bytes - sum(file.size for file in missing)
        for file in missing:  # the largest last, so that a folder with the weights has all files
            url = f"{self.endpoint}/{release.repository}/releases/download/{release.tag}/{file.name}"
            _download_file(url, file, cache / part, download)
        return cache / part


def _download_file(url: str, file: PublishedFile, folder: Path, download: Download[Path]) -> None:
    """Writes one file into the folder, under its name only when it is complete and checked."""
    import httpx2

    descriptor, partial = tempfile.mkstemp(prefix=f"{file.name}.", suffix=PARTIAL, dir=folder)
    digest, received = hashlib.sha256(), 0
    try:
        with (
            os.fdopen(descriptor, "wb") as target,
            httpx2.stream("GET", url, follow_redirects=True, timeout=TIMEOUT_S) as response,
        ):
            response.raise_for_status()
            for chunk in response.iter_bytes(_CHUNK_BYTES):
                received += len(chunk)
                if received > file.size:
                    break
                digest.update(chunk)
                target.write(chunk)
                download.count(len(chunk))
            target.flush()
            os.fsync(target.fileno())
        if received != file.size or digest.hexdigest() != file.sha256:
            raise WrongContentError(f"{received} bytes that are not those of {file.name}")
        os.chmod(partial, 0o644)  # as other workers on the volume run as other users
        os.replace(partial, folder / file.name)
    finally:
        Path(partial).unlink(missing_ok=True)


def to_model_error(error: BaseException, model: str) -> ModelError:
    """The error for the caller: what failed, and what to do."""
    import httpx2

    if is_disk_full(error):
        return ModelError(
            f"The disk became full while '{model}' was downloaded. Free space on the volume or mount a larger one, or "
            "set HF_HUB_CACHE to a folder on another disk.",
            code=ErrorCode.DISK_FULL,
            details={"model": model},
        )
    status = error.response.status_code if isinstance(error, httpx2.HTTPStatusError) else None
    kinds: tuple[tuple[type[BaseException], str], ...] = (
        (WrongContentError, "what arrived is not the file that was published"),
        (httpx2.HTTPStatusError, f"github.com answered with HTTP {status}"),
        (httpx2.TimeoutException, "github.com did not answer in time"),
        (httpx2.TransportError, "github.com cannot be reached, or it cut the connection"),
    )
    reason = next((text for kind, text in kinds if isinstance(error, kind)), "it could not be stored")
    return ModelError(
        f"'{model}' is not on this worker and could not be downloaded: {reason} ({type(error).__name__}). Try again "
        "later, or put its files into a folder below MODELS_DIR.",
        details={"model": model} | ({} if status is None else {"http_status": status}),
    )
