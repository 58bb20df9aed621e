"""What the language model is trained on in one step."""

from __future__ import annotations

import numpy as np

from demo.training.captions import write_captions
from demo.training.compose import Piece, compose
from demo.training.music.lm import Crops, Emphasis, find_attacks

FRAMES = 1600


def make_crops(pieces: list[Piece], emphasis: Emphasis) -> Crops:
    codes = np.arange(FRAMES, dtype=np.uint16) * np.ones((len(pieces), 4, 1), np.uint16)
    rows = [{"seed": p.seed, "bpm": p.bpm, "arrangement": p.arrangement, "captions": write_captions(p)} for p in pieces]
    return Crops(codes, rows, 0, emphasis)


def find_pieces(arrangement: str, count: int) -> list[Piece]:
    found = [piece for piece in map(compose, range(200)) if piece.arrangement == arrangement]
    return found[:count]


def test_frames_in_which_a_pad_begins_count_more_and_those_of_a_prompt_nothing() -> None:
    (pad,) = find_pieces("pad", 1)
    crops = make_crops([pad], Emphasis({}, {"pad": 4.0}))
    crops.loose, crops.prompt = 1.0, (2.0, 2.0)
    codes, _, weights = crops.batch(1, 1000)
    attacks = set(find_attacks(pad))
    for code, weight in zip(codes[0, 0, 100:].tolist(), weights[0, 100:].tolist(), strict=True):
        assert weight == (4.0 if {code, code - 1} & attacks else 1.0)
    assert weights[0, :100].tolist() == [0.0] * 100 and len(attacks) > 8


def test_a_crop_on_a_bar_has_no_prompt_and_other_arrangements_count_alike() -> None:
    pad, drums = find_pieces("pad", 1)[0], find_pieces("drums", 1)[0]
    crops = make_crops([pad, drums], Emphasis({"pad": 0}, {"pad": 4.0}))
    crops.loose = 0.0
    codes, captions, weights = crops.batch(4, 500)
    assert weights.tolist() == [[1.0] * 500] * 4 and len(captions) == 4
    bar = 240 / drums.bpm * 50
    assert all(abs(first - round(first / bar) * bar) <= 1 for first in codes[:, 0, 0].tolist())


def test_attacks_are_the_frames_of_the_notes() -> None:
    drums = find_pieces("drums", 1)[0]
    attacks = find_attacks(drums)
    assert attacks[0] == 0 and attacks == sorted(set(attacks))
    assert {round(note.start * 60 / drums.bpm * 50) for note in drums.notes} == set(attacks)
