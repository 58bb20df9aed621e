"""Sings what another sang: a loaded voice's conversion of a whole vocal, window by window. Knows no requests, no files.

The steps are those of RVC's pipeline; what differs is where they lie in time. Every window starts on an absolute grid
of frames and is fed so that HuBERT gives exactly two 100 Hz frames for each of its own (RVC loses one or two at every
cut, and what follows comes early by as much). Noise and phase belong to moments of the song, not to windows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, gcd
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audio.types import Waveform
from models.f0.curve import coarse, fill_gaps, transpose
from models.rvc.conversion_settings import Conversion
from models.rvc.envelope import LoudnessMatch, gated, open_frames, source_curve
from models.rvc.excitation import phases, sine
from models.rvc.networks import Precision, Synthesizer
from models.rvc.noise import NoiseGrid
from models.rvc.preprocess import Heard
from models.rvc.windows import CONTEXT, ENCODER_TAIL, FADE, FRAME, Windows, cut, joined, mirrored

if TYPE_CHECKING:
    from models.rvc.checkpoint import Checkpoint
    from models.rvc.index import Index
    from models.rvc.retrieval import Retrieval

Progress = Callable[[float], None]
Curve = NDArray[np.float32]
Number = TypeVar("Number", np.float32, np.bool_)

_LONGEST_CORE: Final = 3000  # frames
_WINDOWS_AT_ONCE: Final = {"cuda": 8}
_LATENT_STREAM, _SOURCE_STREAM = 0, 1


class Encoder(Protocol):
    """What the singer needs of a `ContentEncoder`."""

    def features(self, waveform: Tensor, *, version: str) -> Tensor:
        """`[B, T]` at 16 kHz -> `[B, (T - 400) // 320 + 1, D]`."""


class Network(Protocol):
    """What the singer needs of a `Synthesizer`."""

    sample_rate: int
    hop_length: int
    inter_channels: int

    @property
    def uses_f0(self) -> bool: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def memory_bytes(self) -> int: ...

    def latent(self, features: Tensor, pitch: Tensor | None, noise: Tensor) -> Tensor: ...

    def excitation(self, sine: Tensor) -> Tensor: ...

    def decode(self, latent: Tensor, source: Tensor | None) -> Tensor: ...


@dataclass(frozen=True, slots=True, eq=False)
class _Song:
    """One conversion under way: what all windows take from.

    Args:
        f0: `[frames from the first window's start on]`, transposed; None for a voice without.
        voiced: as long, where the vocal has a pitch, whatever was drawn through its gaps.
        phase: as long, of the sine at each frame's beginning.
        stretched_hop: samples a frame while formants are moved, else the voice's hop length.
    """

    heard: Heard
    windows: Windows
    encoder: Encoder
    settings: Conversion
    f0: Curve | None
    voiced: NDArray[np.bool_] | None
    phase: Curve | None
    is_open: NDArray[np.bool_]
    latent_noise: NoiseGrid
    source_noise: NoiseGrid
    stretched_hop: int


class VoiceConverter:
    """A loaded voice.

    Args:
        network: the voice's `Synthesizer`.
        version: `v1` or `v2`: which features it takes.
        retrieval: its index, or None.
        longest_core: frames that a window stands for at most.
        at_once: windows in one batch; None: by device.
    """

    def __init__(
        self,
        network: Network,
        *,
        version: str,
        retrieval: Retrieval | None = None,
        longest_core: int = _LONGEST_CORE,
        at_once: int | None = None,
    ) -> None:
        self.sample_rate = network.sample_rate
        self.uses_f0 = network.uses_f0
        self._network = network
        self._version = version
        self._retrieval = retrieval
        self._longest_core = longest_core
        self._at_once = at_once or _WINDOWS_AT_ONCE.get(network.device.type, 1)

    @property
    def memory_bytes(self) -> int:
        """What the weights and the index hold."""
        return self._network.memory_bytes + (self._retrieval.memory_bytes if self._retrieval else 0)

    def convert(
        self, heard: Heard, f0: Curve | None, encoder: Encoder, settings: Conversion, progress: Progress
    ) -> Iterator[Waveform]:
        """The vocal in this voice, in time with it to the sample.

        Silence comes out as silence: where the vocal lies below -80 dB of full scale (and 60 dB below its loudest) for
        a quarter of a second, all samples are zero. The same arguments give the same samples.

        Args:
            heard: the vocal; of any length, also a single sample.
            f0: `[T]` in Hz at 100 frames/s, 0 = unvoiced; None for a voice without f0.
            encoder: `ContentEncoder`, on the voice's device.
            settings: see there.
            progress: given the finished fraction before each batch of windows and at the end; what it raises ends it.

        Yields:
            `[1, n]` float32 at the voice's rate; together exactly `round(heard.duration * sample_rate)` samples.
        """
        num_samples = round(heard.duration * self.sample_rate)
        if not num_samples:
            return
        song = self._song(_not_empty(heard), f0, encoder, settings, num_samples)
        parts = joined(self._windows(song, progress), FADE * self._network.hop_length)
        coming = _first(parts, num_samples)
        if settings.rms_mix_rate < 1:
            curve = source_curve(song.heard.waveform)
            coming = LoudnessMatch(curve, settings.rms_mix_rate, self.sample_rate, num_samples).matched(coming)
        for part in gated(coming, song.is_open, self._network.hop_length):
            yield part[None]
        progress(1.0)

    def _song(self, heard: Heard, f0: Curve | None, encoder: Encoder, settings: Conversion, num_samples: int) -> _Song:
        hop, device = self._network.hop_length, self._network.device
        windows = cut(ceil(num_samples / hop), self._longest_core)
        curve = self._pitch(f0, windows, settings.semitones)
        voiced = None if curve is None else curve > 0
        curve = fill_gaps(curve) if curve is not None and settings.fill_gaps else curve
        stretched = round(hop * 2 ** (settings.formant_shift / 12))
        return _Song(
            heard=heard,
            windows=windows,
            encoder=encoder,
            settings=settings,
            f0=curve,
            voiced=voiced,
            phase=None if curve is None else phases(curve, self.sample_rate / hop),
            is_open=open_frames(heard.waveform),
            latent_noise=NoiseGrid(settings.seed, _LATENT_STREAM, self._network.inter_channels, device),
            source_noise=NoiseGrid(settings.seed, _SOURCE_STREAM, stretched, device),
            stretched_hop=stretched,
        )

    def _pitch(self, f0: Curve | None, windows: Windows, semitones: float) -> Curve | None:
        if not self.uses_f0:
            return None
        assert f0 is not None, "a voice with f0 is given one"
        known = f0 if len(f0) else np.zeros(1, np.float32)
        span = mirrored(known, -CONTEXT, windows.count * windows.core + 2 * CONTEXT)
        return transpose(span, semitones) if semitones else span

    def _windows(self, song: _Song, progress: Progress) -> Iterator[Waveform]:
        """Each window's sound, half a fade longer on either side than what it stands for."""
        windows = song.windows
        for first in range(0, windows.count, self._at_once):
            group = range(first, min(first + self._at_once, windows.count))
            progress(first / windows.count)
            sounding = [window for window in group if _has_sound(song, window)]
            made = dict(zip(sounding, self._sung(song, sounding), strict=True))
            hop = self._network.hop_length
            start = (CONTEXT - FADE // 2) * hop
            silence = np.zeros((windows.core + FADE) * hop, np.float32)
            for window in group:
                yield made[window][start : start + len(silence)] if window in made else silence

    @torch.inference_mode()
    def _sung(self, song: _Song, windows: Sequence[int]) -> list[Waveform]:
        """The sound of whole windows, `[length * hop]` each."""
        if not windows:
            return []
        features = self._features(song, windows)
        pitch = None
        if song.f0 is not None:
            pitch = self._tensor(np.stack([coarse(_window(song.f0, song, window)) for window in windows]))
        length = song.windows.length
        noise = torch.stack([song.latent_noise.frames(song.windows.start(window), length) for window in windows])
        latent = self._network.latent(features, pitch, noise.transpose(1, 2))
        source = self._source(song, windows)
        hop, stretched = self._network.hop_length, song.stretched_hop
        if stretched == hop:
            return list(self._network.decode(latent, source).cpu().numpy())
        latent = _stretched(latent, stretched / hop)
        if source is not None:
            source = torch.nn.functional.pad(source, (0, latent.shape[2] * hop - source.shape[1]))
        made = self._network.decode(latent, source)[:, : length * stretched]
        return [_squeezed(row, stretched, hop) for row in made.cpu().numpy()]

    def _features(self, song: _Song, windows: Sequence[int]) -> Tensor:
        """Content at 100 frames/s, `[B, length, D]`, drawn towards the voice's own where it has an index."""
        count = song.windows.length * FRAME + ENCODER_TAIL
        waveforms = [mirrored(song.heard.waveform, song.windows.start(window) * FRAME, count) for window in windows]
        own = song.encoder.features(self._tensor(np.stack(waveforms)), version=self._version)
        rate, near = song.settings.index_rate, own
        if self._retrieval is not None and rate > 0:
            blend = self._retrieval.nearest_blend(own.flatten(0, 1), mode=song.settings.retrieval)
            near = blend.view_as(own) * rate + own * (1 - rate)
        own, near = own.repeat_interleave(2, dim=1), near.repeat_interleave(2, dim=1)
        if song.voiced is None or song.settings.protect >= 0.5 or rate == 0:
            return near
        voiced = self._tensor(np.stack([_window(song.voiced, song, window) for window in windows]))
        return torch.where(voiced[..., None], near, near * song.settings.protect + own * (1 - song.settings.protect))

    def _source(self, song: _Song, windows: Sequence[int]) -> Tensor | None:
        if song.f0 is None or song.phase is None:
            return None
        length, hop = song.windows.length, song.stretched_hop
        f0 = self._tensor(np.stack([_window(song.f0, song, window) for window in windows]))
        phase = self._tensor(np.stack([_window(song.phase, song, window) for window in windows]))
        noise = torch.stack([song.source_noise.frames(song.windows.start(window), length) for window in windows])
        rate = self.sample_rate * hop / self._network.hop_length
        return self._network.excitation(sine(f0, phase, noise, sample_rate=rate))

    def _tensor(self, values: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self._network.device)


def load_singer(
    checkpoint: Checkpoint, index: Index | None, *, device: str, precision: Precision = "auto"
) -> VoiceConverter:
    """The voice of a checkpoint, with its index, on a device.

    Raises:
        ModelError: the checkpoint's weights do not fit its config.
    """
    from models.rvc.retrieval import Retrieval

    synthesizer = Synthesizer(checkpoint, device=device, precision=precision)
    retrieval = Retrieval(index, device) if index is not None else None
    return VoiceConverter(synthesizer, version=checkpoint.version, retrieval=retrieval)


def _not_empty(heard: Heard) -> Heard:
    """A sound of one sample at a high rate has none at 16 kHz."""
    return heard if len(heard.waveform) else Heard(np.zeros(1, np.float32), heard.duration)


def _has_sound(song: _Song, window: int) -> bool:
    """Whether anything that the window stands for, or fades into, will be heard."""
    start = max(window * song.windows.core - FADE, 0)
    return bool(song.is_open[start : (window + 1) * song.windows.core + FADE].any())


def _window(curve: NDArray[Number], song: _Song, window: int) -> NDArray[Number]:
    """A window's part of a curve that begins with the first window."""
    start = window * song.windows.core
    return curve[start : start + song.windows.length]


def _stretched(latent: Tensor, factor: float) -> Tensor:
    """`[B, C, T]` at `factor` times as many frames a second, linearly between them: `[B, C, ceil(T * factor)]`."""
    frames = latent.shape[2]
    places = (torch.arange(ceil(frames * factor), device=latent.device) + 0.5) / factor - 0.5
    places = places.clamp(0, frames - 1)
    left = places.floor().long()
    right = (left + 1).clamp(max=frames - 1)
    return torch.lerp(latent[..., left], latent[..., right], (places - left).to(latent.dtype))


def _squeezed(waveform: Waveform, samples: int, into: int) -> Waveform:
    """Plays faster: `samples` become `into`, exactly."""
    import soxr

    common = gcd(samples, into)
    length = len(waveform) // samples * into
    made = soxr.resample(waveform, samples // common, into // common, quality="HQ")[:length]
    return np.pad(made, (0, length - len(made))).astype(np.float32)


def _first(parts: Iterator[Waveform], num_samples: int) -> Iterator[Waveform]:
    """As many samples of the sound as there shall be; the rest is run through."""
    left = num_samples
    for part in parts:
        if left:
            yield part[:left]
        left -= min(left, len(part))
