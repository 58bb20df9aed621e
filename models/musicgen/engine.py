"""From an order to sound: windows over the language model, then the codec. Knows no request."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from audio import Audio
from errors import DeadlineError
from models.encodec.codec import Codec
from models.musicgen.conditioning.provider import Hearing, Listener
from models.musicgen.conditions import Conditions
from models.musicgen.decode import Runner, Window, decode_window
from models.musicgen.forward import text_keys_values
from models.musicgen.lm import LanguageModel
from models.musicgen.request import GenerationRequest, GenerationResult, Progress, silent, span
from models.musicgen.windows import Sight, sights, steadied

GPU_BATCH = 8
CODEC_SHARE = 0.1  # of the progress
MBD_CHUNK = 30.0  # s decoded at a time by another decoder than the codec's own
MBD_CONTEXT = 1.0  # s decoded beside a chunk on either side and thrown away, so that no seam is heard


class Decoder(Protocol):
    """Turns codes into sound in place of the codec's own decoder."""

    def decode(self, codec: Codec, codes: torch.Tensor, *, seed: int, progress: Progress) -> torch.Tensor:
        """`[1, K, T]` codes to `[1, C, samples]`; `progress` is called at each of its steps."""


@dataclass(eq=False)
class _Tally:
    """Seconds by stage and steps of one order."""

    steps: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: {"condition_s": 0.0, "decode_s": 0.0, "codec_s": 0.0})

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - started


@dataclass(frozen=True, eq=False)
class Engine:
    """A loaded MusicGen or AudioGen.

    Args:
        runner: moves the language model on by the device's fastest way.
        window: s.
        max_batch: items decoded together. 1 in float32 on a CPU, where an item shall be what it is alone: the products
            round differently for other numbers of rows, enough to part from that once in some hundred pieces.
        codec_batch: items whose codes become sound together. 1 on a CPU, which gains nothing by more; one does not
            fill a GPU.
    """

    lm: LanguageModel
    runner: Runner
    listener: Listener
    codec: Codec
    window: float
    max_batch: int = 1
    codec_batch: int = 1

    @property
    def memory_bytes(self) -> int:
        """What all weights take."""
        return self.lm.nbytes + self.listener.nbytes + self.codec.nbytes

    @property
    def sample_rate(self) -> int:
        """Of the output, Hz."""
        return self.codec.sample_rate

    @torch.inference_mode()
    def generate(
        self, order: GenerationRequest, *, progress: Progress = silent, decoder: Decoder | None = None
    ) -> GenerationResult:
        """Makes every item of `order`, `max_batch` at a time.

        `progress` is called with 0..1 at every step; what it raises ends the work, and the engine stays fit for the
        next. An item depends on its own text and seed alone: what pads a shorter text beside a longer one is masked.
        """
        tally = _Tally()
        with tally.stage("condition_s"):
            prompt = self._prompt_codes(order.prompt)
            views = self._sights(order, prompt.shape[-1])
            hearing = self.listener.to(order, self._melody(order), slides=len(views) > 1)
        work = _Work(self, order, hearing, prompt, views, tally)
        codes, complete = work.all_codes(span(progress, 0.0, 1 - CODEC_SHARE))
        with tally.stage("codec_s"):
            after = span(progress, 1 - CODEC_SHARE, 1.0) if complete else silent
            pieces = [work.piece(waveform) for waveform in work.waveforms(codes, decoder, after)]
        levels = tuple(tuple(levels) for _, levels in pieces)
        items = tuple(piece for piece, _ in pieces)
        return GenerationResult(items, tally.seconds, tally.steps, complete=complete, window_levels_db=levels)

    def _prompt_codes(self, prompt: Audio | None) -> torch.Tensor:
        """`[1, K, P]`; P is 0 without a prompt."""
        if prompt is None:
            return torch.zeros(1, self.lm.shape.codebooks, 0, dtype=torch.long, device=self.lm.device)
        waveform = _converted(prompt, self.sample_rate, self.codec.channels)
        return self.codec.encode(waveform[None].to(self.lm.device))

    def _sights(self, order: GenerationRequest, known: int) -> list[Sight]:
        rate = self.codec.frame_rate
        return sights(
            prompt=known,
            total=known + math.ceil(round(order.duration * rate, 6)),
            window=int(self.window * rate),
            stride=max(int(order.stride * rate), 1),
        )

    def _melody(self, order: GenerationRequest) -> torch.Tensor | None:
        """`[samples]` at the melody encoder's rate."""
        if order.melody is None:
            return None
        assert self.listener.melody is not None, "the request was held against the model"
        return _converted(order.melody, self.listener.melody.sample_rate, 1)[0]


