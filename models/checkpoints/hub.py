"""Downloads files from the Hugging Face hub, through its own client. Importable without torch."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from errors import ErrorCode, ModelError
from models.checkpoints.downloads import RETRY_S, Download, Downloads, choose_cache, measure_free_bytes
from models.checkpoints.hub_errors import to_model_error
from models.runtime.progress import UNATTENDED, Observer

logger = logging.getLogger(__name__)

VOLUME_CACHE = Path("huggingface-cache") / "hub"  # below a volume: where RunPod mounts cached models
NEWEST = "main"
PROBE_TIMEOUT_S, PROBE_LIFETIME_S = 3.0, 60.0
TIMEOUT_S = 20.0  # of the request for the list of files


@dataclass(frozen=True, slots=True)
class HubRepository:
    """What a repository holds.

    Args:
        commit: of the listed revision.
        sizes: bytes of each file, by its name; 0: not known.
    """

    commit: str
    sizes: Mapping[str, int]


class Hub(Protocol):
    """Fetches files of a repository into the local cache."""

    def fetch(self, hub_id: str, files: Sequence[str], observer: Observer = UNATTENDED) -> Path:
        """Returns the folder with the files; raises `ModelError` if they cannot be downloaded.

        Args:
            hub_id: the repository.
            files: names; `a|b`: the first of the two that the repository has; `a?`: only if the repository has it.
            observer: is told how many bytes have arrived; what its `check` raises ends the wait.
        """


class ListingHub(Protocol):
    """Lists the files of a repository that a request names, and fetches some of one revision."""

    def list_files(self, hub_id: str, observer: Observer = UNATTENDED) -> HubRepository:
        """Returns what the newest revision holds; raises as `fetch`."""

    def fetch(
        self, hub_id: str, files: Sequence[str], observer: Observer = UNATTENDED, *, revision: str | None = None
    ) -> Path:
        """As `Hub.fetch`.

        Args:
            revision: a commit; None: the pinned one, else the newest.
        """

    def find_cached(self, hub_id: str, commit: str, files: Sequence[str]) -> Path | None:
        """Returns the folder with the files of a commit if all of them are here."""


@dataclass(frozen=True)
class _File:
    name: str
    size: int


@dataclass
class HuggingFaceHub:
    """The Hugging Face hub.

    Args:
        cache: the hub cache that files go to; None: the one on the first of `volumes` that is mounted, can be written
            and has room, else the client's own.
        volumes: folders on which volumes may be mounted.
        revisions: the commit that is downloaded, by repository; of others, the newest.
        endpoint: address of the hub; None: the client's own.
        free_bytes: measures the free space of the disk that holds a folder.
        retry_s: seconds before the second attempt; twice as long before the third.
    """

    cache: Path | None = None
    volumes: Sequence[Path] = ()
    revisions: Mapping[str, str] = field(default_factory=dict)
    endpoint: str | None = None
    free_bytes: Callable[[Path], int] = measure_free_bytes
    retry_s: float = RETRY_S
    _probe: tuple[float, bool] | None = field(default=None, repr=False)
    _downloads: Downloads = field(default_factory=lambda: Downloads(to_model_error))

    def fetch(
        self, hub_id: str, files: Sequence[str], observer: Observer = UNATTENDED, *, revision: str | None = None
    ) -> Path:
        wanted = tuple(files)

        def work(download: Download[Path]) -> Path:
            return self._download(hub_id, wanted, revision, download)

        key = (hub_id, wanted, revision)
        return self._downloads.run(hub_id, key, work, retry_s=self.retry_s, observer=observer)

    def list_files(self, hub_id: str, observer: Observer = UNATTENDED) -> HubRepository:
        def work(download: Download[HubRepository]) -> HubRepository:
            return self._list(hub_id, None)

        return self._downloads.run(hub_id, (hub_id,), work, retry_s=self.retry_s, observer=observer)

    def is_reachable(self) -> bool:
        """Whether the hub answers, whatever it answers; what was found is believed for a minute."""
        now = time.monotonic()
        if self._probe is None or now - self._probe[0] > PROBE_LIFETIME_S:
            self._probe = (now, self._ask())
        return self._probe[1]

    def _ask(self) -> bool:
        import requests
        from huggingface_hub.constants import ENDPOINT

        try:
            requests.head(self.endpoint or ENDPOINT, timeout=PROBE_TIMEOUT_S)
        except requests.RequestException as error:
            logger.info("The Hugging Face hub cannot be reached: %s", type(error).__name__)
            return False
        return True

    def find_cached(self, hub_id: str, commit: str, files: Sequence[str]) -> Path | None:
        from huggingface_hub.file_download import repo_folder_name

        name = repo_folder_name(repo_id=hub_id, repo_type="model")
        folders = (cache / name / "snapshots" / commit for cache in self._list_caches())
        return next((folder for folder in folders if all((folder / file).is_file() for file in files)), None)

    def _list(self, hub_id: str, revision: str | None) -> HubRepository:
        from huggingface_hub import HfApi

        revision = revision or self.revisions.get(hub_id, NEWEST)
        info = HfApi(endpoint=self.endpoint).model_info(
            hub_id, revision=revision, files_metadata=True, timeout=TIMEOUT_S
        )
        sizes = {sibling.rfilename: sibling.size or 0 for sibling in info.siblings or ()}
        return HubRepository(info.sha or revision, sizes)

    def _download(self, hub_id: str, files: tuple[str, ...], revision: str | None, download: Download[Path]) -> Path:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.file_download import repo_folder_name

        repository = self._list(hub_id, revision)
        commit = repository.commit
        wanted = _choose_files(hub_id, files, repository.sizes)
        name = repo_folder_name(repo_id=hub_id, repo_type="model")

        def find_missing(cache: Path) -> list[_File]:
            snapshot = cache / name / "snapshots" / commit
            return [file for file in wanted if not (snapshot / file.name).exists()]

        cache = choose_cache(
            hub_id,
            self._list_caches(),
            Path(name, "blobs"),
            measure_missing=lambda cache: sum(file.size for file in find_missing(cache)),
            free_bytes=self.free_bytes,
        )
        missing = sorted(find_missing(cache), key=lambda file: file.size)
        download.total_bytes = max(download.total_bytes, sum(file.size for file in missing))
        download.done_bytes = download.total_bytes - sum(file.size for file in missing)
        logger.info("Downloading %s (%s): %.0f MB", hub_id, commit, download.total_bytes / 1e6)
        for file in missing:  # the largest last, so that a folder with a model's main file has all of its files
            hf_hub_download(
                hub_id,
                file.name,
                revision=commit,
                cache_dir=cache,
                endpoint=self.endpoint,
                tqdm_class=_count_into(download),
            )
        return cache / name / "snapshots" / commit

    def _list_caches(self) -> list[Path]:
        return list_caches(self.cache, self.volumes)


def list_caches(cache: Path | None, volumes: Sequence[Path]) -> list[Path]:
    """The hub caches that downloads may go to, in order, as `HuggingFaceHub` takes them."""
    from huggingface_hub import constants

    if cache is not None:
        return [cache]
    return [*(volume / VOLUME_CACHE for volume in volumes if volume.is_dir()), Path(constants.HF_HUB_CACHE)]


def _choose_files(hub_id: str, wanted: Sequence[str], sizes: Mapping[str, int]) -> list[_File]:
    """Which of the repository's files are downloaded; raises `ModelError` if it lacks one that is needed."""
    chosen = []
    for need in wanted:
        names = need.rstrip("?").split("|")
        name = next((name for name in names if name in sizes), None)
        if name is not None:
            chosen.append(_File(name, sizes[name]))
        elif not need.endswith("?"):
            raise ModelError(
                f"The repository '{hub_id}' on the hub has no file {' or '.join(names)}, which the model needs. Put "
                "the model's files into a folder below MODELS_DIR.",
                code=ErrorCode.MODEL_INCOMPLETE,
                details={"hub_id": hub_id, "file": names[0]},
            )
    return chosen


def _count_into(download: Download[Path]) -> type[Any]:
    """A stand-in for the client's progress bars, which prints nothing and adds the bytes to `download`."""

    class Counter:
        """What the client calls of tqdm: `update` for bytes on disk, `update_transfer` for bytes on the network."""

        total = 0

        def __init__(self, *arguments: object, initial: int = 0, **options: object) -> None:
            self.update(initial)

        def __enter__(self) -> Counter:
            return self

        def __exit__(self, *error: object) -> None: ...

        def update(self, count: float | None = 1) -> None:
            download.count(int(count or 0))

        def update_transfer(self, count: float | None = 1) -> None: ...

        def set_postfix_str(self, text: str, refresh: bool = False) -> None: ...

        def set_transfer_postfix_str(self, text: str, refresh: bool = False) -> None: ...

        def refresh(self) -> None: ...

        def close(self) -> None: ...

    return Counter
