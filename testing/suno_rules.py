"""The rules of the sunoapi.org API for a submission: which fields go together, their types and lengths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LIMITS = {
    "V3_5": (3000, 200, 80),
    "V4": (3000, 200, 80),
    "V4_5": (5000, 1000, 100),
    "V4_5PLUS": (5000, 1000, 100),
    "V4_5ALL": (5000, 1000, 80),
    "V5": (5000, 1000, 100),
    "V5_5": (5000, 1000, 100),
}
SHARED = {"model", "callBackUrl", "negativeTags", "vocalGender", "styleWeight", "weirdnessConstraint", "audioWeight"}
TEXTS = {"prompt", "style", "title", "negativeTags", "model", "audioId", "uploadUrl", "callBackUrl"}
WEIGHTS = {"styleWeight", "weirdnessConstraint", "audioWeight"}
SWITCHES = {"customMode", "defaultParamFlag", "instrumental"}


def find_violations(path: str, body: object, uploads: Mapping[str, float]) -> list[str]:
    """A sentence for each rule that a submission to `path` breaks; `uploads` are the known upload URLs."""
    if not isinstance(body, dict):
        return ["the body is not a JSON object"]
    required, optional = _required_and_optional(path, body)
    violations = [f"{name} is missing" for name in sorted(required - body.keys())]
    violations += [f"{name} is unknown here" for name in sorted(body.keys() - required - optional)]
    for name, value in body.items():
        violations += _check_value(name, value)
    violations += _check_lengths(path, body)
    if "uploadUrl" in body and body["uploadUrl"] not in uploads:
        violations.append("uploadUrl cannot be fetched")
    return violations


def _required_and_optional(path: str, body: Mapping[str, Any]) -> tuple[set[str], set[str]]:
    custom = body.get("customMode") is True or body.get("defaultParamFlag") is True
    lyrics = {"prompt"} if body.get("instrumental") is not True else set()
    if path.endswith("/extend"):
        own = {"defaultParamFlag", "audioId", "model", "callBackUrl"}
        return own | ({"prompt", "style", "title", "continueAt"} if custom else set()), SHARED
    if path.endswith("/upload-extend"):
        own = {"uploadUrl", "defaultParamFlag", "model", "callBackUrl"}
        if custom:
            return own | {"style", "title", "continueAt"} | lyrics, SHARED | {"instrumental"}
        return own, SHARED | {"instrumental", "prompt"}
    own = {"customMode", "instrumental", "model", "callBackUrl"}
    return own | ({"style", "title"} | lyrics if custom else {"prompt"}), SHARED


def _check_value(name: str, value: object) -> list[str]:
    if name in TEXTS and not (isinstance(value, str) and value):
        return [f"{name} must be a non-empty string"]
    if name in SWITCHES and not isinstance(value, bool):
        return [f"{name} must be true or false"]
    if name in WEIGHTS and not (isinstance(value, (int, float)) and 0 <= value <= 1 and round(value, 2) == value):
        return [f"{name} must be 0..1 in steps of 0.01"]
    if name == "continueAt" and not (isinstance(value, (int, float)) and value > 0):
        return ["continueAt must be above 0"]
    if name == "vocalGender" and value not in ("m", "f"):
        return ["vocalGender must be m or f"]
    if name == "callBackUrl" and not str(value).startswith("http"):
        return ["callBackUrl must be a URL"]
    return []


def _check_lengths(path: str, body: Mapping[str, Any]) -> list[str]:
    limits = dict(zip(("prompt", "style", "title"), LIMITS.get(str(body.get("model")), (5000, 1000, 100)), strict=True))
    if path.endswith("/generate") and body.get("customMode") is False:
        limits["prompt"] = 500
    return [f"{name} is too long" for name, most in limits.items() if len(str(body.get(name, ""))) > most]
