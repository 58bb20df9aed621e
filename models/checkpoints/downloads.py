"""Downloads that run in threads of their own, which jobs wait for, and the cache folder that files go to. No torch.

A job that is cancelled leaves at once, and the download goes on for the next job that needs the files. It ends with the
process.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from errors import ErrorCode, ModelError
from models.checkpoints.hub_errors import find_cause, may_pass
from models.runtime.progress import UNATTENDED, Observer

logger = logging.getLogger(__name__)

POLL_S = 0.05
ATTEMPTS = 3
RETRY_S = 1.0
ABANDONED_S = 3600.0  # age of a partial file that nobody writes any more
PARTIAL = ".incomplete"  # the end of a partial file's name

ResultT = TypeVar("ResultT")


def measure_free_bytes(folder: Path) -> int:
    """Measures the free space of the disk that holds a folder."""
    return shutil.disk_usage(folder).free


@dataclass
class Download(Generic[ResultT]):
    """Something on its way: sizes in bytes, and in the end the result or what ended the `with` block.

    The thread that downloads enters it; jobs wait for `done`, then call `get`.
    """

    done_bytes: int = 0
    total_bytes: int = 0
    results: list[ResultT] = field(default_factory=list)
    error: BaseException | None = None
    done: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        self.error = error
        self.done.set()
        return True

    def count(self, received: int) -> None:
        """Adds bytes that have arrived."""
        self.done_bytes = min(self.done_bytes + received, self.total_bytes)

    def get(self) -> ResultT:
        """The result; raises what ended the download."""
        if self.error is not None:
            raise self.error
        return self.results[0]


class Downloads:
    """The downloads from one source that are running.

    Args:
        explain: makes the error for the caller from what failed and the name of what was downloaded.
    """

    def __init__(self, explain: Callable[[BaseException, str], ModelError]) -> None:
        self._explain = explain
        self._lock = threading.Lock()
        self._running: dict[Hashable, Download[Any]] = {}

    def run(
        self,
        name: str,
        key: Hashable,
        work: Callable[[Download[ResultT]], ResultT],
        *,
        retry_s: float = RETRY_S,
        observer: Observer = UNATTENDED,
    ) -> ResultT:
        """Waits for the download `key`, which is started unless it is running, and returns its result.

        Args:
            name: of what is downloaded, for the log and the observer.
            work: downloads it; called again if it fails in a way that may pass.
            retry_s: seconds before the second attempt; twice as long before the third.
            observer: is told how many bytes have arrived; what its `check` raises ends the wait.
        """
        download = self._join_or_start(name, key, work, retry_s)
        reported = -1
        while not download.done.wait(POLL_S):
            observer.check()
            if download.total_bytes and download.done_bytes != reported:
                reported = download.done_bytes
                observer.report_download(name, reported, download.total_bytes)
        return download.get()

    def _join_or_start(
        self, name: str, key: Hashable, work: Callable[[Download[ResultT]], ResultT], retry_s: float
    ) -> Download[ResultT]:
        with self._lock:
            download = self._running.get(key)
            if download is None or download.done.is_set():
                download = self._running[key] = Download()
                # A daemon: the worker does not wait for it at its end, which an executor's threads would make it do.
                run = threading.Thread(
                    target=self._run, args=(name, download, work, retry_s), name=f"download {name}", daemon=True
                )
                run.start()
            return download

    def _run(
        self, name: str, download: Download[ResultT], work: Callable[[Download[ResultT]], ResultT], retry_s: float
    ) -> None:
        with download:
            started = time.monotonic()
            download.results.append(self._try(name, download, work, retry_s))
            seconds = time.monotonic() - started
            logger.info("Downloaded %s: %.0f MB in %.1f s", name, download.total_bytes / 1e6, seconds)

    def _try(
        self, name: str, download: Download[ResultT], work: Callable[[Download[ResultT]], ResultT], retry_s: float
    ) -> ResultT:
        import httpx2

        for attempt in range(1, ATTEMPTS + 1):
            try:
                return work(download)
            except (OSError, RuntimeError, httpx2.HTTPError) as error:  # RuntimeError: hf_xet's
                cause = find_cause(error)
                if attempt == ATTEMPTS or not may_pass(cause):
                    logger.warning("Downloading %s failed: %s", name, type(cause).__name__)
                    raise self._explain(cause, name) from error
                logger.warning("Downloading %s failed (%s); trying again", name, type(cause).__name__)
            time.sleep(retry_s * attempt)
        raise AssertionError("the last attempt returns or raises")


def choose_cache(
    name: str,
    caches: Sequence[Path],
    part: Path,
    *,
    measure_missing: Callable[[Path], int],
    free_bytes: Callable[[Path], int] = measure_free_bytes,
) -> Path:
    """The first cache that can be written and has room for what it lacks; removes abandoned partial files there.

    Args:
        name: of what is downloaded.
        caches: in order.
        part: the folder below a cache that partial files are written to; created.
        measure_missing: the bytes that a cache lacks.
        free_bytes: measures the free space of the disk that holds a folder.

    Raises:
        ModelError: `disk_full`: none has room. `model_unavailable`: none can be written.
    """
    full: ModelError | None = None
    for cache in caches:
        folder = cache / part
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):  # raises if the folder cannot be written
                _remove_abandoned(folder)
            free = free_bytes(folder)
        except OSError:
            logger.info("%s cannot be written", cache)
            continue
        needed = measure_missing(cache)
        if free >= needed:
            return cache
        full = full or _disk_full_error(name, cache, needed, free)
    raise full or ModelError(
        f"'{name}' cannot be downloaded: no folder for it can be written. Mount a volume that the worker's user "
        "may write to, or set HF_HUB_CACHE to such a folder.",
        details={"hub_id": name},
    )


def _remove_abandoned(folder: Path) -> None:
    """Removes partial files that a worker left behind when it was killed; they are never resumed."""
    for path in folder.glob(f"*{PARTIAL}"):
        if time.time() - path.stat().st_mtime > ABANDONED_S:
            path.unlink(missing_ok=True)
            logger.info("Removed an abandoned partial download of %s", folder.parent.name)


def _disk_full_error(name: str, cache: Path, needed: int, free: int) -> ModelError:
    return ModelError(
        f"'{name}' needs {needed / 1e6:.0f} MB in {cache}, which has {free / 1e6:.0f} MB free. Free space there, "
        "mount a larger volume, or set HF_HUB_CACHE to a folder on another disk.",
        code=ErrorCode.DISK_FULL,
        details={"hub_id": name, "place": str(cache), "needed_bytes": needed, "free_bytes": free},
    )
