"""The engine cache: loads each engine once, keeps engines within a memory budget, runs one call at a time."""

from __future__ import annotations

import gc
import itertools
import logging
import sys
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar

from errors import DeviceMemoryError, ErrorCode, MemoryNotFreedError, ModelError
from models.device import (
    GIBIBYTE,
    DeviceFailureGuard,
    Gpu,
    find_gpu,
    is_gpu_alive,
    is_out_of_memory,
    measure_allocated,
    measure_budget,
    resolve_device,
)
from models.family import EngineT, ModelHandle
from models.runtime.progress import UNATTENDED, Check, Observer, skip_check

logger = logging.getLogger(__name__)

T = TypeVar("T")
OtherEngineT = TypeVar("OtherEngineT")
Key = tuple[str, str]  # family, model
POLL_S = 0.05
LEAK_BYTES = 512 * 1024 * 1024  # of GPU memory that a failed call leaves allocated; less is an engine's own workspace


@dataclass(eq=False)
class _Entry(Generic[EngineT]):
    handle: ModelHandle[EngineT]
    engine: EngineT
    size: int
    version_key: Hashable
    users: int = 0
    last_used: int = 0

    def measure(self) -> int:
        """The engine's size now, in bytes; its last known size if its family does not measure engines."""
        size = self.handle.family.engine_bytes(self.engine)
        return self.size if size is None else size


@dataclass(eq=False)
class _Pending:
    """A load in progress: other threads wait for `done` and raise `error`, which ended a `with` block, if any."""

    size: int = 0
    done: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self.error = error


