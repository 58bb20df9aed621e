"""Melody to what the language model listens to: chroma, as audiocraft's `ChromaStemConditioner` takes it.

audiocraft runs Demucs inside its conditioner, at every window and for the null condition too, with a random shift. Here
the caller separates once (with the worker's own Demucs) and hands over what is left; the features are the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional as F

from models.musicgen.conditioning.conditioners import Projection

MIN_NORM = 1e-6


class MelodyEncoder:
    """Chroma of a window of melody, cut or repeated to the trained length, and projected.

    Args:
        settings: the checkpoint's `chroma_stem`, as plain values.
        window: s, as trained.
    """

    def __init__(self, settings: Mapping[str, Any], projection: Projection, *, window: float, device: str) -> None:
        from librosa.filters import chroma

        self.sample_rate = int(settings["sample_rate"])
        self._window_length = int(settings.get("winlen") or 2 ** int(settings["radix2_exp"]))
        self._size = int(settings.get("nfft") or self._window_length)
        self._hop = int(settings.get("winhop") or self._window_length // 4)
        self._norm = float(settings.get("norm") or math.inf)
        self._argmax = bool(settings.get("argmax"))
        bank = chroma(sr=self.sample_rate, n_fft=self._size, tuning=0, n_chroma=int(settings["n_chroma"]))
        self._bank = torch.from_numpy(bank).to(device)
        self._taper = torch.hann_window(self._window_length, device=device)
        self._projection = projection
        self._frames = self._chroma(torch.zeros(int(self.sample_rate * window), device=device)).shape[0]

    @property
    def nbytes(self) -> int:
        return self._bank.nbytes + self._taper.nbytes + self._projection.nbytes

    def encode(self, melody: torch.Tensor | None) -> torch.Tensor:
        """`[samples]` at `sample_rate` to `[frames, dim]`; None is what the model knows as no melody."""
        chroma = self._chroma(torch.zeros(1) if melody is None else melody)
        repeats = -(-self._frames // chroma.shape[0])
        return self._projection(chroma.repeat(repeats, 1)[: self._frames])

    def _chroma(self, sound: torch.Tensor) -> torch.Tensor:
        """`[samples]` to `[frames, n_chroma]`."""
        sound = sound.to(self._taper.device)
        if (missing := self._size - len(sound)) > 0:
            sound = F.pad(sound, (missing // 2, missing - missing // 2))
        spectrum = torch.stft(
            sound,
            self._size,
            hop_length=self._hop,
            win_length=self._window_length,
            window=self._taper,
            return_complex=True,
        )
        power = (spectrum / self._taper.square().sum().sqrt()).abs().square()
        chroma = F.normalize(self._bank @ power, p=self._norm, dim=0, eps=MIN_NORM).T
        return F.one_hot(chroma.argmax(-1), chroma.shape[-1]).float() if self._argmax else chroma
