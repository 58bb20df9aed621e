"""What a caller wants, checked against the version's limits and put into the providers' JSON. Pure.

Source of the rules: the providers' documentation of generate, extend and upload-extend (which fields stand together).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from errors import AudioError, ErrorCode, InvalidRequestError
from models.suno.catalog import SIMPLE_PROMPT_CHARS, Version
from models.suno.client import EXTEND, GENERATE, UPLOAD_EXTEND, Order

DEFAULT_TITLE = "Untitled"
INSTRUMENTAL_LYRICS = "[Instrumental]"
SHORTEST_SOURCE_S = 1.0
# The provider measures the encoded upload, whose length may differ by a codec frame or two.
FROM_END_S = 0.1


@dataclass(frozen=True)
class Wish:
    """How the song is to be; None leaves it to Suno. Weights are 0..1."""

    version: Version
    prompt: str | None = None
    style: str | None = None
    title: str | None = None
    instrumental: bool = False
    negative_tags: str | None = None
    vocal_gender: Literal["m", "f"] | None = None
    style_weight: float | None = None
    weirdness: float | None = None
    audio_weight: float | None = None

    def shared(self) -> dict[str, Any]:
        """The fields that every submission may carry; what was not asked for is left out."""
        fields = {
            "model": self.version.name,
            "negativeTags": self.negative_tags or None,
            "vocalGender": self.vocal_gender,
            "styleWeight": _hundredths(self.style_weight),
            "weirdnessConstraint": _hundredths(self.weirdness),
            "audioWeight": _hundredths(self.audio_weight),
        }
        return {name: value for name, value in fields.items() if value is not None}

    def faults(self) -> list[str]:
        """Texts that are longer than the version takes."""
        limits = (
            ("prompt", self.prompt, self.version.prompt_chars),
            ("style", self.style, self.version.style_chars),
            ("title", self.title, self.version.title_chars),
        )
        return [
            f"'{name}' has {len(text)} characters and {self.version.name} takes {most}"
            for name, text, most in limits
            if text is not None and len(text) > most
        ]


@dataclass(frozen=True)
class Plan:
    """A submission ready to go, but for the upload's URL where `uploads`.

    `cut_s`: what of the source is uploaded; None = all. `used`: parameters as they were used. `warnings`: what was
    substituted.
    """

    order: Order
    uploads: bool = False
    cut_s: float | None = None
    used: tuple[tuple[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()

    def with_upload(self, url: str) -> Order:
        """The order with the source's URL in it."""
        return Order(self.order.path, {**self.order.body, "uploadUrl": url}) if self.uploads else self.order


def extend_upload(wish: Wish, *, duration: float, continue_at: float | None) -> Plan:
    """Continues an uploaded source of `duration` seconds from `continue_at` (None: its end).

    Suno takes a point to continue from only together with a style; without one the source is cut there instead.
    Raises `InvalidRequestError` or `AudioError`.
    """
    _refuse_length(duration, wish.version)
    faults = wish.faults()
    if continue_at is not None and not 0 < continue_at < duration:
        faults.append(
            f"'continue_at' is {continue_at:g} s and must lie within the source, above 0 and below {duration:.2f} s"
        )
    if wish.style is not None and not wish.prompt and not wish.instrumental:
        faults.append("'style' needs 'prompt' with the words to sing beside it, or 'instrumental': true")
    _refuse(faults)
    body: dict[str, Any] = {**wish.shared(), "instrumental": wish.instrumental}
    warnings = []
    used: dict[str, Any] = {}
    if wish.prompt and not (wish.style is not None and wish.instrumental):
        body["prompt"] = wish.prompt
    if wish.style is None:
        if wish.title:
            warnings.append("'title' was left out: Suno takes it only together with 'style'.")
        if continue_at is not None:
            warnings.append(
                "Without 'style' Suno takes no point to continue from, so the source was cut at 'continue_at' and is "
                "continued from its end."
            )
        return Plan(Order(UPLOAD_EXTEND, body | {"defaultParamFlag": False}), True, continue_at, (), tuple(warnings))
    if wish.instrumental and wish.prompt:
        warnings.append("'prompt' was left out: with 'style' it holds the words to sing, and 'instrumental' is true.")
    at = continue_at if continue_at is not None else max(duration - FROM_END_S, duration / 2)
    used = {"continue_at": _floor(at), "title": wish.title or DEFAULT_TITLE}
    body |= {"defaultParamFlag": True, "style": wish.style, "title": used["title"], "continueAt": used["continue_at"]}
    return Plan(Order(UPLOAD_EXTEND, body), True, None, tuple(used.items()), tuple(warnings))