class EngineCache:
    """Every engine of the process.

    Args:
        device: `auto`, `cpu`, `cuda` or `mps`; `auto` is resolved on first need, without torch.
        budget_bytes: memory that loaded engines may take together; None or 0: measured on first need.
        out_of_memory: tells memory errors from others.
        gpu_finder: asks for the GPU and its free memory.
        allocated: measures the GPU memory that tensors take, in bytes.
        is_gpu_alive: asks the GPU whether it still answers.

    Attributes:
        needs_restart: an engine has left the process in a state that only a restart mends
            (`ModelFamily.needs_restart`).
    """

    def __init__(  # noqa: PLR0913  (options by keyword)
        self,
        *,
        device: str = "cpu",
        budget_bytes: int | None = None,
        out_of_memory: Callable[[BaseException], bool] = is_out_of_memory,
        gpu_finder: Callable[[], Gpu | None] = find_gpu,
        allocated: Callable[[], int] = measure_allocated,
        is_gpu_alive: Callable[[], bool] = is_gpu_alive,
    ) -> None:
        self.needs_restart = False
        self.started = time.monotonic()
        self._device_setting = device
        self._budget_setting = budget_bytes
        self._out_of_memory = out_of_memory
        self._gpu_finder = gpu_finder
        self._allocated = allocated
        self._is_gpu_alive = is_gpu_alive
        self._entries: dict[Key, _Entry[Any]] = {}  # engines of every type; `_acquire` gives each its own again
        self._pending: dict[Key, _Pending] = {}
        self._ticks = itertools.count(1)
        self._state = threading.Condition()
        self._device_lock = threading.RLock()
        self._in_use = threading.local()

    def run(
        self, handle: ModelHandle[EngineT], function: Callable[[EngineT], T], *, observer: Observer = UNATTENDED
    ) -> T:
        """Calls `function` with the engine, alone on the device, and returns its result.

        The model's files are downloaded first if they are missing. Engines are loaded and evicted with the device
        held, so that neither happens while another thread captures a CUDA graph or imports an engine's libraries.

        Args:
            handle: from `ModelFamily.resolve`.
            function: takes the engine. It is called again, once, if memory did not suffice; the observer is warned.
            observer: its `check` is called while waiting for files, memory or the device; what it raises ends the wait.
                It is warned of a demo model.

        Raises:
            ModelError: the engine cannot be loaded, or is larger than the budget.
            DeviceMemoryError: memory did not suffice, even after every idle engine was evicted.
            DeviceError: the GPU failed, and takes no more work from this process.
        """
        if handle.demo is not None and handle.demo.warning:
            observer.warn(handle.demo.warning)
        with self._lease(handle, observer) as engine, self._hold_device(observer.check):
            return self._retry(str(handle), lambda: function(engine), observer)

    def run_pair(
        self,
        first: ModelHandle[EngineT],
        second: ModelHandle[OtherEngineT],
        function: Callable[[EngineT, OtherEngineT], T],
        *,
        observer: Observer = UNATTENDED,
    ) -> T:
        """As `run`, with two engines at once."""
        self._download(second, observer)  # now, because later this thread holds the device
        return self.run(
            first,
            lambda engine: self.run(second, lambda other: function(engine, other), observer=observer),
            observer=observer,
        )

    def list_loaded(self) -> list[str]:
        """`family/name` of every loaded engine, the last used first."""
        with self._state:
            by_use = sorted(self._entries.items(), key=lambda item: -item[1].last_used)
        return [f"{family}/{name}" for (family, name), _ in by_use]

    def evict_idle(self) -> None:
        """Evicts every engine that is not in use, and returns its memory to the system."""
        with self._state:
            evicted = [entry for entry in self._entries.values() if not entry.users]
            self._entries = {key: entry for key, entry in self._entries.items() if entry.users}
            self._state.notify_all()
        self._release(evicted, skip_check)

    @cached_property
    def device(self) -> str:
        """`cuda`, `cpu` or `mps`; found out without torch."""
        return resolve_device(self._device_setting, self._gpu_finder() if self._device_setting == "auto" else None)

    @property
    def gpu(self) -> Gpu | None:
        """The GPU in use and its free memory now; None on another device."""
        return self._gpu_finder() if self.device.startswith("cuda") else None

    @cached_property
    def budget_bytes(self) -> int:
        """Memory that loaded engines may take together."""
        return self._budget_setting or measure_budget(self.device, self.gpu)

    @contextmanager
    def _lease(self, handle: ModelHandle[EngineT], observer: Observer) -> Iterator[EngineT]:
        """The engine, which is not evicted until the block ends. Errors become `DeviceError` if the GPU has failed."""
        with DeviceFailureGuard(str(handle), self._is_gpu_alive):
            entry = self._acquire(handle, observer)
            self._in_use.count = self._engines_in_use() + 1
            try:
                yield entry.engine
            finally:
                self._in_use.count -= 1
                self.needs_restart |= handle.family.needs_restart(entry.engine)
                size = entry.measure()
                with self._state:
                    entry.size = size
                    entry.users -= 1
                    entry.last_used = next(self._ticks)
                    self._state.notify_all()

    def _engines_in_use(self) -> int:
        """How many engines this thread has in use."""
        return int(getattr(self._in_use, "count", 0))

    def _acquire(self, handle: ModelHandle[EngineT], observer: Observer) -> _Entry[EngineT]:
        """The engine's entry with one user more, loaded by this thread or by one that has begun to load it."""
        key = (handle.family.name, handle.name)
        self._download(handle, observer)
        while True:
            observer.check()
            version_key = handle.family.version_key(handle.name)
            if (entry := self._find_loaded(key, version_key)) is not None:
                return entry
            with self._state:
                pending = self._pending.get(key)
                if pending is None:
                    mine = self._pending[key] = _Pending()
                elif self._engines_in_use():  # this thread has the device, for which the other one is waiting
                    mine, pending = _Pending(), None
            if pending is None:
                return self._load(handle, version_key, mine, observer)
            while not pending.done.wait(POLL_S):
                observer.check()
            if pending.error is not None:
                raise pending.error

    def _find_loaded(self, key: Key, version_key: Hashable) -> _Entry[Any] | None:
        """The engine's entry with one user more; None if it must be loaded, or loaded anew: its files have changed."""
        with self._state:
            entry = self._entries.get(key)
            if entry is None:
                return None
            if entry.version_key != version_key:
                del self._entries[key]  # whoever uses it now keeps it
                return None
            entry.users += 1
            return entry

    def _download(self, handle: ModelHandle[Any], observer: Observer) -> None:
        """Downloads the files of an engine that is not loaded, unless it is larger than the budget."""
        with self._state:
            is_loaded = (handle.family.name, handle.name) in self._entries
        if not is_loaded:
            self._check_size(handle)
            handle.family.download(handle.name, observer)

    def _check_size(self, handle: ModelHandle[Any]) -> int:
        """The estimate of the engine's size; raises `ModelError` if it is beyond the budget."""
        size = handle.family.memory_bytes(handle.name)
        if size > self.budget_bytes:
            raise _too_large_error(handle.name, size, self.budget_bytes)
        return size

    def _load(
        self, handle: ModelHandle[EngineT], version_key: Hashable, pending: _Pending, observer: Observer
    ) -> _Entry[EngineT]:
        key = (handle.family.name, handle.name)
        try:
            self._reserve(handle, pending, observer.check)
            with self._hold_device(observer.check):
                if (loaded := self._find_loaded(key, version_key)) is not None:
                    return loaded  # by the thread that held the device
                started = time.monotonic()
                with pending:
                    engine = self._retry(
                        str(handle), lambda: handle.family.load(handle.name, device=self.device), observer
                    )
                entry = _Entry(handle, engine, pending.size, version_key, users=1, last_used=next(self._ticks))
                entry.size = entry.measure()
                with self._state:
                    self._entries[key] = entry
            logger.info("Loaded %s in %.1f s, %.2f GB", handle, time.monotonic() - started, entry.size / 1e9)
            return entry
        finally:
            with self._state:
                if self._pending.get(key) is pending:
                    del self._pending[key]
                self._state.notify_all()
            pending.done.set()

    def _reserve(self, handle: ModelHandle[Any], pending: _Pending, check: Check) -> None:
        """Evicts idle engines, the least recently used first, until the new one fits; waits for engines in use.

        A thread that has an engine in use does not wait (two of them could wait for each other): it loads beyond the
        budget, which is an estimate anyway.
        """
        size = self._check_size(handle)
        while True:
            with self._state:
                evicted = self._evict_for(size)
                is_reserved = self._reserved_bytes() + size <= self.budget_bytes or self._engines_in_use() > 0
                if is_reserved:
                    pending.size = size
                elif not evicted:
                    self._state.wait(POLL_S)
            self._release(evicted, check)
            if is_reserved:
                return
            check()

    def _evict_for(self, size: int) -> list[_Entry[Any]]:
        evicted = []
        idle = sorted((entry.last_used, key) for key, entry in self._entries.items() if not entry.users)
        for _, key in idle:
            if self._reserved_bytes() + size <= self.budget_bytes:
                break
            evicted.append(self._entries.pop(key))
        return evicted

    def _release(self, evicted: list[_Entry[Any]], check: Check) -> None:
        """Drops engines and returns their memory to the system, with the device held."""
        if evicted:
            with self._hold_device(check):
                logger.info("Freed %s", ", ".join(str(entry.handle) for entry in evicted))
                evicted.clear()
                _collect_garbage()

    def _reserved_bytes(self) -> int:
        entries, pending = self._entries.values(), self._pending.values()
        return sum(entry.size for entry in entries) + sum(load.size for load in pending)

    @contextmanager
    def _hold_device(self, check: Check) -> Iterator[None]:
        """Gives this thread the device alone; calls within calls are allowed."""
        while not self._device_lock.acquire(timeout=POLL_S):
            check()
        try:
            yield
        finally:
            self._device_lock.release()

    def _retry(self, what: str, action: Callable[[], T], observer: Observer) -> T:
        """`action()`; if memory does not suffice, once more after every idle engine was evicted."""
        try:
            return action()
        except (RuntimeError, MemoryError) as error:
            if not self._out_of_memory(error):
                raise
            logger.warning("%s ran out of memory; trying again after evicting every idle engine", what)
        # Out of the except block, so that the failed attempt's frames and their tensors are gone before the next.
        self._free_memory()
        observer.warn(
            "The device ran out of memory, so the work was started again after other models were removed from it. It "
            "took longer than usual; asking for less (shorter, fewer samples) avoids this."
        )
        before = self._allocated()
        try:
            return action()
        except (RuntimeError, MemoryError) as error:
            if not self._out_of_memory(error):
                raise
            logger.warning("%s ran out of memory again: %s", what, str(error))  # a record keeps no frames alive
        self._free_memory()
        if self._allocated() - before > LEAK_BYTES:
            raise MemoryNotFreedError(
                f"The {self.device} device ran out of memory with {what}, and not all of it was freed: the worker "
                "restarts. Send the request again, or ask for less (shorter, fewer samples, a smaller model)."
            )
        raise DeviceMemoryError(
            f"The request needs more memory than the {self.device} device has for {what}, with no other model on it. "
            "Ask for less (shorter, fewer samples, a smaller model), or use a worker with more memory."
        )

    def _free_memory(self) -> None:
        """Evicts every idle engine, and has those in use drop what they do not need. The caller holds the device."""
        self.evict_idle()
        with self._state:
            entries = list(self._entries.values())
        for entry in entries:
            entry.handle.family.free_memory(entry.engine)
        _collect_garbage()


def _collect_garbage() -> None:
    """Returns memory that nothing refers to any more to the system; imports nothing for it."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _too_large_error(name: str, size: int, budget: int) -> ModelError:
    return ModelError(
        f"The model '{name}' needs about {size / GIBIBYTE:.1f} GiB of memory; this worker may use "
        f"{budget / GIBIBYTE:.1f} GiB. Choose a smaller model, or set MODEL_MEMORY_BYTES.",
        code=ErrorCode.MODEL_TOO_LARGE,
        details={"needed_bytes": size, "budget_bytes": budget},
    )
