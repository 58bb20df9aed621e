"""Decoding by captured CUDA graphs, against the same steps run one by one. Needs a CUDA device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from errors import CancelledError
from models.musicgen.decode import StepByStep, decode_window
from models.musicgen.describe import describe
from models.musicgen.graphs import Captured
from models.musicgen.load import load_engine
from models.musicgen.order import Sampling
from models.weights import Weights
from tests.musicgen_steps import conditions_of, window_of
from tests.test_musicgen_parity import TEXTS
from tests.tiny_musicgen import Shape, write_checkpoint

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a CUDA device"),
]


@pytest.mark.parametrize("shape", [Shape(), Shape(stereo=True), Shape(melody=True)])
@pytest.mark.parametrize(
    "sampling", [Sampling(temperature=0.0), Sampling(), Sampling(top_p=0.8), Sampling(cfg_coef=1.0)]
)
@pytest.mark.parametrize("length", [20, 90])
def test_captured_steps_find_the_codes_that_single_steps_find(
    tmp_path: Path, shape: Shape, sampling: Sampling, length: int
) -> None:
    engine = load_engine(describe(write_checkpoint(tmp_path / "model", shape), Weights()), device="cuda")
    lm, captured = engine.lm, Captured(engine.lm)
    conditions = conditions_of(engine.listener, TEXTS, sampling)
    prompt = torch.zeros(3, lm.shape.codebooks, 0, dtype=torch.long, device="cuda")

    def window(on_step: Callable[[int, int], None] = lambda done, of: None):  # type: ignore[no-untyped-def]
        return window_of(lm, conditions, batch=3, prompt=prompt, length=length, sampling=sampling, on_step=on_step)

    wanted = decode_window(lm, StepByStep(lm, exact=False), window())
    assert (decode_window(lm, captured, window()) == wanted).float().mean() > 0.9  # float16: near ties may flip

    told: list[int] = []
    first = decode_window(lm, captured, window(lambda done, of: told.append(done)))
    assert told == list(range(length + lm.shape.pattern.overhang))

    def stop(done: int, of: int) -> None:
        if done == 3:
            raise CancelledError("stop")

    with pytest.raises(CancelledError):
        decode_window(lm, captured, window(stop))
    assert torch.equal(decode_window(lm, captured, window()), first)
