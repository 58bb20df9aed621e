"""Generates a request's clips: conditions and codes window by window, then the codec."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from audio import Audio
from audio.dsp.resample import resample
from errors import DeadlineError
from models.encodec.codec import Codec
from models.musicgen.conditioning import ConditioningProvider, RequestConditions
from models.musicgen.decode import CudaGraphBackend, DecodeBackend, Window, decode_window
from models.musicgen.forward import compute_cross_kv
from models.musicgen.lm import LanguageModel
from models.musicgen.request import MAX_DRIFT_DB, GenerationRequest, GenerationResult
from models.runtime.progress import Progress, ignore_progress, sub_progress

GPU_BATCH = 8
CODEC_SHARE = 0.1  # of the progress
WARM_UP_S = 0.1  # of music, without graphs
MAX_GAIN_DB = 12.0  # a window that has faded to nothing is not amplified without limit
SILENCE_DB = -70.0


class CodeDecoder(Protocol):
    """Turns codes into audio in place of the codec's own decoder."""

    def decode(self, codec: Codec, codes: torch.Tensor, *, seed: int, progress: Progress) -> torch.Tensor:
        """`[1, K, T]` codes to `[1, C, samples]`; calls `progress` at each of its steps."""


@dataclass(frozen=True, slots=True, eq=False)
class Engine:
    """A loaded MusicGen or AudioGen.

    Args:
        backend: runs the language model's steps in the device's fastest way.
        window: seconds that the language model sees.
        max_batch: clips decoded together. 1 in float32 on a CPU, so that a clip does not depend on its batch: matrix
            products round differently for other numbers of rows, enough to change one clip in some hundred.
        codec_batch: clips whose codes are turned into audio together. 1 on a CPU, which gains nothing by more; a single
            clip does not fill a GPU.
    """

    lm: LanguageModel
    backend: DecodeBackend
    conditioning: ConditioningProvider
    codec: Codec
    window: float
    max_batch: int = 1
    codec_batch: int = 1

    @property
    def memory_bytes(self) -> int:
        """Of all weights, and of what the backend keeps for later requests."""
        return self.lm.nbytes + self.conditioning.nbytes + self.codec.nbytes + self.backend.memory_bytes

    @property
    def sample_rate(self) -> int:
        """Of the clips, Hz."""
        return self.codec.sample_rate

    @torch.inference_mode()
    def generate(
        self,
        request: GenerationRequest,
        *,
        progress: Progress = ignore_progress,
        decoder: CodeDecoder | None = None,
        on_clip: Callable[[Audio], None] | None = None,
    ) -> GenerationResult:
        """Generates every clip of the request, `max_batch` at a time.

        A clip depends on its own description and seed alone, whatever else is in the request.

        Args:
            progress: called with 0..1 at every step. Whatever it raises ends the work; the engine can be used again.
            decoder: turns the codes into audio; None: the codec.
            on_clip: takes each clip as soon as it is decoded, so that many long ones need not be in memory together;
                the result has no clips then.

        Raises:
            DeadlineError: `progress` raised it, and the request is not `partial` or nothing is complete yet.
        """
        assert len(request.descriptions) == len(request.seeds) > 0, "one seed for each description"
        run = _Run(self, request)
        with run.time_stage("condition_s"):
            prompt = self._encode_prompt(request)
            windows = self._plan_windows(request, prompt.shape[-1])
            conditions = self.conditioning.prepare(request, self._resample_melody(request), slides=len(windows) > 1)
        codes, complete = run.generate_codes(prompt, windows, conditions, sub_progress(progress, 0.0, 1 - CODEC_SHARE))
        with run.time_stage("codec_s"):  # what is left after the deadline is short, and must not be ended by it
            rest = sub_progress(progress, 1 - CODEC_SHARE, 1.0) if complete else ignore_progress
            waveforms = run.decode_codes(codes, decoder, rest)
            clips: list[Audio] = []
            levels = []
            for waveform in waveforms:
                clip, window_levels = run.cut_clip(waveform, windows)
                (on_clip or clips.append)(clip)
                levels.append(window_levels)
        return GenerationResult(tuple(clips), run.timings, run.steps, complete=complete, window_levels_db=tuple(levels))

    def warm_up(self) -> None:
        """Generates music once, so that the first request finds kernels loaded and chosen, and graphs captured.

        With graphs a whole window, whose columns need every graph of a request for one clip; otherwise a moment.
        """
        duration = self.window if isinstance(self.backend, CudaGraphBackend) else WARM_UP_S
        self.generate(GenerationRequest(["slow piano"], [0], duration, stride=self.window / 2))

    def _encode_prompt(self, request: GenerationRequest) -> torch.Tensor:
        """`[1, K, P]` codes; P is 0 without a prompt."""
        if request.prompt_codes is not None:
            codes = torch.from_numpy(request.prompt_codes)
            assert codes.shape[0] == self.lm.config.codebooks, f"a prompt of {codes.shape[0]} codebooks"
            return codes[None].to(self.lm.device, torch.long)
        if request.prompt is None:
            return torch.zeros(1, self.lm.config.codebooks, 0, dtype=torch.long, device=self.lm.device)
        waveform = _convert_audio(request.prompt, self.sample_rate, self.codec.channels)
        return self.codec.encode(waveform[None].to(self.lm.device))

    def _plan_windows(self, request: GenerationRequest, known: int) -> list[SlidingWindow]:
        rate = self.codec.frame_rate
        return plan_sliding_windows(
            prompt=known,
            total=known + math.ceil(round(request.duration * rate, 6)),
            window=int(self.window * rate),
            stride=max(int(request.stride * rate), 1),
        )

    def _resample_melody(self, request: GenerationRequest) -> torch.Tensor | None:
        """`[samples]` at the melody conditioner's rate."""
        if request.melody is None:
            return None
        assert self.conditioning.melody is not None, "a melody for a model that takes none"
        return _convert_audio(request.melody, self.conditioning.melody.sample_rate, 1)[0]


