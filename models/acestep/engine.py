"""Generates and edits songs: conditions, the sampler's steps and the codec, clip by clip."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

from audio import Audio
from audio.dsp.resample import resample
from audio.types import AudioSource, in_memory
from errors import ErrorCode, ModelError
from models.acestep.codec import LatentCodec
from models.acestep.conditions import (
    MIN_FRAMES,
    ConditionEncoder,
    choose_instruction_task,
    extend_with_silence,
    keep_outside,
    make_context,
    make_silence,
    mark_window,
)
from models.acestep.config import FRAME_RATE
from models.acestep.edit import Window, plan_window, splice
from models.acestep.info import CHANNELS, SAMPLE_RATE
from models.acestep.network import Components
from models.acestep.reference import encode_reference
from models.acestep.request import DiffusionSampling, Repainting, Song, SongRequest, SongResult, Task
from models.acestep.sampler import ClipPlan, count_steps, sample_latents
from models.acestep.steps import Conditions, CudaGraphBackend, EagerBackend, StepBackend
from models.acestep.text import EncodedText, TextEncoder, build_instruction
from models.acestep.tokens import LATENTS_PER_CODE, AudioTokenizer
from models.acestep.transformer import DiffusionTransformer, KeysValues
from models.runtime.progress import Progress, ignore_progress, sub_progress

ENCODE_SHARE = 0.1  # of the progress, if there is a recording to encode
CODEC_SHARE = 0.2  # of a clip's progress
_KEPT_TEXTS = 2  # a cover has two, if its strength is less than 1
_HOP_LENGTH = SAMPLE_RATE // FRAME_RATE


class AceStepEngine:
    """A loaded ACE-Step model.

    Args:
        components: its networks.
        cuda_graphs: whether a GPU replays the steps of short songs as CUDA graphs.
        backend: runs the transformer's steps; None: in the device's fastest way.
        codec: of the components' VAE; None: a new one.
    """

    def __init__(
        self,
        components: Components,
        *,
        cuda_graphs: bool = True,
        backend: Callable[[DiffusionTransformer], StepBackend] | None = None,
        codec: LatentCodec | None = None,
    ) -> None:
        self._components = components
        config = components.config
        null_condition = components.condition_encoder.get_parameter("null_condition_emb")
        transformer = DiffusionTransformer(components.transformer, null_condition)
        choose = CudaGraphBackend if cuda_graphs and config.device.type == "cuda" else EagerBackend
        self.backend = (backend or choose)(transformer)
        self.codec = codec or LatentCodec(components.vae)
        assert (self.codec.sample_rate, self.codec.hop_length) == (SAMPLE_RATE, _HOP_LENGTH), "a VAE of another rate"
        self.silence = components.silence_latent
        self.text = TextEncoder(components.text_encoder, components.tokenizer)
        self.conditions = ConditionEncoder(components.condition_encoder, self.silence, config.sizes.timbre_frames)

    @property
    def sample_rate(self) -> int:
        """Of the clips, Hz; a repaint has its source's."""
        return SAMPLE_RATE

    @property
    def memory_bytes(self) -> int:
        """Of all weights, and of what the backend keeps for later requests."""
        return self._components.memory_bytes + self.backend.memory_bytes

    @property
    def audio_tokenizer(self) -> AudioTokenizer:
        """Latents to audio codes and back.

        Raises:
            ModelError: `model_unsupported`: the model's files have none.
        """
        tokenizer, detokenizer = self._components.audio_tokenizer, self._components.audio_token_detokenizer
        if tokenizer is None or detokenizer is None:
            raise ModelError(
                "This model's files have no audio tokenizer, which covers and audio codes need. Use another model.",
                code=ErrorCode.MODEL_UNSUPPORTED,
            )
        return AudioTokenizer(tokenizer, detokenizer, self.silence)

    @torch.inference_mode()
    def generate(
        self,
        request: SongRequest,
        *,
        progress: Progress = ignore_progress,
        on_clip: Callable[[Audio], None] | None = None,
    ) -> SongResult:
        """Generates the clips of the request, one after the other: a clip depends on its own song alone.

        Args:
            progress: called with 0..1 at every step and every tile of the codec. Whatever it raises ends the work; the
                engine can be used again.
            on_clip: takes each clip as soon as it is done; the result then has none.

        Raises:
            AudioError: the reference is silent.
            ModelError: `broken_checkpoint`: the weights give latents or samples that are not finite;
                `model_unsupported`: the model's files lack what the task needs.
        """
        assert request.songs, "a request without songs"
        assert (request.source is None) == (request.task == "text2music"), f"the source of the task {request.task}"
        run = _Run(self, request)
        progress(0.0)
        shared = ENCODE_SHARE if request.source is not None or request.reference is not None else 0.0
        run.encode_recordings(sub_progress(progress, 0.0, shared))
        clips: list[Audio] = []
        for index, song in enumerate(request.songs):
            start, end = (shared + (1 - shared) * (index + n) / len(request.songs) for n in (0, 1))
            (on_clip or clips.append)(run.generate_clip(song, sub_progress(progress, start, end)))
        return SongResult(tuple(clips), run.timings, run.steps, tuple(dict.fromkeys(run.warnings)))

    @torch.inference_mode()
    def encode_codes(self, source: AudioSource, *, progress: Progress = ignore_progress) -> tuple[int, ...]:
        """The audio codes of a recording, five a second; what the last one lacks is filled with silence.

        Args:
            progress: called with 0..1 at every tile of the codec.

        Raises:
            ModelError: `model_unsupported`: the model's files have no audio tokenizer.
        """
        tokenizer = self.audio_tokenizer
        return tokenizer.tokenize(self.codec.encode(convert_source(source), progress=progress))

    def warm_up(self) -> None:
        """Generates a moment of music, so that the first request finds kernels loaded and chosen."""
        defaults = self._components.config.defaults
        sampling = DiffusionSampling(num_steps=1, cfg_coef=defaults.cfg_coef, shift=defaults.shift)
        song = Song(caption="slow piano", seed=0)
        self.generate(SongRequest(songs=[song], duration=MIN_FRAMES / FRAME_RATE, sampling=sampling))


