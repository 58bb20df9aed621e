"""One window of codes, step by step: prefill, then one column after the other. Knows no text, sound or request."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from errors import DeadlineError
from models.musicgen.conditions import Conditions
from models.musicgen.forward import State, advance, prefill, text_keys_values
from models.musicgen.kv_cache import CacheSize, caches
from models.musicgen.lm import LanguageModel
from models.musicgen.request import Sampling
from models.musicgen.sampling import Rule, draw_uniforms


@dataclass(frozen=True, eq=False)
class Window:
    """What is to be decoded.

    Args:
        prompt: `[B, K, P]` codes that are given.
        length: frames, prompt included; > P.
        generators: B of them, on the CPU.
        text: the layers' keys and values of the conditions' context, where another window has made them; else None.
        on_step: called with (done, of) before each step; what it raises ends the decoding, and leaves no state behind.
        partial: where that is a `DeadlineError`, what is done is returned instead.
    """

    prompt: torch.Tensor
    length: int
    conditions: Conditions
    sampling: Sampling
    generators: Sequence[torch.Generator]
    on_step: Callable[[int, int], None]
    partial: bool = False
    text: Sequence[torch.Tensor] | None = None

    @property
    def prefix(self) -> int:
        """Columns that the prepended conditions take."""
        return 0 if self.conditions.prefix is None else self.conditions.prefix.shape[1]

    @property
    def known(self) -> int:
        """Columns that are read before the first one is found."""
        return self.prefix + self.prompt.shape[-1] + 1

    @property
    def rule(self) -> Rule:
        greedy = self.sampling.temperature == 0
        nucleus = self.sampling.top_p > 0
        return Rule(greedy, 0 if greedy or nucleus else self.sampling.top_k, nucleus and not greedy)


class Runner(Protocol):
    """Keeps states, and moves them on by the device's fastest way."""

    def begin(self, window: Window) -> State:
        """A state with the window's inputs in it, before any pass."""

    def run(self, state: State, window: Window, first: int, last: int) -> Iterator[int]:
        """Advances from column `first` until `last` is written; yields the column last written, after each step.

        Steps may be under way still when their column is yielded, so that the device never waits for the host.
        """


@torch.inference_mode()
def decode_window(lm: LanguageModel, runner: Runner, window: Window) -> torch.Tensor:
    """Continues the window's prompt: `[B, K, length]` codes, prompt first; fewer frames only where it is `partial`.

    Raises:
        DeadlineError: raised by `on_step`, where it is not partial or not one frame was made.
    """
    pattern, known = lm.shape.pattern, window.known
    last = window.prefix + pattern.columns(window.length) - 1
    steps, column = last - known + 1, known - 1
    state = runner.begin(window)
    try:
        window.on_step(0, steps)
        prefill(lm, state, window.rule, prefix=window.conditions.prefix, known=known)
        column = known
        if column < last:
            window.on_step(1, steps)
            for column in runner.run(state, window, known, last):
                if column < last:
                    window.on_step(column - known + 1, steps)
    except DeadlineError:
        frames = min(pattern.complete(column + 1 - window.prefix), window.length)
        if not window.partial or frames <= window.prompt.shape[-1]:
            raise
        return pattern.gather(state.sequence[:, :, window.prefix :], frames).clone()
    return pattern.gather(state.sequence[:, :, window.prefix :], window.length).clone()


class StepByStep:
    """Runs each step as it is: on the CPU, and on any device that cannot capture.

    Args:
        exact: attention reads the filled columns alone; False is what is captured on a GPU, run as it is: keys and
            values are kept in its form, and all columns are read, those to come masked.
    """

    def __init__(self, lm: LanguageModel, *, exact: bool = True) -> None:
        self._lm, self._exact = lm, exact

    def begin(self, window: Window) -> State:
        columns = window.prefix + self._lm.shape.pattern.columns(window.length)
        state = allocate(self._lm, Room.of(window, columns), plain=not self._exact)
        fill(self._lm, state, window)
        return state

    def run(self, state: State, window: Window, first: int, last: int) -> Iterator[int]:
        end = state.sequence.shape[-1]
        for column in range(first, last):
            advance(self._lm, state, window.rule, length=column + 1 if self._exact else end, exact=self._exact)
            yield column + 1


