"""Parameters of ACE-Step that several operations take: what is sampled and how, and the planner's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from models.acestep.metas import INSTRUMENTAL, MAX_BPM, MIN_BPM, Metas
from models.acestep.planner.request import LmSampling
from models.suno.catalog import MAX_PROMPT_CHARS
from operations.engines import MusicEngine, only
from operations.params import Int, Params, Text
from operations.songs.values import Key, Language, TimeSignature, Timesteps, parse_time_signature

MAX_LYRICS_CHARS = MAX_PROMPT_CHARS  # ACE-Step cuts by tokens, with a warning; Suno counts characters
MAX_INFERENCE_STEPS = 200
INSTRUMENTAL_LYRICS = ("", "[inst]", INSTRUMENTAL.lower())
DEFAULT_TEMPERATURE = 0.85
UNDERSTANDING_TEMPERATURE = 0.3
ACESTEP_ONLY = only(MusicEngine.ACESTEP)


def is_instrumental(lyrics: str | None) -> bool:
    """Whether lyrics have no words to sing."""
    return (lyrics or "").strip().lower() in INSTRUMENTAL_LYRICS


class SamplingParams(Params):
    """How ACE-Step samples."""

    inference_steps: Annotated[Int, Field(ge=1, le=MAX_INFERENCE_STEPS)] | None = Field(
        None,
        description="Steps of the sampler. Default: the model's: 8 for turbo models (at most 20), 50 for the others.",
        json_schema_extra=ACESTEP_ONLY,
    )
    shift: float | None = Field(
        None,
        ge=1,
        le=10,
        description="Shift of the timesteps: higher values spend more steps on the structure, lower ones on detail."
        " Default: the model's: 3 for turbo models, 1 for the others.",
        json_schema_extra=ACESTEP_ONLY,
    )
    infer_method: Literal["ode", "sde"] = Field(
        "ode",
        description="`ode` is Euler's method; `sde` adds fresh noise at every step.",
        json_schema_extra=ACESTEP_ONLY,
    )
    timesteps: Timesteps | None = Field(
        None,
        description="Strictly falling timesteps in (0, 1], as a list or as `0.97,0.76,0.5`, in place of"
        " `inference_steps` and `shift`.",
        json_schema_extra=ACESTEP_ONLY,
    )
    use_adg: bool = Field(
        False,
        description="Guide by angles (ADG) instead of projections (APG). Not for turbo models.",
        json_schema_extra=ACESTEP_ONLY,
    )
    cfg_interval_start: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Guidance is applied while the timestep, which falls from 1 to 0, is at least this.",
        json_schema_extra=ACESTEP_ONLY,
    )
    cfg_interval_end: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Guidance is applied while the timestep is at most this.",
        json_schema_extra=ACESTEP_ONLY,
    )

    def find_sampling_errors(self) -> Iterable[tuple[str, str]]:
        if self.cfg_interval_start > self.cfg_interval_end:
            yield "cfg_interval_start", "must not be above 'cfg_interval_end'"
        if self.timesteps is not None and self.inference_steps not in (None, len(self.timesteps)):
            yield "inference_steps", f"is {self.inference_steps}, but 'timesteps' has {len(self.timesteps)} steps"
        if self.timesteps is not None and self.shift is not None:
            yield "shift", "has no effect on 'timesteps'; leave one of them out"


class LmParams(Params):
    """Which planner writes, and how its tokens are drawn."""

    planner: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="Planner, as in `list_models`. Default: the best one on this worker.",
        json_schema_extra=ACESTEP_ONLY,
    )
    lm_temperature: float | None = Field(
        None,
        ge=0,
        le=2,
        description="Randomness of the planner. 0 = always the most likely token. Default: 0.85, and 0.3 to understand"
        " a recording.",
        json_schema_extra=ACESTEP_ONLY,
    )
    lm_top_k: Int = Field(
        0,
        ge=0,
        le=100_000,
        description="Number of most likely tokens that the planner samples from. 0 = all.",
        json_schema_extra=ACESTEP_ONLY,
    )
    lm_top_p: float = Field(
        0.9,
        gt=0,
        le=1,
        description="The planner samples from the smallest set of tokens with at least this probability. 1 = off.",
        json_schema_extra=ACESTEP_ONLY,
    )
    lm_repetition_penalty: float = Field(
        1.0,
        gt=0,
        le=5,
        description="Above 1, tokens that the planner has written become less likely. 1 = off.",
        json_schema_extra=ACESTEP_ONLY,
    )
    lm_cfg_scale: float = Field(
        2.5,
        ge=1,
        le=30,
        description="How strictly the planner's audio codes follow the prompt. 1 = no guidance.",
        json_schema_extra=ACESTEP_ONLY,
    )
    lm_negative_prompt: Text = Field(
        "",
        description="Describes what the planner's audio codes must not sound like.",
        json_schema_extra=ACESTEP_ONLY,
    )

    def lm_sampling(self, temperature: float = DEFAULT_TEMPERATURE) -> LmSampling:
        """How the planner's tokens are drawn; `temperature` is the default."""
        return LmSampling(
            temperature=temperature if self.lm_temperature is None else self.lm_temperature,
            top_k=self.lm_top_k,
            top_p=self.lm_top_p,
            repetition_penalty=self.lm_repetition_penalty,
            cfg_coef=self.lm_cfg_scale,
            negative_prompt=self.lm_negative_prompt.strip(),
        )