@dataclass(slots=True, eq=False)
class _Run:
    """One request on an engine, with its timings (seconds by stage) and its number of decoding steps."""

    engine: Engine
    request: GenerationRequest
    steps: int = 0
    timings: dict[str, float] = field(default_factory=lambda: {"condition_s": 0.0, "decode_s": 0.0, "codec_s": 0.0})

    @contextmanager
    def time_stage(self, name: str) -> Iterator[None]:
        """Adds the block's seconds to the stage `name`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.timings[name] += time.perf_counter() - started

    def generate_codes(
        self, prompt: torch.Tensor, windows: Sequence[SlidingWindow], conditions: RequestConditions, progress: Progress
    ) -> tuple[list[torch.Tensor], bool]:
        """`[1, K, frames]` codes of each clip, prompt first, and whether the deadline left them complete."""
        count, size = len(self.request.descriptions), self.engine.max_batch
        codes: list[torch.Tensor] = []
        for first in range(0, count, size):
            batch = range(first, min(first + size, count))
            number, batches = first // size, -(-count // size)
            part = sub_progress(progress, number / batches, (number + 1) / batches)
            try:
                made, complete = self._generate_batch(batch, prompt, windows, conditions, part)
            except DeadlineError:
                if not (self.request.partial and codes):
                    raise
                return codes, False
            codes += torch.split(made, 1)
            if not complete:
                return codes, False
        return codes, True

    def _generate_batch(
        self,
        batch: Sequence[int],
        prompt: torch.Tensor,
        windows: Sequence[SlidingWindow],
        conditions: RequestConditions,
        progress: Progress,
    ) -> tuple[torch.Tensor, bool]:
        """`[B, K, frames]` codes of the clips `batch`, prompt first, and whether they are complete."""
        lm, request = self.engine.lm, self.request
        generators = [torch.Generator().manual_seed(request.seeds[index]) for index in batch]
        codes = prompt.expand(len(batch), -1, -1)
        first, last = windows[0].known, windows[-1].end
        context: torch.Tensor | None = None
        cross_kv: Sequence[torch.Tensor] | None = None
        for window in windows:
            with self.time_stage("condition_s"):
                batch_conditions = conditions.prepare_batch(batch, window.start / self.engine.codec.frame_rate)
                if batch_conditions.context is not context:  # the same one in all windows, unless it holds a melody
                    context = batch_conditions.context
                    cross_kv = None if context is None else compute_cross_kv(lm, context)
            begin, end = ((frame - first) / (last - first) for frame in (window.known, window.end))
            to_decode = Window(
                prompt=codes[..., window.start :],
                length=window.end - window.start,
                conditions=batch_conditions,
                sampling=request.sampling,
                generators=generators,
                on_step=self._count_steps(sub_progress(progress, begin, end)),
                partial=request.partial,
                cross_kv=cross_kv,
            )
            try:
                with self.time_stage("decode_s"):
                    decoded = decode_window(lm, self.engine.backend, to_decode)
            except DeadlineError:
                if not (request.partial and codes.shape[-1] > prompt.shape[-1]):
                    raise
                return codes, False
            codes = torch.cat([codes, decoded[..., window.known - window.start :]], dim=-1)
            if decoded.shape[-1] < to_decode.length:
                return codes, False
        return codes, True

    def _count_steps(self, progress: Progress) -> Callable[[int, int], None]:
        def on_step(done: int, total: int) -> None:
            progress(done / total)
            self.steps += 1

        return on_step

    def decode_codes(
        self, codes: Sequence[torch.Tensor], decoder: CodeDecoder | None, progress: Progress
    ) -> Iterator[torch.Tensor]:
        """`[C, samples]` of each clip, prompt included."""
        codec, done = self.engine.codec, 0
        batch_size = 1 if decoder else self.engine.codec_batch
        for _, same in itertools.groupby(codes, key=lambda clip: clip.shape[-1]):  # the last may be short: a deadline
            clips = list(same)
            for first in range(0, len(clips), batch_size):
                batch = torch.cat(clips[first : first + batch_size])
                part = sub_progress(progress, done / len(codes), (done + len(batch)) / len(codes))
                if decoder is None:
                    yield from codec.decode(batch, progress=part)
                else:
                    yield from decoder.decode(codec, batch, seed=self.request.seeds[done], progress=part)
                done += len(batch)

    def cut_clip(self, waveform: torch.Tensor, windows: Sequence[SlidingWindow]) -> tuple[Audio, tuple[float, ...]]:
        """The clip that was asked for from `[C, samples]`, levelled, and the loudness of its windows, dBFS."""
        codec, rate = self.engine.codec, self.engine.sample_rate
        begin = windows[0].known * codec.hop_length
        end = begin + round(self.request.duration * rate)
        first = 0 if self.request.include_prompt else begin
        clip = Audio(np.ascontiguousarray(waveform[:, first:end].float().cpu().numpy()), rate)
        if len(windows) == 1:
            return clip, ()
        starts = [(window.known - first // codec.hop_length) / codec.frame_rate for window in windows]
        levelled, levels = level_windows(clip, [0.0, *starts[1:]])
        return levelled, tuple(levels)


def _convert_audio(audio: Audio, sample_rate: int, channels: int) -> torch.Tensor:
    """`[channels, samples]` at `sample_rate`, as many samples as audiocraft's own conversion gives.

    Not by julius, as audiocraft does: its filters for a rate such as 44,101 Hz take gigabytes. At the usual rates the
    two differ by -75 dB for noise up to 80 % of the lower Nyquist frequency, and by -47 dB up to 90 %, where julius'
    shorter filter has begun to fall.
    """
    length = audio.num_samples * sample_rate // audio.sample_rate
    waveform = torch.from_numpy(np.ascontiguousarray(resample(audio, sample_rate).waveform[:, :length]))
    if channels == 1:
        return waveform.mean(0, keepdim=True)
    return waveform.expand(channels, -1)


@dataclass(frozen=True, slots=True)
class SlidingWindow:
    """The model sees frames `start` to `end`; those from `known` on are generated, the others are its prompt."""

    start: int
    known: int
    end: int


def plan_sliding_windows(*, prompt: int, total: int, window: int, stride: int) -> list[SlidingWindow]:
    """Windows that move on by the stride once the first one is full; each sees the last frames made before it.

    Args:
        prompt: known frames; less than `window`.
        total: frames, prompt included.
        window: frames that the model sees.
        stride: frames; 0 < stride < window.
    """
    assert 0 < stride < window, f"a stride of {stride} frames in a window of {window}"
    assert prompt < window, f"a prompt of {prompt} frames fills the window of {window}"
    windows, start, known = [], 0, prompt
    while known < total:
        start = max(start, known - (window - stride)) if known - start >= window else start
        end = min(total, start + window)
        windows.append(SlidingWindow(start, known, end))
        start, known = start + stride, end
    return windows


def measure_loudness_db(waveform: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> float:
    """RMS of `[C, T]` in dBFS, over the parts that are not silent: those within 20 dB of the whole."""
    power = np.square(waveform, dtype=np.float64).mean(axis=0)
    blocks = power[: len(power) // 1024 * 1024].reshape(-1, 1024).mean(axis=1) if len(power) >= 1024 else power
    threshold = blocks.mean() / 100 if len(blocks) else 0.0
    loud = blocks[blocks > threshold]
    return 10 * math.log10(loud.mean()) if len(loud) and loud.mean() > 0 else -math.inf


def level_windows(clip: Audio, starts: list[float]) -> tuple[Audio, list[float]]:
    """Holds the loudness of a long clip, which the model lets drift from window to window.

    A window that is more than `MAX_DRIFT_DB` off the first one is brought back to that limit. The gain moves in a
    straight line (in dB) between the middles of the windows, so that there is no step.

    Args:
        starts: seconds, where each window's new audio begins, ascending.

    Returns:
        The clip, and each window's loudness before that, dBFS.
    """
    edges = [round(start * clip.sample_rate) for start in starts] + [clip.num_samples]
    spans = [(first, last) for first, last in zip(edges, edges[1:], strict=False) if last > first]
    levels = [measure_loudness_db(clip.waveform[:, first:last]) for first, last in spans]
    gains = [_gain_db(level, levels[0]) for level in levels]
    if not any(gains):
        return clip, levels
    middles = [(first + last) / 2 for first, last in spans]
    curve = np.interp(np.arange(clip.num_samples), middles, gains)
    waveform = clip.waveform * (10 ** (curve / 20)).astype(np.float32)
    return Audio(waveform, clip.sample_rate), levels


def _gain_db(level: float, first: float) -> float:
    if level < SILENCE_DB or first < SILENCE_DB:
        return 0.0
    difference = first - level
    beyond = math.copysign(max(abs(difference) - MAX_DRIFT_DB, 0.0), difference)
    return max(-MAX_GAIN_DB, min(MAX_GAIN_DB, beyond))
