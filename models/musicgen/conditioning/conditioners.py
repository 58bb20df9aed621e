"""A checkpoint's conditioners, each from a text or a melody to embeddings `[n, dim]` of the language model's width."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch.nn import functional as F

from models.checkpoints.settings import Settings
from models.checkpoints.tensor_loader import TensorLoader
from models.musicgen.conditioning.t5 import T5, read_tokenizer

MIN_CHROMA_NORM = 1e-6


class TextConditioner(Protocol):
    """Encodes texts, each by itself."""

    @property
    def nbytes(self) -> int: ...

    def encode(self, texts: Sequence[str]) -> list[torch.Tensor]:
        """`[n, dim]` for each text. An empty text is one zero vector, as audiocraft's mask makes it."""


class OutputProjection:
    """The linear layer after a conditioner, in float32."""

    def __init__(self, state: Mapping[str, torch.Tensor], name: str, device: str) -> None:
        take = TensorLoader(state, device, f"condition_provider.conditioners.{name}.output_proj.")
        self.weight, self.bias = take("weight", -1, -1), take("bias", -1)
        self.nbytes = take.nbytes

    def zero(self) -> torch.Tensor:
        """`[1, dim]`: the embedding of an empty text."""
        return torch.zeros(1, self.weight.shape[0], device=self.weight.device)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x.float(), self.weight, self.bias)


class T5Conditioner:
    """A T5 from a folder in transformers' format, in float32. Each text is encoded alone, so none changes another.

    Args:
        tuned: the weights that training gave the T5 (a checkpoint with `finetune`), or empty.
    """

    def __init__(self, folder: Path, projection: OutputProjection, *, tuned: Mapping[str, torch.Tensor]) -> None:
        self._tokenize = read_tokenizer(folder)
        self._t5 = T5.read(folder, str(projection.weight.device), tuned)
        self._projection = projection

    @property
    def nbytes(self) -> int:
        """Of all weights."""
        return self._t5.nbytes + self._projection.nbytes

    def encode(self, texts: Sequence[str]) -> list[torch.Tensor]:
        """See `TextConditioner`."""
        return [self._projection(self._t5(self._tokenize(t))) if t else self._projection.zero() for t in texts]


class LUTConditioner:
    """audiocraft's `lut` conditioner with its `noop` tokenizer: one vector for a whole text, looked up by its hash."""

    def __init__(self, table: torch.Tensor, projection: OutputProjection) -> None:
        self._table, self._projection = table, projection

    @property
    def nbytes(self) -> int:
        """Of all weights."""
        return self._table.nbytes + self._projection.nbytes

    def encode(self, texts: Sequence[str]) -> list[torch.Tensor]:
        """See `TextConditioner`."""
        return [self._projection(self._look_up(text)) if text else self._projection.zero() for text in texts]

    def _look_up(self, text: str) -> torch.Tensor:
        row = int(hashlib.sha256(text.encode()).hexdigest(), 16) % len(self._table)
        return self._table[row][None]


class ChromaConditioner:
    """Chroma of a window of melody, cut or repeated to the trained length: audiocraft's `ChromaStemConditioner`.

    audiocraft runs Demucs inside its conditioner, at every window and for the null condition too, with a random shift.
    Here the caller separates the recording once and passes what is left; the features are the same.

    Args:
        settings: the checkpoint's `chroma_stem`.
        window: as trained, seconds.
    """

    def __init__(self, settings: Settings, projection: OutputProjection, *, window: float, device: str) -> None:
        from librosa.filters import chroma

        self.sample_rate = settings.integer("sample_rate")
        if settings.get("winlen") is None:
            self._window_length = 2 ** settings.integer("radix2_exp", least=2, most=20)
        else:
            self._window_length = settings.integer("winlen", least=4)
        self._fft_size = settings.integer("nfft", self._window_length, least=self._window_length)
        self._hop_length = settings.integer("winhop", self._window_length // 4)
        infinite = settings.get("norm") in (None, math.inf, "inf")
        self._norm = math.inf if infinite else settings.number("norm")
        self._argmax = settings.flag("argmax")
        filters = chroma(
            sr=self.sample_rate, n_fft=self._fft_size, tuning=0, n_chroma=settings.integer("n_chroma", most=1200)
        )
        self._filters = torch.from_numpy(filters).to(device)
        self._taper = torch.hann_window(self._window_length, device=device)
        self._projection = projection
        self._frames = self._chroma(torch.zeros(int(self.sample_rate * window), device=device)).shape[0]

    @property
    def nbytes(self) -> int:
        """Of all weights."""
        return self._filters.nbytes + self._taper.nbytes + self._projection.nbytes

    def encode(self, melody: torch.Tensor | None) -> torch.Tensor:
        """`[samples]` at `sample_rate` to `[frames, dim]`; None is the null condition."""
        assert melody is None or melody.ndim == 1, f"a melody of {list(melody.shape)} is not mono"
        chroma = self._chroma(torch.zeros(1) if melody is None else melody)
        repeats = -(-self._frames // chroma.shape[0])
        return self._projection(chroma.repeat(repeats, 1)[: self._frames])

    def _chroma(self, waveform: torch.Tensor) -> torch.Tensor:
        """`[samples]` to `[frames, n_chroma]`."""
        waveform = waveform.to(self._taper.device)
        if (missing := self._fft_size - len(waveform)) > 0:
            waveform = F.pad(waveform, (missing // 2, missing - missing // 2))
        spectrum = torch.stft(
            waveform,
            self._fft_size,
            hop_length=self._hop_length,
            win_length=self._window_length,
            window=self._taper,
            return_complex=True,
        )
        power = (spectrum / self._taper.square().sum().sqrt()).abs().square()
        chroma = F.normalize(self._filters @ power, p=self._norm, dim=0, eps=MIN_CHROMA_NORM).T
        return F.one_hot(chroma.argmax(-1), chroma.shape[-1]).float() if self._argmax else chroma
