"""From an order to sound: windows over the language model, then the codec. Knows no request."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from audio import Audio
from models.musicgen.conditions import Conditioner, stacked
from models.musicgen.decode import Window, decode_window
from models.musicgen.order import Generation, Order, Progress, silent, span

GPU_BATCH = 8
CODEC_SHARE = 0.1  # of the progress
CODEC_CHUNK = 30.0  # s decoded at a time: a codec's widest layer takes 8 MB a second and channel
CODEC_CONTEXT = 1.0  # s decoded beside a chunk on either side and thrown away, so that no seam is heard


class Decoder(Protocol):
    """Turns codes into sound in place of the codec's own decoder."""

    def decode(self, codec: Any, codes: torch.Tensor, *, seed: int, progress: Progress) -> torch.Tensor:
        """`[1, K, T]` codes to `[1, C, samples]`; `progress` is called at each of its steps."""


@dataclass(frozen=True)
class _Sight:
    """Frames `start` to `end` are seen, those from `known` on are to be made."""

    start: int
    known: int
    end: int


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
        lm: audiocraft's `LMModel` with its condition provider.
        codec: audiocraft's `CompressionModel`, wrapped for stereo where the model is.
        window: s.
        max_batch: items decoded together. 1 on a CPU: its matrix products round differently for other numbers of rows,
            enough for an item in a batch to part from what it would be alone, once in some hundred pieces.
    """

    lm: Any
    codec: Any
    window: float
    device: str
    max_batch: int = 1

    @property
    def memory_bytes(self) -> int:
        """What all weights take, the text encoders' included (which audiocraft keeps out of the module tree)."""
        encoders = [getattr(part, "t5", None) for part in self.lm.condition_provider.conditioners.values()]
        modules = [module for module in (self.lm, self.codec, *encoders) if module is not None]
        tensors = {id(t): t for module in modules for t in (*module.parameters(), *module.buffers())}
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())

    @property
    def sample_rate(self) -> int:
        """Of the output, Hz."""
        return int(self.codec.sample_rate)

    @torch.inference_mode()
    def generate(self, order: Order, *, progress: Progress = silent, decoder: Decoder | None = None) -> Generation:
        """Makes every item of `order`.

        `progress` is called with 0..1 at every step; what it raises ends the work, and the engine stays fit for the
        next. An item depends on its own text and seed alone: items are batched only with such whose conditions are of
        the same length, for audiocraft does not mask padding, so that padding would change them.
        """
        tally = _Tally()
        with tally.stage("condition_s"):
            prompt = self._prompt_codes(order.prompt)
            conditioner = self._conditioner(order, slides=len(self._sights(order, prompt.shape[-1])) > 1)
            batches = self._batches(order, conditioner)
        codes: dict[int, torch.Tensor] = {}
        for number, batch in enumerate(batches):
            part = span(progress, *((1 - CODEC_SHARE) * (number + k) / len(batches) for k in (0, 1)))
            made = self._decode(_Batch(order, batch, conditioner, prompt, part, tally))
            codes |= {index: made[row : row + 1] for row, index in enumerate(batch)}
        with tally.stage("codec_s"):
            waveforms = self._waveforms(order, codes, decoder, span(progress, 1 - CODEC_SHARE, 1.0))
            items = tuple(self._cut(waveform, order, prompt.shape[-1]) for waveform in waveforms)
        return Generation(items=items, timings=tally.seconds, steps=tally.steps)

    def _conditioner(self, order: Order, *, slides: bool) -> Conditioner:
        melody = None if order.melody is None else self._converted(order.melody, channels=1)
        return Conditioner(self.lm, order, melody, self.sample_rate, self.window, self.device, slides)

    def _batches(self, order: Order, conditioner: Conditioner) -> list[list[int]]:
        """Indices of the items that may share a batch."""
        groups: dict[tuple[Any, ...], list[int]] = defaultdict(list)
        with self._autocast():
            for index, text in enumerate(order.texts):
                groups[conditioner.of(text, 0.0).shape].append(index)
        size = self.max_batch
        return [group[i : i + size] for group in groups.values() for i in range(0, len(group), size)]

    def _sights(self, order: Order, prompt_frames: int) -> list[_Sight]:
        """Windows that slide by the stride once the first is full; each sees the end of what was made before it."""
        rate = self.codec.frame_rate
        size, stride = int(self.window * rate), max(int(order.stride * rate), 1)
        sights, start, known = [], 0, prompt_frames
        total = prompt_frames + math.ceil(round(order.duration * rate, 6))
        while known < total:
            start = max(start, known - (size - stride)) if known - start >= size else start
            end = min(total, start + size)
            sights.append(_Sight(start, known, end))
            start, known = start + stride, end
        return sights

    def _decode(self, batch: _Batch) -> torch.Tensor:
        """Codes `[B, K, frames]` of a batch, prompt first."""
        order, tally = batch.order, batch.tally
        generators = [torch.Generator().manual_seed(order.seeds[index]) for index in batch.indices]
        codes = batch.prompt.expand(len(generators), -1, -1)
        sights = self._sights(order, codes.shape[-1])
        for sight in sights:
            start = sight.start / self.codec.frame_rate
            with tally.stage("condition_s"), self._autocast():
                conditions = stacked([batch.conditioner.of(order.texts[index], start) for index in batch.indices])
            window = Window(
                prompt=codes[..., sight.start :],
                length=sight.end - sight.start,
                conditions=conditions,
                sampling=order.sampling,
                generators=generators,
                on_step=batch.counter(sight, sights),
            )
            with tally.stage("decode_s"), self._autocast():
                made = decode_window(self.lm, window)
            codes = torch.cat([codes, made[..., sight.known - sight.start :]], dim=-1)
        return codes

    def _prompt_codes(self, prompt: Audio | None) -> torch.Tensor:
        """`[1, K, P]`; P is 0 without a prompt."""
        if prompt is None:
            return torch.zeros(1, self.lm.num_codebooks, 0, dtype=torch.long, device=self.device)
        waveform = self._converted(prompt, channels=self.codec.channels)
        codes, scale = self.codec.encode(waveform[None].to(self.device))
        assert scale is None, "no MusicGen codec renormalises"
        result: torch.Tensor = codes
        return result

    def _converted(self, sound: Audio, *, channels: int) -> torch.Tensor:
        """`[channels, samples]` at the model's rate, resampled as in training."""
        from audiocraft.data.audio_utils import convert_audio

        waveform = torch.from_numpy(sound.waveform)
        converted: torch.Tensor = convert_audio(waveform, sound.sample_rate, self.sample_rate, channels)
        return converted

    def _waveforms(
        self, order: Order, codes: dict[int, torch.Tensor], decoder: Decoder | None, progress: Progress
    ) -> Iterator[torch.Tensor]:
        """`[C, samples]` of every item, one at a time, so that none changes with its neighbours."""
        count = len(order.texts)
        for index, seed in enumerate(order.seeds):
            part = span(progress, index / count, (index + 1) / count)
            chunks = list(self._chunks(codes[index].shape[-1]))
            pieces = []
            for number, (left, start, end, right) in enumerate(chunks):
                step = span(part, number / len(chunks), (number + 1) / len(chunks))
                step(0.0)
                sound = self._sound(codes[index][..., left:right], decoder, seed + number, step)
                hop = self.sample_rate / self.codec.frame_rate
                pieces.append(sound[:, int((start - left) * hop) : int((end - left) * hop)])
            yield torch.cat(pieces, dim=-1)

    def _chunks(self, frames: int) -> Iterator[tuple[int, int, int, int]]:
        """(left, start, end, right): `start` to `end` is kept of what is decoded from `left` to `right`."""
        chunk, context = (int(seconds * self.codec.frame_rate) for seconds in (CODEC_CHUNK, CODEC_CONTEXT))
        for start in range(0, frames, chunk):
            end = min(start + chunk, frames)
            yield max(start - context, 0), start, end, min(end + context, frames)

    def _sound(self, codes: torch.Tensor, decoder: Decoder | None, seed: int, progress: Progress) -> torch.Tensor:
        if decoder is None:
            sound: torch.Tensor = self.codec.decode(codes, None)
        else:
            sound = decoder.decode(self.codec, codes, seed=seed, progress=progress)
        return sound[0].float().cpu()

    def _cut(self, waveform: torch.Tensor, order: Order, prompt_frames: int) -> Audio:
        begin = int(prompt_frames * self.sample_rate / self.codec.frame_rate)
        end = begin + round(order.duration * self.sample_rate)
        piece = waveform[:, 0 if order.include_prompt else begin : end]
        return Audio(np.ascontiguousarray(piece.numpy(), dtype=np.float32), self.sample_rate)

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.device == "cpu":
            return nullcontext()
        return torch.autocast(device_type=self.device.partition(":")[0], dtype=torch.float16)


@dataclass(frozen=True, eq=False)
class _Batch:
    """Items that are decoded together, and where their progress and cost go."""

    order: Order
    indices: list[int]
    conditioner: Conditioner
    prompt: torch.Tensor
    progress: Progress
    tally: _Tally

    def counter(self, sight: _Sight, sights: list[_Sight]) -> _Counter:
        """Counts the steps of `sight`, one of `sights`, and passes them on as progress over all of them."""
        first, last = sights[0].known, sights[-1].end
        start, end = ((frame - first) / (last - first) for frame in (sight.known, sight.end))
        return _Counter(span(self.progress, start, end), self.tally)


@dataclass(frozen=True, eq=False)
class _Counter:
    progress: Progress
    tally: _Tally

    def __call__(self, done: int, of: int) -> None:
        self.progress(done / of)
        self.tally.steps += 1
