"""The loaded planner: plans songs, and writes the audio codes of a planned song."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial as bind

import torch

from errors import InvalidRequestError
from models.acestep.metas import INSTRUMENTAL, Metas
from models.acestep.planner.config import CACHE_BYTES
from models.acestep.planner.constraint import (
    MAX_LYRICS_TOKENS,
    MAX_PLAN_TOKENS,
    Choose,
    Free,
    Grammar,
    Peek,
    PlanGrammars,
    Write,
)
from models.acestep.planner.decode import CudaGraphBackend, DecodeBackend, TextDecoding, fill_state, read_prompt
from models.acestep.planner.forward import write_code
from models.acestep.planner.lm import LanguageModel
from models.acestep.planner.parse import parse_plan
from models.acestep.planner.prompts import encode_codes_prompt, encode_plan_prompt, encode_unconditional_prompt
from models.acestep.planner.request import CodesRequest, LmSampling, PlannedSong, PlanRequest
from models.acestep.planner.sampling import SamplingMode, SamplingValues, penalise, sample
from models.acestep.planner.vocabulary import Vocabulary
from models.runtime.progress import Check, Progress, ignore_progress, sub_progress

CODE_RATE = 5  # audio codes a second
WARM_UP_S = 120.0
PROMPT_SHARE = 0.05  # of the progress of audio codes
_EXPECTED_TOKENS = 300  # of a plan; its end is not known, so progress slows down towards it
_MIN_ROOM = 1024  # tokens of a plan that a context must have room for


@dataclass(frozen=True, slots=True, eq=False)
class PlannerEngine:
    """A loaded planner.

    Args:
        lm: the network.
        vocabulary: its tokens.
        grammars: of plans with these tokens.
        backend: runs the network's steps in the device's fastest way.
        max_clips: whose audio codes are drawn together. 1 in float32 on a CPU, so that a clip does not depend on its
            batch: matrix products round differently for other numbers of rows.
    """

    lm: LanguageModel
    vocabulary: Vocabulary
    grammars: PlanGrammars
    backend: DecodeBackend
    max_clips: int = 1

    @property
    def memory_bytes(self) -> int:
        """Of all weights, and of what the backend keeps for later requests."""
        return self.lm.nbytes + self.backend.memory_bytes

    @torch.inference_mode()
    def plan(self, request: PlanRequest, *, progress: Progress = ignore_progress) -> PlannedSong:
        """Writes what the request leaves open.

        Args:
            progress: called with 0..1 before each token. Whatever it raises ends the work; the engine stays usable.

        Raises:
            InvalidRequestError: the prompt does not fit into the model's context, or has unknown audio codes.
        """
        try:
            prompt = encode_plan_prompt(request, self.vocabulary)
        except ValueError as error:
            raise InvalidRequestError(f"The audio codes cannot be used: {error}.") from error
        room = self.lm.config.context - len(prompt)
        if room < _MIN_ROOM:
            raise self._make_context_error(
                f"The prompt has {len(prompt)} tokens, and a plan needs {_MIN_ROOM} more", "shorter text or fewer codes"
            )
        given, writes_lyrics = _list_given(request), request.mode != "metas"
        skipped = [
            name
            for name, is_skipped in {
                "caption": request.mode == "metas" and not request.write_caption,
                "genres": not writes_lyrics,
                "language": request.mode == "metas" and not request.write_language and request.language is None,
            }.items()
            if is_skipped
        ]
        max_lyrics = min(MAX_LYRICS_TOKENS, room - (MAX_PLAN_TOKENS - MAX_LYRICS_TOKENS))
        grammar = self.grammars.start(given=given, skipped=skipped, lyrics=writes_lyrics, max_lyrics=max(max_lyrics, 0))
        decoding = self.backend.start_text(len(prompt) + min(room, MAX_PLAN_TOKENS))
        writer = _PlanWriter(decoding, request.sampling, torch.Generator().manual_seed(request.seed))
        tokens, is_complete = writer.write(prompt, grammar, progress)
        return _complete(parse_plan(self.vocabulary.decode(tokens)), request, is_complete=is_complete)

    @torch.inference_mode()
    def generate_codes(self, request: CodesRequest, *, progress: Progress = ignore_progress) -> list[tuple[int, ...]]:
        """Writes `CODE_RATE` audio codes for each second of a planned song, for each seed.

        A clip depends on its own seed alone, whatever else is in the request.

        Args:
            progress: called with 0..1 before each step. Whatever it raises ends the work; the engine stays usable.

        Raises:
            InvalidRequestError: the song does not fit into the model's context.
        """
        guided = request.sampling.cfg_coef != 1
        steps = max(int(round(request.duration * CODE_RATE, 6)), 1)
        prompts = [encode_codes_prompt(request, self.vocabulary)]
        if guided:
            prompts.append(encode_unconditional_prompt(request.sampling.negative_prompt, self.vocabulary))
        columns = max(map(len, prompts)) + steps
        if columns > self.lm.config.context:
            raise self._make_context_error(
                f"The caption, the lyrics and the prompts have {columns - steps} tokens, and a song of "
                f"{request.duration:g} s has {steps} audio codes",
                "shorter lyrics or a shorter song",
            )
        row_bytes = columns * self.lm.config.cache_numbers * self.lm.cache_dtype.itemsize
        size = min(self.max_clips, max(CACHE_BYTES // (row_bytes * len(prompts)), 1))
        batches = [request.seeds[first : first + size] for first in range(0, len(request.seeds), size)]
        shares = [PROMPT_SHARE * index / len(prompts) for index in range(len(prompts) + 1)]
        read = [
            read_prompt(self.lm, prompt, sub_progress(progress, *part))
            for prompt, part in zip(prompts, itertools.pairwise(shares), strict=True)
        ]
        codes: list[tuple[int, ...]] = []
        for number, seeds in enumerate(batches):
            share = (1 - PROMPT_SHARE) / len(batches)
            part = sub_progress(progress, PROMPT_SHARE + number * share, PROMPT_SHARE + (number + 1) * share)
            decoding = self.backend.start_codes(clips=len(seeds), guided=guided, columns=columns, steps=steps)
            mode, drawn = SamplingMode.choose(request.sampling), decoding.codes
            drawn.values.fill(request.sampling)
            drawn.uniforms[:, :steps] = _draw_uniforms(seeds, steps).to(self.lm.device)
            drawn.seen.zero_()
            drawn.step.zero_()
            hidden = fill_state(decoding.state, read)
            part(0.0)
            write_code(self.lm, decoding.state, drawn, mode, hidden)
            for done in decoding.run(mode, columns - steps, steps):
                part(done / steps)
            codes += [tuple(row) for row in drawn.codes[:, :steps].tolist()]
        return codes

    def warm_up(self) -> None:
        """Plans music once, so that the first request finds kernels loaded and chosen, and graphs captured.

        With graphs two minutes of it, for which a request for one clip needs the same graphs; otherwise a moment.
        """
        duration = WARM_UP_S if isinstance(self.backend, CudaGraphBackend) else 1 / CODE_RATE
        metas = Metas(bpm=120, key="C major", duration=duration)
        song = self.plan(PlanRequest(mode="metas", seed=0, caption="slow piano", metas=metas, write_caption=False))
        request = CodesRequest(caption="slow piano", lyrics=INSTRUMENTAL, song=song, duration=duration, seeds=(0,))
        self.generate_codes(request)

    def _make_context_error(self, reason: str, remedy: str) -> InvalidRequestError:
        return InvalidRequestError(
            f"{reason}: that is more than the {self.lm.config.context} tokens of the planner's context. "
            f"Ask for {remedy}."
        )


class _PlanWriter:
    """Writes one plan.

    Args:
        decoding: a row with room for the prompt and the plan.
        generator: on the CPU; each token that is drawn takes one number from it.
    """

    def __init__(self, decoding: TextDecoding, sampling: LmSampling, generator: torch.Generator) -> None:
        self._decoding, self._generator = decoding, generator
        device = decoding.lm.device
        self._mode, self._values = SamplingMode.choose(sampling), SamplingValues.allocate(device)
        self._values.fill(sampling)
        self._previous = torch.zeros(1, decoding.lm.num_text, dtype=torch.bool, device=device)
        self._indices: dict[tuple[int, ...], torch.Tensor] = {}

    def write(self, prompt: Sequence[int], grammar: Grammar, progress: Progress) -> tuple[list[int], bool]:
        """The tokens of the plan, and whether it is complete."""
        pending, written = list(prompt), list[int]()
        logits = torch.empty(0)
        self._decoding.begin()
        choice = next(grammar)
        while True:
            if isinstance(choice, Write):
                written += choice.tokens
                pending += choice.tokens
                token = choice.tokens[-1]
            else:
                if pending:
                    check = bind(progress, 1 - 0.5 ** (len(written) / _EXPECTED_TOKENS))
                    check()
                    logits = self._read(pending, check)
                    pending = []
                token = self._choose(logits, choice)
                if not isinstance(choice, Peek):
                    written.append(token)
                    pending.append(token)
            try:
                choice = grammar.send(token)
            except StopIteration as end:
                return written, bool(end.value)

    def _read(self, tokens: Sequence[int], check: Check) -> torch.Tensor:
        logits = self._decoding.read(tokens, check)
        if self._mode.is_penalised:
            texts = [token for token in tokens if token < self._previous.shape[1]]
            self._previous[:, texts] = True
            logits = penalise(logits, self._previous, self._values.penalty)
        return logits

    def _choose(self, logits: torch.Tensor, choice: Choose | Free | Peek) -> int:
        if isinstance(choice, Choose):
            options = self._find_indices(choice.options)
            candidates = logits.index_select(1, options)
            index = candidates.argmax(-1) if choice.greedy else self._sample(candidates)
            return choice.options[int(index)]
        candidates = logits.index_fill(1, self._find_indices(choice.blocked), -torch.inf)
        return int(candidates.argmax(-1) if isinstance(choice, Peek) else self._sample(candidates))

    def _sample(self, logits: torch.Tensor) -> torch.Tensor:
        uniform = torch.rand(1, generator=self._generator, dtype=torch.float64).to(logits.device, torch.float32)
        return sample(logits, uniform, self._mode, self._values)

    def _find_indices(self, tokens: tuple[int, ...]) -> torch.Tensor:
        """The ids as a tensor on the device, which is kept: the same few sets come again and again."""
        if tokens not in self._indices:
            self._indices[tokens] = torch.tensor(tokens, dtype=torch.long, device=self._decoding.lm.device)
        return self._indices[tokens]


def _list_given(request: PlanRequest) -> dict[str, str]:
    """The values of the fields that the request gives, as a plan spells them."""
    metas = request.metas
    given: Mapping[str, object] = {
        "bpm": metas.bpm,
        "duration": None if metas.duration is None else int(metas.duration),
        "keyscale": metas.key,
        "language": request.language,
        "timesignature": metas.time_signature,
    }
    return {field: str(value) for field, value in given.items() if value is not None}


def _complete(song: PlannedSong, request: PlanRequest, *, is_complete: bool) -> PlannedSong:
    """The song with all that the request gives, and with the lyrics that the planner left as they are."""
    given, planned = request.metas, song.metas
    metas = Metas(
        bpm=planned.bpm if given.bpm is None else given.bpm,
        key=planned.key if given.key is None else given.key,
        time_signature=planned.time_signature if given.time_signature is None else given.time_signature,
        duration=planned.duration if given.duration is None else given.duration,
    )
    lyrics = song.lyrics
    if lyrics is None and (request.instrumental or request.mode == "format"):
        lyrics = INSTRUMENTAL if request.instrumental else request.lyrics or INSTRUMENTAL
    cut = "The planner's lyrics were cut: they are longer than what a song can be made from."
    return replace(
        song,
        lyrics=lyrics,
        metas=metas,
        language=request.language or song.language,
        warnings=() if is_complete else (cut,),
    )


def _draw_uniforms(seeds: Sequence[int], steps: int) -> torch.Tensor:
    """`[B, steps]` in [0, 1); clip b's numbers come from seed b alone. They are the same on every device."""
    draws = [torch.rand(steps, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in seeds]
    return torch.stack(draws).float()
