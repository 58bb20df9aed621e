"""Downloads files from the Hugging Face hub, through its own client. Importable without torch.

A download runs in a thread of its own, which the job polls: a job that is cancelled leaves at once, and the download
goes on for the next job that needs the files. It ends with the process; the client then starts the file again.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from errors import ErrorCode, ModelError
from models.checkpoints.hub_errors import find_cause, may_pass, to_model_error
from models.runtime.progress import UNATTENDED, Observer

logger = logging.getLogger(__name__)

VOLUME_CACHE = Path("huggingface-cache") / "hub"  # below a volume: where RunPod mounts cached models
NEWEST = "main"
POLL_S = 0.05
ATTEMPTS = 3
RETRY_S = 1.0
TIMEOUT_S = 20.0  # of the request for the list of files
ABANDONED_S = 3600.0  # age of a partial file that nobody writes any more


class Hub(Protocol):
    """Fetches files of a repository into the local cache."""

    def fetch(self, hub_id: str, files: Sequence[str], observer: Observer = UNATTENDED) -> Path:
        """Returns the folder with the files; raises `ModelError` if they cannot be downloaded.

        Args:
            hub_id: the repository.
            files: names; `a|b`: the first of the two that the repository has; `a?`: only if the repository has it.
            observer: is told how many bytes have arrived; what its `check` raises ends the wait.
        """


@dataclass
class _Download:
    """Files of one repository on their way: sizes in bytes, and in the end the folder or what ended the `with` block.

    The thread that downloads enters it; jobs wait for `done`, then call `result`.
    """

    done_bytes: int = 0
    total_bytes: int = 0
    folder: Path | None = None
    error: BaseException | None = None
    done: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        self.error = error
        self.done.set()
        return True

    def result(self) -> Path:
        """The folder with the files; raises what ended the download."""
        if self.error is not None:
            raise self.error
        assert self.folder is not None, "a download ends with a folder or an error"
        return self.folder


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
    free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free
    retry_s: float = RETRY_S
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _downloads: dict[tuple[str, tuple[str, ...]], _Download] = field(default_factory=dict)

    def fetch(self, hub_id: str, files: Sequence[str], observer: Observer = UNATTENDED) -> Path:
        download = self._join_or_start(hub_id, tuple(files))
        reported = -1
        while not download.done.wait(POLL_S):
            observer.check()
            if download.total_bytes and download.done_bytes != reported:
                reported = download.done_bytes
                observer.report_download(hub_id, reported, download.total_bytes)
        return download.result()

    def _join_or_start(self, hub_id: str, files: tuple[str, ...]) -> _Download:
        """The download of these files that is running; a new one if there is none."""
        with self._lock:
            download = self._downloads.get((hub_id, files))
            if download is None or download.done.is_set():
                download = self._downloads[hub_id, files] = _Download()
                # A daemon: the worker does not wait for it at its end, which an executor's threads would make it do.
                run = threading.Thread(
                    target=self._run, args=(hub_id, files, download), name=f"download {hub_id}", daemon=True
                )
                run.start()
            return download

    def _run(self, hub_id: str, files: tuple[str, ...], download: _Download) -> None:
        with download:
            started = time.monotonic()
            download.folder = self._download_with_retries(hub_id, files, download)
            seconds = time.monotonic() - started
            logger.info("Downloaded %s: %.0f MB in %.1f s", hub_id, download.total_bytes / 1e6, seconds)

    def _download_with_retries(self, hub_id: str, files: tuple[str, ...], download: _Download) -> Path:
        import httpx2

        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._download(hub_id, files, download)
            except (OSError, RuntimeError, httpx2.HTTPError) as error:  # RuntimeError: hf_xet's
                cause = find_cause(error)
                if attempt == ATTEMPTS or not may_pass(cause):
                    logger.warning("Downloading %s failed: %s", hub_id, type(cause).__name__)
                    raise to_model_error(cause, hub_id) from error
                logger.warning("Downloading %s failed (%s); trying again", hub_id, type(cause).__name__)
            time.sleep(self.retry_s * attempt)
        raise AssertionError("the last attempt returns or raises")

    def _download(self, hub_id: str, files: tuple[str, ...], download: _Download) -> Path:
        from huggingface_hub import HfApi, hf_hub_download
        from huggingface_hub.file_download import repo_folder_name

        revision = self.revisions.get(hub_id, NEWEST)
        info = HfApi(endpoint=self.endpoint).model_info(
            hub_id, revision=revision, files_metadata=True, timeout=TIMEOUT_S
        )
        commit = info.sha or revision
        sizes = {sibling.rfilename: sibling.size or 0 for sibling in info.siblings or ()}
        wanted = _choose_files(hub_id, files, sizes)
        name = repo_folder_name(repo_id=hub_id, repo_type="model")
        cache = self._choose_cache(hub_id, name, commit, wanted)
        folder = cache / name / "snapshots" / commit
        missing = sorted((file for file in wanted if not (folder / file.name).exists()), key=lambda file: file.size)
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
        return folder

    def _choose_cache(self, hub_id: str, name: str, commit: str, files: Sequence[_File]) -> Path:
        """The first cache that can be written and has room for what it lacks; removes abandoned partial files there.

        Raises:
            ModelError: `disk_full`: none has room. `model_unavailable`: none can be written.
        """
        full: ModelError | None = None
        for cache in self._list_caches():
            try:
                blobs = cache / name / "blobs"
                blobs.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=blobs):  # raises if the folder cannot be written
                    _remove_abandoned(blobs)
                free = self.free_bytes(blobs)
            except OSError:
                logger.info("%s cannot be written", cache)
                continue
            needed = sum(file.size for file in files if not (cache / name / "snapshots" / commit / file.name).exists())
            if free >= needed:
                return cache
            full = full or _disk_full_error(hub_id, cache, needed, free)
        raise full or ModelError(
            f"'{hub_id}' cannot be downloaded: no folder for it can be written. Mount a volume that the worker's user "
            "may write to, or set HF_HUB_CACHE to such a folder.",
            details={"hub_id": hub_id},
        )

    def _list_caches(self) -> list[Path]:
        from huggingface_hub import constants

        if self.cache is not None:
            return [self.cache]
        return [*(volume / VOLUME_CACHE for volume in self.volumes if volume.is_dir()), Path(constants.HF_HUB_CACHE)]


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


def _count_into(download: _Download) -> type[Any]:
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
            download.done_bytes = min(download.done_bytes + int(count or 0), download.total_bytes)

        def update_transfer(self, count: float | None = 1) -> None: ...

        def set_postfix_str(self, text: str, refresh: bool = False) -> None: ...

        def set_transfer_postfix_str(self, text: str, refresh: bool = False) -> None: ...

        def refresh(self) -> None: ...

        def close(self) -> None: ...

    return Counter


def _remove_abandoned(blobs: Path) -> None:
    """Removes partial files that a worker left behind when it was killed; the client never resumes them."""
    for path in blobs.glob("*.incomplete"):
        if time.time() - path.stat().st_mtime > ABANDONED_S:
            path.unlink(missing_ok=True)
            logger.info("Removed an abandoned partial download of %s", blobs.parent.name)


def _disk_full_error(hub_id: str, cache: Path, needed: int, free: int) -> ModelError:
    return ModelError(
        f"'{hub_id}' needs {needed / 1e6:.0f} MB in {cache}, which has {free / 1e6:.0f} MB free. Free space there, "
        "mount a larger volume, or set HF_HUB_CACHE to a folder on another disk.",
        code=ErrorCode.DISK_FULL,
        details={"hub_id": hub_id, "place": str(cache), "needed_bytes": needed, "free_bytes": free},
    )
