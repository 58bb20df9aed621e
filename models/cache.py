"""Engines in memory: loaded once, kept within a budget, used one at a time. Knows no model family and no request."""

from __future__ import annotations

import gc
import itertools
import logging
import sys
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

from errors import DeviceMemoryError, ErrorCode, ModelError, RequestError, unknown_name
from models.device import GIBIBYTE, Gpu, find_gpu, measured_budget, resolve_device

logger = logging.getLogger(__name__)

T = TypeVar("T")
Key = tuple[str, str]
Check = Callable[[], None]
POLL_S = 0.05
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "alloc_failed", "not enough memory")


class Family(Protocol):
    """What a family of models offers the cache and the operations. All but `load` answer without torch, at once."""

    @property
    def name(self) -> str: ...

    def rows(self) -> list[dict[str, Any]]:
        """The family's rows of `list_models`; looks at the folders anew at each call."""

    def status(self) -> str:
        """`ready`, or why the family cannot work."""

    def search_paths(self) -> list[str]:
        """The folders that are looked at, in order."""

    def resolve(self, name: str | None) -> str:
        """The canonical name of `name` (None: the default); raises `UnknownNameError` or `ModelError`, cheaply."""

    def memory_bytes(self, name: str) -> int:
        """Estimate, before loading, of what the engine called `name` will hold on the device."""

    def load(self, name: str, *, device: str) -> Any:
        """The engine. One with an attribute `memory_bytes` (int) is budgeted by that instead of the estimate.

        A family whose files may change while the worker runs also has `stamp(name) -> Hashable`, which changes with
        them: an engine that was loaded under another stamp is not used any more.
        """


@dataclass(eq=False)
class _Entry:
    engine: Any
    size: int
    stamp: Hashable = None
    users: int = 0
    last_used: int = 0


