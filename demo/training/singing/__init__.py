"""A singer made of espeak-ng's phonemes and WORLD's vocoder: melodies, lines sung by several voices, and their truth.

Needs Debian's `espeak-ng`. The same arguments give the same samples.
"""

from demo.training.singing.bank import SAMPLE_RATE
from demo.training.singing.melody import SungNote, compose_melody
from demo.training.singing.sing import Phoneme, SungLine, sing
from demo.training.singing.singers import SINGERS, TARGETS, Singer

__all__ = ["SAMPLE_RATE", "SINGERS", "TARGETS", "Phoneme", "Singer", "SungLine", "SungNote", "compose_melody", "sing"]
