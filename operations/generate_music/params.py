"""The parameters of generate_music, for local models and for Suno."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated

from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from models.suno.catalog import CLIPS_PER_REQUEST, MAX_PROMPT_CHARS, MAX_STYLE_CHARS, MAX_TITLE_CHARS
from operations.params import MAX_SEED, AudioField, AudioOutParams, Int, NonEmptyText, Text

MAX_CLIPS = 32
MIN_CONTINUATION_S = 0.1
SUNO_PREFIX = "suno/"
SUNO_FIELDS = ("lyrics", "style", "title", "instrumental", "max_wait_s")
AUDIO_FIELDS = ("melody_audio", "style_audio", "continuation_audio")
KEY = re.compile(
    r"[A-Ga-g](#|b|♯|♭| sharp| flat)?( ?(m|min|minor|maj|major|dorian|phrygian|lydian|mixolydian|locrian))?"
)
TIME_SIGNATURE = re.compile(r"([1-9]|1\d|2[0-4])/(1|2|4|8|16)")

Seed = Annotated[Int, Field(ge=0, le=MAX_SEED)]


class Params(AudioOutParams):
    """What to generate, and how."""

    ALIASES = {"description": "prompt", "text": "prompt", "guidance_scale": "cfg_coef"}

    prompt: Text | Annotated[list[Text], Field(min_length=1, max_length=MAX_CLIPS)] | None = Field(
        None,
        description="Describes the music. A list makes a batch with one or more clips of each prompt. Aliases:"
        " `description`, `text`.",
    )
    model: str | None = Field(
        None,
        max_length=200,
        description="Model, as in `list_models`; `suno/<version>` uses Suno. Default: the best model on this worker.",
    )
    duration: float = Field(
        10.0,
        ge=0.5,
        le=600,
        description="Length of the new music in seconds. If it is longer than the model's window, the music is"
        " continued window by window.",
    )
    n_samples: Int = Field(1, ge=1, le=8, description="Number of clips for each prompt.")
    seed: Seed | Annotated[list[Seed], Field(min_length=1, max_length=MAX_CLIPS)] | None = Field(
        None,
        description="Seed of the first clip; each following clip uses the next number. A list gives every clip its own"
        " seed. Default: random; the reply has the seeds that were used.",
    )
    temperature: float = Field(
        1.0,
        ge=0,
        le=10,
        description="Randomness of sampling. 0 = always the most likely code; higher values vary more.",
    )
    top_k: Int = Field(
        250, ge=0, le=2048, description="Number of most likely codes that are sampled from. 0 = all codes."
    )
    top_p: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Sample from the smallest set of codes with at least this probability. 0 = off. Replaces `top_k`.",
    )
    cfg_coef: float = Field(
        3.0,
        ge=0,
        le=30,
        description="How strictly the music follows the prompt (classifier-free guidance). 1 = no guidance. Alias:"
        " `guidance_scale`.",
    )
    extend_stride: float = Field(
        18.0,
        gt=0,
        le=60,
        description="For long music: how far the window moves each time, in seconds. It must be shorter than the"
        " model's window. Smaller values keep more context and take longer.",
    )
    negative_prompt: Text = Field("", description="Describes what the music must not sound like.")
    melody_audio: AudioField | None = Field(
        None, description="A recording whose melody the music follows. Needs a melody model."
    )
    # Not in the schema until there is a model for it. A request with it gets the reason why it cannot be used.
    style_audio: SkipJsonSchema[AudioField | None] = None
    continuation_audio: AudioField | None = Field(None, description="A recording that the music continues.")
    continuation_start: float = Field(
        0.0,
        ge=0,
        description="Start of the part of `continuation_audio` that is continued, in seconds.",
    )
    continuation_end: float | None = Field(
        None, gt=0, description="End of that part, in seconds. Default: the end of the recording."
    )
    include_prompt: bool = Field(True, description="Begin the result with the part that is continued.")
    bpm: float | None = Field(None, ge=20, le=300, description="Tempo in beats per minute, added to the prompt.")
    key: str | None = Field(
        None, max_length=20, description="Key, added to the prompt, such as `C minor` or `F# major`."
    )
    time_signature: str | None = Field(
        None, max_length=5, description="Time signature, added to the prompt, such as `3/4`."
    )
    lyrics: NonEmptyText | None = Field(
        None, max_length=MAX_PROMPT_CHARS, description="The words to sing. `suno/...` models only."
    )
    style: NonEmptyText | None = Field(
        None, max_length=MAX_STYLE_CHARS, description="Genre, mood and voice. `suno/...` models only."
    )
    title: NonEmptyText | None = Field(
        None, max_length=MAX_TITLE_CHARS, description="Title of the song. `suno/...` models only."
    )
    instrumental: bool = Field(False, description="Make a song without vocals. `suno/...` models only.")
    max_wait_s: float | None = Field(
        None,
        ge=0,
        le=900,
        description="How long to wait for the song, in seconds. Default: 600. `suno/...` models only.",
    )
    mbd: bool = Field(
        False,
        description="Decode with Multi-Band Diffusion: fewer artefacts, slower. Only for MusicGen models of 32 kHz.",
    )
    trim_silence: bool = Field(False, description="Remove silence at the start and the end.")
    fade_in: float = Field(0.0, ge=0, le=60, description="Length of the fade-in in seconds.")
    fade_out: float = Field(0.0, ge=0, le=60, description="Length of the fade-out in seconds.")
    partial: bool = Field(
        False, description="If the job's time runs out, return what has been generated, with a warning."
    )

    @property
    def is_suno(self) -> bool:
        """Whether `model` names a Suno version."""
        return self.model is not None and self.model.lower().startswith(SUNO_PREFIX)

    @property
    def prompts(self) -> list[str]:
        return self.prompt if isinstance(self.prompt, list) else [self.prompt or ""]

    def describe(self, prompt: str) -> str:
        """`prompt` with the tempo, key and time signature added, unless it contains them."""
        additions = [
            f"{self.bpm:g} bpm" if self.bpm is not None else "",
            self.key.strip() if self.key is not None else "",
            f"{self.time_signature} time" if self.time_signature is not None else "",
        ]
        text = prompt.strip()
        missing = [part for part in additions if part and part.lower() not in text.lower()]
        return ", ".join([part for part in (text.rstrip(" .,;"), *missing) if part]) if missing else text

    @classmethod
    def names(cls) -> list[str]:
        return [name for name in super().names() if name != "style_audio"]

    def find_errors(self) -> Iterable[tuple[str, str]]:
        yield from self._find_suno_errors() if self.is_suno else self._find_music_errors()
        count = len(self.prompts) * self.n_samples
        if count > MAX_CLIPS:
            yield "n_samples", f"makes {count} clips with {len(self.prompts)} prompts; at most {MAX_CLIPS} are allowed"
        if isinstance(self.seed, list) and len(self.seed) != count:
            yield "seed", f"has {len(self.seed)} numbers for {count} clips; send one number, or one for each clip"
        if self.continuation_audio is None and {"continuation_start", "continuation_end"} & self.model_fields_set:
            yield "continuation_audio", "is required with 'continuation_start' or 'continuation_end'"
        if self.continuation_end is not None and self.continuation_end - self.continuation_start < MIN_CONTINUATION_S:
            yield "continuation_end", f"must be at least {MIN_CONTINUATION_S} s after 'continuation_start'"
        if self.key is not None and not KEY.fullmatch(self.key.strip()):
            yield "key", "must be a note from A to G, optionally with '#' or 'b' and 'major' or 'minor': 'F# minor'"
        if self.time_signature is not None and not TIME_SIGNATURE.fullmatch(self.time_signature):
            yield "time_signature", "must be beats over note value: '4/4', '3/4', '6/8'"

    def _find_music_errors(self) -> Iterable[tuple[str, str]]:
        for name in SUNO_FIELDS:
            if name in self.model_fields_set:
                yield name, f"can only be used with 'model': '{SUNO_PREFIX}<version>'"
        if self.prompt is None and self.melody_audio is None and self.continuation_audio is None:
            yield "prompt", "is required unless there is 'melody_audio' or 'continuation_audio'"

    def _find_suno_errors(self) -> Iterable[tuple[str, str]]:
        for name in AUDIO_FIELDS:
            if name in self.model_fields_set:
                yield name, "cannot be used with Suno; 'extend_via_suno' continues a recording"
        if len(self.prompts) > 1:
            yield "prompt", "must be one text with Suno; send one request for each song"
        if self.n_samples > CLIPS_PER_REQUEST:
            yield "n_samples", f"must be at most {CLIPS_PER_REQUEST} with Suno, which makes {CLIPS_PER_REQUEST} clips"
        if not (self.prompts[0].strip() or self.lyrics or self.style):
            yield "prompt", "is required, or 'lyrics', or 'style' with 'instrumental'"
