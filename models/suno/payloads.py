"""Builds submissions: what the caller asks for, checked against the version's limits, as the provider's JSON.

The rules (which fields go together) are from the providers' documentation of generate, extend and upload-extend.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from errors import AudioError, ErrorCode, InvalidRequestError
from models.suno.catalog import MAX_DESCRIPTION_CHARS, Version

EXTEND_PATH = "/api/v1/generate/extend"
UPLOAD_EXTEND_PATH = "/api/v1/generate/upload-extend"
GENERATE_PATH = "/api/v1/generate"
DEFAULT_TITLE = "Untitled"
INSTRUMENTAL_LYRICS = "[Instrumental]"
MIN_SOURCE_S = 1.0
# The provider measures the encoded upload, whose length may differ from the source's by a codec frame or two.
END_MARGIN_S = 0.1


@dataclass(frozen=True, slots=True)
class SongOptions:
    """What the song should be like; None leaves it to Suno. Weights are 0..1."""

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

    def shared_fields(self) -> dict[str, Any]:
        """The fields that every submission may contain; options that are not set are left out."""
        fields = {
            "model": self.version.name,
            "negativeTags": self.negative_tags or None,
            "vocalGender": self.vocal_gender,
            "styleWeight": _round_weight(self.style_weight),
            "weirdnessConstraint": _round_weight(self.weirdness),
            "audioWeight": _round_weight(self.audio_weight),
        }
        return {name: value for name, value in fields.items() if value is not None}

    def find_errors(self) -> list[str]:
        """A sentence for each text that is longer than the version accepts."""
        limits = (
            ("prompt", self.prompt, self.version.prompt_chars),
            ("style", self.style, self.version.style_chars),
            ("title", self.title, self.version.title_chars),
        )
        return [
            f"'{name}' has {len(text)} characters; Suno {self.version.name} accepts at most {limit}"
            for name, text, limit in limits
            if text is not None and len(text) > limit
        ]


@dataclass(frozen=True, slots=True)
class Submission:
    """One request for a song.

    Args:
        path: the endpoint.
        body: its JSON, without the callback URL, and without the source's URL if `needs_upload`.
        needs_upload: the source must be uploaded first; see `with_upload_url`.
        cut_s: the length of the source to upload, from its start, in seconds; None = all of it.
        used: the parameters as they are used, by their public names.
        warnings: what was left out or substituted.
    """

    path: str
    body: Mapping[str, Any] = field(repr=False)
    needs_upload: bool = False
    cut_s: float | None = None
    used: Mapping[str, Any] = field(default_factory=dict, repr=False)
    warnings: tuple[str, ...] = ()

    def with_upload_url(self, url: str) -> Submission:
        """This submission with the URL of its uploaded source."""
        return replace(self, body={**self.body, "uploadUrl": url}, needs_upload=False)

    @property
    def continues_at(self) -> float | None:
        """The position in the source from which the song continues, in seconds; None = its end."""
        return self.cut_s if self.cut_s is not None else self.body.get("continueAt")


def extend_upload(options: SongOptions, *, duration: float, continue_at: float | None) -> Submission:
    """Continues an uploaded source of `duration` seconds from `continue_at` (None: its end).

    Suno accepts a position to continue from only together with a style; without a style the source is cut there.
    Raises `InvalidRequestError` or `AudioError`.
    """
    _check_duration(duration, options.version)
    errors = options.find_errors()
    if continue_at is not None and not 0 < continue_at < duration:
        errors.append(
            f"'continue_at' is {continue_at:g} s; it must be above 0 and below the source's length of {duration:.2f} s"
        )
    if options.style is not None and not options.prompt and not options.instrumental:
        errors.append("'style' requires 'prompt' with the lyrics, or 'instrumental': true")
    _raise_if_any(errors)
    body: dict[str, Any] = {**options.shared_fields(), "instrumental": options.instrumental}
    warnings = []
    if options.prompt and not (options.style is not None and options.instrumental):
        body["prompt"] = options.prompt
    if options.style is None:
        if options.title:
            warnings.append("'title' was left out: Suno accepts it only together with 'style'.")
        if continue_at is not None:
            warnings.append(
                "The source was cut at 'continue_at' and is continued from its new end, because Suno accepts a "
                "position to continue from only together with 'style'."
            )
        body["defaultParamFlag"] = False
        return Submission(UPLOAD_EXTEND_PATH, body, needs_upload=True, cut_s=continue_at, warnings=tuple(warnings))
    if options.instrumental and options.prompt:
        warnings.append("'prompt' was left out: together with 'style' it is the lyrics, and 'instrumental' is true.")
    position = _floor(continue_at if continue_at is not None else max(duration - END_MARGIN_S, duration / 2))
    title = options.title or DEFAULT_TITLE
    body |= {"defaultParamFlag": True, "style": options.style, "title": title, "continueAt": position}
    used = {"continue_at": position, "title": title}
    return Submission(UPLOAD_EXTEND_PATH, body, needs_upload=True, used=used, warnings=tuple(warnings))


def extend_track(options: SongOptions, *, audio_id: str, continue_at: float | None) -> Submission:
    """Continues a track that Suno made. Raises `InvalidRequestError`."""
    errors = options.find_errors()
    if continue_at is not None and not 0 < continue_at < options.version.output_s:
        errors.append(
            f"'continue_at' is {continue_at:g} s; it must be above 0 and below {options.version.output_s:g} s, the "
            f"longest song of Suno {options.version.name}"
        )
    prompt = options.prompt or (INSTRUMENTAL_LYRICS if options.instrumental else None)
    texts = {"prompt": prompt, "style": options.style, "continue_at": continue_at}
    missing = [name for name, value in texts.items() if value is None]
    if missing and (len(missing) < len(texts) or options.title):
        errors.append(
            "with 'audio_id' Suno accepts 'prompt', 'style' and 'continue_at' all together, or none of them (the "
            f"track's own values are kept then); missing: {', '.join(missing)}"
        )
    _raise_if_any(errors)
    body: dict[str, Any] = {**options.shared_fields(), "audioId": audio_id, "defaultParamFlag": not missing}
    if missing or continue_at is None:
        return Submission(EXTEND_PATH, body)
    warnings: tuple[str, ...] = ()
    if options.instrumental and options.prompt:
        warnings = ("'instrumental' was left out: with 'audio_id' Suno sings the lyrics in 'prompt'.",)
    elif options.instrumental:
        warnings = (
            "With 'audio_id' Suno has no 'instrumental' parameter; the lyrics '[Instrumental]' were sent instead.",
        )
    used = {"continue_at": _floor(continue_at), "title": options.title or DEFAULT_TITLE}
    body |= {"prompt": prompt, "style": options.style, "title": used["title"], "continueAt": used["continue_at"]}
    return Submission(EXTEND_PATH, body, used=used, warnings=warnings)


def generate(options: SongOptions, *, description: str, lyrics: str | None) -> Submission:
    """Makes a new song from a description, or from lyrics, style and title. Raises `InvalidRequestError`.

    `options.prompt` is ignored: Suno's own `prompt` is the description or the lyrics, depending on its mode.
    """
    too_long = len(description) > MAX_DESCRIPTION_CHARS
    if not (lyrics or options.style or (options.instrumental and too_long)):
        if not description:
            _raise_if_any(["'prompt' is required"])
        if too_long:
            _raise_if_any(
                [
                    f"'prompt' has {len(description)} characters; Suno accepts a description of at most "
                    f"{MAX_DESCRIPTION_CHARS}. Send the lyrics as 'lyrics' and describe the sound in 'style'"
                ]
            )
        body = {
            **options.shared_fields(),
            "customMode": False,
            "instrumental": options.instrumental,
            "prompt": description,
        }
        ignored = ("'title' was left out: Suno accepts it only together with 'lyrics' or 'style'.",)
        return Submission(GENERATE_PATH, body, warnings=ignored if options.title else ())
    style = options.style or description
    errors = replace(options, prompt=lyrics, style=style).find_errors()
    if not options.instrumental and not lyrics:
        errors.append("'style' requires 'lyrics', or 'instrumental': true")
    if not style:
        errors.append("'lyrics' require 'style', or a 'prompt' that describes the sound")
    _raise_if_any(errors)
    title = options.title or DEFAULT_TITLE
    body = {
        **options.shared_fields(),
        "customMode": True,
        "instrumental": options.instrumental,
        "style": style,
        "title": title,
    }
    warnings = []
    if lyrics and options.instrumental:
        warnings.append("'lyrics' were left out: 'instrumental' is true.")
    elif lyrics:
        body["prompt"] = lyrics
    if options.style and description:
        warnings.append("'prompt' was left out: 'style' describes the sound.")
    return Submission(GENERATE_PATH, body, used={"title": title}, warnings=tuple(warnings))


def _check_duration(duration: float, version: Version) -> None:
    if duration > version.upload_s:
        raise AudioError(
            f"'audio' is {duration:.1f} s long; Suno {version.name} continues at most {version.upload_s:g} s. Send "
            "shorter audio, or choose another 'model'.",
            code=ErrorCode.AUDIO_TOO_LONG,
            details={"field": "audio", "duration": round(duration, 2), "limit_s": version.upload_s},
        )
    if duration < MIN_SOURCE_S:
        raise AudioError(
            f"'audio' is {duration:.2f} s long; Suno needs at least {MIN_SOURCE_S:g} s. Send longer audio.",
            code=ErrorCode.AUDIO_TOO_SHORT,
            details={"field": "audio"},
        )


def _raise_if_any(errors: list[str]) -> None:
    if errors:
        problems = [{"problem": error} for error in errors]
        # `faults` is the name that 0.1.0 used
        raise InvalidRequestError(
            f"Invalid request: {'; '.join(errors)}.", details={"errors": problems, "faults": problems}
        )


def _round_weight(value: float | None) -> float | None:
    """In hundredths, as providers require."""
    return None if value is None else round(value, 2)


def _floor(seconds: float) -> float:
    """Down to hundredths (never to 0), so that a position just before the end stays before it."""
    return max(math.floor(seconds * 100) / 100, 0.01)
