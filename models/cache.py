"""The engine cache: loads each engine once, keeps engines within a memory budget, runs one call at a time."""

from __future__ import annotations

import gc
import itertools
import logging
import sys
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar

from errors import DeviceMemoryError, ErrorCode, ModelError
from models.device import GIBIBYTE, Gpu, find_gpu, measured_budget, resolve_device
from models.family import EngineT, ModelHandle
from models.runtime.progress import Check, skip_check

logger = logging.getLogger(__name__)

T = TypeVar("T")
OtherEngineT = TypeVar("OtherEngineT")
Key = tuple[str, str]  # family, model
POLL_S = 0.05
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "alloc_failed", "not enough memory")


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


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that the memory of the device or the machine did not suffice."""
    return isinstance(error, MemoryError) or any(mark in str(error).lower() for mark in _OUT_OF_MEMORY)


class EngineCache:
    """Every engine of the process.

    Args:
        device: `auto`, `cpu`, `cuda`, `cuda:<n>` or `mps`; `auto` is resolved on first need, without torch.
        budget_bytes: memory that loaded engines may take together; None or 0: measured on first need.
        out_of_memory: tells memory errors from others.
        gpu_finder: asks for the GPU and its free memory.
    """

    def __init__(
        self,
        *,
        device: str = "cpu",
        budget_bytes: int | None = None,
        out_of_memory: Callable[[BaseException], bool] = is_out_of_memory,
        gpu_finder: Callable[[], Gpu | None] = find_gpu,
    ) -> None:
        self.started = time.monotonic()
        self._device_setting = device
        self._budget_setting = budget_bytes
        self._out_of_memory = out_of_memory
        self._gpu_finder = gpu_finder
        self._entries: dict[Key, _Entry[Any]] = {}  # engines of every type; `_acquire` gives each its own again
        self._pending: dict[Key, _Pending] = {}
        self._ticks = itertools.count(1)
        self._state = threading.Condition()
        self._device_lock = threading.RLock()
        self._in_use = threading.local()

    def run(self, handle: ModelHandle[EngineT], function: Callable[[EngineT], T], *, check: Check = skip_check) -> T:
        """Calls `function` with the engine, alone on the device, and returns its result.

        Args:
            handle: from `ModelFamily.resolve`.
            function: takes the engine. It is called again, once, if memory did not suffice.
            check: called while waiting for the engine or the device; what it raises ends the wait.

        Raises:
            ModelError: the engine cannot be loaded, or is larger than the budget.
            DeviceMemoryError: memory did not suffice, even after every idle engine was evicted.
        """
        with self._lease(handle, check) as engine, self._hold_device(check):
            return self._retry(str(handle), lambda: function(engine))

    def run_pair(
        self,
        first: ModelHandle[EngineT],
        second: ModelHandle[OtherEngineT],
        function: Callable[[EngineT, OtherEngineT], T],
        *,
        check: Check = skip_check,
    ) -> T:
        """As `run`, with two engines at once."""
        return self.run(
            first, lambda engine: self.run(second, lambda other: function(engine, other), check=check), check=check
        )

    def load(self, handle: ModelHandle[Any], *, check: Check = skip_check) -> None:
        """Loads the engine unless it is loaded already."""
        with self._lease(handle, check):
            logger.info("Preloaded %s", handle)

    def list_loaded(self) -> list[str]:
        """`family/name` of every loaded engine, the last used first."""
        with self._state:
            by_use = sorted(self._entries.items(), key=lambda item: -item[1].last_used)
        return [f"{family}/{name}" for (family, name), _ in by_use]

    def evict_idle(self) -> None:
        """Evicts every engine that is not in use, and returns its memory to the system."""
        with self._state:
            evicted = [key for key, entry in self._entries.items() if not entry.users]
            for key in evicted:
                del self._entries[key]
            self._state.notify_all()
        _release_memory(evicted)

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
        return self._budget_setting or measured_budget(self.device, self.gpu)

    @contextmanager
    def _lease(self, handle: ModelHandle[EngineT], check: Check) -> Iterator[EngineT]:
        """The engine, which is not evicted until the block ends."""
        entry = self._acquire(handle, check)
        self._in_use.count = self._engines_in_use() + 1
        try:
            yield entry.engine
        finally:
            self._in_use.count -= 1
            size = entry.measure()
            with self._state:
                entry.size = size
                entry.users -= 1
                entry.last_used = next(self._ticks)
                self._state.notify_all()

    def _engines_in_use(self) -> int:
        """How many engines this thread has in use."""
        return int(getattr(self._in_use, "count", 0))

    def _acquire(self, handle: ModelHandle[EngineT], check: Check) -> _Entry[EngineT]:
        """The engine's entry with one user more, loaded by this thread or by one that has begun to load it."""
        key = (handle.family.name, handle.name)
        while True:
            check()
            version_key = handle.family.version_key(handle.name)
            with self._state:
                if (entry := self._entries.get(key)) and entry.version_key == version_key:
                    entry.users += 1
                    return entry
                self._entries.pop(key, None)  # its files have changed; whoever uses it now keeps it
                if is_loader := key not in self._pending:
                    self._pending[key] = _Pending()
                pending = self._pending[key]
            if is_loader:
                return self._load(handle, version_key, pending, check)
            while not pending.done.wait(POLL_S):
                check()
            if pending.error is not None:
                raise pending.error

    def _load(
        self, handle: ModelHandle[EngineT], version_key: Hashable, pending: _Pending, check: Check
    ) -> _Entry[EngineT]:
        key = (handle.family.name, handle.name)
        try:
            self._reserve(handle, pending, check)
            started = time.monotonic()
            with pending:
                engine = self._retry(str(handle), lambda: handle.family.load(handle.name, device=self.device))
            entry = _Entry(handle, engine, pending.size, version_key, users=1, last_used=next(self._ticks))
            entry.size = entry.measure()
            with self._state:
                self._entries[key] = entry
            logger.info("Loaded %s in %.1f s, %.2f GB", handle, time.monotonic() - started, entry.size / 1e9)
            return entry
        finally:
            with self._state:
                del self._pending[key]
                self._state.notify_all()
            pending.done.set()

    def _reserve(self, handle: ModelHandle[Any], pending: _Pending, check: Check) -> None:
        """Evicts idle engines, the least recently used first, until the new one fits; waits for engines in use.

        A thread that has an engine in use does not wait (two of them could wait for each other): it loads beyond the
        budget, which is an estimate anyway.
        """
        size = handle.family.memory_bytes(handle.name)
        if size > self.budget_bytes:
            raise _too_large(handle.name, size, self.budget_bytes)
        while True:
            with self._state:
                evicted = self._evict_for(size)
                if self._reserved_bytes() + size <= self.budget_bytes or self._engines_in_use():
                    pending.size = size
                    break
                if not evicted:
                    self._state.wait(POLL_S)
            _release_memory(evicted)
            check()
        _release_memory(evicted)

    def _evict_for(self, size: int) -> list[Key]:
        evicted: list[Key] = []
        idle = sorted((entry.last_used, key) for key, entry in self._entries.items() if not entry.users)
        for _, key in idle:
            if self._reserved_bytes() + size <= self.budget_bytes:
                break
            del self._entries[key]
            evicted.append(key)
        return evicted

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

    def _retry(self, what: str, action: Callable[[], T]) -> T:
        """`action()`; if memory does not suffice, once more after every idle engine was evicted."""
        try:
            return action()
        except (RuntimeError, MemoryError) as error:
            if not self._out_of_memory(error):
                raise
            logger.warning("%s ran out of memory; trying again after evicting every idle engine", what)
        # Out of the except block, so that the failed attempt's frames and their tensors are gone before the next.
        self.evict_idle()
        _release_memory([what])
        try:
            return action()
        except (RuntimeError, MemoryError) as error:
            if not self._out_of_memory(error):
                raise
            raise DeviceMemoryError(
                f"The {self.device} device ran out of memory with {what}, twice. "
                "Ask for less (shorter, fewer samples, a smaller model), or use a worker with more memory."
            ) from error


def _release_memory(evicted: Sequence[object]) -> None:
    """Returns memory of evicted engines to the system; imports nothing for it."""
    if not evicted:
        return
    logger.info("Freed %s", ", ".join(map(str, evicted)))
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _too_large(name: str, size: int, budget: int) -> ModelError:
    return ModelError(
        f"The model '{name}' needs about {size / GIBIBYTE:.1f} GiB of memory; this worker may use "
        f"{budget / GIBIBYTE:.1f} GiB. Choose a smaller model, or set MODEL_MEMORY_BYTES.",
        code=ErrorCode.MODEL_TOO_LARGE,
        details={"needed_bytes": size, "budget_bytes": budget},
    )