def extend_track(wish: Wish, *, audio_id: str, continue_at: float | None) -> Plan:
    """Continues a track that Suno made. Raises `InvalidRequestError`."""
    faults = wish.faults()
    if continue_at is not None and not 0 < continue_at < wish.version.output_s:
        faults.append(f"'continue_at' is {continue_at:g} s and must lie within the source, above 0")
    prompt = wish.prompt or (INSTRUMENTAL_LYRICS if wish.instrumental else None)
    own = {"prompt": prompt, "style": wish.style, "continue_at": continue_at}
    missing = [name for name, value in own.items() if value is None]
    if (len(missing) < len(own) or wish.title) and missing:
        faults.append(
            "with 'audio_id' Suno takes 'prompt', 'style' and 'continue_at' together, or none of them (then the "
            f"track's own are kept); missing: {', '.join(missing)}"
        )
    _refuse(faults)
    body: dict[str, Any] = {**wish.shared(), "audioId": audio_id, "defaultParamFlag": not missing}
    if missing:
        return Plan(Order(EXTEND, body))
    assert continue_at is not None
    warnings: tuple[str, ...] = ()
    if wish.instrumental and wish.prompt:
        warnings = ("'instrumental' was left out: with 'audio_id' Suno sings what 'prompt' says.",)
    elif wish.instrumental:
        warnings = ("'instrumental' has no field of its own with 'audio_id'; the words '[Instrumental]' were sent.",)
    used = {"continue_at": _floor(continue_at), "title": wish.title or DEFAULT_TITLE}
    body |= {"prompt": prompt, "style": wish.style, "title": used["title"], "continueAt": used["continue_at"]}
    return Plan(Order(EXTEND, body), used=tuple(used.items()), warnings=warnings)


def generate(wish: Wish, *, description: str, lyrics: str | None) -> Plan:
    """A new song from a description, or from lyrics, style and title. Raises `InvalidRequestError`.

    `wish.prompt` is not looked at: Suno's own `prompt` is the description or the lyrics, by its mode.
    """
    custom = bool(lyrics or wish.style or (wish.instrumental and len(description) > SIMPLE_PROMPT_CHARS))
    if not custom:
        faults = [] if description else ["'prompt' is required"]
        if len(description) > SIMPLE_PROMPT_CHARS:
            faults.append(
                f"'prompt' has {len(description)} characters and Suno takes {SIMPLE_PROMPT_CHARS} as a description; "
                "give words to sing as 'lyrics' and the sound as 'style'"
            )
        _refuse(faults)
        body = {**wish.shared(), "customMode": False, "instrumental": wish.instrumental, "prompt": description}
        warning = ("'title' was left out: Suno takes it only together with 'lyrics' or 'style'.",) if wish.title else ()
        return Plan(Order(GENERATE, body), warnings=warning)
    style = wish.style or description
    custom_wish = Wish(version=wish.version, prompt=lyrics, style=style, title=wish.title)
    faults = custom_wish.faults()
    if not wish.instrumental and not lyrics:
        faults.append("'style' needs 'lyrics' beside it, or 'instrumental': true")
    if not style:
        faults.append("'lyrics' need 'style' (or a 'prompt' that describes the sound) beside them")
    _refuse(faults)
    title = wish.title or DEFAULT_TITLE
    body = {**wish.shared(), "customMode": True, "instrumental": wish.instrumental, "style": style, "title": title}
    warnings = []
    if lyrics and wish.instrumental:
        warnings.append("'lyrics' were left out: 'instrumental' is true.")
    elif lyrics:
        body["prompt"] = lyrics
    if wish.style and description:
        warnings.append("'prompt' was left out: 'style' describes the sound.")
    return Plan(Order(GENERATE, body), used=(("title", title),), warnings=tuple(warnings))


def _refuse_length(duration: float, version: Version) -> None:
    if duration > version.upload_s:
        raise AudioError(
            f"audio: it is {duration:.1f} s long and Suno {version.name} continues at most {version.upload_s:g} s. "
            "Send a shorter piece, or another 'model'.",
            code=ErrorCode.AUDIO_TOO_LONG,
            details={"field": "audio", "duration": round(duration, 2), "limit_s": version.upload_s},
        )
    if duration < SHORTEST_SOURCE_S:
        raise AudioError(
            f"audio: it is {duration:.2f} s long; Suno needs at least {SHORTEST_SOURCE_S:g} s to continue from.",
            code=ErrorCode.AUDIO_TOO_SHORT,
            details={"field": "audio"},
        )


def _refuse(faults: list[str]) -> None:
    if faults:
        raise InvalidRequestError(
            f"Invalid request: {'; '.join(faults)}.", details={"faults": [{"problem": fault} for fault in faults]}
        )


def _hundredths(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _floor(seconds: float) -> float:
    """Down to hundredths (never to 0), so that a point just before the end stays before it."""
    return max(math.floor(seconds * 100) / 100, 0.01)
