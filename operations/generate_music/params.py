"""The parameters of generate_music, for MusicGen, ACE-Step and Suno; each field says which of them take it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from pydantic import Field

from models.acestep.metas import MAX_BPM, MIN_BPM, Metas
from models.suno.catalog import CLIPS_PER_REQUEST
from operations.clips import MAX_CLIPS, FinishingParams
from operations.codec import find_list_problems
from operations.engines import MusicEngine, find_foreign
from operations.generate_music.fields import MusicParams
from operations.listening import AUTO
from operations.songs.params import ACESTEP_ONLY, PlannerParams, SamplingParams, is_instrumental
from operations.songs.values import Codes, Language, find_problem, parse_key, parse_time_signature

MIN_CONTINUATION_S = 0.1
TIME_SIGNATURE_PROBLEM = "must be beats over note value: '4/4', '3/4', '6/8'"
SUNO_PREFIX = "suno/"
# Without a prompt, there must be one of these.
CONTENT_FIELDS = (
    "melody_audio", "continuation_audio", "continuation_codes", "lyrics", "style", "sample_query", "audio_codes",
    "style_audio",
)  # fmt: skip
AUDIO_FIELDS = ("melody_audio", "style_audio", "continuation_audio")
# Settings of local models, which a request for Suno may have: they are left out, with a warning.
IGNORED_BY_SUNO = (
    "duration",
    "seed",
    "temperature",
    "top_k",
    "top_p",
    "cfg_coef",
    "extend_stride",
    "continuation_start",
    "continuation_end",
    "include_prompt",
    "mbd",
    "partial",
)
KEY = re.compile(
    r"[A-Ga-g](#|b|♯|♭| sharp| flat)?( ?(m|min|minor|maj|major|dorian|phrygian|lydian|mixolydian|locrian))?"
)
TIME_SIGNATURE = re.compile(r"([1-9]|1\d|2[0-4])(/(1|2|4|8|16))?")


def describe_bpm(bpm: float | None) -> str:
    return "" if bpm is None else f"{bpm:g} bpm"


def add_facts(prompt: str, *facts: str) -> str:
    """`prompt` with each fact that it does not contain yet."""
    text = prompt.strip()
    missing = [fact for fact in facts if fact and fact.lower() not in text.lower()]
    return ", ".join([part for part in (text.rstrip(" .,;"), *missing) if part]) if missing else text


class Params(FinishingParams, PlannerParams, SamplingParams, MusicParams):
    """What to generate, and how."""

    ALIASES = {
        "description": "prompt",
        "text": "prompt",
        "guidance_scale": "cfg_coef",
        "reference_audio": "style_audio",
    }

    vocal_language: Language | None = Field(
        None,
        description="Language of the vocals: `en`, `zh`, `ja`, ... Default: the planner's, else `en`.",
        json_schema_extra=ACESTEP_ONLY,
    )
    thinking: bool = Field(
        False,
        description="Let the planner complete the song's metas and write its audio codes first: better structure,"
        " slower.",
        json_schema_extra=ACESTEP_ONLY,
    )
    sample_query: str | None = Field(
        None,
        max_length=2000,
        description="A short description from which the planner writes prompt, lyrics and metas, in place of `prompt`."
        " Empty: it invents a song.",
        json_schema_extra=ACESTEP_ONLY,
    )
    audio_codes: Codes | None = Field(
        None,
        description="Audio codes to follow, five a second, 0 to 63,999: a list, or a string as a reply has them.",
        json_schema_extra=ACESTEP_ONLY,
    )
    audio_cover_strength: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Share of the steps that follow the audio codes. 0 = none, 1 = all.",
        json_schema_extra=ACESTEP_ONLY,
    )
    return_codes: bool = Field(
        False, description="Return the audio codes of every clip.", json_schema_extra=ACESTEP_ONLY
    )

    @property
    def is_suno(self) -> bool:
        """Whether `model` names a Suno version."""
        return self.model is not None and self.model.lower().startswith(SUNO_PREFIX)

    @property
    def has_continuation(self) -> bool:
        """Whether there is audio to continue, as a recording or as codes."""
        return self.continuation_audio is not None or self.continuation_codes is not None

    @property
    def prompts(self) -> list[str]:
        return self.prompt if isinstance(self.prompt, list) else [self.prompt or ""]

    @property
    def known_bpm(self) -> float | None:
        """The tempo of the request; None: there is none, or it is `auto`."""
        return None if isinstance(self.bpm, str) else self.bpm

    @property
    def known_key(self) -> str | None:
        """The key of the request; None: there is none, or it is `auto`."""
        return None if self.key is None or self.key.strip().lower() == AUTO else self.key.strip()

    @property
    def heard(self) -> frozenset[str]:
        """Which of `bpm` and `key` are `auto`."""
        names = {"bpm"} if self.bpm == AUTO else set()
        return frozenset(names | ({"key"} if self.key is not None and self.known_key is None else set()))

    def describe(self, prompt: str) -> str:
        """`prompt` with the tempo, key and time signature added, unless it contains them."""
        time_signature = f"{self.time_signature} time" if self.time_signature is not None else ""
        return add_facts(prompt, describe_bpm(self.known_bpm), self.known_key or "", time_signature)

    def acestep_metas(self) -> Metas:
        """The metas in ACE-Step's terms; `find_engine_errors` has found no error."""
        return Metas(
            bpm=None if self.known_bpm is None else round(self.known_bpm),
            key=None if self.known_key is None else parse_key(self.known_key),
            time_signature=None if self.time_signature is None else parse_time_signature(self.time_signature),
            duration=self.duration,
        )

    def find_errors(self) -> Iterable[tuple[str, str]]:
        """Errors of the request whatever the engine; those of Suno, which the model's name chooses."""
        if self.is_suno:
            yield from self.find_engine_errors(MusicEngine.SUNO)
        elif self.prompt is None and not any(getattr(self, name) is not None for name in CONTENT_FIELDS):
            yield "prompt", "is required unless there is 'melody_audio' or 'continuation_audio', or 'lyrics'"
        yield from self.find_sampling_errors()
        count = len(self.prompts) * self.n_samples
        if count > MAX_CLIPS:
            yield "n_samples", f"makes {count} clips with {len(self.prompts)} prompts; at most {MAX_CLIPS} are allowed"
        if isinstance(self.seed, list) and len(self.seed) != count:
            yield "seed", f"has {len(self.seed)} numbers for {count} clips; send one number, or one for each clip"
        if self.continuation_audio is None and {"continuation_start", "continuation_end"} & self.model_fields_set:
            yield "continuation_audio", "is required with 'continuation_start' or 'continuation_end'"
        if self.continuation_end is not None and self.continuation_end - self.continuation_start < MIN_CONTINUATION_S:
            yield "continuation_end", f"must be at least {MIN_CONTINUATION_S} s after 'continuation_start'"
        if self.continuation_codes is not None:
            if self.continuation_audio is not None:
                yield "continuation_codes", "cannot be sent together with 'continuation_audio'; send one of them"
            if not isinstance(self.continuation_codes, str):
                yield from (("continuation_codes", problem) for problem in find_list_problems(self.continuation_codes))
        key = self.known_key
        if key is not None and not KEY.fullmatch(key) and find_problem(parse_key, key):
            yield "key", "must be a note from A to G, optionally with '#' or 'b' and 'major' or 'minor': 'F# minor'"
        if self.melody_audio is None and self.continuation_audio is None:
            for name in sorted(self.heard):
                yield name, "can only be 'auto' with 'melody_audio' or 'continuation_audio', in which it is heard"
        if self.time_signature is not None and not TIME_SIGNATURE.fullmatch(self.time_signature):
            yield "time_signature", TIME_SIGNATURE_PROBLEM

    def find_engine_errors(self, engine: MusicEngine) -> Iterable[tuple[str, str]]:
        """(field, problem) of what `engine` does not take: parameters of other engines, and values out of its range."""
        for name, problem in find_foreign(self, engine):
            if engine is MusicEngine.SUNO and name in IGNORED_BY_SUNO:
                continue
            if engine is MusicEngine.SUNO and name in AUDIO_FIELDS:
                yield name, "cannot be used with Suno; 'extend_via_suno' continues a recording"
            else:
                yield name, problem
        yield from _FINDERS[engine](self)

    def _find_musicgen_errors(self) -> Iterable[tuple[str, str]]:
        if self.prompt is None and self.melody_audio is None and not self.has_continuation:
            yield "prompt", "is required unless there is 'melody_audio' or 'continuation_audio'"
        yield from self._find_time_signature_error()

    def _find_suno_errors(self) -> Iterable[tuple[str, str]]:
        if len(self.prompts) > 1:
            yield "prompt", "must be one text with Suno; send one request for each song"
        if self.n_samples > CLIPS_PER_REQUEST:
            yield "n_samples", f"must be at most {CLIPS_PER_REQUEST} with Suno, which makes {CLIPS_PER_REQUEST} clips"
        if not (self.prompts[0].strip() or self.lyrics or self.style):
            yield "prompt", "is required, or 'lyrics', or 'style' with 'instrumental'"
        yield from self._find_time_signature_error()

    def _find_time_signature_error(self) -> Iterable[tuple[str, str]]:
        if self.time_signature is not None and "/" not in self.time_signature:
            yield "time_signature", TIME_SIGNATURE_PROBLEM

    def _find_acestep_errors(self) -> Iterable[tuple[str, str]]:
        writes_text = [name for name in ("prompt", "lyrics") if getattr(self, name)]
        if self.sample_query is not None:
            for name in (*writes_text, *(("use_format",) if self.use_format else ())):
                yield name, "contradicts 'sample_query', from which the planner writes the text; leave one of them out"
            if self.audio_codes is not None:
                yield "audio_codes", "contradicts 'sample_query', which makes a new song; leave one of them out"
        elif self.use_format and not writes_text:
            yield "use_format", "needs a 'prompt' or 'lyrics' to rewrite"
        if self.instrumental and not is_instrumental(self.lyrics):
            yield "instrumental", "contradicts 'lyrics'; leave one of them out"
        if self.known_bpm is not None and not MIN_BPM <= self.known_bpm <= MAX_BPM:
            yield "bpm", f"must be {MIN_BPM} to {MAX_BPM} with ACE-Step"
        if self.known_key is not None and (problem := find_problem(parse_key, self.known_key)):
            yield "key", f"{problem} with ACE-Step"
        if self.time_signature is not None and (problem := find_problem(parse_time_signature, self.time_signature)):
            yield "time_signature", f"{problem} with ACE-Step"


_FINDERS: Mapping[MusicEngine, Callable[[Params], Iterable[tuple[str, str]]]] = {
    MusicEngine.MUSICGEN: Params._find_musicgen_errors,
    MusicEngine.ACESTEP: Params._find_acestep_errors,
    MusicEngine.SUNO: Params._find_suno_errors,
}
