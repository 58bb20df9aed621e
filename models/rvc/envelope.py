"""The loudness of a converted vocal: matches the source's RMS envelope, and mutes what the source is silent in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import ceil

import numpy as np
from numpy.typing import NDArray

from audio.types import Waveform
from models.f0.catalog import HOP_LENGTH

_MIN_RMS = 1e-6
_SILENT_RMS = 1e-4  # -80 dB of full scale
_SILENT_RATIO = 1e-3  # or 60 dB below the loudest frame, whichever is lower
_ATTACK = 10  # frames before sound in which the noise gate is open
_HOLD = 25  # frames after sound in which it stays open

Envelope = NDArray[np.float64]


def detect_activity(waveform: Waveform) -> NDArray[np.bool_]:
    """Which frames of 10 ms contain sound, or do within the next 0.1 s or did within the last 0.25 s.

    Args:
        waveform: `[T]` at 16 kHz.

    Returns:
        `[ceil(T / 160)]`.
    """
    assert waveform.ndim == 1, f"the waveform is mono, [T], not {list(waveform.shape)}"
    count, whole = -(-len(waveform) // HOP_LENGTH), len(waveform) // HOP_LENGTH
    frames = waveform[: whole * HOP_LENGTH].reshape(-1, HOP_LENGTH)
    energy = np.zeros(count)
    energy[:whole] = np.einsum("ij,ij->i", frames, frames, dtype=np.float64)
    if whole < count:
        energy[whole] = _compute_energy(waveform[whole * HOP_LENGTH :])
    rms = np.sqrt(energy / HOP_LENGTH)
    audible = np.flatnonzero(rms > min(_SILENT_RMS, _SILENT_RATIO * float(rms.max(initial=0.0))))
    changes = np.zeros(count + 1, np.int64)
    np.add.at(changes, np.maximum(audible - _ATTACK, 0), 1)
    np.add.at(changes, np.minimum(audible + _HOLD + 1, count), -1)
    return np.cumsum(changes)[:count] > 0


def apply_noise_gate(blocks: Iterable[Waveform], active: NDArray[np.bool_], hop_length: int) -> Iterator[Waveform]:
    """Sets inactive frames to exact zeros, with a fade over one frame inside the active ones.

    Args:
        blocks: `[n]`, consecutive.
        active: `[frames]`, from `detect_activity`.
        hop_length: samples per frame.

    Yields:
        `[n]` blocks of the same lengths.
    """
    if active.all():
        yield from blocks
        return
    padded = np.concatenate([active[:1], active, active[-1:]])
    opens = padded[:-2] & padded[1:-1] & padded[2:]
    around = np.concatenate([opens[:1], opens, opens[-1:]])
    # The gain is a line from the middle of each frame to that of the next.
    gains = (np.stack([around[:-2], opens, around[2:]], axis=1) & active[:, None]).astype(np.float32)
    gains = np.concatenate([gains, gains[-1:, [1, 1, 1]]])  # for samples that rounding adds after the last frame
    lines = _gain_lines(hop_length)
    position = 0
    for block in blocks:
        first, end = position // hop_length, -(-(position + len(block)) // hop_length)
        frames = gains[np.minimum(np.arange(first, end), len(gains) - 1)]
        position += len(block)
        if frames.all():
            yield block
        else:
            offset = position - len(block) - first * hop_length
            yield block * (frames @ lines).reshape(-1)[offset : offset + len(block)]


def _gain_lines(hop_length: int) -> NDArray[np.float32]:
    """`[3, hop_length]`: the share of the frame before, of the frame itself and of the frame after in each sample."""
    distance = (np.arange(hop_length) + 0.5) / hop_length - 0.5  # from the frame's middle, in frames
    own = (1 - np.abs(distance)).astype(np.float32)
    other = 1 - own  # exact, so that a gain of 1 stays 1
    return np.stack([np.where(distance < 0, other, 0), own, np.where(distance < 0, 0, other)]).astype(np.float32)


def compute_rms_envelope(waveform: Waveform, sample_rate: int) -> Envelope:
    """RMS over 1 s, every half second from the first sample on: `[T]` -> `[1 + T // (sample_rate // 2)]`."""
    half = sample_rate // 2
    energies = [_compute_energy(waveform[start : start + half]) for start in range(0, len(waveform), half)]
    return _compute_envelope(np.array(energies), 1 + len(waveform) // half, half)


@dataclass(eq=False)
class RmsEnvelopeMatcher:
    """Gives a waveform, block by block, the RMS envelope of its source (RVC's `rms_mix_rate`).

    The gain is source^(1 - rate) * own^(rate - 1). As in RVC, both envelopes are stretched over the waveform as torch's
    linear interpolation does it.

    Args:
        source: RMS envelope of the source.
        rate: 0 takes the source's envelope entirely; 1 would change nothing.
        sample_rate: of the waveform, in Hz.
        num_samples: of the whole waveform.
    """

    source: Envelope
    rate: float
    sample_rate: int
    num_samples: int
    _energies: list[float] = field(default_factory=list)
    _pending: list[Waveform] = field(default_factory=list)
    _partial: Waveform = field(default_factory=lambda: np.zeros(0, np.float32))  # of the current half second
    _num_received: int = 0
    _num_sent: int = 0

    def match(self, blocks: Iterable[Waveform]) -> Iterator[Waveform]:
        """`[n]` blocks with the source's envelope: as many samples as `blocks`, about two seconds later."""
        for block in blocks:
            self._receive(block)
            yield from self._take_ready()
        if len(self._partial):
            self._energies.append(_compute_energy(self._partial))
            self._partial = self._partial[:0]
        yield from self._take_ready(last=True)

    @property
    def _half(self) -> int:
        return self.sample_rate // 2

    @property
    def _num_points(self) -> int:
        return 1 + self.num_samples // self._half

    def _receive(self, block: Waveform) -> None:
        self._pending.append(block)
        self._num_received += len(block)
        joined = np.concatenate([self._partial, block])
        whole = len(joined) // self._half * self._half
        self._energies += [_compute_energy(joined[start : start + self._half]) for start in range(0, whole, self._half)]
        self._partial = joined[whole:]

    def _take_ready(self, *, last: bool = False) -> Iterator[Waveform]:
        """The samples for which all points of the envelope are known."""
        known = self._num_points - 1 if last else len(self._energies) - 1
        # Sample t is at point (t + 0.5) * points / num_samples - 0.5 and needs the point after it.
        end = self._num_received if last else int((known + 0.5) * self.num_samples / self._num_points)
        end = min(max(end, self._num_sent), self._num_received)
        if end == self._num_sent:
            return
        own = np.maximum(_compute_envelope(np.array(self._energies), self._num_points, self._half), _MIN_RMS)
        pending = np.concatenate(self._pending)
        start, count = self._num_sent, end - self._num_sent
        self._pending, self._num_sent = [pending[count:]], end
        ratio = self._interpolate(self.source, start, end) / self._interpolate(own, start, end)
        yield pending[:count] * np.power(ratio, np.float32(1 - self.rate), out=ratio)

    def _interpolate(self, envelope: Envelope, start: int, end: int) -> NDArray[np.float32]:
        """The envelope at the samples `start` to `end`, `[end - start]`: one line between each two of its points."""
        result = np.empty(end - start, np.float32)
        step = len(envelope) / self.num_samples  # points per sample
        done = start
        while done < end:
            point = (done + 0.5) * step - 0.5
            left = min(max(int(np.floor(point)), 0), len(envelope) - 1)
            right = min(left + 1, len(envelope) - 1)
            # The first sample beyond `right`; the last line goes on to the end.
            stop = end if right == left else min(max(ceil((right + 0.5) / step - 0.5), done + 1), end)
            share = np.maximum((np.arange(done, stop) + 0.5) * step - 0.5 - left, 0)
            result[done - start : stop - start] = envelope[left] + (envelope[right] - envelope[left]) * share
            done = stop
        return result


def _compute_energy(waveform: Waveform) -> float:
    return float(np.square(waveform, dtype=np.float64).sum())


def _compute_envelope(energies: Envelope, num_points: int, half: int) -> Envelope:
    """The envelope of consecutive half seconds' energies; point j lies between the halves j - 1 and j."""
    padded = np.zeros(num_points + 1)
    padded[1 : 1 + len(energies)] = energies[:num_points]
    return np.asarray(np.sqrt((padded[:-1] + padded[1:]) / (2 * half)))
