"""What replies have, for the OpenAPI document. The client's end-to-end tests hold real replies against it.

A reply may have more keys than these: fields are added, never renamed or dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any]


def _type(kind: str, description: str, **more: Any) -> Schema:
    """`kind` is a JSON type, or several with `|` between them."""
    kinds = kind.split("|")
    return {"type": kinds if len(kinds) > 1 else kind, "description": description, **more}


def _list(items: str, description: str) -> Schema:
    return _type("array", description, items={"type": items})


def _artefact(content: str, **fields: Schema) -> Schema:
    """One delivered file.

    Args:
        content: the key of its base64.
        fields: further ones.
    """
    return {
        "type": "object",
        "required": ["filename", "format", "size", "sha256", *fields],
        "properties": {
            content: _type("string", "The file in base64, if it was delivered inline.", contentEncoding="base64"),
            "output_url": _type("string", "A link that is valid for seven days, if it is in a bucket."),
            "output_path": _type("string", "Its path, if it is on the volume."),
            "filename": _type("string", "A name without a folder."),
            "format": _type("string", "The format's name, which is also the extension."),
            "size": _type("integer", "In bytes.", minimum=0),
            "sha256": _type("string", "Of the file, in hexadecimal digits."),
            **fields,
        },
    }


AUDIO_FIELDS: Mapping[str, Schema] = {
    "sample_rate": _type("integer", "In Hz.", minimum=1),
    "channels": _type("integer", "1 or 2.", minimum=1),
    "duration": _type("number", "In seconds.", minimum=0),
}
ARTEFACTS: Mapping[str, Schema] = {
    "AudioArtefact": {"description": "One file with audio.", **_artefact("output_audio", **AUDIO_FIELDS)},
    "FileArtefact": {"description": "One file that is not audio.", **_artefact("output_file")},
}


def build_common_reply() -> Schema:
    """What all replies share. An operation with one result has its artefact at the top level."""
    audio = {"$ref": "#/components/schemas/AudioArtefact"}
    file = {"$ref": "#/components/schemas/FileArtefact"}
    return {
        "type": "object",
        "description": "What every successful reply has. Artefacts are at the top level (one result; the first of"
        " several), in `outputs` (a list), in `stems` (by name) and in `files` (not audio, by name).",
        "required": ["success", "operation", "parameters", "timings", "warnings"],
        "properties": {
            "success": {"const": True},
            "operation": _type("string", "The operation's own name."),
            "parameters": _type("object", "Every parameter as it was used, inputs left out."),
            "timings": _type("object", "Seconds in each stage.", additionalProperties={"type": "number"}),
            "warnings": _list("string", "What was clamped, skipped or substituted."),
            **ARTEFACTS["AudioArtefact"]["properties"],
            "outputs": _type("array", "Every result of several.", items=audio),
            "stems": _type("object", "Results by name.", additionalProperties=audio),
            "files": _type("object", "Files that are not audio, by name.", additionalProperties=file),
        },
    }


MODEL_USED = _type("string|null", "The model that did the work.")
LICENCE = _type("string", "The licence of its weights.")
SONG: Mapping[str, Schema] = {
    "model_used": MODEL_USED,
    "planner_used": _type("string|null", "The planner, if one wrote the song (ACE-Step)."),
    "seed": _type("integer", "Seed of the first clip."),
    "seeds": _list("integer", "Seed of each clip."),
    "prompt": _type("string|array", "The prompt as it was used (ACE-Step)."),
    "lyrics": _type("string|null", "The lyrics as they were used (ACE-Step)."),
    "metas": _type("object", "Tempo, key, time signature and length (ACE-Step)."),
    "audio_codes": _type("string|null", "With `return_codes`: the audio codes of the song (ACE-Step)."),
    "licence": LICENCE,
    "steps_per_s": _type("number|null", "Decoding steps or sampler steps in a second."),
}
SUNO: Mapping[str, Schema] = {
    "task_id": _type("string", "The task at the provider (Suno); resumes it."),
    "status": _type("string", "Of that task."),
    "credits_left": _type("number|null", "At the provider."),
}
PLANNED: Mapping[str, Schema] = {
    "caption": _type("string", "Description of the music."),
    "lyrics": _type("string", "The words, with section tags."),
    "bpm": _type("number|null", "Tempo in beats per minute."),
    "time_signature": _type("string|null", "Beats of a bar."),
    "duration": _type("number|null", "In seconds."),
    "vocal_language": _type("string|null", "Such as `en`."),
}
CODEC: Mapping[str, Schema] = {
    "model_used": MODEL_USED,
    "licence": LICENCE,
    "num_codebooks": _type("integer", "Number of codebooks."),
    "num_frames": _type("integer", "Number of frames."),
}
MODELS = {"type": "array", "items": {"type": "object", "required": ["name"]}}

REPLY_FIELDS: Mapping[str, Mapping[str, Schema]] = {
    "add_voice": {
        "name": _type("string", "The voice's name."),
        "voice": _type("object", "As in `list_models`."),
    },
    "analyze": {
        "tempo": _type("object|null", "`bpm`, `confidence`, `alternative`, `range`."),
        "beats": _list("number", "In seconds."),
        "downbeats": _list("number", "First beats of bars, in seconds."),
        "time_signature": _type("string|null", "Such as `4/4`."),
        "key": _type("object|null", "`name`, `tonic`, `mode`, `confidence`, `runner_up`, `tuning_hz`."),
        "chords": _type("array", "`start`, `end` and `name` of each.", items={"type": "object"}),
        "loudness": _type("object|null", "LUFS, LU and dB."),
        "silence": _type("array", "Silent ranges.", items={"type": "object"}),
        "spectral": _type("object|null", "Shape of the spectrum."),
        "clipping": _type("object|null", "Runs of samples at full scale."),
        "pitch": _type("object|null", "Of a solo voice, on request."),
    },
    "create_random_sample": {
        **PLANNED,
        "description": _type("string", "A few words."),
        "key_scale": _type("string", "The key."),
    },
    "decode_audio": CODEC,
    "edit_music": SONG,
    "encode_audio": {
        **CODEC,
        "frame_rate": _type("number", "Frames in a second."),
        "bitrate_kbps": _type("number", "In kbit/s."),
        "num_samples": _type("integer", "Length of the audio in samples."),
        "codec_sample_rate": _type("integer", "In Hz."),
        "codes": _type("array", "A list for each codebook, with a code for each frame.", items={"type": "array"}),
        "scales": _list("number", "Gain of each chunk (48 kHz)."),
        "si_sdr_db": _type("number|null", "With `return_audio`: higher is closer."),
        "log_mel_distance_db": _type("number|null", "With `return_audio`: lower is closer."),
    },
    "extend_via_suno": SUNO,
    "format_input": {**PLANNED, "key_scale": _type("string|null", "The key.")},
    "generate_cover": {
        "model_used": _type("string", "The voice."),
        "split": _type("object|null", "How lead vocals, backing vocals and reverb were split."),
    },
    "generate_music": {**SONG, **SUNO},
    "health_check": {
        "status": _type("string", "Whether the worker can do its work.", enum=["healthy", "degraded"]),
        "device": _type("string", "`cuda`, `cpu` or `mps`."),
        "gpu_available": _type("boolean", "Whether there is a GPU."),
        "available_models": _list("string", "The voices."),
        "version": _type("string", "Of the worker."),
        "gpu": _type("object|null", "`name`, `total_gb`, `free_gb`."),
        "operations": _type("object", "`ready`, or why not, by name.", additionalProperties={"type": "string"}),
        "checks": _type("object", "What operations need.", additionalProperties={"type": "string"}),
        "loaded_models": _list("string", "In memory."),
        "stats": _type("object", "Jobs that were done and that failed."),
        "uptime_s": _type("number", "In seconds."),
    },
    "list_models": {
        "models": _list("string", "The voices."),
        "count": _type("integer", "Number of voices."),
        "voices": MODELS,
        "music": MODELS,
        "planners": MODELS,
        "separation": MODELS,
        "suno": MODELS,
        "f0_methods": MODELS,
        "content_encoders": MODELS,
        "codecs": MODELS,
        "beat_models": MODELS,
        "search_paths": _list("string", "Folders in which files are looked for."),
        "schemas": _type("object", "With `schemas`: the JSON schema of every operation's parameters."),
        "version": _type("string", "With `schemas`: the worker's version."),
    },
    "mix_audio": {"tracks": _type("array", "`name`, `start` and `end` of each track.", items={"type": "object"})},
    "pipeline": {
        "steps": _type(
            "array",
            "What each step's own reply says besides its files.",
            items={"type": "object", "required": ["id", "operation"]},
        ),
        "failed_step": _type("object", "With `partial`: the step that failed, and its error."),
    },
    "plan_music": {
        **PLANNED,
        "instrumental": _type("boolean", "Whether there are no vocals."),
        "key": _type("string|null", "Such as `C minor`."),
        "genres": _type("string|null", "Genres."),
        "seed": _type("integer", "The seed that was used."),
        "request": _type("object", "Parameters for `generate_music`."),
        "planner_used": _type("string|null", "The planner."),
        "model_used": MODEL_USED,
        "licence": LICENCE,
        "audio_codes": _type("string|null", "With `return_codes`."),
    },
    "release_task": {
        **SONG,
        "seed_value": _type("string", "The seeds, with commas between them."),
        "lm_model": _type("string|null", "The planner."),
        "dit_model": _type("string|null", "The model."),
        "generation_info": _type("string", "How it was made."),
    },
    "separate": {"model_used": MODEL_USED},
}
