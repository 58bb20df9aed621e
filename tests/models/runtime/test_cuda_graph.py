"""The CUDA-graph wrapper with a recorder that needs no GPU, and, on a GPU, with real graphs."""

from __future__ import annotations

import threading

import pytest
import torch

from models.runtime.cuda_graph import CudaGraphed, CudaGraphRecorder, GraphRecorder
from testing.graph_recorder import EagerRecorder

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a CUDA device")
REPEATS = 8


class Counter:
    """A step that adds one to a number."""

    def __init__(self, device: str = "cpu") -> None:
        self.value = torch.zeros(1, device=device)
        self.calls = 0

    def step(self) -> None:
        self.calls += 1
        self.value.add_(1)

    def capture(self, recorder: GraphRecorder, pool: object) -> CudaGraphed:
        return CudaGraphed(
            step=self.step, recorder=recorder, pool=pool, name="the test", repeats=REPEATS, mutated=[self.value]
        )


def test_replays_repeat_the_step_and_the_warm_up_leaves_no_trace() -> None:
    counter, recorder = Counter(), EagerRecorder()
    graphed = counter.capture(recorder, recorder.create_pool())
    assert counter.calls == 1 and int(counter.value) == 0
    for calls in (1, 2, 3):
        graphed()
        assert int(counter.value) == REPEATS * calls
    assert recorder.captures == 1


def test_after_a_failed_capture_every_step_runs_one_by_one_and_the_log_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Those that were captured before too: the failed capture spoils the random state that every replay reads."""
    counter, recorder = Counter(), EagerRecorder()
    pool = recorder.create_pool()
    first = counter.capture(recorder, pool)
    assert not recorder.has_failed
    recorder.refuses = True
    second, third = counter.capture(recorder, pool), counter.capture(recorder, pool)
    assert recorder.has_failed and recorder.captures == 2
    for calls, graphed in enumerate((first, second, third), start=1):
        graphed()
        assert int(counter.value) == REPEATS * calls
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "the test" in caplog.text and "one by one" in caplog.text


def test_a_lack_of_memory_is_raised_leaves_no_trace_and_is_no_failed_capture() -> None:
    counter, recorder = Counter(), EagerRecorder(out_of_memory=1)
    with pytest.raises(RuntimeError, match="out of memory"):
        counter.capture(recorder, recorder.create_pool())
    assert int(counter.value) == 0 and not recorder.has_failed
    counter.capture(recorder, recorder.create_pool())()
    assert int(counter.value) == REPEATS and not recorder.has_failed


def test_the_recorder_of_the_tests_refuses_a_pool_whose_last_graph_is_gone() -> None:
    counter, recorder = Counter(), EagerRecorder()
    pool = recorder.create_pool()
    first, second = counter.capture(recorder, pool), counter.capture(recorder, pool)
    del first
    assert recorder.num_graphs == 1
    third = counter.capture(recorder, pool)
    del second, third
    assert recorder.num_graphs == 0 and not recorder.has_failed
    counter.capture(recorder, pool)
    assert recorder.has_failed


@pytest.mark.gpu
@needs_cuda
def test_on_a_gpu_replays_give_what_the_steps_give() -> None:
    counter, recorder = Counter("cuda"), CudaGraphRecorder(torch.device("cuda"))
    graphed = counter.capture(recorder, recorder.create_pool())
    stream = torch.cuda.current_stream()
    for calls in (1, 2, 3):
        graphed()
        recorder.record_event()()
        assert int(counter.value) == REPEATS * calls
    assert counter.calls == 1 + REPEATS and torch.cuda.current_stream() == stream


@pytest.mark.gpu
@needs_cuda
def test_on_a_gpu_graphs_can_be_captured_after_all_earlier_ones_are_gone(caplog: pytest.LogCaptureFixture) -> None:
    recorder = CudaGraphRecorder(torch.device("cuda"))
    for _ in range(3):
        counter, pool = Counter("cuda"), recorder.create_pool()
        graphs = [counter.capture(recorder, pool) for _ in range(2)]
        for graphed in graphs:
            graphed()
        assert int(counter.value) == 2 * REPEATS
        del graphs, graphed
    assert not recorder.has_failed and not caplog.records


@pytest.mark.gpu
@needs_cuda
def test_on_a_gpu_the_work_goes_on_after_a_failed_capture() -> None:
    """On the caller's stream, and with the random generator that Multi-Band Diffusion draws its noise from."""
    recorder, value = CudaGraphRecorder(torch.device("cuda")), torch.zeros(1, device="cuda")
    stream = torch.cuda.current_stream()

    def read_back() -> None:
        value.add_(1)
        value.item()  # waits for the device, which a capture does not allow

    graphed = CudaGraphed(
        step=read_back, recorder=recorder, pool=recorder.create_pool(), name="x", repeats=2, mutated=[value]
    )
    assert recorder.has_failed and torch.cuda.current_stream() == stream
    graphed()
    assert int(value) == 2
    assert torch.randn(3, device="cuda").isfinite().all()


@pytest.mark.gpu
@needs_cuda
def test_on_a_gpu_another_thread_allocates_and_copies_while_steps_are_captured() -> None:
    recorder, counter, ended = CudaGraphRecorder(torch.device("cuda")), Counter("cuda"), threading.Event()

    def load() -> None:
        while not ended.is_set():
            torch.ones(1 << 24).to("cuda")

    thread = threading.Thread(target=load)
    thread.start()
    try:
        graphs = [counter.capture(recorder, recorder.create_pool()) for _ in range(20)]
    finally:
        ended.set()
        thread.join()
    for graphed in graphs:
        graphed()
    assert int(counter.value) == 20 * REPEATS and not recorder.has_failed
