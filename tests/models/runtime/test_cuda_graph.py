"""The CUDA-graph wrapper with a recorder that needs no GPU, and, on a GPU, with real graphs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from models.runtime.cuda_graph import CudaGraphed, CudaGraphRecorder
from testing.graph_recorder import EagerRecorder


def double(x: torch.Tensor) -> torch.Tensor:
    return 2 * x


def make_graphed(
    recorder: EagerRecorder, function: Callable[..., torch.Tensor | None] = double, **options: object
) -> CudaGraphed:
    return CudaGraphed(function, recorder, name="the test", **options)  # type: ignore[arg-type]


def test_each_shape_is_captured_once_after_its_eager_calls() -> None:
    recorder = EagerRecorder()
    function = make_graphed(recorder, eager_calls=2, max_graphs=2)
    for call in range(1, 6):
        for size in (3, 4, 5):
            x = torch.randn(size)
            result = function(x)
            assert result is not None and torch.equal(result, 2 * x)
        assert recorder.captures == (0 if call <= 2 else 2)
    assert function.num_graphs == 2


def test_a_returned_tensor_is_not_overwritten_by_the_next_replay() -> None:
    function = make_graphed(EagerRecorder())
    first, second = function(torch.ones(3)), function(torch.zeros(3))
    assert first is not None and second is not None
    assert first.tolist() == [2, 2, 2] and second.tolist() == [0, 0, 0]


def test_the_callers_input_is_not_kept() -> None:
    function, x = make_graphed(EagerRecorder()), torch.ones(3)
    function(x)
    x.fill_(7)
    result = function(torch.zeros(3))
    assert result is not None and result.tolist() == [0, 0, 0]
    assert x.tolist() == [7, 7, 7]


def test_repeated_steps_change_their_state_in_place_and_the_warm_up_leaves_no_trace() -> None:
    counter, recorder = torch.zeros(1), EagerRecorder()

    def step() -> None:
        counter.add_(1)

    function = make_graphed(recorder, step, repeats=8, mutated=(counter,))
    for calls in (1, 2, 3):
        assert function() is None
        assert int(counter) == 8 * calls
    assert recorder.captures == 1


def test_a_disabled_wrapper_calls_the_function_eagerly() -> None:
    counter, recorder = torch.zeros(1), EagerRecorder()

    def step() -> None:
        counter.add_(1)

    function = make_graphed(recorder, step, repeats=8, mutated=(counter,), enabled=False)
    function()
    assert int(counter) == 8 and recorder.captures == 0 and function.num_graphs == 0


def test_if_capturing_fails_the_function_is_called_as_it_is_and_the_log_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    counter = torch.zeros(1)
    recorder = EagerRecorder(error=RuntimeError("operation not permitted"))

    def step() -> None:
        counter.add_(1)

    function = make_graphed(recorder, step, repeats=8, mutated=(counter,))
    for calls in (1, 2, 3):
        function()
        assert int(counter) == 8 * calls
    assert recorder.captures == 1
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "the test" in caplog.text and "RuntimeError" in caplog.text


def test_a_lack_of_memory_is_raised_unless_the_result_is_there_already() -> None:
    def failing() -> EagerRecorder:
        return EagerRecorder(error=torch.OutOfMemoryError("CUDA out of memory."))

    with pytest.raises(torch.OutOfMemoryError):
        make_graphed(failing())(torch.ones(3))
    result = make_graphed(failing(), tolerance=1e-3)(torch.ones(3))
    assert result is not None and result.tolist() == [2, 2, 2]


def test_a_graph_with_another_result_than_the_function_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    calls = 0

    def drifting(x: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return x + (0.0 if calls == 1 else 1.0)

    function = make_graphed(EagerRecorder(), drifting, tolerance=1e-3)
    first = function(torch.ones(3))
    assert first is not None and first.tolist() == [1, 1, 1]
    assert function.num_graphs == 0 and "not used" in caplog.text
    assert make_graphed(EagerRecorder(), tolerance=1e-3)(torch.ones(3)) is not None


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine on which capturing fails")
def test_without_a_gpu_a_network_runs_eagerly(caplog: pytest.LogCaptureFixture) -> None:
    layer, x = torch.nn.Linear(4, 4), torch.randn(3, 4)
    recorder = CudaGraphRecorder(torch.device("cuda"))
    function = CudaGraphed(layer, recorder, name="a layer", eager_calls=2, tolerance=1e-3)
    with torch.inference_mode():
        for _ in range(6):
            torch.testing.assert_close(function(x), layer(x), atol=0, rtol=0)
    assert sum("a layer" in record.message for record in caplog.records) == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a CUDA device")
def test_on_a_gpu_replays_give_what_the_function_gives() -> None:
    layer = torch.nn.Linear(16, 16).cuda().requires_grad_(False)
    function = CudaGraphed(layer, CudaGraphRecorder(torch.device("cuda")), name="a layer", tolerance=1e-3, max_graphs=2)
    for _ in range(3):
        for rows in (2, 5):
            x = torch.randn(rows, 16, device="cuda")
            torch.testing.assert_close(function(x), layer(x))
    assert function.num_graphs == 2
