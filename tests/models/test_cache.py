"""The engine cache with stub engines: races, budget, eviction, failing loaders, memory errors."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from errors import CancelledError, DeviceError, DeviceMemoryError, ModelError, UnknownNameError
from models.cache import LEAK_BYTES, EngineCache
from models.checkpoints.locations import WeightLocations
from models.demucs import DemucsFamily
from models.demucs.engine import DemucsSeparator
from models.device import (
    GIBIBYTE,
    Gpu,
    find_gpu,
    is_out_of_memory,
    measure_available_ram,
    measure_budget,
    resolve_device,
)
from models.family import READY, ModelFamily, ModelHandle, ModelInfo, Readiness
from models.registry import build
from models.runtime.progress import UNATTENDED, Observer, Unattended
from models.separation import Separator
from testing.models import make_models

T = TypeVar("T")
TIMEOUT_S = 20.0


@dataclass
class Engine:
    name: str


class StubFamily(ModelFamily[Engine]):
    """Engines of given sizes; counts loads, and may wait or fail in them.

    Args:
        sizes: estimates by model, in bytes; 1 by default.
        measured: sizes of loaded engines, if they differ from the estimates.
    """

    name = "stub"

    def __init__(
        self,
        sizes: Mapping[str, int] | None = None,
        *,
        measured: Mapping[str, int] | None = None,
        before_load: Callable[[str], None] = lambda name: None,
        before_download: Callable[[str, Observer], None] = lambda name, observer: None,
    ) -> None:
        self.sizes = sizes or {}
        self.measured = measured or {}
        self.before_load = before_load
        self.before_download = before_download
        self.loads: list[str] = []
        self.warmed_up: list[str] = []

    def list_models(self) -> list[ModelInfo]:
        return []

    def readiness(self) -> Readiness:
        return READY

    def search_paths(self) -> list[str]:
        return []

    def resolve(self, name: str | None) -> ModelHandle[Engine]:
        return ModelHandle(self, name or "default")

    def memory_bytes(self, name: str) -> int:
        return self.sizes.get(name, 1)

    def engine_bytes(self, engine: Engine) -> int | None:
        return self.measured.get(engine.name)

    def load(self, name: str, *, device: str) -> Engine:
        self.loads.append(name)
        self.before_load(name)
        return Engine(name)

    def download(self, name: str, observer: Observer = UNATTENDED) -> None:
        self.before_download(name, observer)

    def warm_up(self, engine: Engine) -> None:
        self.warmed_up.append(engine.name)


class Cache:
    """An `EngineCache` of 10 bytes beside one family, whose models it calls by name."""

    def __init__(self, family: StubFamily | None = None, **options: Any) -> None:
        self.family = family or StubFamily()
        self.engines = EngineCache(**({"budget_bytes": 10} | options))

    def run(self, name: str, function: Callable[[Engine], T], check: Callable[[], None] = lambda: None) -> T:
        return self.engines.run(self.family.resolve(name), function, observer=Unattended(check))

    def use(self, name: str) -> str:
        return self.run(name, lambda engine: engine.name)

    def list_loaded(self) -> list[str]:
        return self.engines.list_loaded()

    def evict_idle(self) -> None:
        self.engines.evict_idle()


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < end, f"not within {TIMEOUT_S} s"
        time.sleep(0.002)


def test_an_engine_is_loaded_once_and_used_again() -> None:
    family = StubFamily()
    cache = Cache(family)
    assert [cache.use("a"), cache.use("a")] == ["a", "a"]
    assert family.loads == ["a"]


def test_callers_at_the_same_time_share_one_load() -> None:
    arrived = threading.Barrier(8)
    family = StubFamily(before_load=lambda name: time.sleep(0.05))
    cache = Cache(family)

    def call() -> str:
        arrived.wait(TIMEOUT_S)
        return cache.use("a")

    with ThreadPoolExecutor(8) as pool:
        assert [future.result() for future in [pool.submit(call) for _ in range(8)]] == ["a"] * 8
    assert family.loads == ["a"]


def test_only_one_call_runs_on_the_device_at_a_time() -> None:
    cache = Cache(StubFamily())
    inside, most = [], []

    def call(engine: Engine) -> None:
        inside.append(engine)
        most.append(len(inside))
        time.sleep(0.01)
        inside.pop()

    with ThreadPoolExecutor(6) as pool:
        for future in [pool.submit(cache.run, name, call) for name in "abcabc"]:
            future.result()
    assert max(most) == 1


def test_the_least_recently_used_engine_is_evicted_first() -> None:
    family = StubFamily({"a": 4, "b": 4, "c": 4})
    cache = Cache(family)
    for name in ("a", "b", "a", "c"):
        cache.use(name)
    assert cache.list_loaded() == ["stub/c", "stub/a"]


def test_no_more_engines_are_evicted_than_the_new_one_needs() -> None:
    family = StubFamily({"a": 3, "b": 3, "c": 3, "d": 6})
    cache = Cache(family)
    for name in "abcd":
        cache.use(name)
    assert cache.list_loaded() == ["stub/d", "stub/c"]


def test_the_measured_size_replaces_the_estimate() -> None:
    family = StubFamily({"a": 1, "b": 5}, measured={"a": 9})
    cache = Cache(family)
    cache.use("a")
    cache.use("b")
    assert cache.list_loaded() == ["stub/b"]


def test_an_engine_larger_than_the_budget_is_refused_before_it_is_loaded() -> None:
    family = StubFamily({"a": 11})
    cache = Cache(family)
    with pytest.raises(ModelError, match="MODEL_MEMORY_BYTES") as refused:
        cache.use("a")
    assert refused.value.error_code == "model_too_large"
    assert family.loads == []


def test_an_engine_in_use_is_not_evicted_and_another_waits_for_it() -> None:
    family = StubFamily({"a": 8, "b": 8})
    cache = Cache(family)
    entered, leave = threading.Event(), threading.Event()

    def hold(engine: Engine) -> list[str]:
        entered.set()
        assert leave.wait(TIMEOUT_S)
        return cache.list_loaded()

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.run, "a", hold)
        assert entered.wait(TIMEOUT_S)
        second = pool.submit(cache.use, "b")
        time.sleep(0.2)
        cache.evict_idle()
        assert family.loads == ["a"]
        leave.set()
        assert first.result() == ["stub/a"]
        assert second.result() == "b"
    assert cache.list_loaded() == ["stub/b"]


def test_a_call_within_a_call_keeps_both_engines() -> None:
    family = StubFamily({"a": 8, "b": 8})
    cache = Cache(family)
    seen = cache.run("a", lambda engine: cache.run("b", lambda inner: cache.list_loaded()))
    assert set(seen) == {"stub/a", "stub/b"}


def test_a_failed_load_fails_every_waiting_call_and_the_next_call_tries_again() -> None:
    loading, fail = threading.Event(), threading.Event()

    def fail_to_load(name: str) -> None:
        loading.set()
        assert fail.wait(TIMEOUT_S)
        raise ModelError("no such weights")

    family = StubFamily(before_load=fail_to_load)
    cache = Cache(family)
    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(cache.use, "a")]
        assert loading.wait(TIMEOUT_S)
        calls += [pool.submit(cache.use, "a") for _ in range(2)]
        time.sleep(0.2)
        fail.set()
        for call in calls:
            with pytest.raises(ModelError, match="no such weights"):
                call.result()
    assert family.loads == ["a"]
    family.before_load = lambda name: None
    assert cache.use("a") == "a"


def test_a_call_that_fails_leaves_the_engine_loaded_and_idle() -> None:
    family = StubFamily()
    cache = Cache(family)
    with pytest.raises(ZeroDivisionError):
        cache.run("a", lambda engine: 1 / 0)
    assert cache.use("a") == "a" and family.loads == ["a"]
    cache.evict_idle()
    assert cache.list_loaded() == []


@pytest.mark.parametrize("is_loaded", [True, False])
def test_cancelling_ends_the_wait_for_the_device(*, is_loaded: bool) -> None:
    cache = Cache(StubFamily())
    entered, leave, cancelled = threading.Event(), threading.Event(), threading.Event()

    def hold(engine: Engine) -> None:
        entered.set()
        assert leave.wait(TIMEOUT_S)

    def check() -> None:
        if cancelled.is_set():
            raise CancelledError("stop")

    if is_loaded:
        cache.use("b")
    with ThreadPoolExecutor(2) as pool:
        holder = pool.submit(cache.run, "a", hold)
        assert entered.wait(TIMEOUT_S)
        waiter = pool.submit(cache.run, "b", lambda engine: None, check=check)
        time.sleep(0.1)
        cancelled.set()
        with pytest.raises(CancelledError):
            waiter.result(TIMEOUT_S)
        leave.set()
        holder.result(TIMEOUT_S)


def test_cancelling_a_call_that_waits_for_memory_does_not_cancel_the_others() -> None:
    family = StubFamily({"a": 8, "b": 8})
    cache = Cache(family)
    entered, leave, cancelled = threading.Event(), threading.Event(), threading.Event()

    def hold(engine: Engine) -> None:
        entered.set()
        assert leave.wait(TIMEOUT_S)

    def check() -> None:
        if cancelled.is_set():
            raise CancelledError("stop")

    with ThreadPoolExecutor(3) as pool:
        holder = pool.submit(cache.run, "a", hold)
        assert entered.wait(TIMEOUT_S)
        leader = pool.submit(cache.run, "b", lambda engine: None, check=check)
        wait_for(lambda: ("stub", "b") in cache.engines._pending)
        follower = pool.submit(cache.use, "b")
        cancelled.set()
        with pytest.raises(CancelledError):
            leader.result(TIMEOUT_S)
        leave.set()
        assert follower.result(TIMEOUT_S) == "b"
        holder.result(TIMEOUT_S)


def test_cancelling_ends_the_wait_for_a_load_in_another_thread() -> None:
    loading, go_on = threading.Event(), threading.Event()

    def slowly(name: str) -> None:
        loading.set()
        assert go_on.wait(TIMEOUT_S)

    def check() -> None:
        if loading.is_set():
            raise CancelledError("stop")

    cache = Cache(StubFamily(before_load=slowly))
    with ThreadPoolExecutor(2) as pool:
        loader = pool.submit(cache.use, "a")
        assert loading.wait(TIMEOUT_S)
        with pytest.raises(CancelledError):
            cache.run("a", lambda engine: None, check=check)
        go_on.set()
        assert loader.result(TIMEOUT_S) == "a"


def test_out_of_memory_in_a_call_evicts_idle_engines_and_tries_once_more() -> None:
    cache = Cache(StubFamily())
    cache.use("idle")
    seen: list[list[str]] = []

    def call(engine: Engine) -> str:
        seen.append(cache.list_loaded())
        if len(seen) == 1:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return "done"

    assert cache.run("a", call) == "done"
    assert seen == [["stub/a", "stub/idle"], ["stub/a"]]


class RecordingObserver:
    """Keeps the warnings that it is given."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def check(self) -> None: ...

    def warn(self, sentence: str) -> None:
        self.warnings.append(sentence)

    def report_download(self, model: str, done_bytes: int, total_bytes: int) -> None: ...


