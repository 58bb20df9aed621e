"""The composer and its captions: the same for the same seed, and playable."""

from demo.training.captions import write_captions
from demo.training.compose import compose, encode_midi


def test_composer_repeats_itself_for_a_seed() -> None:
    for seed in range(20):
        assert encode_midi(compose(seed)) == encode_midi(compose(seed))
        assert write_captions(compose(seed)) == write_captions(compose(seed))
    assert encode_midi(compose(1)) != encode_midi(compose(2))


def test_every_note_is_in_midi_range_and_ends() -> None:
    for seed in range(100):
        for note in compose(seed).notes:
            assert 0 <= note.pitch <= 127
            assert 1 <= note.velocity <= 127
            assert note.length > 0