@dataclass(frozen=True)
class Room:
    """Sizes of a state: items, rows, rows that attend to a text, the text's length, columns."""

    batch: int
    rows: int
    attending: int
    text: int
    columns: int
    padded: bool

    @classmethod
    def of(cls, window: Window, columns: int) -> Room:
        conditions, batch = window.conditions, window.prompt.shape[0]
        attending, text = (0, 0) if conditions.context is None else conditions.context.shape[:2]
        return cls(
            batch, batch * (2 if conditions.guided else 1), attending, text, columns, conditions.pads is not None
        )


def allocate(lm: LanguageModel, room: Room, *, plain: bool = False) -> State:
    """A state with nothing in it yet; `plain`: as on a GPU, wherever it is."""
    shape, device = lm.shape, lm.device
    size = CacheSize(room.rows, shape.heads, room.columns, shape.head_dim)
    text = (2, room.attending, shape.heads, room.text, shape.head_dim)

    # What is drawn is computed in float64, which Apple's GPUs do not have.
    fine = torch.float32 if device.type == "mps" else torch.float64

    def number(dtype: torch.dtype) -> torch.Tensor:
        return torch.zeros((), dtype=dtype, device=device)

    return State(
        cache=caches(len(lm.layers), size, dtype=lm.cache_dtype, device=device, plain=plain),
        text=tuple(torch.zeros(text, dtype=lm.dtype, device=device) for _ in lm.layers) if room.attending else (),
        text_bias=torch.zeros(room.attending, 1, 1, room.text, dtype=lm.dtype, device=device)
        if room.attending
        else None,
        sequence=torch.zeros(room.batch, shape.codebooks, room.columns, dtype=torch.long, device=device),
        uniforms=torch.zeros(room.batch, room.columns, shape.codebooks, dtype=fine, device=device),
        positions=lm.positions(room.columns),
        pads=torch.zeros(room.rows, dtype=torch.long, device=device),
        pad_bias=torch.zeros(room.rows, 1, 1, room.columns, dtype=lm.dtype, device=device) if room.padded else None,
        slot=torch.zeros(1, dtype=torch.long, device=device),
        guidance=number(torch.float32),
        temperature=number(fine),
        top_p=number(fine),
    )


def fill(lm: LanguageModel, state: State, window: Window) -> None:
    """Writes a window's inputs into a state that has room for them; keys and values of columns stay as they are."""
    conditions, prefix = window.conditions, window.prefix
    sequence = lm.shape.pattern.spread(window.prompt, window.length)
    end = prefix + sequence.shape[-1]
    state.sequence.fill_(lm.shape.pattern.special)
    state.sequence[:, :, prefix:end] = sequence.to(lm.device)
    state.uniforms[:, window.known : end] = draw_uniforms(window.generators, end - window.known, lm.shape.codebooks).to(
        lm.device
    )
    _fill_text(lm, state, conditions, window.text)
    if conditions.pads is not None and state.pad_bias is not None:
        state.pads.copy_(conditions.pads)
        column = torch.arange(state.pad_bias.shape[-1], device=lm.device)
        state.pad_bias.zero_().masked_fill_((column < state.pads[:, None])[:, None, None], float("-inf"))
    state.guidance.fill_(window.sampling.cfg_coef)
    state.temperature.fill_(window.sampling.temperature or 1.0)
    state.top_p.fill_(window.sampling.top_p)


def _fill_text(lm: LanguageModel, state: State, conditions: Conditions, made: Sequence[torch.Tensor] | None) -> None:
    """The text's keys and values, once for all windows; what is beyond its length is masked."""
    if conditions.context is None or state.text_bias is None:
        return
    length = conditions.context.shape[1]
    for place, both in zip(state.text, made or text_keys_values(lm, conditions.context), strict=True):
        place[:, :, :, :length] = both
    state.text_bias.fill_(float("-inf"))
    state.text_bias[..., :length] = 0.0
    if conditions.context_mask is not None:
        state.text_bias[..., :length].masked_fill_(~conditions.context_mask[:, None, None], float("-inf"))
