"""Which instruments captions name and pieces have, and the classifier's shapes."""

import numpy as np
import pytest
import torch

from demo.training.compose import compose
from demo.training.music import instruments
from demo.training.render import SAMPLE_RATE
from demo.training.styles import INSTRUMENTS


def test_every_instrument_belongs_to_one_group() -> None:
    assert set(instruments.GROUP_OF) == {"drums", *INSTRUMENTS}
    assert sum(map(len, instruments.GROUPS.values())) == len(instruments.GROUP_OF)


@pytest.mark.parametrize(
    ("caption", "groups"),
    [
        ("A dark drum and bass track with solo drums 150 bpm", {"drums"}),
        ("Soft pads, 96 bpm, warm pad", {"pad"}),
        ("warm deep house with synth bass, drums and e-piano 89 bpm", {"bass", "drums", "keys"}),
        ("rock, bass guitar, electric guitar and trumpet, 120 bpm", {"bass", "guitar", "brass"}),
        ("trance at 138 bpm, lead synth and pluck synth", {"lead"}),
        ("calm piano solo, 72 bpm", {"keys"}),
    ],
)
def test_named_groups_are_read_from_a_caption(caption: str, groups: set[str]) -> None:
    assert instruments.list_named_groups(caption) == groups


def test_groups_of_a_piece_follow_its_parts() -> None:
    for seed in range(20):
        piece = compose(seed)
        assert ("drums" in instruments.list_groups(piece)) == ("drums" in piece.parts)
        assert ("bass" in instruments.list_groups(piece)) == (0 in piece.instruments)


def test_classifier_reports_the_groups_with_a_positive_logit() -> None:
    model = instruments.InstrumentClassifier().eval()
    last = model.layers[-1]
    assert isinstance(last, torch.nn.Linear)
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.tensor([1.0, -1, -1, 1, -1, -1, -1]))
    clip = np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE).astype(np.float32)
    assert instruments.detect_groups(model, [clip, 0.1 * clip]) == [frozenset({"drums", "keys"})] * 2


def test_spectrogram_does_not_depend_on_the_level() -> None:
    clip = np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE).astype(np.float32)
    assert torch.allclose(instruments.compute_mel(clip), instruments.compute_mel(0.2 * clip), atol=1e-4)
    assert instruments.compute_mel(clip).shape == (96, 51)