def test_a_job_is_warned_that_its_work_was_started_again_after_out_of_memory() -> None:
    cache = Cache(StubFamily())
    attempts = []

    def call(engine: Engine) -> None:
        attempts.append(engine)
        if len(attempts) == 1:
            raise RuntimeError("CUDA out of memory")

    observer = RecordingObserver()
    cache.engines.run(cache.family.resolve("a"), call, observer=observer)
    assert len(observer.warnings) == 1 and "started again" in observer.warnings[0]


@pytest.mark.parametrize(("leak", "refreshes"), [(0, False), (LEAK_BYTES + 1, True)])
def test_out_of_memory_twice_restarts_the_worker_only_if_memory_was_not_freed(leak: int, *, refreshes: bool) -> None:
    allocated, calls = [0], []
    cache = Cache(StubFamily(), allocated=lambda: allocated[0])

    def call(engine: Engine) -> None:
        calls.append(engine)
        allocated[0] += leak
        raise MemoryError

    with pytest.raises(DeviceMemoryError, match="Ask for less|ask for less") as failed:
        cache.run("a", call)
    assert len(calls) == 2
    reply = failed.value.to_reply()
    assert reply["error_code"] == "out_of_memory" and reply.get("refresh_worker", False) is refreshes
    if not refreshes:
        assert cache.use("a") == "a"


