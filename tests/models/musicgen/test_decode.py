"""Decoding by captured steps finds the codes of eager steps: on a CPU with a recorder that captures nothing, on a GPU
with CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from errors import CancelledError
from models.checkpoints.locations import WeightLocations
from models.musicgen.decode import (
    MAX_CAPTURED_STATES,
    STEPS_PER_REPLAY,
    CudaGraphBackend,
    EagerBackend,
    Window,
    decode_window,
    round_up_columns,
)
from models.musicgen.engine import Engine
from models.musicgen.forward import _make_step_bias
from models.musicgen.inspect import inspect_checkpoint
from models.musicgen.load import load_engine
from models.musicgen.request import GenerationRequest, Sampling
from testing.graph_recorder import EagerRecorder
from testing.musicgen_steps import load_cpu_engine, make_window, prepare_conditions
from testing.tiny_musicgen import Shape, write_checkpoint
from tests.models.musicgen.test_parity import TEXTS

SHAPES = {"text": Shape(), "stereo": Shape(stereo=True), "melody": Shape(melody=True)}
SAMPLINGS = [Sampling(temperature=0.0), Sampling(), Sampling(top_p=0.8), Sampling(cfg_coef=1.0)]


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Engine]:
    root = tmp_path_factory.mktemp("checkpoints")
    return {name: load_cpu_engine(write_checkpoint(root / name, shape)) for name, shape in SHAPES.items()}


def window_for(
    engine: Engine,
    length: int,
    sampling: Sampling,
    *,
    texts: list[str] = TEXTS,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> Window:
    lm, batch = engine.lm, len(texts)
    prompt = torch.zeros(batch, lm.config.codebooks, 0, dtype=torch.long, device=lm.device)
    conditions = prepare_conditions(engine.conditioning, texts, sampling)
    return make_window(lm, conditions, batch=batch, prompt=prompt, length=length, sampling=sampling, on_step=on_step)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("length", [5, 20, 90])
def test_captured_steps_find_the_codes_that_eager_steps_find(
    engines: dict[str, Engine], shape: str, sampling: Sampling, length: int
) -> None:
    engine = engines[shape]
    expected = decode_window(engine.lm, EagerBackend(engine.lm), window_for(engine, length, sampling))
    recorder, reported = EagerRecorder(), list[int]()
    window = window_for(engine, length, sampling, on_step=lambda done, total: reported.append(done))
    assert torch.equal(decode_window(engine.lm, CudaGraphBackend(engine.lm, recorder), window), expected)
    assert reported == list(range(length + engine.lm.config.pattern.max_delay))
    assert recorder.waited == recorder.events > 0


def test_one_state_serves_windows_of_every_length_and_grows_if_it_must(engines: dict[str, Engine]) -> None:
    """An earlier window leaves no trace in a later one."""
    engine, recorder = engines["text"], EagerRecorder()
    backend = CudaGraphBackend(engine.lm, recorder)
    for length, captures in ((200, 1), (20, 1), (500, 3), (200, 3), (20, 3)):  # a larger state is captured anew
        window, same = (window_for(engine, length, SAMPLINGS[1], texts=TEXTS[:1]) for _ in range(2))
        expected = decode_window(engine.lm, CudaGraphBackend(engine.lm, EagerRecorder()), window)
        assert torch.equal(decode_window(engine.lm, backend, same), expected)
        assert recorder.captures == captures
    assert len(backend._states) == 1


def test_a_client_that_tries_every_top_k_needs_the_graphs_of_one(engines: dict[str, Engine]) -> None:
    engine, recorder = engines["text"], EagerRecorder()
    backend, codes = CudaGraphBackend(engine.lm, recorder), set()
    for top_k in range(0, 40, 2):  # 32 codes
        window, same = (window_for(engine, 8, Sampling(top_k=top_k), texts=TEXTS[:1]) for _ in range(2))
        found = decode_window(engine.lm, backend, window)
        assert torch.equal(found, decode_window(engine.lm, EagerBackend(engine.lm), same))
        codes.add(tuple(found.flatten().tolist()))
    assert recorder.captures == 1 and len(codes) > 3


def test_only_the_most_recent_kinds_of_state_are_kept(engines: dict[str, Engine]) -> None:
    engine = engines["text"]
    backend = CudaGraphBackend(engine.lm, EagerRecorder())
    for count in range(1, MAX_CAPTURED_STATES + 3):
        decode_window(engine.lm, backend, window_for(engine, 5, SAMPLINGS[1], texts=["slow piano"] * count))
    assert [shape.clips for shape in backend._states] == list(range(3, MAX_CAPTURED_STATES + 3))


def test_a_cancelled_window_leaves_no_trace(engines: dict[str, Engine]) -> None:
    engine = engines["stereo"]
    backend = CudaGraphBackend(engine.lm, EagerRecorder())
    first = decode_window(engine.lm, backend, window_for(engine, 40, SAMPLINGS[1]))

    def cancel(done: int, total: int) -> None:
        if done == 13:
            raise CancelledError("stop")

    with pytest.raises(CancelledError):
        decode_window(engine.lm, backend, window_for(engine, 40, SAMPLINGS[1], on_step=cancel))
    assert torch.equal(decode_window(engine.lm, backend, window_for(engine, 40, SAMPLINGS[1])), first)


def test_steps_that_cannot_be_captured_run_one_by_one(
    engines: dict[str, Engine], caplog: pytest.LogCaptureFixture
) -> None:
    engine = engines["text"]
    eager = CudaGraphBackend(engine.lm, EagerRecorder())
    expected = decode_window(engine.lm, eager, window_for(engine, 40, SAMPLINGS[1]))
    refusal = RuntimeError("operation not permitted when stream is capturing")
    backend = CudaGraphBackend(engine.lm, EagerRecorder(error=refusal))
    for _ in range(2):
        assert torch.equal(decode_window(engine.lm, backend, window_for(engine, 40, SAMPLINGS[1])), expected)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "one by one" in caplog.text and "capturing" not in caplog.text


def test_a_lack_of_memory_while_capturing_is_raised(engines: dict[str, Engine]) -> None:
    """The cache of models then frees memory and tries again."""
    engine = engines["text"]
    backend = CudaGraphBackend(engine.lm, EagerRecorder(error=torch.OutOfMemoryError("CUDA out of memory.")))
    with pytest.raises(torch.OutOfMemoryError):
        decode_window(engine.lm, backend, window_for(engine, 40, SAMPLINGS[1]))


def test_no_mask_is_infinite(engines: dict[str, Engine]) -> None:
    """A softmax over columns that are all masked would be NaN: a kernel that reads keys in tiles meets such tiles."""
    for engine in (engines["text"], engines["melody"]):
        backend = CudaGraphBackend(engine.lm, EagerRecorder())
        decode_window(engine.lm, backend, window_for(engine, 20, SAMPLINGS[1]))  # texts of several lengths
        (decoding,) = backend._states.values()
        state = decoding.state
        biases = [state.cross_bias, state.padding_bias, _make_step_bias(state, 256, masked=True)]
        tensors = [bias for bias in biases if bias is not None]
        assert len(tensors) == 2 and all(bool(bias.isfinite().all() and bias.min() < -1e4) for bias in tensors)


@effort(deadline=None)
@given(columns=st.integers(1, 40_000))
def test_a_bucket_of_columns_holds_what_it_is_for(columns: int) -> None:
    length = round_up_columns(columns)
    assert length >= columns and length % 16 == 0 and round_up_columns(length) == length
    assert round_up_columns(1) > STEPS_PER_REPLAY


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_graphs_can_be_switched_off(tmp_path: Path) -> None:
    checkpoint = inspect_checkpoint(write_checkpoint(tmp_path / "model"), WeightLocations())
    eager = load_engine(checkpoint, device="cuda", cuda_graphs=False)
    assert isinstance(eager.backend, EagerBackend)
    assert isinstance(load_engine(checkpoint, device="cuda").backend, CudaGraphBackend)
    assert eager.generate(GenerationRequest(["slow piano"], [1], 0.5, 1.2)).clips[0].duration == 0.5


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a CUDA device")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("length", [20, 90])
def test_on_a_gpu_captured_steps_find_the_codes_that_eager_steps_find(
    tmp_path: Path, shape: str, sampling: Sampling, length: int
) -> None:
    engine = load_engine(
        inspect_checkpoint(write_checkpoint(tmp_path / "model", SHAPES[shape]), WeightLocations()), device="cuda"
    )
    lm, backend = engine.lm, CudaGraphBackend(engine.lm)
    expected = decode_window(lm, EagerBackend(lm, static_shapes=True), window_for(engine, length, sampling))
    first = decode_window(lm, backend, window_for(engine, length, sampling))
    assert (first == expected).float().mean() > 0.9  # float16: near ties may flip

    reported: list[int] = []
    again = window_for(engine, length, sampling, on_step=lambda done, total: reported.append(done))
    assert torch.equal(decode_window(lm, backend, again), first)
    assert reported == list(range(length + lm.config.pattern.max_delay))

    def cancel(done: int, total: int) -> None:
        if done == 3:
            raise CancelledError("stop")

    with pytest.raises(CancelledError):
        decode_window(lm, backend, window_for(engine, length, sampling, on_step=cancel))
    assert torch.equal(decode_window(lm, backend, window_for(engine, length, sampling)), first)
