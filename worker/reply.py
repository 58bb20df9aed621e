"""What an operation hands back before delivery turns sounds into artefacts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from audio.types import AudioSource

Format = Literal["wav", "flac", "mp3", "ogg", "opus"]
Delivery = Literal["auto", "inline", "bucket", "volume"]
Normalize = Literal["none", "peak", "loudness"]


@dataclass(frozen=True)
class AudioOut:
    """The audio-out fields, validated: how sounds leave. `auto` takes the first of `auto_order` that fits inline.

    `bitrate` None: the format's own (mp3 320 kbit/s).
    """

    output_format: Format | Literal["auto"] = "auto"
    bit_depth: Literal[16, 24, 32] = 16
    bitrate: int | None = None
    delivery: Delivery = "auto"
    normalize: Normalize = "none"
    loudness_lufs: float = -14.0
    auto_order: tuple[str, ...] = ("wav", "flac", "mp3:320", "mp3:192", "mp3:128")


@dataclass(frozen=True)
class Output:
    """One sound to deliver: `name` is the file name without its ending, `extra` stands beside the artefact's keys."""

    audio: AudioSource
    name: str
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """An operation's result: `fields` at the top level, sounds as `outputs` (list) or `stems` (by name).

    `parameters` replaces the request's values by those that were really used (a drawn seed, a default model).
    `always_list` gives `outputs` even where there is only one. `aliases` are further names of stems.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    outputs: Sequence[Output] = ()
    stems: Mapping[str, Output] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    always_list: bool = False
    aliases: Mapping[str, str] = field(default_factory=dict)
