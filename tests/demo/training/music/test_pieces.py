"""Which pieces the music is trained on."""

from __future__ import annotations

from demo.training.compose import compose
from demo.training.music.pieces import ADDED, FIRST_ADDED, PIECES, list_seeds


def test_slow_drums_and_pads_are_added_to_the_first_pieces() -> None:
    seeds = list_seeds(PIECES)
    added = [compose(seed) for seed in seeds[PIECES:]]
    assert seeds[:PIECES] == list(range(PIECES)) and len(added) == sum(ADDED.values())
    assert min(piece.seed for piece in added) >= FIRST_ADDED and len({piece.seed for piece in added}) == len(added)
    slow_drums = [piece for piece in added if piece.arrangement == "drums" and piece.bpm < 120]
    assert len(slow_drums) == ADDED["slow drums"]
    assert sum(piece.arrangement == "pad" for piece in added) == ADDED["pad"]


def test_a_short_training_has_a_few_of_every_kind() -> None:
    added = [compose(seed) for seed in list_seeds(70)[70:]]
    assert {piece.arrangement for piece in added} >= {"drums", "pad"} and len(added) < 70