class PlannerParams(LmParams):
    """What the planner writes for a song that is generated."""

    use_format: bool = Field(
        False,
        description="Let the planner rewrite `prompt` and `lyrics` first.",
        json_schema_extra=ACESTEP_ONLY,
    )
    use_cot_caption: bool = Field(
        True,
        description="If a planner is used: let it write a more detailed description. Set explicitly, it asks for a"
        " planner.",
        json_schema_extra=ACESTEP_ONLY,
    )
    use_cot_language: bool = Field(
        True,
        description="If a planner is used: let it name the language of the vocals. Set explicitly, it asks for a"
        " planner.",
        json_schema_extra=ACESTEP_ONLY,
    )

    @property
    def wants_planner(self) -> bool:
        """Whether the request would like a planner to complete the song, but can do without."""
        explicit = self.model_fields_set & {"use_cot_caption", "use_cot_language"}
        return self.planner is not None or any(getattr(self, name) for name in explicit)


class SongTextParams(Params):
    """The lyrics and metas of a song, in ACE-Step's ranges."""

    lyrics: str | None = Field(
        None,
        max_length=MAX_LYRICS_CHARS,
        description="The words to sing, with section tags such as `[Verse]`. Without lyrics the music is instrumental.",
    )
    instrumental: bool = Field(False, description="Make music without vocals.")
    vocal_language: Language | None = Field(
        None, description="Language of the vocals: `en`, `zh`, `ja`, ... Default: the planner's, else `en`."
    )
    bpm: Annotated[Int, Field(ge=MIN_BPM, le=MAX_BPM)] | None = Field(None, description="Tempo in beats per minute.")
    key: Key | None = Field(None, description="Key, such as `C minor`, `F# major` or `Am`.")
    time_signature: TimeSignature | None = Field(
        None, description="Time signature: `2/4`, `3/4`, `4/4` or `6/8`, or the beats alone."
    )

    def find_text_errors(self) -> Iterable[tuple[str, str]]:
        if self.instrumental and not is_instrumental(self.lyrics):
            yield "instrumental", "contradicts 'lyrics'; leave one of them out"

    def metas(self, duration: float | None) -> Metas:
        beats = None if self.time_signature is None else parse_time_signature(self.time_signature)
        return Metas(bpm=self.bpm, key=self.key, time_signature=beats, duration=duration)