def convert_source(source: AudioSource, *, left: int = 0, right: int = 0) -> torch.Tensor:
    """The source as the VAE takes it, `[2, T]` at its rate; samples beyond full scale are clipped, as in training.

    Args:
        left, right: samples of silence before and after it.
    """
    waveform = resample(in_memory(source), SAMPLE_RATE).waveform.clip(-1.0, 1.0)
    stereo = np.broadcast_to(waveform, (CHANNELS, waveform.shape[1]))
    return torch.from_numpy(np.pad(stereo, ((0, 0), (left, right))))


class _Run:
    """One request on an engine: what its clips share, its timings, its number of steps, its warnings."""

    def __init__(self, engine: AceStepEngine, request: SongRequest) -> None:
        self._engine, self._request = engine, request
        self._transformer = engine.backend.transformer
        self._timbre: torch.Tensor | None = None
        self._lyrics: tuple[tuple[str, str], torch.Tensor] | None = None  # encoded, after what they are
        # The last ones, of clips with the same text: those of a long text take 200 MB.
        self._cross_kv: dict[tuple[str, Song], tuple[KeysValues, ...]] = {}
        self._context: tuple[tuple[int, ...] | None, torch.Tensor] | None = None  # and its audio codes
        self._num_samples = round(request.duration * SAMPLE_RATE)
        self._window: Window | None = None
        self._source: torch.Tensor | None = None  # its latents, and silence after them
        self._source_frames = 0
        self.steps = 0
        self.timings = {"text_s": 0.0, "conditions_s": 0.0, "decode_s": 0.0, "codec_s": 0.0}
        self.warnings: list[str] = []

    @property
    def num_frames(self) -> int:
        """Latent frames of each clip."""
        return max(math.ceil(self._num_samples / _HOP_LENGTH), MIN_FRAMES)

    @contextmanager
    def time_stage(self, name: str) -> Iterator[None]:
        """Adds the block's seconds to the stage `name`, with its work on the device."""
        started = time.perf_counter()
        yield
        self._engine.backend.record_event()()
        self.timings[name] += time.perf_counter() - started

    def encode_recordings(self, progress: Progress) -> None:
        """Encodes the source and the reference."""
        request, engine = self._request, self._engine
        half = 0.5 if request.source is not None and request.reference is not None else 0.0
        reference: torch.Tensor | None = None
        with self.time_stage("codec_s"):
            if request.reference is not None:
                part = sub_progress(progress, 0.0, half or 1.0)
                reference = encode_reference(engine.codec, request.reference, progress=part)
            if request.source is not None:
                self._encode_source(request.source, sub_progress(progress, half, 1.0))
        with self.time_stage("conditions_s"):
            self._timbre = engine.conditions.encode_timbre(reference)

    def _encode_source(self, source: AudioSource, progress: Progress) -> None:
        if self._request.task in ("repaint", "lego"):
            whole = Repainting() if self._request.task == "repaint" else None
            repainting = self._request.repainting or whole
            self._window = plan_window(source.duration, repainting) if repainting else None
        pads = (self._window.left, self._window.right) if self._window else (0.0, 0.0)
        left, right = (round(seconds * SAMPLE_RATE) for seconds in pads)
        waveform = convert_source(source, left=left, right=right)
        self._num_samples = waveform.shape[1]
        latents = self._engine.codec.encode(waveform, progress=progress)
        self._source_frames = latents.shape[1]
        self._source = extend_with_silence(latents, self._engine.silence, self.num_frames)

    def generate_clip(self, song: Song, progress: Progress) -> Audio:
        """One clip, from its conditions to its samples."""
        engine, sampling = self._engine, self._request.sampling
        plan, total = self._plan_clip(song), count_steps(sampling)

        def on_step(index: int) -> None:
            progress((1 - CODEC_SHARE) * index / total)
            self.steps += 1

        with self.time_stage("decode_s"):
            latents = sample_latents(engine.backend, plan, sampling, seed=song.seed, on_step=on_step)
        with self.time_stage("codec_s"):
            return self._decode(latents, sub_progress(progress, 1 - CODEC_SHARE, 1.0))

    def _decode(self, latents: torch.Tensor, progress: Progress) -> Audio:
        """The clip's samples: of a repaint, the window in the source."""
        source, window = self._request.source, self._window
        if self._request.task != "repaint" or source is None or window is None:
            waveform = self._engine.codec.decode(latents, progress=progress)[:, : self._num_samples]
            return Audio(np.ascontiguousarray(waveform.numpy()), SAMPLE_RATE)
        first, end = window.find_decoded_frames(latents.shape[1])
        part = self._engine.codec.decode(latents[:, first:end], progress=progress)
        return splice(source, Audio(part.numpy(), SAMPLE_RATE), first_frame=first, window=window)

    def _plan_clip(self, song: Song) -> ClipPlan:
        request = self._request
        steps = count_steps(request.sampling)
        task = choose_instruction_task(song, request.task)
        conditions = Conditions(self._make_context(song), self._compute_cross_kv(song, task))
        kept = None
        if request.task == "repaint" and self._window is not None and self._source is not None:
            kept = keep_outside(self._window, self._source, steps)
        switch = int(steps * request.cover_strength)
        if task != "cover" or switch >= steps:
            return ClipPlan(conditions, kept=kept)
        silence = self._cast(make_silence(self._engine.silence, self.num_frames))
        later = Conditions(make_context(silence), self._compute_cross_kv(song, "text2music"))
        return ClipPlan(conditions, later, switch, kept)

    def _make_context(self, song: Song) -> torch.Tensor:
        """The context of a song, `[1, T, 2 C]`; the clips of a request differ in their audio codes alone."""
        if self._context is None or self._context[0] != song.codes:
            with self.time_stage("conditions_s"):
                source, is_generated = self._arrange_source(song)
                self._context = (song.codes, make_context(self._cast(source), is_generated))
        return self._context[1]

    def _arrange_source(self, song: Song) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The latents that the transformer sees, and what of them is generated; None: everything."""
        engine, task, frames = self._engine, self._request.task, self.num_frames
        if self._source is None:
            if not song.codes:
                return make_silence(engine.silence, frames), None
            self._warn_of_length(len(song.codes))
            return extend_with_silence(engine.audio_tokenizer.detokenize(song.codes), engine.silence, frames), None
        if task == "cover":
            followed = engine.audio_tokenizer.resynthesize(self._source[:, : self._source_frames])
            return extend_with_silence(followed, engine.silence, frames), None
        if self._window is None:
            return self._source, None
        is_generated = mark_window(self._window, frames, self._source.device)
        if task == "lego":
            return self._source, is_generated
        return torch.where(
            is_generated, make_silence(engine.silence, frames).to(self._source), self._source
        ), is_generated

    def _warn_of_length(self, num_codes: int) -> None:
        given = num_codes * LATENTS_PER_CODE / FRAME_RATE
        wanted = self._num_samples / SAMPLE_RATE
        if abs(given - wanted) * FRAME_RATE < LATENTS_PER_CODE:
            return
        what = "what follows is made from silence" if given < wanted else "the rest of them is not used"
        self.warnings.append(f"The audio codes are for {given:g} s and the music lasts {wanted:g} s: {what}.")

    def _compute_cross_kv(self, song: Song, task: Task) -> tuple[KeysValues, ...]:
        """Keys and values of a song's text, lyrics and timbre; computed once for clips with the same text."""
        instruction = build_instruction(task, self._request.tracks)
        key = (instruction, _without_clip(song))
        if key not in self._cross_kv:
            with self.time_stage("text_s"):
                text = self._engine.text.encode(song, instruction)
            self.warnings += text.warnings
            with self.time_stage("conditions_s"):
                while len(self._cross_kv) >= _KEPT_TEXTS:
                    del self._cross_kv[next(iter(self._cross_kv))]
                self._cross_kv[key] = self._transformer.compute_cross_kv(self._encode_conditions(song, text))
        return self._cross_kv[key]

    def _encode_conditions(self, song: Song, text: EncodedText) -> torch.Tensor:
        assert self._timbre is not None, "the timbre is encoded first"
        key = (song.lyrics, song.language)
        if self._lyrics is None or self._lyrics[0] != key:
            self._lyrics = (key, self._engine.conditions.encode_lyrics(text.lyrics))
        return self._engine.conditions.join(self._lyrics[1], self._timbre, text.text)

    def _cast(self, latents: torch.Tensor) -> torch.Tensor:
        return latents.to(self._transformer.device, self._transformer.dtype)


def _without_clip(song: Song) -> Song:
    """The song without what does not stand in its text."""
    return Song(caption=song.caption, seed=0, lyrics=song.lyrics, language=song.language, metas=song.metas)
