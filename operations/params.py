"""The rules that all parameters share: strict JSON types, all errors reported at once, no echo of the input."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from audio.dsp.normalize import NormalizeMode
from audio.files.formats import BITRATE_RANGE, FORMAT_NAMES, OUTPUT_FORMATS, FormatName
from errors import InvalidRequestError, sanitize, suggest_name
from worker.reply import AudioOut, BitDepth, Delivery

MAX_ERRORS_SHOWN = 20
MAX_SEED = 2**53 - 1  # the largest whole number that every JSON reader keeps
UNKNOWN = "is unknown"
# pydantic writes the bounds of a field that may be null by its own names, which no other reader of JSON schemas knows.
BOUNDS = {"ge": "minimum", "le": "maximum", "gt": "exclusiveMinimum", "lt": "exclusiveMaximum"}

InputKind = Literal["audio", "file"]
"""Which of the job's inputs a field becomes: `job.audio` or `job.files` (the bytes as they are)."""


@dataclass(frozen=True, slots=True)
class Input:
    """Marks a string field as an input: base64, a data URI, a URL or a volume path."""

    kind: InputKind


def _to_whole_number(value: Any) -> Any:
    """JSON has one number type: 3.0 is a whole number too."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Int = Annotated[int, BeforeValidator(_to_whole_number)]
AudioField = Annotated[str, Input("audio")]
FileField = Annotated[str, Input("file")]
Text = Annotated[str, StringConstraints(max_length=4000)]
NonEmptyText = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Params(BaseModel):
    """Base of every operation's parameters. `ALIASES` maps other spellings of a field to its own name."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())
    ALIASES: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Validates `values`; null counts as absent. Raises one `InvalidRequestError` that lists every error."""
        present, errors = cls.resolve_names({k: v for k, v in values.items() if v is not None})
        try:
            params = cls.model_validate(present)
        except ValidationError as error:
            raise build_error(errors + _list_errors(error, cls), cls) from None
        errors += [{"field": field, "problem": problem} for field, problem in params.find_errors()]
        if errors:
            raise build_error(errors, cls)
        return params

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The JSON schema, with `input` of the fields that are inputs, and `aliases` of those that have any."""
        schema: JsonSchemaValue = _rename_bounds(handler.resolve_ref_schema(handler(core_schema)))
        properties = schema.get("properties", {})
        for name, kind in cls.input_fields().items():
            properties[name]["input"] = kind
        for alias, name in cls.list_aliases().items():
            properties[name].setdefault("aliases", []).append(alias)
        return schema

    @classmethod
    def resolve_names(cls, values: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, str]]]:
        """`values` by the fields' own names, and an error for each field that has two values."""
        return _resolve_aliases(values, cls.ALIASES)

    def find_errors(self) -> Iterable[tuple[str, str]]:
        """(field, problem) of every error that shows only between fields that are valid by themselves."""
        return ()

    @classmethod
    def names(cls) -> list[str]:
        """Every field that a request may have, by each of its names."""
        return sorted({*cls.model_fields, *cls.ALIASES})

    @classmethod
    def list_aliases(cls) -> Mapping[str, str]:
        """The field's own name by each of its other names."""
        return cls.ALIASES

    @classmethod
    def input_fields(cls) -> dict[str, InputKind]:
        """The fields whose audio or file is loaded before the operation runs, and the kind of each."""
        inputs = {name: _find_input(field.annotation, field.metadata) for name, field in cls.model_fields.items()}
        return {name: found.kind for name, found in inputs.items() if found is not None}

    def list_inputs(self) -> dict[str, tuple[InputKind, str]]:
        """Kind and source of every input that the request has, by its path: `audio`, `tracks.0.audio`."""
        inputs: dict[str, tuple[InputKind, str]] = {}
        for name, kind in self.input_fields().items():
            if isinstance(source := getattr(self, name), str):  # else absent, or a value in place of a file
                inputs[name] = (kind, source)
        for name in type(self).model_fields:
            value = getattr(self, name)
            for index, item in enumerate(value if isinstance(value, list) else ()):
                if isinstance(item, Item):
                    inputs |= {f"{name}.{index}.{path}": found for path, found in item.list_inputs().items()}
        return inputs

    def list_values(self) -> dict[str, Any]:
        """Every parameter with its value, inputs left out: the reply's `parameters`. A whole number has no `.0`."""
        values = self.model_dump(mode="json", exclude=set(self.input_fields()))
        for name in values:
            items = getattr(self, name)
            if isinstance(items, list) and any(isinstance(item, Item) for item in items):
                values[name] = [item.list_values() for item in items]
        return {name: _to_whole_number(value) for name, value in values.items()}


