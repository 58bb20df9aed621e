"""Decoding by recorded steps against the same steps run one by one: on a CPU uncaptured, on a GPU by CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from errors import CancelledError
from models.checkpoints.locations import WeightLocations
from models.musicgen.decode import StepByStep, Window, decode_window
from models.musicgen.describe import describe
from models.musicgen.engine import Engine
from models.musicgen.graphs import KEPT_STATES, Captured
from models.musicgen.load import load_engine
from models.musicgen.request import Sampling
from testing.musicgen_steps import conditions_of, engine_of, window_of
from testing.tiny_musicgen import Shape, write_checkpoint
from tests.models.musicgen.test_parity import TEXTS

SHAPES = {"text": Shape(), "stereo": Shape(stereo=True), "melody": Shape(melody=True)}
SAMPLINGS = [Sampling(temperature=0.0), Sampling(), Sampling(top_p=0.8), Sampling(cfg_coef=1.0)]


@dataclass
class Direct:
    """A recorder that does its work at once, and counts."""

    recorded: int = 0
    marks: int = 0
    waited: int = 0

    def record(self, work: Callable[[], None], times: int) -> Callable[[], None]:
        self.recorded += 1
        work()

        def again() -> None:
            for _ in range(times):
                work()

        return again

    def mark(self) -> Callable[[], None]:
        self.marks += 1

        def wait() -> None:
            self.waited += 1

        return wait


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Engine]:
    root = tmp_path_factory.mktemp("checkpoints")
    return {name: engine_of(write_checkpoint(root / name, shape)) for name, shape in SHAPES.items()}


def asked(
    engine: Engine,
    length: int,
    sampling: Sampling,
    *,
    texts: list[str] = TEXTS,
    on_step: Callable[[int, int], None] = lambda done, of: None,
) -> Window:
    lm = engine.lm
    prompt = torch.zeros(len(texts), lm.shape.codebooks, 0, dtype=torch.long, device=lm.device)
    conditions = conditions_of(engine.listener, texts, sampling)
    return window_of(lm, conditions, batch=len(texts), prompt=prompt, length=length, sampling=sampling, on_step=on_step)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("length", [5, 20, 90])
def test_recorded_steps_find_the_codes_that_single_steps_find(
    engines: dict[str, Engine], shape: str, sampling: Sampling, length: int
) -> None:
    engine = engines[shape]
    wanted = decode_window(engine.lm, StepByStep(engine.lm), asked(engine, length, sampling))
    recorder, told = Direct(), list[int]()
    window = asked(engine, length, sampling, on_step=lambda done, of: told.append(done))
    assert torch.equal(decode_window(engine.lm, Captured(engine.lm, recorder), window), wanted)
    assert told == list(range(length + engine.lm.shape.pattern.overhang))
    assert recorder.waited == recorder.marks > 0


@pytest.mark.usefixtures("one_thread")
def test_one_state_serves_windows_of_every_length_and_grows_where_it_must(engines: dict[str, Engine]) -> None:
    """What an earlier window left in it is not heard in a later one."""
    engine, recorder = engines["text"], Direct()
    captured = Captured(engine.lm, recorder)
    for length, seen in ((200, 1), (20, 1), (500, 3), (200, 3), (20, 3)):  # a larger one is recorded anew
        window, same = (asked(engine, length, SAMPLINGS[1], texts=TEXTS[:1]) for _ in range(2))
        wanted = decode_window(engine.lm, Captured(engine.lm, Direct()), window)
        assert torch.equal(decode_window(engine.lm, captured, same), wanted)
        assert recorder.recorded == seen
    assert len(captured._kept) == 1


@pytest.mark.usefixtures("one_thread")
def test_states_of_so_many_kinds_are_kept_and_no_more(engines: dict[str, Engine]) -> None:
    engine = engines["text"]
    captured = Captured(engine.lm, Direct())
    for count in range(1, KEPT_STATES + 3):
        decode_window(engine.lm, captured, asked(engine, 5, SAMPLINGS[1], texts=["slow piano"] * count))
    assert [room.batch for room in captured._kept] == list(range(3, KEPT_STATES + 3))


@pytest.mark.usefixtures("one_thread")
def test_a_cancelled_window_leaves_nothing_behind(engines: dict[str, Engine]) -> None:
    engine = engines["stereo"]
    captured = Captured(engine.lm, Direct())
    first = decode_window(engine.lm, captured, asked(engine, 40, SAMPLINGS[1]))

    def stop(done: int, of: int) -> None:
        if done == 13:
            raise CancelledError("stop")

    with pytest.raises(CancelledError):
        decode_window(engine.lm, captured, asked(engine, 40, SAMPLINGS[1], on_step=stop))
    assert torch.equal(decode_window(engine.lm, captured, asked(engine, 40, SAMPLINGS[1])), first)


@dataclass
class Failing(Direct):
    """A recorder whose device refuses in the midst of it."""

    error: Exception = field(default_factory=lambda: RuntimeError("operation not permitted when stream is capturing"))

    def record(self, work: Callable[[], None], times: int) -> Callable[[], None]:
        super().record(work, times)
        raise self.error


@pytest.mark.usefixtures("one_thread")
def test_where_steps_cannot_be_recorded_they_run_one_by_one(
    engines: dict[str, Engine], caplog: pytest.LogCaptureFixture
) -> None:
    engine = engines["text"]
    wanted = decode_window(engine.lm, Captured(engine.lm, Direct()), asked(engine, 40, SAMPLINGS[1]))
    captured = Captured(engine.lm, Failing())
    for _ in range(2):
        assert torch.equal(decode_window(engine.lm, captured, asked(engine, 40, SAMPLINGS[1])), wanted)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "one by one" in caplog.text and "capturing" not in caplog.text


def test_a_lack_of_memory_while_recording_is_told_as_such(engines: dict[str, Engine]) -> None:
    """The cache of models then makes room and tries again."""
    engine = engines["text"]
    captured = Captured(engine.lm, Failing(error=torch.OutOfMemoryError("CUDA out of memory.")))
    with pytest.raises(torch.OutOfMemoryError):
        decode_window(engine.lm, captured, asked(engine, 40, SAMPLINGS[1]))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a CUDA device")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("length", [20, 90])
def test_captured_steps_find_the_codes_that_single_steps_find(
    tmp_path: Path, shape: str, sampling: Sampling, length: int
) -> None:
    engine = load_engine(
        describe(write_checkpoint(tmp_path / "model", SHAPES[shape]), WeightLocations()), device="cuda"
    )
    lm, captured = engine.lm, Captured(engine.lm)
    wanted = decode_window(lm, StepByStep(lm, exact=False), asked(engine, length, sampling))
    first = decode_window(lm, captured, asked(engine, length, sampling))
    assert (first == wanted).float().mean() > 0.9  # float16: near ties may flip

    told: list[int] = []
    again = asked(engine, length, sampling, on_step=lambda done, of: told.append(done))
    assert torch.equal(decode_window(lm, captured, again), first)
    assert told == list(range(length + lm.shape.pattern.overhang))

    def stop(done: int, of: int) -> None:
        if done == 3:
            raise CancelledError("stop")

    with pytest.raises(CancelledError):
        decode_window(lm, captured, asked(engine, length, sampling, on_step=stop))
    assert torch.equal(decode_window(lm, captured, asked(engine, length, sampling)), first)
