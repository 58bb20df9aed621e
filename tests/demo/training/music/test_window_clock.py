"""The first layer of the demo MusicGen tells the beat for a whole window of 20 s."""

import math
from typing import Any

import pytest
import torch

from testing.repository import ROOT

SECONDS, FRAME_RATE = 20, 50


@pytest.fixture(scope="module")
def model() -> Any:
    from demo.training.music.checkpoint import load_musicgen

    return load_musicgen(ROOT / "demo/weights/musicgen").lm


@pytest.mark.parametrize("tempo", [72, 100, 128, 157])
def test_beat_of_any_tempo_is_read_from_the_first_layer_for_20_s(model: Any, tempo: int) -> None:
    """One linear read-out, fitted to the first ten seconds, must find the beat in the other ten."""
    from demo.training.music.window_clock import FirstLayer

    layer, frames = FirstLayer(model), SECONDS * FRAME_RATE
    codes = torch.randint(512, (4, 4, frames), generator=torch.Generator().manual_seed(tempo))
    with torch.inference_mode():
        embedded = layer.embed(codes)
        added = layer.run(embedded, [f"techno, {tempo} bpm, drums and bass"] * 4) - embedded
    beat = torch.cos(torch.arange(added.shape[1]) * 2 * math.pi * tempo / 60 / FRAME_RATE)
    early, late = added[:, : frames // 2], added[:, frames // 2 :]
    rows = early.flatten(0, 1)
    gram = rows.T @ rows + len(rows) * 0.1 * torch.eye(rows.shape[1])
    read_out = torch.linalg.solve(gram, rows.T @ beat[: frames // 2].repeat(len(codes)))
    for clip in late @ read_out:
        assert torch.corrcoef(torch.stack([clip, beat[frames // 2 :]]))[0, 1] > 0.8


def test_first_layer_alone_is_that_of_the_model(model: Any) -> None:
    from audiocraft.modules.conditioners import ConditioningAttributes

    from demo.training.music.window_clock import FirstLayer

    codes = torch.randint(512, (1, 4, 60), generator=torch.Generator().manual_seed(0))
    seen: list[torch.Tensor] = []
    hook = model.transformer.layers[0].register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    caption, layer = "soft pads at 90 bpm", FirstLayer(model)
    with torch.inference_mode():
        model.compute_predictions(codes, [ConditioningAttributes(text={"description": caption})])
        alone = layer.run(layer.embed(codes), [caption])
    hook.remove()
    torch.testing.assert_close(alone, seen[0], atol=1e-4, rtol=1e-4)