@dataclass(eq=False)
class _Pending:
    """A load under way: others wait for `done`, and get the `error` that ended a `with` block on it, if any."""

    size: int = 0
    done: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self.error = error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that the device's or the machine's memory did not suffice."""
    return isinstance(error, MemoryError) or any(mark in str(error).lower() for mark in _OUT_OF_MEMORY)


def _go_on() -> None:
    """The check of a caller that cannot be cancelled."""


class Models:
    """Every engine of the process, by family and name; one object, made in handler.py and passed down.

    Args:
        families: by name, as `models.registry.build` assembles them.
        device: `auto`, `cpu`, `cuda`, `cuda:<n>` or `mps`; `auto` is resolved on first need, without torch.
        budget_bytes: what loaded engines may hold together; None or 0: measured on first need.
        out_of_memory: tells memory errors from others.
        gpu_finder: asks for the GPU and its free memory.
    """

    def __init__(
        self,
        families: Mapping[str, Family],
        *,
        device: str = "cpu",
        budget_bytes: int | None = None,
        out_of_memory: Callable[[BaseException], bool] = is_out_of_memory,
        gpu_finder: Callable[[], Gpu | None] = find_gpu,
    ) -> None:
        self.families: Mapping[str, Family] = MappingProxyType(dict(families))
        self.started = time.monotonic()
        self._asked_device = device
        self._asked_budget = budget_bytes
        self._out_of_memory = out_of_memory
        self._gpu_finder = gpu_finder
        self._entries: dict[Key, _Entry] = {}
        self._pending: dict[Key, _Pending] = {}
        self._ticks = itertools.count(1)
        self._state = threading.Condition()
        self._turn = threading.RLock()
        self._held = threading.local()

    def run(self, family: str, name: str, call: Callable[[Any], T], *, check: Check = _go_on) -> T:
        """Gives `call` the engine, alone on the device, and returns what it returns.

        Args:
            family: a key of `families`.
            name: canonical, as `families[family].resolve` returns it.
            call: takes the engine. Run again, once, where memory did not suffice and others could make room.
            check: called while waiting for the engine or the device; what it raises ends the wait.

        Raises:
            ModelError: the engine cannot be loaded, or is larger than the budget.
            DeviceMemoryError: memory did not suffice, even with nothing idle loaded.
        """
        with self._leased((family, name), check) as engine, self._device_turn(check):
            return self._retried(f"{family}/{name}", lambda: call(engine))

    def preload(self, names: Sequence[str], *, check: Check = _go_on) -> None:
        """Loads each `family/name` (or `family` alone: its default) unless it is in memory already."""
        for full_name in names:
            family, _, name = full_name.partition("/")
            if family not in self.families:
                raise unknown_name("model family", family, self.families)
            with self._leased((family, self.families[family].resolve(name or None)), check):
                logger.info("Preloaded %s", full_name)

    def loaded(self) -> list[str]:
        """`family/name` of every engine in memory, the last used first."""
        with self._state:
            by_use = sorted(self._entries.items(), key=lambda item: -item[1].last_used)
        return [f"{family}/{name}" for (family, name), _ in by_use]

    def evict_idle(self) -> None:
        """Drops every engine that nobody uses, and hands its memory back."""
        with self._state:
            dropped = [key for key, entry in self._entries.items() if not entry.users]
            for key in dropped:
                del self._entries[key]
            self._state.notify_all()
        _give_back(dropped)

    @cached_property
    def device(self) -> str:
        """`cuda`, `cpu` or `mps`; found out without torch."""
        return resolve_device(self._asked_device, self._gpu_finder() if self._asked_device == "auto" else None)

    @property
    def gpu(self) -> Gpu | None:
        """The GPU in use and its free memory now; None on another device."""
        return self._gpu_finder() if self.device.startswith("cuda") else None

    @cached_property
    def budget_bytes(self) -> int:
        """What loaded engines may hold together."""
        return self._asked_budget or measured_budget(self.device, self.gpu)

    @contextmanager
    def _leased(self, key: Key, check: Check) -> Iterator[Any]:
        """The engine, which is not evicted meanwhile."""
        entry = self._entry(key, check)
        self._held.count = self._holds() + 1
        try:
            yield entry.engine
        finally:
            self._held.count -= 1
            size = _measured(entry.engine, entry.size)
            with self._state:
                entry.size = size
                entry.users -= 1
                entry.last_used = next(self._ticks)
                self._state.notify_all()

    def _holds(self) -> int:
        """How many engines this thread has in use."""
        return int(getattr(self._held, "count", 0))

    def _entry(self, key: Key, check: Check) -> _Entry:
        """The entry of `key` with one user more, loaded by this thread or by the one that is already at it."""
        while True:
            check()
            stamp = self._stamp(key)
            with self._state:
                if (entry := self._entries.get(key)) and entry.stamp == stamp:
                    entry.users += 1
                    return entry
                self._entries.pop(key, None)  # of older files; who uses it now keeps it
                if leads := key not in self._pending:
                    self._pending[key] = _Pending()
                pending = self._pending[key]
            if leads:
                return self._load(key, stamp, pending, check)
            while not pending.done.wait(POLL_S):
                check()
            if pending.error is not None:
                raise pending.error

    def _stamp(self, key: Key) -> Hashable:
        stamp = getattr(self.families[key[0]], "stamp", None)
        return stamp(key[1]) if stamp else None

    def _load(self, key: Key, stamp: Hashable, pending: _Pending, check: Check) -> _Entry:
        family, name = key
        try:
            self._make_room(key, pending, check)
            started = time.monotonic()
            with pending:
                engine = self._retried("/".join(key), lambda: self.families[family].load(name, device=self.device))
            size = _measured(engine, pending.size)
            entry = _Entry(engine, size, stamp, users=1, last_used=next(self._ticks))
            with self._state:
                self._entries[key] = entry
            logger.info("Loaded %s/%s in %.1f s, %.2f GB", family, name, time.monotonic() - started, entry.size / 1e9)
            return entry
        finally:
            with self._state:
                del self._pending[key]
                self._state.notify_all()
            pending.done.set()

    def _make_room(self, key: Key, pending: _Pending, check: Check) -> None:
        """Evicts idle engines, the least recently used first, until the new one fits; waits for those in use.

        A thread that has an engine in use does not wait (two of them could wait for each other): it loads beyond the
        budget, which is an estimate anyway.
        """
        family, name = key
        size = self.families[family].memory_bytes(name)
        if size > self.budget_bytes:
            raise _too_large(key, size, self.budget_bytes)
        while True:
            with self._state:
                dropped = self._evict_for(size)
                if self._used() + size <= self.budget_bytes or self._holds():
                    pending.size = size
                    break
                if not dropped:
                    self._state.wait(POLL_S)
            _give_back(dropped)
            check()
        _give_back(dropped)

    def _evict_for(self, size: int) -> list[Key]:
        dropped: list[Key] = []
        idle = sorted((entry.last_used, key) for key, entry in self._entries.items() if not entry.users)
        for _, key in idle:
            if self._used() + size <= self.budget_bytes:
                break
            del self._entries[key]
            dropped.append(key)
        return dropped

    def _used(self) -> int:
        entries, pending = self._entries.values(), self._pending.values()
        return sum(entry.size for entry in entries) + sum(load.size for load in pending)

    @contextmanager
    def _device_turn(self, check: Check) -> Iterator[None]:
        """The device to this thread alone; again within itself where an operation nests its calls."""
        while not self._turn.acquire(timeout=POLL_S):
            check()
        try:
            yield
        finally:
            self._turn.release()

    def _retried(self, what: str, action: Callable[[], T]) -> T:
        """`action()`; where memory does not suffice, once more with all idle engines gone."""
        try:
            return action()
        except (RuntimeError, MemoryError) as error:
            if not self._out_of_memory(error):
                raise
            logger.warning("%s ran out of memory; trying again with nothing idle loaded", what)
        # Out of the except block, so that the failed attempt's frames and their tensors are gone before the next.
        self.evict_idle()
        _give_back([what])
        try:
            return action()
        except (RuntimeError, MemoryError) as error:
            if not self._out_of_memory(error):
                raise
            raise DeviceMemoryError(
                f"The {self.device} device ran out of memory with {what}, twice. "
                "Ask for less (shorter, fewer samples, a smaller model), or use a worker with more memory."
            ) from error


def _measured(engine: Any, estimate: int) -> int:
    size = getattr(engine, "memory_bytes", None)
    return size if isinstance(size, int) else estimate


def _give_back(dropped: Sequence[object]) -> None:
    """Hands memory of dropped engines back to the system; imports nothing for it."""
    if not dropped:
        return
    logger.info("Freed %s", ", ".join(map(str, dropped)))
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _too_large(key: Key, size: int, budget: int) -> RequestError:
    return ModelError(
        f"'{key[1]}' needs about {size / GIBIBYTE:.1f} GiB and {budget / GIBIBYTE:.1f} GiB may be used here. "
        "Choose a smaller model, or set MODEL_MEMORY_BYTES.",
        code=ErrorCode.MODEL_TOO_LARGE,
        details={"needed_bytes": size, "budget_bytes": budget},
    )
