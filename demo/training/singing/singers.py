"""The singers: which voice of espeak-ng each is made from, and how WORLD's parameters are changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True, kw_only=True)
class Singer:
    """One singer.

    Args:
        espeak_voice: language and variant of espeak-ng that speaks the syllables.
        low, high: lowest and highest note, MIDI numbers.
        formant_scale: factor of all formant frequencies; a shorter vocal tract has a larger one.
        tilt_db: change of the spectrum's slope in dB per octave above 500 Hz.
        ring_db: gain of the singer's formant around 2.9 kHz.
        breathiness: share of noise in voiced sounds at high frequencies, 0 to 1.
        vibrato_hz: rate of the vibrato.
        vibrato_cents: its greatest deviation.
        portamento_s: length of a glide from one note to the next.
    """

    name: str
    espeak_voice: str
    low: int
    high: int
    formant_scale: float = 1.0
    tilt_db: float = 0.0
    ring_db: float = 0.0
    breathiness: float = 0.1
    vibrato_hz: float = 5.5
    vibrato_cents: float = 35.0
    portamento_s: float = 0.09

    @property
    def centre(self) -> float:
        """The middle of the range, a MIDI number."""
        return (self.low + self.high) / 2


_ALL = (
    Singer(
        name="alto", espeak_voice="en+f3", low=55, high=72, formant_scale=1.0, tilt_db=-1.0, breathiness=0.25,
        vibrato_hz=5.4, vibrato_cents=30,
    ),
    Singer(
        name="baritone", espeak_voice="en+m3", low=43, high=60, formant_scale=0.92, ring_db=5.0, breathiness=0.05,
        vibrato_hz=5.0, vibrato_cents=40, portamento_s=0.11,
    ),
    Singer(
        name="soprano", espeak_voice="en+f2", low=60, high=77, formant_scale=1.1, tilt_db=0.5, ring_db=3.0,
        vibrato_hz=6.2, vibrato_cents=55, portamento_s=0.08,
    ),
    Singer(
        name="mezzo", espeak_voice="en+f4", low=57, high=74, formant_scale=1.04, tilt_db=-2.5, breathiness=0.5,
        vibrato_hz=5.8, vibrato_cents=15, portamento_s=0.07,
    ),
    Singer(
        name="tenor", espeak_voice="en+m7", low=48, high=65, formant_scale=1.05, ring_db=4.0, breathiness=0.1,
        vibrato_hz=5.9, vibrato_cents=45,
    ),
    Singer(
        name="bass", espeak_voice="en+m1", low=38, high=55, formant_scale=0.85, tilt_db=-1.5, ring_db=2.0,
        vibrato_hz=4.6, vibrato_cents=35, portamento_s=0.13,
    ),
    Singer(
        name="child", espeak_voice="en+f5", low=62, high=76, formant_scale=1.2, tilt_db=1.0, breathiness=0.15,
        vibrato_hz=5.2, vibrato_cents=5, portamento_s=0.06,
    ),
)  # fmt: skip

SINGERS: Mapping[str, Singer] = MappingProxyType({singer.name: singer for singer in _ALL})
"""Every singer by its name."""

TARGETS = ("alto", "baritone")
"""The singers that the demo voices are made of; the others are sources to convert."""