def test_what_a_failed_call_allocated_is_freed_before_the_leak_is_measured() -> None:
    class Tensor:
        """Counted as allocated as long as something refers to it."""

    tensors: weakref.WeakSet[Tensor] = weakref.WeakSet()
    cache = Cache(StubFamily(), allocated=lambda: len(tensors) * 2 * LEAK_BYTES)

    def call(engine: Engine) -> None:
        tensor = Tensor()
        tensors.add(tensor)
        raise MemoryError

    with pytest.raises(DeviceMemoryError) as failed:
        cache.run("a", call)
    assert "refresh_worker" not in failed.value.to_reply()


def test_what_an_engine_keeps_for_the_next_call_is_dropped_before_the_work_is_started_again() -> None:
    """And before a leak is measured: kept buffers are none."""
    kept, seen = [0], list[int]()

    class KeepingFamily(StubFamily):
        def free_memory(self, engine: Engine) -> None:
            kept[0] = 0

    def call(engine: Engine) -> None:
        seen.append(kept[0])
        kept[0] = 2 * LEAK_BYTES
        raise MemoryError

    with pytest.raises(DeviceMemoryError) as failed:
        Cache(KeepingFamily(), allocated=lambda: kept[0]).run("a", call)
    assert seen == [0, 0] and kept == [0]
    assert "refresh_worker" not in failed.value.to_reply()


