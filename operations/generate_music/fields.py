"""The fields of generate_music that describe a piece of music, and those of MusicGen and Suno alone."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from models.suno.catalog import MAX_STYLE_CHARS, MAX_TITLE_CHARS
from operations.clips import MAX_CLIPS, Seeds
from operations.codec import CodeLists
from operations.engines import MusicEngine, only
from operations.params import AudioField, AudioOutParams, FileField, Int, NonEmptyText, Text
from operations.songs.params import ACESTEP_ONLY, MAX_LYRICS_CHARS

MUSICGEN_ONLY = only(MusicEngine.MUSICGEN)
SUNO_ONLY = only(MusicEngine.SUNO)
LOCAL = only(MusicEngine.MUSICGEN, MusicEngine.ACESTEP)
SONGS = only(MusicEngine.ACESTEP, MusicEngine.SUNO)


class MusicParams(AudioOutParams):
    """The parameters of a song, and those of MusicGen and Suno."""

    prompt: Text | Annotated[list[Text], Field(min_length=1, max_length=MAX_CLIPS)] | None = Field(
        None,
        description="Describes the music. A list makes a batch with one or more clips of each prompt. Aliases:"
        " `description`, `text`.",
    )
    model: str | None = Field(
        None,
        max_length=200,
        description="Model, as in `list_models`; `suno/<version>` uses Suno. Default: the best model on this worker"
        " that takes the request's parameters, ACE-Step before MusicGen.",
    )
    duration: float | None = Field(
        None,
        ge=0.5,
        le=600,
        description="Length of the new music in seconds; ACE-Step was trained on 10 s and more. MusicGen continues"
        " beyond its window, window by window. Default: 10 for MusicGen; for ACE-Step the planner's, or that of"
        " `audio_codes`, else 60.",
        json_schema_extra=LOCAL,
    )
    n_samples: Int = Field(1, ge=1, le=8, description="Number of clips for each prompt.")
    seed: Seeds | None = Field(
        None,
        description="Seed of the first clip; each following clip uses the next number. A list gives every clip its own"
        " seed. Default: random; the reply has the seeds that were used.",
        json_schema_extra=LOCAL,
    )
    temperature: float = Field(
        1.0,
        ge=0,
        le=10,
        description="Randomness of sampling. 0 = always the most likely code; higher values vary more.",
        json_schema_extra=MUSICGEN_ONLY,
    )
    top_k: Int = Field(
        250,
        ge=0,
        le=2048,
        description="Number of most likely codes that are sampled from. 0 = all codes.",
        json_schema_extra=MUSICGEN_ONLY,
    )
    top_p: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Sample from the smallest set of codes with at least this probability. 0 = off. Replaces `top_k`.",
        json_schema_extra=MUSICGEN_ONLY,
    )
    cfg_coef: float | None = Field(
        None,
        ge=0,
        le=30,
        description="How strictly the music follows the prompt (classifier-free guidance). 1 = no guidance. Default: 3"
        " for MusicGen, the model's for ACE-Step; its turbo models have none. Alias: `guidance_scale`.",
        json_schema_extra=LOCAL,
    )
    extend_stride: float = Field(
        18.0,
        gt=0,
        le=60,
        description="For long music: how far the window moves each time, in seconds. It must be shorter than the"
        " model's window. Smaller values keep more context and take longer.",
        json_schema_extra=MUSICGEN_ONLY,
    )
    negative_prompt: Text = Field(
        "",
        description="Describes what the music must not sound like.",
        json_schema_extra=only(MusicEngine.MUSICGEN, MusicEngine.SUNO),
    )
    melody_audio: AudioField | None = Field(
        None,
        description="A recording whose melody the music follows. Needs a melody model.",
        json_schema_extra=MUSICGEN_ONLY,
    )
    style_audio: AudioField | None = Field(
        None,
        description="A recording whose timbre and style the song follows. Alias: `reference_audio`.",
        json_schema_extra=ACESTEP_ONLY,
    )
    continuation_audio: AudioField | None = Field(
        None, description="A recording that the music continues.", json_schema_extra=MUSICGEN_ONLY
    )
    continuation_codes: FileField | CodeLists | None = Field(
        None,
        description="In place of `continuation_audio`: codes of the model's codec that the music continues, as"
        " `encode_audio` returns them: lists, or its `.npz` file as base64, data URI, URL or volume path.",
        json_schema_extra=MUSICGEN_ONLY,
    )
    continuation_start: float = Field(
        0.0,
        ge=0,
        description="Start of the part of `continuation_audio` that is continued, in seconds.",
        json_schema_extra=MUSICGEN_ONLY,
    )
    continuation_end: float | None = Field(
        None,
        gt=0,
        description="End of that part, in seconds. Default: the end of the recording.",
        json_schema_extra=MUSICGEN_ONLY,
    )
    include_prompt: bool = Field(
        True, description="Begin the result with the part that is continued.", json_schema_extra=MUSICGEN_ONLY
    )
    bpm: Annotated[float, Field(ge=20, le=300)] | Literal["auto"] | None = Field(
        None,
        description="Tempo in beats per minute; ACE-Step takes 30 to 300. For the others it is added to the prompt."
        " `auto`: the tempo that is heard in `continuation_audio`, or else in `melody_audio`.",
    )
    key: str | None = Field(
        None,
        max_length=20,
        description="Key, such as `C minor`, `F# major` or `Am`; ACE-Step takes major and minor. `auto`: the key that"
        " is heard in `continuation_audio`, or else in `melody_audio`.",
    )
    time_signature: str | None = Field(
        None, max_length=5, description="Time signature, such as `3/4`; ACE-Step takes 2/4, 3/4, 4/4 and 6/8."
    )
    lyrics: str | None = Field(
        None,
        max_length=MAX_LYRICS_CHARS,
        description="The words to sing, with section tags such as `[Verse]`. Without lyrics ACE-Step makes music"
        " without vocals.",
        json_schema_extra=SONGS,
    )
    style: NonEmptyText | None = Field(
        None, max_length=MAX_STYLE_CHARS, description="Genre, mood and voice.", json_schema_extra=SUNO_ONLY
    )
    title: NonEmptyText | None = Field(
        None, max_length=MAX_TITLE_CHARS, description="Title of the song.", json_schema_extra=SUNO_ONLY
    )
    instrumental: bool = Field(False, description="Make music without vocals.", json_schema_extra=SONGS)
    max_wait_s: float | None = Field(
        None,
        ge=0,
        le=900,
        description="How long to wait for the song, in seconds. Default: 600.",
        json_schema_extra=SUNO_ONLY,
    )
    mbd: bool = Field(
        False,
        description="Decode with Multi-Band Diffusion: fewer artefacts, slower. Only for MusicGen models of 32 kHz.",
        json_schema_extra=MUSICGEN_ONLY,
    )
    partial: bool = Field(
        False,
        description="If the job's time runs out, return what has been generated, with a warning.",
        json_schema_extra=LOCAL,
    )
