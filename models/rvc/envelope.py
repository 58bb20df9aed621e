"""How loud a converted vocal is: the source's loudness curve given back, and silence where the source is silent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from audio.types import Waveform
from models.rvc.preprocess import SAMPLE_RATE
from models.rvc.windows import FRAME

_QUIETEST_RMS: Final = 1e-6
_SILENT_RMS: Final = 1e-4  # -80 dB of full scale
_SILENT_RATIO: Final = 1e-3  # or 60 dB below the loudest frame, whichever is less
_OPENS_BEFORE: Final = 10  # frames
_CLOSES_AFTER: Final = 25

Levels = NDArray[np.float64]


def open_frames(heard: Waveform) -> NDArray[np.bool_]:
    """Which frames of 10 ms have sound, or have it within 0.1 s after or 0.25 s before them: `[ceil(T / 160)]`."""
    count = -(-len(heard) // FRAME)
    whole = len(heard) // FRAME
    frames = heard[: whole * FRAME].reshape(-1, FRAME)
    energy = np.zeros(count)
    energy[:whole] = np.einsum("ij,ij->i", frames, frames, dtype=np.float64)
    if whole < count:
        energy[whole] = float(np.square(heard[whole * FRAME :], dtype=np.float64).sum())
    rms = np.sqrt(energy / FRAME)
    sounding = rms > min(_SILENT_RMS, _SILENT_RATIO * float(rms.max(initial=0.0)))
    changes = np.zeros(count + 1, np.int64)
    places = np.flatnonzero(sounding)
    np.add.at(changes, np.maximum(places - _OPENS_BEFORE, 0), 1)
    np.add.at(changes, np.minimum(places + _CLOSES_AFTER + 1, count), -1)
    return np.cumsum(changes)[:count] > 0


def gated(parts: Iterable[Waveform], is_open: NDArray[np.bool_], hop_length: int) -> Iterator[Waveform]:
    """`[n]` parts with exact zeros where frames are closed, faded over one frame within the open ones."""
    if is_open.all():
        yield from parts
        return
    padded = np.concatenate([is_open[:1], is_open, is_open[-1:]])
    gains = np.minimum(padded[1:-1], np.minimum(padded[:-2], padded[2:])).astype(np.float32)
    position = 0
    for part in parts:
        places = (np.arange(position, position + len(part), dtype=np.float64) + 0.5) / hop_length - 0.5
        gain = np.interp(places, np.arange(len(gains)), gains).astype(np.float32)
        inside = np.minimum(np.arange(position, position + len(part)) // hop_length, len(is_open) - 1)
        yield part * gain * is_open[inside]
        position += len(part)


def loudness_curve(waveform: Waveform, sample_rate: int) -> Levels:
    """RMS over 1 s, every half second from the first sample on: `[1 + T // (sample_rate // 2)]`."""
    half = sample_rate // 2
    energies = [
        float(np.square(waveform[start : start + half], dtype=np.float64).sum())
        for start in range(0, len(waveform), half)
    ]
    return _curve(np.array(energies), 1 + len(waveform) // half, half)


def _curve(energies: Levels, count: int, half: int) -> Levels:
    """From the energies of consecutive half seconds; point j lies between the halves j - 1 and j."""
    padded = np.zeros(count + 1)
    padded[1 : 1 + len(energies)] = energies[:count]
    return np.asarray(np.sqrt((padded[:-1] + padded[1:]) / (2 * half)))


@dataclass(eq=False)
class LoudnessMatch:
    """Gives a sound, part by part, the loudness curve of its source (RVC's `rms_mix_rate`).

    The gain is source^(1 - rate) * own^(rate - 1), both curves stretched over the sound as torch's linear
    interpolation of a curve over samples does, which is how RVC does it.

    Args:
        source: curve of the source.
        rate: 0 takes all of the source's loudness, 1 (not to be used: nothing to do) none.
        sample_rate: of the sound.
        num_samples: of the whole sound.
    """

    source: Levels
    rate: float
    sample_rate: int
    num_samples: int
    _energies: list[float] = field(default_factory=list)
    _waiting: list[Waveform] = field(default_factory=list)
    _partial: Waveform = field(default_factory=lambda: np.zeros(0, np.float32))
    _received: int = 0
    _given: int = 0

    def matched(self, parts: Iterable[Waveform]) -> Iterator[Waveform]:
        """`[n]` parts in, `[n]` parts out, some two seconds later; as many samples."""
        for part in parts:
            self._receive(part)
            yield from self._ready()
        if len(self._partial):
            self._energies.append(float(np.square(self._partial, dtype=np.float64).sum()))
            self._partial = self._partial[:0]
        yield from self._ready(last=True)

    @property
    def _half(self) -> int:
        return self.sample_rate // 2

    @property
    def _points(self) -> int:
        return 1 + self.num_samples // self._half

    def _receive(self, part: Waveform) -> None:
        self._waiting.append(part)
        self._received += len(part)
        gathered = np.concatenate([self._partial, part])
        whole = len(gathered) // self._half * self._half
        for start in range(0, whole, self._half):
            self._energies.append(float(np.square(gathered[start : start + self._half], dtype=np.float64).sum()))
        self._partial = gathered[whole:]

    def _ready(self, *, last: bool = False) -> Iterator[Waveform]:
        """What can be given now: samples all of whose curve points are known."""
        known = self._points - 1 if last else len(self._energies) - 1
        # Sample t lies at point (t + 0.5) * points / num_samples - 0.5 and needs the next one.
        until = self._received if last else int((known + 0.5) * self.num_samples / self._points)
        until = min(max(until, self._given), self._received)
        if until == self._given:
            return
        curve = np.maximum(_curve(np.array(self._energies), self._points, self._half), _QUIETEST_RMS)
        waiting = np.concatenate(self._waiting)
        count = until - self._given
        places = np.arange(self._given, until) + 0.5
        own = _stretched(curve, places / self.num_samples)
        source = _stretched(self.source, places / self.num_samples)
        self._waiting, self._given = [waiting[count:]], until
        yield waiting[:count] * (source ** (1 - self.rate) * own ** (self.rate - 1)).astype(np.float32)


def _stretched(curve: Levels, places: Levels) -> Levels:
    """`curve` at `places`, 0 to 1 of the sound's length."""
    return np.interp(places * len(curve) - 0.5, np.arange(len(curve)), curve)


def source_curve(heard: Waveform) -> Levels:
    """`loudness_curve` of a vocal as the networks hear it."""
    return loudness_curve(heard, SAMPLE_RATE)