class Holder:
    """A call that stays on the device, with the model `a`, until `leave` is set."""

    def __init__(self, cache: Cache, pool: ThreadPoolExecutor) -> None:
        self.leave = threading.Event()
        self._entered = threading.Event()
        self.result = pool.submit(cache.run, "a", self._hold)
        assert self._entered.wait(TIMEOUT_S)

    def _hold(self, engine: Engine) -> None:
        self._entered.set()
        assert self.leave.wait(TIMEOUT_S)


def test_an_engine_is_not_loaded_while_another_call_runs_on_the_device() -> None:
    family = StubFamily()
    cache = Cache(family)
    with ThreadPoolExecutor(2) as pool:
        holder = Holder(cache, pool)
        second = pool.submit(cache.use, "b")
        time.sleep(0.2)
        assert family.loads == ["a"]
        holder.leave.set()
        assert second.result(TIMEOUT_S) == "b"


def test_two_engines_are_not_loaded_at_the_same_time() -> None:
    inside, most = [], []

    def load(name: str) -> None:
        inside.append(name)
        most.append(len(inside))
        time.sleep(0.02)
        inside.remove(name)

    cache = Cache(StubFamily(before_load=load))
    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(cache.use, "abcdef")) == list("abcdef")
    assert max(most) == 1


def test_an_evicted_engine_is_freed_only_when_no_call_runs_on_the_device() -> None:
    cache = Cache(StubFamily({"a": 1, "idle": 5, "b": 9}))
    idle = cache.run("idle", weakref.ref)
    with ThreadPoolExecutor(2) as pool:
        holder = Holder(cache, pool)
        second = pool.submit(cache.use, "b")
        wait_for(lambda: "stub/idle" not in cache.list_loaded())
        time.sleep(0.1)
        assert idle() is not None
        holder.leave.set()
        assert second.result(TIMEOUT_S) == "b"
    assert idle() is None


