"""What the operations are called on the command line, and which parameter stands without a name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from music_worker.schema import Schema


@dataclass(frozen=True, slots=True)
class Name:
    """How an operation is called by people.

    Args:
        command: the subcommand.
        positional: the parameter that needs no name; empty if there is none.
        options: further names of options, with the parameter of each.
    """

    command: str
    positional: str = ""
    options: Mapping[str, str] = field(default_factory=dict)


OUTPUT_FIELDS = ("output_format", "bit_depth", "bitrate", "normalize", "loudness_lufs", "delivery")
"""The parameters that operations with audio in their reply share; they are listed last."""

NAMES: Mapping[str, Name] = {
    "generate_music": Name("music", "prompt"),
    "edit_music": Name("edit", "audio"),
    "plan_music": Name("plan", "prompt"),
    "generate_cover": Name("cover", "audio", {"voice": "voice_model"}),
    "separate": Name("separate", "audio"),
    "mix_audio": Name("mix", "tracks"),
    "encode_audio": Name("encode", "audio"),
    "decode_audio": Name("decode", "codes"),
    "analyze": Name("analyze", "audio"),
    "pipeline": Name("pipeline", "steps"),
    "extend_via_suno": Name("extend", "audio"),
    "add_voice": Name("add-voice", "name"),
    "list_models": Name("models"),
    "health_check": Name("health"),
    "release_task": Name("release-task", "prompt"),
    "format_input": Name("format-input", "prompt"),
}


def get_name(operation: str, schema: Schema) -> Name:
    """The operation's name; one that is not in the table is called as it is, with its first required parameter."""
    if operation in NAMES:
        return NAMES[operation]
    required = list(schema.get("required", ()))
    return Name(operation.replace("_", "-"), required[0] if required else "")


def order_fields(schema: Schema) -> dict[str, Schema]:
    """The fields: required ones first, the shared ones last."""
    fields: Mapping[str, Schema] = schema.get("properties", {})
    required = schema.get("required", ())
    order = [name for name in fields if name in required]
    order += [name for name in fields if name not in required and name not in OUTPUT_FIELDS]
    order += [name for name in OUTPUT_FIELDS if name in fields]
    return {name: fields[name] for name in order}
