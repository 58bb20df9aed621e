"""How the parameters of the ACE-Step API may be spelled: flat or nested, in snake case or camel case."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from errors import sanitize

# Objects in which a request may also have parameters; a string has JSON.
NESTED = ("param_obj", "metas", "meta", "metadata", "user_metadata", "userMetadata")
SECRETS = ("ai_token", "aiToken")  # that server's key; RunPod has its own, in a header
EMPTY = ("", "N/A")  # that server's signs for a value that is not known
IGNORED_METAS = ("genres",)  # its results have it among the metas, but it takes none

# The spellings of each parameter besides its own, its camel case and its own with hyphens.
ALIASES: Mapping[str, tuple[str, ...]] = {
    "prompt": ("caption",),
    "sample_query": ("description", "desc"),
    "use_format": ("format",),
    "model": ("model_name", "dit_model"),
    "key_scale": ("keyscale", "key"),
    "time_signature": ("timesignature",),
    "audio_duration": ("duration", "target_duration"),
    "vocal_language": ("language",),
    "audio_code_string": ("audio_codes",),
    "reference_audio": ("reference_audio_path", "ref_audio", "ref_audio_path"),
    "src_audio": ("src_audio_path", "source_audio_path", "ctx_audio", "ctx_audio_path"),
    "constrained_decoding": ("constrained",),
    "use_cot_caption": ("cot_caption",),
    "use_cot_language": ("cot_language",),
    "allow_lm_batch": ("parallel_thinking",),
    "track_name": ("track",),
    "track_classes": ("tracks",),
    "output_format": ("audio_format",),
}


def list_spellings(name: str) -> list[str]:
    """Every spelling of the parameter `name`, its own first."""
    spellings = [name, *ALIASES.get(name, ())]
    camel = [_to_camel_case(spelling) for spelling in spellings]
    hyphens = [spelling.replace("_", "-") for spelling in spellings]
    return list(dict.fromkeys([*spellings, *camel, *hyphens]))


def collect_parameters(
    values: Mapping[str, Any], names: Mapping[str, str]
) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """The parameters of a request by their own names, wherever they stand in it. Empty strings count as absent.

    Args:
        values: of the request.
        names: the own name of each spelling.

    Returns:
        The parameters, and an error for each nested object that is none, and for each parameter that has different
        values in two places.
    """
    nested, errors = _read_nested(values)
    flat: dict[str, Any] = {}
    places: dict[str, str] = {}
    for place, key, value in _iter_values(values, nested):
        name = names.get(key, key)
        if value is None or value in EMPTY or (place != key and key in IGNORED_METAS):
            continue
        if name in flat and flat[name] != value:
            problem = f"has different values in '{places[name]}' and '{sanitize(place)}'; give one"
            errors.append({"field": sanitize(name), "problem": problem})
        flat.setdefault(name, value)
        places.setdefault(name, sanitize(place))
    return flat, errors


def _read_nested(values: Mapping[str, Any]) -> tuple[dict[str, Mapping[str, Any]], list[dict[str, str]]]:
    """The nested objects by name, and an error for each that is none."""
    nested, errors = {}, []
    for name in NESTED:
        value = values.get(name)
        if isinstance(value, str):
            value = _load_json(value)
        if isinstance(value, Mapping):
            nested[name] = value
        elif value is not None:
            errors.append({"field": name, "problem": "must be an object, or a string with a JSON object"})
    return nested, errors


def _load_json(text: str) -> Any:
    """What the text has; None if it is empty, and the text itself if it is no JSON."""
    try:
        return json.loads(text) if text.strip() else None
    except (ValueError, RecursionError):
        return text


def _iter_values(values: Mapping[str, Any], nested: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str, Any]]:
    """(place, key, value) of the flat values, then of the nested ones."""
    for key, value in values.items():
        if key not in SECRETS and key not in NESTED:
            yield key, key, value
    for outer, members in nested.items():
        for key, value in members.items():
            yield f"{outer}.{key}", str(key), value


def _to_camel_case(name: str) -> str:
    return re.sub(r"_([a-z])", lambda match: match[1].upper(), name)
