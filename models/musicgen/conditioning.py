"""From texts and a melody to the tensors that condition MusicGen's language model, as audiocraft's conditioners do.

A checkpoint's conditioners each make embeddings `[n, dim]` of the language model's width. The provider puts them
together for a request's batches, with the null conditions of classifier-free guidance. audiocraft lets the row of a
shorter text attend to the zeros that pad it; here they are masked, so that no clip depends on the others in its batch.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from models.checkpoints.errors import CheckpointError
from models.checkpoints.settings import Settings
from models.checkpoints.tensor_loader import TensorLoader
from models.musicgen.chroma import make_chroma_filters
from models.musicgen.lm import LMConfig
from models.musicgen.request import GenerationRequest
from models.musicgen.t5 import T5, read_tokenizer

DESCRIPTION = "description"
MELODY = "self_wav"
"""audiocraft's names of the two conditions that a request can set."""
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

    @property
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
        if self._tokenize.size > self._t5.vocabulary_size:
            raise CheckpointError(
                f"its tokenizer has {self._tokenize.size} tokens, and its weights have {self._t5.vocabulary_size}"
            )
        self._projection = projection

    @property
    def nbytes(self) -> int:
        """Of all weights."""
        return self._t5.nbytes + self._projection.nbytes

    def encode(self, texts: Sequence[str]) -> list[torch.Tensor]:
        """See `TextConditioner`."""
        return [self._projection(self._t5(self._tokenize(t))) if t else self._projection.zero for t in texts]


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
        return [self._projection(self._look_up(text)) if text else self._projection.zero for text in texts]

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
        filters = make_chroma_filters(self.sample_rate, self._fft_size, settings.integer("n_chroma", most=1200))
        self._filters = torch.from_numpy(filters).to(device)
        self._taper = torch.hann_window(self._window_length, device=device)
        self._projection = projection
        self._frames = self._compute_chroma(torch.zeros(int(self.sample_rate * window), device=device)).shape[0]

    @property
    def nbytes(self) -> int:
        """Of all weights."""
        return self._filters.nbytes + self._taper.nbytes + self._projection.nbytes

    def encode(self, melody: torch.Tensor | None) -> torch.Tensor:
        """`[samples]` at `sample_rate` to `[frames, dim]`; None is the null condition."""
        assert melody is None or melody.ndim == 1, f"a melody of {list(melody.shape)} is not mono"
        chroma = self._compute_chroma(torch.zeros(1) if melody is None else melody)
        repeats = -(-self._frames // chroma.shape[0])
        return self._projection(chroma.repeat(repeats, 1)[: self._frames])

    def _compute_chroma(self, waveform: torch.Tensor) -> torch.Tensor:
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


@dataclass(frozen=True, slots=True, eq=False)
class BatchConditions:
    """The conditions of B clips. Rows are B, or 2B if guided: all clips' conditions, then all their null conditions.

    Args:
        guided: whether there are null conditions.
        context: `[A, L, dim]`, what the first A rows attend to. The context of the other rows is zero, for which
            cross-attention without biases adds exactly zero. None: no row attends to anything.
        context_mask: `[A, L]`, False at positions beyond a row's own context; None if all are as long.
        prepended: `[rows, P, dim]`, what comes before the first column; shorter rows are padded at the left.
        left_padding: `[rows]`, how many of the P positions are padding; None if none are.
    """

    guided: bool
    context: torch.Tensor | None = None
    context_mask: torch.Tensor | None = None
    prepended: torch.Tensor | None = None
    left_padding: torch.Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ConditioningProvider:
    """A checkpoint's conditioners.

    Args:
        config: of the language model: which conditions it attends to, and which are prepended.
        texts: by name, in the checkpoint's order. `description` encodes the request's text, others an empty one.
        melody: None if the model takes no melody.
        window: seconds.
        biased: whether cross-attention has biases, so that rows whose context is zero attend to it too.
    """

    config: LMConfig
    texts: Mapping[str, TextConditioner]
    melody: ChromaConditioner | None
    window: float
    biased: bool = False

    @property
    def nbytes(self) -> int:
        """Of all weights."""
        return sum(text.nbytes for text in self.texts.values()) + (self.melody.nbytes if self.melody else 0)

    def prepare(
        self, request: GenerationRequest, melody: torch.Tensor | None, *, slides: bool = False
    ) -> RequestConditions:
        """Encodes a request's descriptions, each one once.

        Args:
            melody: `[samples]` at the melody conditioner's rate.
            slides: whether there are several windows.
        """
        assert melody is None or melody.ndim == 1, f"a melody of {list(melody.shape)} is not mono"
        texts = list(dict.fromkeys([*request.descriptions, request.negative]))
        encoded = self.texts[DESCRIPTION].encode(texts) if DESCRIPTION in self.texts else []
        return RequestConditions(self, request, melody, slides, dict(zip(texts, encoded, strict=False)))


@dataclass(frozen=True, slots=True, eq=False)
class RequestConditions:
    """Makes the conditions of a request's batches. The melody is encoded once a window."""

    provider: ConditioningProvider
    request: GenerationRequest
    melody: torch.Tensor | None
    slides: bool
    encoded: Mapping[str, torch.Tensor]
    _melodies: dict[float | None, torch.Tensor] = field(default_factory=dict)
    _contexts: dict[tuple[int, ...], tuple[torch.Tensor | None, torch.Tensor | None]] = field(default_factory=dict)

    def prepare_batch(self, indices: Sequence[int], start: float) -> BatchConditions:
        """The conditions of the clips `indices` in the window that starts at `start` seconds."""
        texts = [self.request.descriptions[index] for index in indices]
        guided = self._is_guided(texts)
        rows = [self._encode_row(self.encoded.get(text), start) for text in texts]
        if guided:
            rows += [self._encode_null_row(text) for text in texts]
        names = self.provider.config.cross
        if MELODY in names:
            context, mask = self._build_context(rows, len(indices), guided=guided)
        else:  # the same tensors for every window, so that the caller can tell that nothing has changed
            if (key := tuple(indices)) not in self._contexts:
                self._contexts[key] = self._build_context(rows, len(indices), guided=guided)
            context, mask = self._contexts[key]
        prepend = self.provider.config.prepend
        # audiocraft prepends each condition before those that are there already.
        prepended, left_padding = _pad_left([_concatenate(row, prepend, reverse=True) for row in rows])
        return BatchConditions(guided, context, mask, prepended, left_padding)

    def _is_guided(self, texts: Sequence[str]) -> bool:
        """False if guidance cancels out exactly: its weight is 1, or the null conditions equal the conditions."""
        same = self.melody is None and all(text == self.request.negative for text in texts)
        return self.request.sampling.cfg_coef != 1 and not same

    def _encode_row(self, text: torch.Tensor | None, start: float | None) -> dict[str, torch.Tensor]:
        """All conditions of one row by name, `[n, dim]` each; `start` None: without a melody."""
        row = {}
        for name, conditioner in self.provider.texts.items():
            row[name] = text if name == DESCRIPTION and text is not None else conditioner.encode([""])[0]
        if self.provider.melody is not None:
            row[MELODY] = self._encode_melody(None if self.melody is None else start)
        return row

    def _encode_null_row(self, text: str) -> dict[str, torch.Tensor]:
        """The null conditions beside `text`: the negative text, or zeros as long as `text`, as in audiocraft."""
        conditional = self.encoded.get(text)
        if self.request.negative or conditional is None:
            return self._encode_row(self.encoded.get(self.request.negative), None)
        return self._encode_row(torch.zeros_like(conditional), None)

    def _encode_melody(self, start: float | None) -> torch.Tensor:
        if start not in self._melodies:
            assert self.provider.melody is not None, "a melody for a model that takes none"
            melody = None if start is None else self._cut_melody(start)
            self._melodies[start] = self.provider.melody.encode(melody)
        return self._melodies[start]

    def _cut_melody(self, start: float) -> torch.Tensor:
        """The melody from `start` seconds on. If windows slide, it is repeated to the window's end."""
        assert self.melody is not None and self.provider.melody is not None, "there is no melody to cut"
        rate = self.provider.melody.sample_rate
        if not self.slides:  # the conditioner cuts or repeats it; one second more keeps its edge out of the last frames
            return self.melody[: int((self.provider.window + 1) * rate)]
        first = int(start * rate)
        positions = torch.arange(first, first + int(self.provider.window * rate))
        return self.melody[positions % len(self.melody)]

    def _build_context(
        self, rows: Sequence[Mapping[str, torch.Tensor]], clips: int, *, guided: bool
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """`context` and `context_mask` of `BatchConditions`; null rows are part of it only if they have an effect."""
        names = self.provider.config.cross
        has_nulls = bool(self.request.negative) or MELODY in names or self.provider.biased
        has_conditions = any(self.request.descriptions) or has_nulls
        if not names or not (has_nulls or has_conditions):
            return None, None
        conditioned = rows if guided and has_nulls else rows[:clips]
        contexts = [_concatenate(row, names) for row in conditioned]
        lengths = torch.tensor([len(context) for context in contexts], device=contexts[0].device)
        padded = pad_sequence(contexts, batch_first=True)
        mask = torch.arange(padded.shape[1], device=padded.device) < lengths[:, None]
        return padded, None if bool(mask.all()) else mask


def _concatenate(row: Mapping[str, torch.Tensor], names: Sequence[str], *, reverse: bool = False) -> torch.Tensor:
    """The named conditions of a row, one after the other, `[n, dim]`; n is 0 if it has none of them."""
    parts = [condition for name, condition in row.items() if name in names]
    if not parts:
        return next(iter(row.values()))[:0]
    return torch.cat(parts[::-1] if reverse else parts)


def _pad_left(rows: Sequence[torch.Tensor]) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Rows `[n, dim]` of several lengths as `[rows, P, dim]`, and how many positions of each are padding."""
    longest = max(len(row) for row in rows)
    if not longest:
        return None, None
    padding = torch.tensor([longest - len(row) for row in rows], device=rows[0].device)
    padded = torch.stack([torch.cat([row.new_zeros(longest - len(row), row.shape[1]), row]) for row in rows])
    return padded, padding if bool(padding.any()) else None