def test_a_call_within_a_call_loads_a_model_whose_load_waits_for_the_device() -> None:
    family = StubFamily()
    cache = Cache(family)
    entered = threading.Event()

    def nest(engine: Engine) -> str:
        entered.set()
        wait_for(lambda: ("stub", "b") in cache.engines._pending)
        return cache.use("b")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.run, "a", nest)
        assert entered.wait(TIMEOUT_S)
        second = pool.submit(cache.use, "b")
        assert (first.result(TIMEOUT_S), second.result(TIMEOUT_S)) == ("b", "b")
    assert family.loads == ["a", "b"]


def test_files_are_downloaded_before_the_device_is_taken_and_a_cancel_ends_the_wait() -> None:
    downloading, cancelled = threading.Event(), threading.Event()

    def download(name: str, observer: Observer) -> None:
        if name == "b":
            downloading.set()
            wait_for_cancel(observer)

    def wait_for_cancel(observer: Observer) -> None:
        while True:
            observer.check()
            time.sleep(0.01)

    def check() -> None:
        if cancelled.is_set():
            raise CancelledError("stop")

    family = StubFamily(before_download=download)
    cache = Cache(family)
    with ThreadPoolExecutor(2) as pool:
        second = pool.submit(cache.run, "b", lambda engine: None, check)
        assert downloading.wait(TIMEOUT_S)
        assert cache.use("a") == "a"
        cancelled.set()
        with pytest.raises(CancelledError):
            second.result(TIMEOUT_S)
    assert family.loads == ["a"]


def test_both_models_of_a_pair_are_downloaded_before_the_first_is_loaded() -> None:
    steps: list[str] = []
    family = StubFamily(
        before_load=lambda name: steps.append(f"load {name}"),
        before_download=lambda name, observer: steps.append(f"download {name}"),
    )
    cache = Cache(family)
    cache.engines.run_pair(family.resolve("a"), family.resolve("b"), lambda first, second: None)
    assert set(steps[: steps.index("load a")]) == {"download a", "download b"}


def test_a_model_larger_than_the_budget_is_refused_before_it_is_downloaded() -> None:
    downloads: list[str] = []
    cache = Cache(StubFamily({"a": 11}, before_download=lambda name, observer: downloads.append(name)))
    with pytest.raises(ModelError, match="MODEL_MEMORY_BYTES"):
        cache.use("a")
    assert downloads == []


def test_out_of_memory_while_loading_evicts_idle_engines_and_tries_once_more() -> None:
    family = StubFamily()
    cache = Cache(family)
    cache.use("idle")

    def once(name: str) -> None:
        if family.loads.count("a") == 1:
            raise RuntimeError("CUDA error: out of memory")

    family.before_load = once
    assert cache.use("a") == "a"
    assert family.loads == ["idle", "a", "a"] and cache.list_loaded() == ["stub/a"]


def test_another_runtime_error_is_not_tried_again() -> None:
    cache = Cache(StubFamily())
    calls = []

    def call(engine: Engine) -> None:
        calls.append(engine)
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        cache.run("a", call)
    assert len(calls) == 1


def test_the_caller_may_define_which_errors_are_memory_errors() -> None:
    cache = Cache(StubFamily(), out_of_memory=lambda error: "full" in str(error))

    def call(engine: Engine) -> None:
        raise RuntimeError("the card is full")

    with pytest.raises(DeviceMemoryError):
        cache.run("a", call)


def make_device_failures() -> dict[str, BaseException]:
    import torch

    return {
        "an illegal address": torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
        "an assertion": torch.AcceleratorError("CUDA error: device-side assert triggered"),
        "no text": torch.AcceleratorError(""),
        "cuDNN": RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        "cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"),
        "a failed capture": RuntimeError("CUDA error: operation failed due to a previous error during capture"),
    }


