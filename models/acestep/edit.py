"""Where an edit takes place: the window that is generated, and the caller's own samples around it. Needs no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from audio import Audio
from audio.dsp.resample import resample
from audio.types import AudioSource, Waveform
from models.acestep.config import FRAME_RATE
from models.acestep.metas import MAX_DURATION_S
from models.acestep.request import Repainting

LATENT_FADE_FRAMES: Final = 25  # at strength 0
WAVEFORM_FADE_S: Final = 0.05  # at strength 0
MIN_WAVEFORM_FADE_S: Final = 0.01  # without any, the seam could click
_CONTEXT_FRAMES: Final = 32  # that the codec sees beside what is kept; its receptive field is about a third of it


@dataclass(frozen=True, slots=True)
class Window:
    """What a repaint generates, on the timeline of its result, which may begin earlier and end later than the source.

    Args:
        left, right: seconds that the result has before and after the source.
        start, end: seconds from the beginning of the result; start < end.
        duration: of the result, seconds.
        strength: as in `Repainting`.
    """

    left: float
    right: float
    start: float
    end: float
    duration: float
    strength: float

    @property
    def first_frame(self) -> int:
        """The first latent frame that is generated."""
        return math.floor(round(self.start * FRAME_RATE, 6))

    @property
    def end_frame(self) -> int:
        """The latent frame after the last one that is generated."""
        return math.ceil(round(self.end * FRAME_RATE, 6))

    @property
    def latent_fade_frames(self) -> int:
        """Over how many frames on either side the sampled latents become the source's."""
        return round(LATENT_FADE_FRAMES * (1 - self.strength))

    @property
    def waveform_fade_s(self) -> float:
        """Of the cross-fade at the seams."""
        return max(WAVEFORM_FADE_S * (1 - self.strength), MIN_WAVEFORM_FADE_S)

    def count_injected_steps(self, num_steps: int) -> int:
        """How many of the first steps are held to the source outside the window."""
        return int(num_steps * (1 - self.strength))

    def find_decoded_frames(self, num_frames: int) -> tuple[int, int]:
        """The first frame that must be decoded, and the one after the last, of `num_frames`."""
        margin = math.ceil(self.waveform_fade_s * FRAME_RATE) + _CONTEXT_FRAMES
        return max(self.first_frame - margin, 0), min(self.end_frame + margin, num_frames)


def find_window_error(duration: float, repainting: Repainting) -> str | None:
    """What is wrong with a window in a source of `duration` seconds, as a sentence for the caller, or None."""
    start, end = repainting.start, duration if repainting.end is None else repainting.end
    given = f"The window to repaint is from {start:g} to {end:g} s, and the source is {duration:.2f} s long"
    if round(end - start, 6) < 1 / FRAME_RATE:
        return f"{given}: its end must be after its start, by {1 / FRAME_RATE:g} s at least."
    if start > duration or end < 0:
        return f"{given}: it must touch the source. It may begin before 0 and end after the source's end."
    total = max(end, duration) - min(start, 0.0)
    if total > MAX_DURATION_S:
        return f"{given}: the result would last {total:.2f} s, and at most {MAX_DURATION_S} s are possible."
    return None


def plan_window(duration: float, repainting: Repainting) -> Window:
    """The window of a source of `duration` seconds; `find_window_error` has found nothing wrong with it."""
    assert find_window_error(duration, repainting) is None, f"a window of {repainting} in {duration} s"
    end = duration if repainting.end is None else repainting.end
    left, right = max(-repainting.start, 0.0), max(end - duration, 0.0)
    return Window(
        left, right, repainting.start + left, end + left, left + duration + right, strength=repainting.strength
    )


def splice(source: AudioSource, generated: Audio, *, first_frame: int, window: Window) -> Audio:
    """Puts the generated window into the source.

    Outside the window the result has the source's samples as they are. The cross-fades lie within the window; only
    where the window has nothing of the source at a seam, because it begins or ends there, does the fade lie in the
    source.

    Args:
        source: mono or stereo, of any rate.
        generated: a part of the result, stereo at the model's rate, that holds the window.
        first_frame: the latent frame of the result that `generated` begins with.

    Returns:
        Audio with the source's rate and channels.
    """
    rate = source.sample_rate
    left, right = round(window.left * rate), round(window.right * rate)
    total = left + source.num_samples + right
    result = np.zeros((source.channels, total), np.float32)
    result[:, left : total - right] = source.read(0, source.num_samples)
    begin = 0 if left else round(window.start * rate)
    end = total if right else min(left + round((window.end - window.left) * rate), total)
    gains = _fade(begin, end, source=range(left, total - right), total=total, fade=round(window.waveform_fade_s * rate))
    audible = np.flatnonzero(gains)
    first, last = int(audible[0]), int(audible[-1]) + 1
    start = first - round(first_frame * rate / FRAME_RATE)
    assert start >= 0, f"what was generated begins {-start} samples after the window"
    new = resample(generated, rate).waveform[:, start : start + last - first]
    new = np.pad(new, ((0, 0), (0, last - first - new.shape[1])), mode="edge")  # a sample, by rounding
    if source.channels != new.shape[0]:
        new = new.mean(axis=0, keepdims=True, dtype=np.float32)
    old, gain = result[:, first:last], gains[first:last]
    result[:, first:last] = np.where(gain == 1, new, old + gain * (new - old))
    return Audio(result, rate)


def _fade(begin: int, end: int, *, source: range, total: int, fade: int) -> Waveform:
    """The gain of the generated samples, `[total]`: 1 from `begin` to `end`, faded in and out at the seams.

    A seam is an end of the window beyond which there is something of the source.
    """
    gains = np.zeros(total, np.float32)
    gains[begin:end] = 1
    inside = min(fade, (end - begin) // 2)
    if begin > 0:
        stop = begin + inside if source.stop - begin >= fade else begin
        start = max(stop - (inside if stop > begin else fade), 0)
        gains[start:stop] = _rise(stop - start)
    if end < total:
        start = end - inside if end - source.start >= fade else end
        stop = min(start + (inside if start < end else fade), total)
        gains[start:stop] = _rise(stop - start)[::-1]
    return gains


def _rise(length: int) -> Waveform:
    """From 0 to 1. Equal gains rather than equal powers, because both sounds are nearly the same there."""
    return (0.5 - 0.5 * np.cos(np.pi * (np.arange(length) + 0.5) / max(length, 1))).astype(np.float32)
