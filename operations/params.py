"""The rules that every operation's parameters share: strict JSON types, every fault at once, no echo of the input."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from errors import InvalidRequestError, nearest_name, sanitize
from worker.reply import AudioOut, Delivery, Format, Normalize

MAX_FAULTS_SHOWN = 20
UNKNOWN = "is unknown"


InputKind = Literal["audio", "long_audio", "file"]
"""Which of the job's inputs a field becomes: `job.audio`, `job.long_audio` (read by blocks, may be on disk) or
`job.files` (the bytes as they are)."""


@dataclass(frozen=True, slots=True)
class Input:
    """Marks a string field as an input: base64, a data URI, a URL or a volume path."""

    kind: InputKind


def _whole(value: Any) -> Any:
    """JSON has one number type: 3.0 is a whole number too."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Int = Annotated[int, BeforeValidator(_whole)]
AudioField = Annotated[str, Input("audio")]
LongAudioField = Annotated[str, Input("long_audio")]
FileField = Annotated[str, Input("file")]
Text = Annotated[str, StringConstraints(max_length=4000)]
Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Params(BaseModel):
    """Base of every operation's parameters. `ALIASES` maps other spellings of a field to its own name."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())
    ALIASES: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Validates `values`; a null counts as left out. Raises one `InvalidRequestError` that tells all faults."""
        given, faults = _own_names({k: v for k, v in values.items() if v is not None}, cls.ALIASES)
        try:
            params = cls.model_validate(given)
        except ValidationError as error:
            faults += _faults(error, cls)
            raise _invalid(faults, cls) from None
        faults += [{"field": field, "problem": problem} for field, problem in params.faults()]
        if faults:
            raise _invalid(faults, cls)
        return params

    def faults(self) -> Iterable[tuple[str, str]]:
        """(field, problem) of every fault that only shows between fields that are right by themselves."""
        return ()

    @classmethod
    def names(cls) -> list[str]:
        """Every field that may be given, by each of its names."""
        return sorted({*cls.model_fields, *cls.ALIASES})

    @classmethod
    def input_fields(cls) -> dict[str, InputKind]:
        """The fields whose audio or file is loaded before the operation runs, and the kind of each."""
        fields = {name: _find_input(field.annotation, field.metadata) for name, field in cls.model_fields.items()}
        return {name: mark.kind for name, mark in fields.items() if mark is not None}

    def used(self) -> dict[str, Any]:
        """Every parameter as it stands, audio and files left out: the reply's `parameters`."""
        return self.model_dump(mode="json", exclude=set(self.input_fields()))


class AudioOutParams(Params):
    """Adds the contract's audio-out fields."""

    output_format: Format | Literal["auto"] = Field("auto", description="`auto`: the best that fits inline")
    bit_depth: Annotated[Literal[16, 24, 32], BeforeValidator(_whole)] = Field(
        16, description="wav, flac; 32 = float wav"
    )
    bitrate: Int | None = Field(
        None, ge=12, le=512, description="mp3 (default 320), ogg and opus (default 192), kbit/s"
    )
    delivery: Delivery = Field("auto", description="`auto`: the bucket where one is configured, else inline")
    normalize: Normalize = "none"
    loudness_lufs: float = Field(-14.0, ge=-60, le=0, description="LUFS, with `normalize` `loudness`")

    def audio_out(self) -> AudioOut:
        """The audio-out fields as delivery takes them."""
        return AudioOut(
            output_format=self.output_format,
            bit_depth=self.bit_depth,
            bitrate=self.bitrate,
            delivery=self.delivery,
            normalize=self.normalize,
            loudness_lufs=self.loudness_lufs,
        )


def _own_names(values: Mapping[str, Any], aliases: Mapping[str, str]) -> tuple[dict[str, Any], list[dict[str, str]]]:
    given: dict[str, Any] = {}
    faults = []
    for key, value in values.items():
        name = aliases.get(key, key)
        if name in given:
            faults.append({"field": name, "problem": f"was given twice, once as '{sanitize(key)}'; give one"})
        given[name] = value
    return given, faults


def _find_input(annotation: Any, metadata: Iterable[Any]) -> Input | None:
    """The mark of a field, or of one of the types in its annotation: `AudioField | None` carries it inside."""
    for mark in metadata:
        if isinstance(mark, Input):
            return mark
    for argument in get_args(annotation):
        found = None if isinstance(argument, str) else _find_input(argument, getattr(argument, "__metadata__", ()))
        if found is not None:
            return found
    return None


def _faults(error: ValidationError, params: type[Params]) -> list[dict[str, str]]:
    """One fault a field: where a value may be of several types, each of them says what is wrong with it."""
    problems: dict[str, dict[str, None]] = {}  # of each field, without repetition, in order
    of_type: dict[str, dict[str, None]] = {}
    for fault in error.errors(include_input=False, include_url=False):
        field = ".".join(sanitize(str(part)) for part in fault["loc"][:1]) or "params"
        kind = of_type if fault["type"].endswith("_type") else problems
        # What lies beyond those shown is only counted: a request may have any number of unknown fields.
        known = params.names() if len(problems) < MAX_FAULTS_SHOWN else []
        kind.setdefault(field, {})[_problem(fault, field, known)] = None
    return [{"field": field, "problem": " or ".join(told)} for field, told in (of_type | problems).items()]


def _problem(fault: Mapping[str, Any], field: str, known: Iterable[str]) -> str:
    """One pydantic error in the caller's words; never with the value itself."""
    if fault["type"] == "extra_forbidden":
        return f"{UNKNOWN}.{nearest_name(field, known)}"
    if fault["type"] == "missing":
        return "is required"
    message = str(fault["msg"]).removeprefix("Value error, ")
    return message.replace("Input should be", "must be").replace("should have", "must have")


def _invalid(faults: list[dict[str, str]], params: type[Params]) -> InvalidRequestError:
    shown = faults[:MAX_FAULTS_SHOWN]
    text = "; ".join(f"'{fault['field']}' {fault['problem'].rstrip('.')}" for fault in shown)
    more = f"; and {len(faults) - len(shown)} more" if len(faults) > len(shown) else ""
    details: dict[str, Any] = {"faults": shown}
    if any(fault["problem"].startswith(UNKNOWN) for fault in shown):
        details["valid"] = params.names()
        more += f". Valid: {', '.join(params.names()) or 'none'}"
    return InvalidRequestError(f"Invalid request: {text}{more}.", details=details)