@pytest.mark.parametrize("name", make_device_failures())
def test_a_failed_gpu_is_the_jobs_error_and_asks_for_a_fresh_worker(name: str) -> None:
    error = make_device_failures()[name]

    def call(engine: Engine) -> None:
        raise error

    with pytest.raises(DeviceError) as failed:
        Cache(StubFamily()).run("a", call)
    reply = failed.value.to_reply()
    assert (reply["error_code"], reply["refresh_worker"]) == ("device_lost", True)
    assert failed.value.__cause__ is error and "stub/a" in reply["error"]


def test_a_gpu_that_fails_while_an_engine_is_loaded_asks_for_a_fresh_worker() -> None:
    import torch

    def fail(name: str) -> None:
        raise torch.AcceleratorError("CUDA error: unspecified launch failure")

    with pytest.raises(DeviceError):
        Cache(StubFamily(before_load=fail)).use("a")


def test_an_error_that_hides_a_failed_gpu_is_found_by_asking_the_gpu() -> None:
    def call(engine: Engine) -> None:
        raise ModelError("The checkpoint cannot be loaded.")

    with pytest.raises(ModelError):
        Cache(StubFamily(), is_gpu_alive=lambda: True).run("a", call)
    with pytest.raises(DeviceError):
        Cache(StubFamily(), is_gpu_alive=lambda: False).run("a", call)


def test_a_job_that_ends_well_does_not_wait_for_the_gpu() -> None:
    asked: list[bool] = []

    def is_gpu_alive() -> bool:
        asked.append(True)
        return False

    assert Cache(StubFamily(), is_gpu_alive=is_gpu_alive).use("a") == "a" and not asked


def test_a_gpu_out_of_memory_has_not_failed() -> None:
    import torch

    def call(engine: Engine) -> None:
        raise torch.AcceleratorError("CUDA error: out of memory")

    with pytest.raises(DeviceMemoryError):
        Cache(StubFamily()).run("a", call)


def test_an_engine_that_left_the_process_damaged_asks_for_a_restart_after_the_job() -> None:
    class DamagingFamily(StubFamily):
        def needs_restart(self, engine: Engine) -> bool:
            return engine.name == "b"

    cache = Cache(DamagingFamily())
    cache.use("a")
    assert not cache.engines.needs_restart
    cache.use("b")
    assert cache.engines.needs_restart


def test_torchs_memory_errors_are_recognised() -> None:
    import torch

    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    with pytest.raises(RuntimeError) as failed:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(failed.value)


class StubSeparation(DemucsFamily):
    """Records which models are loaded."""

    def __init__(self) -> None:
        super().__init__(WeightLocations())
        self.loads: list[str] = []
        self.warmed_up = 0

    def memory_bytes(self, name: str) -> int:
        return 1

    def engine_bytes(self, engine: Separator) -> int:
        return 1

    def load(self, name: str, *, device: str) -> DemucsSeparator:
        self.loads.append(name)
        return DemucsSeparator.__new__(DemucsSeparator)

    def download(self, name: str, observer: Observer = UNATTENDED) -> None:
        """Everything is here."""

    def warm_up(self, engine: Separator) -> None:
        self.warmed_up += 1


def test_preload_takes_a_family_with_a_name_or_alone() -> None:
    separation = StubSeparation()
    models = make_models(separation=separation)
    for name in ("demucs/mdx", "demucs", "demucs/mdx"):
        models.preload(name)
    assert separation.loads == ["mdx", "htdemucs"]
    assert separation.warmed_up == 3
    assert set(models.list_loaded()) == {"demucs/mdx", "demucs/htdemucs"}


class WarmedEngine:
    def __init__(self) -> None:
        self.warm_ups = 0

    def warm_up(self) -> None:
        self.warm_ups += 1


