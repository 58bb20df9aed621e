"""Captured steps: they give what eager ones give, serve conditions of other lengths, and can be dropped."""

from __future__ import annotations

import pytest
import torch

from models.acestep.steps import (
    CONTEXT_ROOM,
    MAX_CAPTURED_STEPS,
    MAX_CAPTURED_TOKENS,
    Conditions,
    CudaGraphBackend,
    EagerBackend,
)
from models.acestep.transformer import DiffusionTransformer
from testing.graph_recorder import EagerRecorder
from testing.tiny_acestep import build_tiny_components

CHANNELS = 4


@pytest.fixture(scope="module")
def transformer() -> DiffusionTransformer:
    components = build_tiny_components(seed=2)
    null = components.condition_encoder.get_parameter("null_condition_emb")
    return DiffusionTransformer(components.transformer, null)


@torch.inference_mode()
def make_conditions(
    transformer: DiffusionTransformer, *, frames: int = 40, length: int = 30, seed: int = 0
) -> Conditions:
    generator = torch.Generator().manual_seed(seed)
    context = torch.randn(1, frames, 2 * CHANNELS, generator=generator)
    return Conditions(context, transformer.compute_cross_kv(torch.randn(1, length, 32, generator=generator)))


def draw_latents(frames: int = 40) -> torch.Tensor:
    return torch.randn(1, frames, CHANNELS, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("guided", [False, True])
@torch.inference_mode()
def test_captured_steps_equal_eager_ones_whatever_was_in_their_tensors_before(
    transformer: DiffusionTransformer, guided: bool
) -> None:
    recorder = EagerRecorder()
    captured, eager = CudaGraphBackend(transformer, recorder), EagerBackend(transformer)
    largest = 0.0
    for length, seed in ((100, 1), (30, 2), (CONTEXT_ROOM, 3)):
        conditions = make_conditions(transformer, length=length, seed=seed)
        predict = captured.start(conditions, guided=guided)
        expected = eager.start(conditions, guided=guided)
        for timestep in (1.0, 0.3):
            velocity = predict(draw_latents(), timestep)
            assert velocity.shape == (2 if guided else 1, 40, CHANNELS)
            assert velocity.dtype == torch.float32
            largest = max(largest, float((velocity - expected(draw_latents(), timestep)).abs().max()))
    print(f"captured against eager steps, guided {guided}: {largest:.2g}")
    assert largest < 5e-6  # the captured one pads its conditions
    assert recorder.captures == 1


@torch.inference_mode()
def test_a_captured_step_gives_the_same_for_the_first_and_for_a_later_request(
    transformer: DiffusionTransformer,
) -> None:
    backend = CudaGraphBackend(transformer, EagerRecorder())
    conditions = make_conditions(transformer)
    first = backend.start(conditions, guided=False)(draw_latents(), 0.5).clone()
    backend.start(make_conditions(transformer, length=90, seed=5), guided=False)(draw_latents(), 0.9)
    assert torch.equal(backend.start(conditions, guided=False)(draw_latents(), 0.5), first)


@torch.inference_mode()
def test_steps_are_captured_by_size_and_the_least_recently_used_is_dropped(transformer: DiffusionTransformer) -> None:
    recorder = EagerRecorder()
    backend = CudaGraphBackend(transformer, recorder)
    for frames in range(40, 40 + 2 * MAX_CAPTURED_STEPS, 2):
        backend.start(make_conditions(transformer, frames=frames), guided=False)
    assert recorder.num_graphs == MAX_CAPTURED_STEPS
    backend.start(make_conditions(transformer, frames=40), guided=False)
    assert recorder.captures == MAX_CAPTURED_STEPS
    backend.start(make_conditions(transformer, frames=20), guided=False)  # in place of 42 frames
    assert (recorder.captures, recorder.num_graphs) == (MAX_CAPTURED_STEPS + 1, MAX_CAPTURED_STEPS)
    backend.start(make_conditions(transformer, frames=40), guided=False)
    assert recorder.captures == MAX_CAPTURED_STEPS + 1
    assert backend.memory_bytes > 0
    backend.free_memory()
    assert (backend.memory_bytes, recorder.num_graphs) == (0, 0)


@torch.inference_mode()
def test_a_long_song_is_not_captured(transformer: DiffusionTransformer) -> None:
    recorder = EagerRecorder()
    backend = CudaGraphBackend(transformer, recorder)
    frames = MAX_CAPTURED_TOKENS + 2  # half as many tokens: twice that with both branches is too much
    conditions = make_conditions(transformer, frames=frames)
    guided = backend.start(conditions, guided=True)
    assert recorder.captures == 0
    assert guided(draw_latents(frames), 0.5).shape == (2, frames, CHANNELS)
    backend.start(conditions, guided=False)
    assert recorder.captures == 1


@torch.inference_mode()
def test_a_step_that_cannot_be_captured_runs_eagerly_and_asks_for_a_restart(transformer: DiffusionTransformer) -> None:
    backend = CudaGraphBackend(transformer, EagerRecorder(refuses=True))
    conditions = make_conditions(transformer)
    velocity = backend.start(conditions, guided=False)(draw_latents(), 0.5)
    expected = EagerBackend(transformer).start(conditions, guided=False)(draw_latents(), 0.5)
    assert (velocity - expected).abs().max() < 5e-6
    assert backend.needs_restart


@torch.inference_mode()
def test_without_memory_for_a_capture_the_other_ones_are_dropped(transformer: DiffusionTransformer) -> None:
    recorder = EagerRecorder()
    backend = CudaGraphBackend(transformer, recorder)
    backend.start(make_conditions(transformer, frames=40), guided=False)
    recorder.out_of_memory = 1
    backend.start(make_conditions(transformer, frames=60), guided=False)
    assert recorder.num_graphs == 1
    recorder.out_of_memory = 2
    with pytest.raises(RuntimeError, match="out of memory"):
        backend.start(make_conditions(transformer, frames=80), guided=False)
    assert backend.start(make_conditions(transformer), guided=False)(draw_latents(), 0.5).isfinite().all()


def test_a_cpu_has_no_work_to_wait_for(transformer: DiffusionTransformer) -> None:
    EagerBackend(transformer).record_event()()
    assert not EagerBackend(transformer).needs_restart
    assert EagerBackend(transformer).memory_bytes == 0