class Item(Params):
    """Base of the objects in a list that is a parameter, such as the tracks of a mix. It may have inputs too."""

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, values: Any) -> Any:
        return {k: v for k, v in values.items() if v is not None} if isinstance(values, dict) else values


def _rename_bounds(schema: Any) -> Any:
    """The same schema with the bounds of numbers under their names in JSON schema."""
    if isinstance(schema, list):
        return [_rename_bounds(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    # A field may be called `le`; a bound is a number.
    return {
        (BOUNDS.get(key, key) if isinstance(value, int | float) else key): _rename_bounds(value)
        for key, value in schema.items()
    }


def _describe_option(option: Literal["bit_depth", "bitrate"]) -> str:
    """The values that each format allows for `option`, with its default."""
    parts = []
    for entry in OUTPUT_FORMATS.values():
        if entry.option == option:
            allowed = entry.allowed
            values = f"{allowed[0]}-{allowed[-1]}" if isinstance(allowed, range) else ", ".join(map(str, allowed))
            parts.append(f"{entry.name} {values} (default {entry.default})")
    return "; ".join(parts)


class DeliveryParams(Params):
    """Adds `delivery`, for an operation that returns files."""

    delivery: Delivery = Field(
        AudioOut.delivery,
        description="Where audio and files go: `inline` (base64 in the reply), `bucket` (S3 upload; the reply has a"
        " link) or `volume` (a file on the mounted volume, the reply has its path). `auto` uses the bucket if one is"
        " configured, else inline.",
    )

    def audio_out(self) -> AudioOut:
        """How the result is delivered."""
        return AudioOut(delivery=self.delivery)


class AudioOutParams(DeliveryParams):
    """Adds the audio-out fields. `AUTO_FORMATS` are the formats that `output_format: "auto"` tries, best first."""

    AUTO_FORMATS: ClassVar[tuple[FormatName, ...]] = FORMAT_NAMES

    output_format: FormatName | Literal["auto"] = Field(
        AudioOut.output_format,
        description="File format. `auto` selects the best format that fits into an inline reply.",
    )
    bit_depth: Annotated[BitDepth, BeforeValidator(_to_whole_number)] = Field(
        AudioOut.bit_depth,
        description=f"Bits per sample of lossless formats: {_describe_option('bit_depth')}. 32 is floating point and"
        " keeps peaks above full scale.",
    )
    bitrate: Int | None = Field(
        AudioOut.bitrate,
        ge=BITRATE_RANGE[0],
        le=BITRATE_RANGE[1],
        description=f"Bitrate of lossy formats in kbit/s: {_describe_option('bitrate')}.",
    )
    normalize: NormalizeMode = Field(
        AudioOut.normalize,
        description="Level of the result: `none` keeps it, `peak` brings the true peak to -1 dBTP, `loudness`"
        " brings the integrated loudness to `loudness_lufs`.",
    )
    loudness_lufs: float = Field(
        AudioOut.loudness_lufs,
        ge=-60,
        le=0,
        description='Target of `normalize: "loudness"` in LUFS. The true peak stays at or below -1 dBTP.',
    )

    def audio_out(self) -> AudioOut:
        """The audio-out fields, as the delivery takes them."""
        shared = {field.name for field in fields(AudioOut)} & set(AudioOutParams.model_fields)
        return AudioOut(**{name: getattr(self, name) for name in shared}, auto_formats=self.AUTO_FORMATS)


def _resolve_aliases(
    values: Mapping[str, Any], aliases: Mapping[str, str]
) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """`values` by the fields' own names, and an error for each field that has two values."""
    resolved: dict[str, Any] = {}
    errors = []
    for key, value in values.items():
        name = aliases.get(key, key)
        if name in resolved:
            errors.append({"field": name, "problem": f"was given twice, once as '{sanitize(key)}'; give one"})
        resolved[name] = value
    return resolved, errors


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


def _list_errors(error: ValidationError, params: type[Params]) -> list[dict[str, str]]:
    """One entry for each field: if a value may be of several types, pydantic reports an error for each of them."""
    problems: dict[str, dict[str, None]] = {}  # of each field, without repetition, in order
    type_problems: dict[str, dict[str, None]] = {}
    for entry in error.errors(include_input=False, include_url=False):
        loc = entry["loc"]
        item = find_item(params, loc[0]) if len(loc) > 1 else None
        field = ".".join(sanitize(str(part)) for part in loc[: 1 if item is None else 3]) or "params"
        kind = type_problems if entry["type"].endswith("_type") else problems
        if item is not None:
            kind.setdefault(field, {})[_describe_item_problem(entry, item)] = None
            continue
        # Beyond those shown, fields are only counted: a request may have any number of unknown fields.
        known = params.names() if len(problems) < MAX_ERRORS_SHOWN else []
        kind.setdefault(field, {})[_describe_problem(entry, field, known)] = None
    return [{"field": field, "problem": " or ".join(texts)} for field, texts in (type_problems | problems).items()]


def find_item(params: type[Params], name: object) -> type[Item] | None:
    """The type of the objects in a list, if the field is such a list."""
    field = params.model_fields.get(str(name))
    item = next(iter(get_args(field.annotation)), None) if field is not None else None
    return item if isinstance(item, type) and issubclass(item, Item) else None


def _describe_item_problem(entry: Mapping[str, Any], item: type[Item]) -> str:
    """One pydantic error of an object in a list, or of one of its fields."""
    if entry["type"] == "extra_forbidden":
        known = item.names()
        return f"is no such field.{suggest_name(str(entry['loc'][-1]), known)} Valid: {', '.join(known)}"
    if entry["type"] == "model_type":
        return "must be a JSON object"
    return _describe_problem(entry, "", ())


def _describe_problem(entry: Mapping[str, Any], field: str, known: Iterable[str]) -> str:
    """One pydantic error as the end of a sentence about the field; never with the value itself."""
    if entry["type"] == "extra_forbidden":
        return f"{UNKNOWN}.{suggest_name(field, known)}"
    if entry["type"] == "missing":
        return "is required"
    message = str(entry["msg"]).removeprefix("Value error, ")
    return message.replace("Input should be", "must be").replace("should have", "must have")


def build_error(errors: list[dict[str, str]], params: type[Params]) -> InvalidRequestError:
    """The error for a request with `errors`, each with its `field` and `problem`."""
    shown = errors[:MAX_ERRORS_SHOWN]
    text = "; ".join(f"'{error['field']}' {error['problem'].rstrip('.')}" for error in shown)
    more = f"; and {len(errors) - len(shown)} more" if len(errors) > len(shown) else ""
    details: dict[str, Any] = {"errors": shown, "faults": shown}  # `faults` is the name that 0.1.0 used
    if any(error["problem"].startswith(UNKNOWN) for error in shown):
        details["valid"] = params.names()
        more += f". Valid: {', '.join(params.names()) or 'none'}"
    return InvalidRequestError(f"Invalid request: {text}{more}.", details=details)
