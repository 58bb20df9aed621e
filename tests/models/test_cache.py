"""The cache of engines, held by fakes: races, budget, eviction, failing loaders, memory errors."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from errors import CancelledError, DeviceMemoryError, ModelError, UnknownNameError
from models import Models
from models.cache import is_out_of_memory
from models.device import GIBIBYTE, Gpu, available_ram, find_gpu, measured_budget, resolve_device

PATIENCE_S = 20.0


@dataclass
class Engine:
    name: str


@dataclass
class Sized(Engine):
    memory_bytes: int = 0


@dataclass
class FakeFamily:
    """Engines of given sizes; counts loads, and may wait or fail in them."""

    name: str = "fake"
    sizes: dict[str, int] = field(default_factory=dict)
    real_sizes: dict[str, int] = field(default_factory=dict)
    loads: list[str] = field(default_factory=list)
    before_load: Callable[[str], None] = lambda name: None

    def rows(self) -> list[dict[str, Any]]:
        return []

    def status(self) -> str:
        return "ready"

    def search_paths(self) -> list[str]:
        return []

    def resolve(self, name: str | None) -> str:
        return name or "default"

    def memory_bytes(self, name: str) -> int:
        return self.sizes.get(name, 1)

    def load(self, name: str, *, device: str) -> Engine:
        self.loads.append(name)
        self.before_load(name)
        return Sized(name, self.real_sizes[name]) if name in self.real_sizes else Engine(name)


def models_of(family: FakeFamily, **options: Any) -> Models:
    return Models({family.name: family}, **({"budget_bytes": 10} | options))


def use(models: Models, name: str) -> str:
    return models.run("fake", name, lambda engine: str(engine.name))


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.002)


def test_an_engine_is_loaded_once_and_used_again() -> None:
    family = FakeFamily()
    models = models_of(family)
    assert [use(models, "a"), use(models, "a")] == ["a", "a"]
    assert family.loads == ["a"]


def test_callers_who_arrive_together_share_one_load() -> None:
    arrived = threading.Barrier(8)
    family = FakeFamily(before_load=lambda name: time.sleep(0.05))
    models = models_of(family)

    def call() -> str:
        arrived.wait(PATIENCE_S)
        return use(models, "a")

    with ThreadPoolExecutor(8) as pool:
        assert [future.result() for future in [pool.submit(call) for _ in range(8)]] == ["a"] * 8
    assert family.loads == ["a"]


def test_only_one_call_is_on_the_device_at_a_time() -> None:
    models = models_of(FakeFamily())
    inside, most = [], []

    def call(engine: Engine) -> None:
        inside.append(engine)
        most.append(len(inside))
        time.sleep(0.01)
        inside.pop()

    with ThreadPoolExecutor(6) as pool:
        for future in [pool.submit(models.run, "fake", name, call) for name in "abcabc"]:
            future.result()
    assert max(most) == 1


def test_the_least_recently_used_engine_goes_first() -> None:
    family = FakeFamily(sizes={"a": 4, "b": 4, "c": 4})
    models = models_of(family)
    for name in ("a", "b", "a", "c"):
        use(models, name)
    assert models.loaded() == ["fake/c", "fake/a"]


def test_as_many_go_as_make_room_and_no_more() -> None:
    family = FakeFamily(sizes={"a": 3, "b": 3, "c": 3, "d": 6})
    models = models_of(family)
    for name in "abcd":
        use(models, name)
    assert models.loaded() == ["fake/d", "fake/c"]


def test_the_measured_size_replaces_the_estimate() -> None:
    family = FakeFamily(sizes={"a": 1, "b": 5}, real_sizes={"a": 9})
    models = models_of(family)
    use(models, "a")
    use(models, "b")
    assert models.loaded() == ["fake/b"]


def test_an_engine_larger_than_the_budget_is_refused_before_it_is_loaded() -> None:
    family = FakeFamily(sizes={"a": 11})
    models = models_of(family)
    with pytest.raises(ModelError, match="MODEL_MEMORY_BYTES") as refused:
        use(models, "a")
    assert refused.value.error_code == "model_too_large"
    assert family.loads == []


def test_an_engine_in_use_is_never_evicted_and_the_other_waits_for_its_end() -> None:
    family = FakeFamily(sizes={"a": 8, "b": 8})
    models = models_of(family)
    entered, leave = threading.Event(), threading.Event()

    def hold(engine: Engine) -> list[str]:
        entered.set()
        assert leave.wait(PATIENCE_S)
        return models.loaded()

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(models.run, "fake", "a", hold)
        assert entered.wait(PATIENCE_S)
        second = pool.submit(use, models, "b")
        time.sleep(0.2)
        models.evict_idle()
        assert family.loads == ["a"]
        leave.set()
        assert first.result() == ["fake/a"]
        assert second.result() == "b"
    assert models.loaded() == ["fake/b"]


def test_a_call_within_a_call_keeps_both_engines() -> None:
    family = FakeFamily(sizes={"a": 8, "b": 8})
    models = models_of(family)
    seen = models.run("fake", "a", lambda engine: models.run("fake", "b", lambda inner: models.loaded()))
    assert set(seen) == {"fake/a", "fake/b"}


def test_a_failing_loader_fails_everyone_who_waits_and_the_next_call_tries_again() -> None:
    loading, fail = threading.Event(), threading.Event()

    def break_down(name: str) -> None:
        loading.set()
        assert fail.wait(PATIENCE_S)
        raise ModelError("no such weights")

    family = FakeFamily(before_load=break_down)
    models = models_of(family)
    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(use, models, "a")]
        assert loading.wait(PATIENCE_S)
        calls += [pool.submit(use, models, "a") for _ in range(2)]
        time.sleep(0.2)
        fail.set()
        for call in calls:
            with pytest.raises(ModelError, match="no such weights"):
                call.result()
    assert family.loads == ["a"]
    family.before_load = lambda name: None
    assert use(models, "a") == "a"


def test_a_call_that_fails_leaves_the_engine_loaded_and_idle() -> None:
    family = FakeFamily()
    models = models_of(family)
    with pytest.raises(ZeroDivisionError):
        models.run("fake", "a", lambda engine: 1 / 0)
    assert use(models, "a") == "a" and family.loads == ["a"]
    models.evict_idle()
    assert models.loaded() == []


def test_cancelling_ends_the_wait_for_the_device() -> None:
    models = models_of(FakeFamily())
    entered, leave, cancelled = threading.Event(), threading.Event(), threading.Event()

    def hold(engine: Engine) -> None:
        entered.set()
        assert leave.wait(PATIENCE_S)

    def check() -> None:
        if cancelled.is_set():
            raise CancelledError("stop")

    with ThreadPoolExecutor(2) as pool:
        holder = pool.submit(models.run, "fake", "a", hold)
        assert entered.wait(PATIENCE_S)
        waiter = pool.submit(models.run, "fake", "b", lambda engine: None, check=check)
        wait_for(lambda: "fake/b" in models.loaded())
        cancelled.set()
        with pytest.raises(CancelledError):
            waiter.result(PATIENCE_S)
        leave.set()
        holder.result(PATIENCE_S)


def test_cancelling_the_one_who_waits_for_room_does_not_cancel_the_others() -> None:
    family = FakeFamily(sizes={"a": 8, "b": 8})
    models = models_of(family)
    entered, leave, cancelled = threading.Event(), threading.Event(), threading.Event()

    def hold(engine: Engine) -> None:
        entered.set()
        assert leave.wait(PATIENCE_S)

    def check() -> None:
        if cancelled.is_set():
            raise CancelledError("stop")

    with ThreadPoolExecutor(3) as pool:
        holder = pool.submit(models.run, "fake", "a", hold)
        assert entered.wait(PATIENCE_S)
        leader = pool.submit(models.run, "fake", "b", lambda engine: None, check=check)
        wait_for(lambda: ("fake", "b") in models._pending)
        follower = pool.submit(use, models, "b")
        cancelled.set()
        with pytest.raises(CancelledError):
            leader.result(PATIENCE_S)
        leave.set()
        assert follower.result(PATIENCE_S) == "b"
        holder.result(PATIENCE_S)


def test_cancelling_ends_the_wait_for_someone_elses_load() -> None:
    loading, go_on = threading.Event(), threading.Event()

    def slowly(name: str) -> None:
        loading.set()
        assert go_on.wait(PATIENCE_S)

    def check() -> None:
        if loading.is_set():
            raise CancelledError("stop")

    models = models_of(FakeFamily(before_load=slowly))
    with ThreadPoolExecutor(2) as pool:
        loader = pool.submit(use, models, "a")
        assert loading.wait(PATIENCE_S)
        with pytest.raises(CancelledError):
            models.run("fake", "a", lambda engine: None, check=check)
        go_on.set()
        assert loader.result(PATIENCE_S) == "a"


def test_out_of_memory_in_a_call_evicts_the_idle_and_tries_once_more() -> None:
    models = models_of(FakeFamily())
    use(models, "idle")
    seen: list[list[str]] = []

    def call(engine: Engine) -> str:
        seen.append(models.loaded())
        if len(seen) == 1:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return "done"

    assert models.run("fake", "a", call) == "done"
    assert seen == [["fake/a", "fake/idle"], ["fake/a"]]


def test_out_of_memory_twice_asks_for_a_fresh_worker() -> None:
    models = models_of(FakeFamily())
    calls = []

    def call(engine: Engine) -> None:
        calls.append(engine)
        raise MemoryError

    with pytest.raises(DeviceMemoryError) as failed:
        models.run("fake", "a", call)
    assert len(calls) == 2
    assert failed.value.reply()["refresh_worker"] is True


def test_out_of_memory_while_loading_evicts_the_idle_and_tries_once_more() -> None:
    family = FakeFamily()
    models = models_of(family)
    use(models, "idle")

    def once(name: str) -> None:
        if family.loads.count("a") == 1:
            raise RuntimeError("CUDA error: out of memory")

    family.before_load = once
    assert use(models, "a") == "a"
    assert family.loads == ["idle", "a", "a"] and models.loaded() == ["fake/a"]


def test_another_runtime_error_is_not_tried_again() -> None:
    models = models_of(FakeFamily())
    calls = []

    def call(engine: Engine) -> None:
        calls.append(engine)
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        models.run("fake", "a", call)
    assert len(calls) == 1


def test_which_errors_mean_memory_can_be_told_from_outside() -> None:
    models = models_of(FakeFamily(), out_of_memory=lambda error: "full" in str(error))

    def call(engine: Engine) -> None:
        raise RuntimeError("the tape is full")

    with pytest.raises(DeviceMemoryError):
        models.run("fake", "a", call)


def test_torchs_own_memory_error_is_known() -> None:
    import torch

    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    with pytest.raises(RuntimeError) as failed:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(failed.value)


def test_preload_loads_by_family_and_name_and_by_family_alone() -> None:
    family = FakeFamily()
    models = models_of(family)
    models.preload(["fake/a", "fake", "fake/a"])
    assert family.loads == ["a", "default"]


def test_preload_of_an_unknown_family_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'fake'"):
        models_of(FakeFamily()).preload(["fape/a"])


def test_the_devices_memory_is_measured_where_no_budget_is_given() -> None:
    gpu = Gpu("a GPU", total_bytes=24 * GIBIBYTE, free_bytes=20 * GIBIBYTE)
    models = Models({}, device="auto", gpu_finder=lambda: gpu)
    assert models.device == "cuda" and models.gpu == gpu
    assert models.budget_bytes == 24 * GIBIBYTE - 3 * GIBIBYTE // 2
    assert resolve_device("cpu", gpu) == "cpu" and resolve_device("auto", None) in ("cpu", "mps")
    assert measured_budget("cpu", gpu) < 0.81 * available_ram() + GIBIBYTE


def test_a_containers_limit_counts_less_what_it_uses(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 64000000 kB\nMemAvailable:   32000000 kB\n")
    assert available_ram(tmp_path) == 32_000_000 * 1024
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    for name, text in (("memory.max", "max"), ("memory.current", "9"), ("memory.stat", "inactive_file 5\n")):
        (group / name).write_text(text)
    assert available_ram(tmp_path) == 32_000_000 * 1024
    (group / "memory.max").write_text("1000000")
    assert available_ram(tmp_path) == 1_000_000 - 9 + 5


def test_looking_for_a_gpu_does_not_fail_where_there_is_none() -> None:
    found = find_gpu()
    assert found is None or found.total_bytes >= found.free_bytes > 0


class Life(RuleBasedStateMachine):
    """Any sequence of uses, nested uses, failures and evictions keeps the cache within its budget and consistent."""

    def __init__(self) -> None:
        super().__init__()
        self.family = FakeFamily(sizes={name: size for size, name in enumerate("abcdef", start=1)})
        self.models = models_of(self.family)
        self.recent: list[str] = []

    @rule(name=st.sampled_from("abcdef"))
    def a_use(self, name: str) -> None:
        assert use(self.models, name) == name

    @rule(outer=st.sampled_from("abc"), inner=st.sampled_from("abc"))
    def a_nested_use(self, outer: str, inner: str) -> None:
        seen = self.models.run("fake", outer, lambda e: self.models.run("fake", inner, lambda i: self.models.loaded()))
        assert {f"fake/{outer}", f"fake/{inner}"} <= set(seen)

    @rule(name=st.sampled_from("abcdef"))
    def a_use_that_fails(self, name: str) -> None:
        with pytest.raises(LookupError):
            self.models.run("fake", name, lambda engine: "ab"[9])

    @rule(name=st.sampled_from("abcdef"))
    def a_load_that_fails(self, name: str) -> None:
        loaded = f"fake/{name}" in self.models.loaded()

        def break_down(name: str) -> None:
            raise ModelError("broken")

        self.family.before_load = break_down
        try:
            assert use(self.models, name) == name and loaded
        except ModelError:
            assert not loaded
        finally:
            self.family.before_load = lambda name: None

    @rule()
    def everything_idle_goes(self) -> None:
        self.models.evict_idle()
        assert self.models.loaded() == []

    @invariant()
    def the_budget_holds_and_nothing_is_left_in_use(self) -> None:
        entries = self.models._entries.values()
        assert sum(entry.size for entry in entries) <= 10
        assert not self.models._pending and not any(entry.users for entry in entries)


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=15, stateful_step_count=15, deadline=None)
