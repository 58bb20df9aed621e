"""The parameters of release_task: those of the ACE-Step API, each with what it becomes here."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from operations.acestep_api.params import ApiParams, becomes, leave_out, to_text
from operations.edit_music.params import EditTask
from operations.params import AudioField, AudioOutParams, Int, Text

TaskType = Literal["text2music"] | EditTask

TRAINED_NEGATIVE_PROMPT = "NO USER INPUT"


class TaskParams(ApiParams):
    """What to make, in the words of the ACE-Step API. Ranges are those of generate_music and edit_music."""

    prompt: Text = Field("", description="Describes the music.", json_schema_extra=becomes("prompt"))
    lyrics: str = Field("", description="The words to sing.", json_schema_extra=becomes("lyrics"))
    task_type: TaskType = Field(
        "text2music",
        description="`text2music` makes a song; the others edit `src_audio`.",
        json_schema_extra=becomes("task"),
    )
    thinking: bool = Field(
        False,
        description="Let the planner write audio codes. Without it, codes that are given are followed all the same;"
        " the other server ignores them. Left out for an edit.",
        json_schema_extra=becomes("thinking"),
    )
    sample_mode: bool = Field(
        False,
        description="Let the planner invent a song. `prompt`, `lyrics` and `use_format` are left out then.",
        json_schema_extra=becomes("sample_query"),
    )
    sample_query: str = Field(
        "", description="Let the planner write a song from this.", json_schema_extra=becomes("sample_query")
    )
    use_format: bool = Field(
        False, description="Let the planner rewrite prompt and lyrics.", json_schema_extra=becomes("use_format")
    )
    model: str | None = Field(
        None,
        description="A model that does not exist is an error; the other server takes its default.",
        json_schema_extra=becomes("model"),
    )
    vocal_language: str = Field(
        "en",
        description="Language of the vocals. What the planner detects is used if the request has none; the other"
        " server never uses it.",
        json_schema_extra=becomes("vocal_language"),
    )
    bpm: Int | None = Field(None, description="Beats per minute.", json_schema_extra=becomes("bpm"))
    key_scale: str = Field("", description="`C major`, `Am`.", json_schema_extra=becomes("key"))
    time_signature: Annotated[str, BeforeValidator(to_text, json_schema_input_type=str | int)] = Field(
        "", description="`4` or `4/4`.", json_schema_extra=becomes("time_signature")
    )
    audio_duration: float | None = Field(
        None,
        description="Length in seconds. Without it and without a planner a song lasts 60 s; with the other server, a"
        " random time.",
        json_schema_extra=becomes("duration"),
    )
    audio_code_string: str | list[str] | list[Int] = Field(
        "", description="Audio codes; the other server ignores them.", json_schema_extra=becomes("audio_codes")
    )
    inference_steps: Int | None = Field(
        None,
        description="Default: the model's; the other server takes 8 for every model. Above a turbo model's 20 it is an"
        " error; the other server takes 8.",
        json_schema_extra=becomes("inference_steps"),
    )
    guidance_scale: float | None = Field(
        None,
        description="Default: the model's. Left out for turbo models, with a warning.",
        json_schema_extra=becomes("cfg_coef"),
    )
    use_random_seed: bool | None = Field(
        None,
        description="`true` ignores `seed`. Default: a `seed` that is given is used; the other server ignores it.",
        json_schema_extra=becomes("seed"),
    )
    seed: Int | list[Int] = Field(
        -1,
        description="Seed of the first clip; -1 = random. Every clip is reproducible; with the other server only the"
        " first.",
        json_schema_extra=becomes("seed"),
    )
    batch_size: Int = Field(
        1, description="Number of clips. The other server makes 2 by default.", json_schema_extra=becomes("n_samples")
    )
    shift: float | None = Field(
        None,
        description="Default: the model's; the other server takes 3 for every model.",
        json_schema_extra=becomes("shift"),
    )
    infer_method: Literal["ode", "sde"] = Field(
        "ode", description="With `sde`, too, the seed decides everything.", json_schema_extra=becomes("infer_method")
    )
    timesteps: str | list[float] = Field(
        "",
        description="A list, or numbers separated by commas, for every model. The other server ignores them for models"
        " that are not turbo, and rounds them for turbo models.",
        json_schema_extra=becomes("timesteps"),
    )
    use_adg: bool = Field(
        False, description="Guidance by angles. Not for turbo models.", json_schema_extra=becomes("use_adg")
    )
    cfg_interval_start: float = Field(
        0.0, description="As in the other server.", json_schema_extra=becomes("cfg_interval_start")
    )
    cfg_interval_end: float = Field(
        1.0, description="As in the other server.", json_schema_extra=becomes("cfg_interval_end")
    )
    lm_model_path: str | None = Field(
        None,
        description="Name of the planner; of a path the last part is taken.",
        json_schema_extra=becomes("planner"),
    )
    lm_backend: str | None = Field(None, json_schema_extra=leave_out("the planner has one implementation here"))
    lm_temperature: float | None = Field(
        None, description="Default: 0.85.", json_schema_extra=becomes("lm_temperature")
    )
    lm_cfg_scale: float = Field(2.5, description="Guidance of the codes.", json_schema_extra=becomes("lm_cfg_scale"))
    lm_negative_prompt: Text = Field(
        TRAINED_NEGATIVE_PROMPT,
        description="The default is what the planner was trained with.",
        json_schema_extra=becomes("lm_negative_prompt"),
    )
    lm_top_k: Int | None = Field(None, description="0 = all.", json_schema_extra=becomes("lm_top_k"))
    lm_top_p: float | None = Field(None, description="Default: 0.9.", json_schema_extra=becomes("lm_top_p"))
    lm_repetition_penalty: float = Field(
        1.0,
        description="Used; the other server ignores it.",
        json_schema_extra=becomes("lm_repetition_penalty"),
    )
    use_cot_caption: bool = Field(
        True,
        description="A planner is used for `thinking`, `use_format`, a sample, or if this is set explicitly; the other"
        " server uses one whenever it has one.",
        json_schema_extra=becomes("use_cot_caption"),
    )
    use_cot_language: bool = Field(
        True, description="As `use_cot_caption`.", json_schema_extra=becomes("use_cot_language")
    )
    constrained_decoding: bool = Field(True, json_schema_extra=leave_out("the planner is always constrained"))
    constrained_decoding_debug: bool = Field(False, json_schema_extra=leave_out("the log is the operator's"))
    allow_lm_batch: bool = Field(True, json_schema_extra=leave_out("a batch gives what its songs give alone"))
    use_tiled_decode: bool = Field(True, json_schema_extra=leave_out("the codec always decodes in tiles"))
    is_format_caption: bool = Field(False, json_schema_extra=leave_out("the planner reads the caption itself"))
    reference_audio: AudioField | None = Field(
        None,
        description="Base64, a URL or a path on the volume.",
        json_schema_extra=becomes("style_audio"),
    )
    src_audio: AudioField | None = Field(
        None,
        description="Base64, a URL or a path on the volume. An edit without it is an error; the other server makes a"
        " song.",
        json_schema_extra=becomes("audio"),
    )
    instruction: str | None = Field(None, json_schema_extra=leave_out("it follows from the task"))
    repainting_start: float = Field(
        0.0, description="Below 0 the result begins earlier.", json_schema_extra=becomes("repainting_start")
    )
    repainting_end: float | None = Field(
        None,
        description="-1 = the end; beyond it the result is longer.",
        json_schema_extra=becomes("repainting_end"),
    )
    audio_cover_strength: float = Field(
        1.0, description="Of a cover, or of audio codes.", json_schema_extra=becomes("audio_cover_strength")
    )
    track_name: str | None = Field(None, description="For `lego` and `extract`.", json_schema_extra=becomes("track"))
    track_classes: list[str] | None = Field(None, description="For `complete`.", json_schema_extra=becomes("tracks"))


class Params(AudioOutParams, TaskParams):
    """What to make, and how it is delivered."""

    AUTO_FORMATS = ("mp3",)