@pytest.mark.parametrize("name", ["demucs", "rvc", "hubert", "f0"])
def test_the_families_of_a_cover_warm_their_engines_up(name: str) -> None:
    engine: Any = WarmedEngine()
    build(device="cpu").families.find(name).warm_up(engine)
    assert engine.warm_ups == 1


def test_preload_of_an_unknown_family_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'demucs'"):
        make_models().preload("demuc/mdx")


def test_the_memory_of_the_device_is_measured_if_no_budget_is_given() -> None:
    gpu = Gpu("a GPU", total_bytes=24 * GIBIBYTE, free_bytes=20 * GIBIBYTE)
    engines = EngineCache(device="auto", gpu_finder=lambda: gpu)
    assert engines.device == "cuda" and engines.gpu == gpu
    assert engines.budget_bytes == 24 * GIBIBYTE - 3 * GIBIBYTE // 2
    assert resolve_device("cpu", gpu) == "cpu" and resolve_device("auto", None) in ("cpu", "mps")
    assert measure_budget("cpu", gpu) < 0.81 * measure_available_ram() + GIBIBYTE


def test_available_ram_is_the_containers_limit_less_its_use(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 64000000 kB\nMemAvailable:   32000000 kB\n")
    assert measure_available_ram(tmp_path) == 32_000_000 * 1024
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    for name, text in (("memory.max", "max"), ("memory.current", "9"), ("memory.stat", "inactive_file 5\n")):
        (group / name).write_text(text)
    assert measure_available_ram(tmp_path) == 32_000_000 * 1024
    (group / "memory.max").write_text("1000000")
    assert measure_available_ram(tmp_path) == 1_000_000 - 9 + 5


def test_find_gpu_returns_none_without_a_gpu() -> None:
    found = find_gpu()
    assert found is None or found.total_bytes >= found.free_bytes > 0


class CacheStateMachine(RuleBasedStateMachine):
    """Any sequence of uses, nested uses, failures and evictions keeps the cache within its budget and consistent."""

    def __init__(self) -> None:
        super().__init__()
        self.family = StubFamily({name: size for size, name in enumerate("abcdef", start=1)})
        self.cache = Cache(self.family)
        self.recent: list[str] = []

    @rule(name=st.sampled_from("abcdef"))
    def a_use(self, name: str) -> None:
        assert self.cache.use(name) == name

    @rule(outer=st.sampled_from("abc"), inner=st.sampled_from("abc"))
    def a_nested_use(self, outer: str, inner: str) -> None:
        seen = self.cache.run(outer, lambda e: self.cache.run(inner, lambda i: self.cache.list_loaded()))
        assert {f"stub/{outer}", f"stub/{inner}"} <= set(seen)

    @rule(name=st.sampled_from("abcdef"))
    def a_use_that_fails(self, name: str) -> None:
        with pytest.raises(LookupError):
            self.cache.run(name, lambda engine: "ab"[9])

    @rule(name=st.sampled_from("abcdef"))
    def a_load_that_fails(self, name: str) -> None:
        loaded = f"stub/{name}" in self.cache.list_loaded()

        def fail_to_load(name: str) -> None:
            raise ModelError("broken")

        self.family.before_load = fail_to_load
        try:
            assert self.cache.use(name) == name and loaded
        except ModelError:
            assert not loaded
        finally:
            self.family.before_load = lambda name: None

    @rule()
    def eviction_of_idle_engines(self) -> None:
        self.cache.evict_idle()
        assert self.cache.list_loaded() == []

    @invariant()
    def the_budget_holds_and_nothing_is_left_in_use(self) -> None:
        entries = self.cache.engines._entries.values()
        assert sum(entry.size for entry in entries) <= 10
        assert not self.cache.engines._pending and not any(entry.users for entry in entries)


TestCacheStates = CacheStateMachine.TestCase
TestCacheStates.settings = settings(max_examples=15, stateful_step_count=15, deadline=None)