@dataclass(frozen=True, eq=False)
class _Work:
    """One order on an engine."""

    engine: Engine
    order: GenerationRequest
    hearing: Hearing
    prompt: torch.Tensor
    sights: list[Sight]
    tally: _Tally

    def all_codes(self, progress: Progress) -> tuple[list[torch.Tensor], bool]:
        """`[1, K, frames]` for each item, prompt first; and whether that is all, or what there was at the deadline."""
        count = len(self.order.texts)
        size = self.engine.max_batch
        batches = [range(count)[first : first + size] for first in range(0, count, size)]
        made: list[torch.Tensor] = []
        for number, batch in enumerate(batches):
            part = span(progress, number / len(batches), (number + 1) / len(batches))
            try:
                codes, complete = self._decode(batch, part)
            except DeadlineError:
                if not (self.order.partial and made):
                    raise
                return made, False
            made += torch.split(codes, 1)
            if not complete:
                return made, False
        return made, True

    def waveforms(
        self, codes: Sequence[torch.Tensor], decoder: Decoder | None, progress: Progress
    ) -> Iterator[torch.Tensor]:
        """`[C, samples]` of each item, prompt included."""
        codec, count, done = self.engine.codec, len(codes), 0
        for batch in self._codec_batches(codes, 1 if decoder else self.engine.codec_batch):
            part = span(progress, done / count, (done + len(batch)) / count)
            if decoder is None:
                yield from codec.decode(torch.cat(batch), on_chunk=part)
            else:
                yield self._by_decoder(batch[0], decoder, self.order.seeds[done], part)
            done += len(batch)

    @staticmethod
    def _codec_batches(codes: Sequence[torch.Tensor], size: int) -> Iterator[list[torch.Tensor]]:
        """At most `size` items that follow each other; at a deadline the last ones may be shorter than the others."""
        for _, same in itertools.groupby(codes, key=lambda item: item.shape[-1]):
            items = list(same)
            yield from (items[first : first + size] for first in range(0, len(items), size))

    def piece(self, waveform: torch.Tensor) -> tuple[Audio, list[float]]:
        """An item's sound, cut to the order, and its windows' loudness."""
        codec = self.engine.codec
        begin, rate = self.prompt.shape[-1] * codec.hop_length, self.engine.sample_rate
        end = begin + round(self.order.duration * rate)
        first = 0 if self.order.include_prompt else begin
        piece = np.ascontiguousarray(waveform[:, first:end].float().cpu().numpy())
        audio = Audio(piece, rate)
        bounds = [(sight.known - first // codec.hop_length) / codec.frame_rate for sight in self.sights]
        return steadied(audio, [0.0, *bounds[1:]]) if len(bounds) > 1 else (audio, [])

    def _by_decoder(self, codes: torch.Tensor, decoder: Decoder, seed: int, progress: Progress) -> torch.Tensor:
        codec, frames = self.engine.codec, codes.shape[-1]
        chunk, context = (int(seconds * codec.frame_rate) for seconds in (MBD_CHUNK, MBD_CONTEXT))
        pieces = []
        for number, start in enumerate(range(0, frames, chunk)):
            end, left = min(start + chunk, frames), max(start - context, 0)
            step = span(progress, start / frames, end / frames)
            sound = decoder.decode(codec, codes[..., left : end + context], seed=seed + number, progress=step)[0]
            pieces.append(sound[:, (start - left) * codec.hop_length : (end - left) * codec.hop_length])
        return torch.cat(pieces, dim=-1)

    def _decode(self, batch: Sequence[int], progress: Progress) -> tuple[torch.Tensor, bool]:
        """Codes `[B, K, frames]` of a batch, prompt first, and whether they are complete."""
        generators = [torch.Generator().manual_seed(self.order.seeds[index]) for index in batch]
        codes = self.prompt.expand(len(batch), -1, -1)
        first, last = self.sights[0].known, self.sights[-1].end
        text = _Text(self.engine.lm)
        for sight in self.sights:
            with self.tally.stage("condition_s"):
                conditions = self.hearing.conditions(batch, sight.start / self.engine.codec.frame_rate)
                keys_values = text.of(conditions)
            part = span(progress, *((frame - first) / (last - first) for frame in (sight.known, sight.end)))
            window = Window(
                prompt=codes[..., sight.start :],
                length=sight.end - sight.start,
                conditions=conditions,
                sampling=self.order.sampling,
                generators=generators,
                on_step=_Counter(part, self.tally),
                partial=self.order.partial,
                text=keys_values,
            )
            try:
                with self.tally.stage("decode_s"):
                    made = decode_window(self.engine.lm, self.engine.runner, window)
            except DeadlineError:
                if not (self.order.partial and codes.shape[-1] > self.prompt.shape[-1]):
                    raise
                return codes, False
            codes = torch.cat([codes, made[..., sight.known - sight.start :]], dim=-1)
            if made.shape[-1] < window.length:
                return codes, False
        return codes, True


@dataclass(eq=False)
class _Text:
    """Keys and values of the text that a batch's windows attend to, made anew only where that is another."""

    lm: LanguageModel
    context: torch.Tensor | None = None
    made: Sequence[torch.Tensor] | None = None

    def of(self, conditions: Conditions) -> Sequence[torch.Tensor] | None:
        if conditions.context is not self.context:
            self.context = conditions.context
            self.made = None if self.context is None else text_keys_values(self.lm, self.context)
        return self.made


@dataclass(frozen=True, eq=False)
class _Counter:
    """Counts steps, and passes them on as progress."""

    progress: Progress
    tally: _Tally

    def __call__(self, done: int, of: int) -> None:
        self.progress(done / of)
        self.tally.steps += 1


def _converted(sound: Audio, sample_rate: int, channels: int) -> torch.Tensor:
    """`[channels, samples]`, resampled as in training."""
    from julius.resample import resample_frac

    waveform: torch.Tensor = resample_frac(torch.from_numpy(sound.waveform), sound.sample_rate, sample_rate)
    if channels == 1:
        return waveform.mean(0, keepdim=True)
    return waveform.expand(channels, -1)
