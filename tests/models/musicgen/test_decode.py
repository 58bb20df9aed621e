"""Decoding by captured steps finds the codes of eager steps: on a CPU with a recorder that captures nothing, on a GPU
with CUDA graphs."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from errors import CancelledError
from models.checkpoints.locations import WeightLocations
from models.musicgen.decode import (
    GRAPH_BYTES,
    MAX_CAPTURED_STATES,
    STEPS_PER_REPLAY,
    CudaGraphBackend,
    EagerBackend,
    Window,
    decode_window,
    round_up_columns,
)
from models.musicgen.engine import Engine
from models.musicgen.family import MusicGenFamily
from models.musicgen.forward import _make_step_bias
from models.musicgen.inspect import inspect_checkpoint
from models.musicgen.lm import LanguageModel
from models.musicgen.load import load_engine
from models.musicgen.request import GenerationRequest, Sampling
from testing.graph_recorder import EagerRecorder
from testing.musicgen_steps import load_cpu_engine, make_window, prepare_conditions
from testing.tiny_musicgen import WORDS, Shape, write_checkpoint
from tests.models.musicgen.test_parity import TEXTS

SHAPES = {"text": Shape(), "stereo": Shape(stereo=True), "melody": Shape(melody=True)}
SAMPLINGS = [Sampling(temperature=0.0), Sampling(), Sampling(top_p=0.8), Sampling(cfg_coef=1.0)]


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Engine]:
    root = tmp_path_factory.mktemp("checkpoints")
    return {name: load_cpu_engine(write_checkpoint(root / name, shape)) for name, shape in SHAPES.items()}


def window_for(  # noqa: PLR0913 - keywords with defaults
    engine: Engine,
    length: int,
    sampling: Sampling,
    *,
    texts: list[str] = TEXTS,
    known: int = 0,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> Window:
    lm, batch = engine.lm, len(texts)
    prompt = torch.zeros(batch, lm.config.codebooks, known, dtype=torch.long, device=lm.device)
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


REQUESTS = [  # frames, words, clips: longer pieces, longer texts and batches, one after the other
    (60, 3, 1),
    (200, 3, 1),
    (60, 40, 1),
    (400, 40, 1),
    (60, 3, 8),
    (60, 3, 1),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("window_frames", [0, 400])
def test_no_sequence_of_requests_makes_a_capture_fail(
    engines: dict[str, Engine], shape: str, window_frames: int, caplog: pytest.LogCaptureFixture
) -> None:
    """With `window_frames`, as a loaded engine has it, nothing is captured a second time."""
    engine, recorder = engines[shape], EagerRecorder()
    for _ in range(2):  # the engine is evicted and loaded again
        backend, before = CudaGraphBackend(engine.lm, recorder, window_frames=window_frames), recorder.captures
        for frames, words, clips in REQUESTS:
            texts = [" ".join((WORDS * 4)[:words])] * clips
            window, same = (window_for(engine, frames, SAMPLINGS[1], texts=texts, known=frames - 12) for _ in range(2))
            expected = decode_window(engine.lm, EagerBackend(engine.lm, static_shapes=True), same)
            assert torch.equal(decode_window(engine.lm, backend, window), expected)
        assert (recorder.captures - before == recorder.num_graphs) is bool(window_frames)
        del backend
        gc.collect()
        assert recorder.num_graphs == 0
    assert not recorder.has_failed and not caplog.records


def test_a_client_that_tries_every_top_k_needs_the_graphs_of_one(engines: dict[str, Engine]) -> None:
    engine, recorder = engines["text"], EagerRecorder()
    backend, codes = CudaGraphBackend(engine.lm, recorder), set()
    for top_k in range(0, 40, 2):  # 32 codes
        window, same = (window_for(engine, 8, Sampling(top_k=top_k), texts=TEXTS[:1]) for _ in range(2))
        found = decode_window(engine.lm, backend, window)
        assert torch.equal(found, decode_window(engine.lm, EagerBackend(engine.lm), same))
        codes.add(tuple(found.flatten().tolist()))
    assert recorder.captures == recorder.num_graphs == 1 and len(codes) > 3


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
    backend = CudaGraphBackend(engine.lm, EagerRecorder(refuses=True))
    assert not backend.needs_restart
    for _ in range(2):
        assert torch.equal(decode_window(engine.lm, backend, window_for(engine, 40, SAMPLINGS[1])), expected)
        assert backend.needs_restart
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_if_memory_does_not_suffice_for_a_graph_the_other_states_are_dropped_and_it_is_captured_again(
    engines: dict[str, Engine],
) -> None:
    engine, recorder = engines["text"], EagerRecorder()
    backend = CudaGraphBackend(engine.lm, recorder)
    decode_window(engine.lm, backend, window_for(engine, 40, SAMPLINGS[1], texts=TEXTS[:1]))
    window, same = (window_for(engine, 40, SAMPLINGS[1], texts=TEXTS[:2]) for _ in range(2))
    recorder.out_of_memory = 1
    found = decode_window(engine.lm, backend, window)
    assert torch.equal(found, decode_window(engine.lm, EagerBackend(engine.lm), same))
    assert [shape.clips for shape in backend._states] == [2] and recorder.num_graphs == 1
    assert not recorder.has_failed
    recorder.out_of_memory = 2
    with pytest.raises(RuntimeError, match="out of memory"):  # the cache of engines then evicts others and tries again
        decode_window(engine.lm, backend, window_for(engine, 40, SAMPLINGS[1], texts=TEXTS))


@dataclass(frozen=True, eq=False)
class SmallDevice(LanguageModel):
    """A model on a device that has no memory for a state of more columns than `room`."""

    room: int = 0

    def compute_positions(self, count: int) -> torch.Tensor:
        if count > self.room:
            raise RuntimeError("CUDA out of memory.")
        return super().compute_positions(count)


def test_if_memory_does_not_suffice_for_a_whole_window_the_state_is_as_large_as_the_request(
    engines: dict[str, Engine],
) -> None:
    engine = engines["text"]
    lm = SmallDevice(**{field.name: getattr(engine.lm, field.name) for field in fields(engine.lm)}, room=256)
    backend = CudaGraphBackend(lm, EagerRecorder(), window_frames=1500)
    window, same = (window_for(engine, 200, SAMPLINGS[1]) for _ in range(2))
    assert torch.equal(decode_window(lm, backend, window), decode_window(engine.lm, EagerBackend(engine.lm), same))
    assert [decoding.shape.columns for decoding in backend._states.values()] == [256]
    with pytest.raises(RuntimeError, match="out of memory"):
        decode_window(lm, backend, window_for(engine, 300, SAMPLINGS[1]))


def test_kept_states_and_graphs_count_as_the_engines_memory_until_they_are_dropped(engines: dict[str, Engine]) -> None:
    backend = CudaGraphBackend(engines["text"].lm, EagerRecorder())
    engine = replace(engines["text"], backend=backend)
    weights = engine.memory_bytes
    for clips in (1, 8):
        decode_window(engine.lm, backend, window_for(engine, 90, SAMPLINGS[1], texts=TEXTS[:1] * clips))
    layers, dim, width = engine.lm.config.layers, engine.lm.config.dim, engine.lm.cache_dtype.itemsize
    keys_values = sum(2 * layers * rows * 256 * dim * width for rows in (2, 16))
    assert keys_values + 2 * GRAPH_BYTES < engine.memory_bytes - weights < 2 * keys_values + 2 * GRAPH_BYTES
    backend.free_memory()
    assert engine.memory_bytes == weights
    assert EagerBackend(engine.lm).memory_bytes == 0


def test_the_family_tells_the_cache_of_engines_what_the_backend_keeps_and_whether_it_failed(
    engines: dict[str, Engine], tmp_path: Path
) -> None:
    family, weights = MusicGenFamily(WeightLocations(), demo=tmp_path), engines["text"].memory_bytes
    for refuses in (False, True):
        backend = CudaGraphBackend(engines["text"].lm, EagerRecorder(refuses=refuses))
        engine = replace(engines["text"], backend=backend)
        family.warm_up(engine)
        assert family.needs_restart(engine) is refuses and family.engine_bytes(engine) > weights
        family.free_memory(engine)
        assert family.engine_bytes(engine) == weights


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
@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a CUDA device")
@pytest.mark.parametrize("shape", SHAPES)
def test_on_a_gpu_no_sequence_of_requests_makes_a_capture_fail(
    tmp_path: Path, shape: str, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = inspect_checkpoint(write_checkpoint(tmp_path / "model", SHAPES[shape]), WeightLocations())
    for window_frames in (0, 400, 400):
        engine = load_engine(checkpoint, device="cuda")
        backend = CudaGraphBackend(engine.lm, window_frames=window_frames)
        for frames, words, clips in REQUESTS:
            texts = [" ".join((WORDS * 4)[:words])] * clips
            first, again = (
                decode_window(engine.lm, backend, window_for(engine, frames, SAMPLINGS[1], texts=texts))
                for _ in range(2)
            )
            assert torch.equal(first, again)
        assert not backend.needs_restart
        del engine, backend
        gc.collect()
        torch.cuda.empty_cache()
        assert torch.randn(3, device="cuda").isfinite().all()  # as Multi-Band Diffusion draws its noise
    assert not caplog.records


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
