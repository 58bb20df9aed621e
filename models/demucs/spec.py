"""What a weights file states about its network: which class to build, with which arguments. Read without torch.

demucs 4.1 writes safetensors files with JSON in the metadata, demucs 4.0 pickled packages (`.th`).
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from errors import ErrorCode, ModelError
from models.checkpoints.errors import CheckpointError, UnsafeCheckpointError
from models.checkpoints.safe_pickle import NUMPY_SCALAR_NAMES, PickledClass, PickledObject
from models.checkpoints.safetensors_header import read_metadata
from models.checkpoints.settings import Settings
from models.checkpoints.torch_file import OPERATOR_LIMITS, TorchFile, open_torch_file
from models.demucs.bag import MAX_SEGMENT_S, report_broken_file
from models.family import FileStamp, stamp_file

HTDEMUCS = "demucs.htdemucs.HTDemucs"
# Files name one of these. No other class is ever imported or built.
NETWORKS = (HTDEMUCS, "demucs.hdemucs.HDemucs", "demucs.demucs.Demucs")
DEFAULT_SAMPLE_RATE = 44_100  # of all three networks, in Hz
DEFAULT_SEGMENT_S = 10.0  # of HTDemucs
_FRACTION = "fractions.Fraction"
_FRACTION_TEXT = re.compile(r"(\d{1,9})(?:/([1-9]\d{0,8}))?")
_PACKAGE_LIMITS = replace(
    OPERATOR_LIMITS,
    max_index_bytes=4 << 20,
    max_steps=500_000,  # a published file has at most 40,000
    # `metrics` and `training_args` stand beside the weights; the metrics are numbers of numpy's.
    classes=frozenset({*NETWORKS, _FRACTION, *NUMPY_SCALAR_NAMES}),
)
_MAX_VALUES = 1000  # of the arguments, whose nested lists may repeat


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """How to build a network.

    Args:
        network: one of `NETWORKS`.
        args, kwargs: of its constructor.
        stems: the names of its outputs, in its own order.
        sample_rate: in Hz.
        max_segment: the longest audio in seconds that it takes at once; None: any length.
        tensor_names: the file's tensor for each name of the state; None: the names are the same.
    """

    network: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    stems: tuple[str, ...]
    sample_rate: int
    max_segment: float | None
    tensor_names: Mapping[str, str] | None = None


def read_spec(path: Path) -> NetworkSpec:
    """Reads what a `.safetensors` or `.th` file states; raises `ModelError` if it is no network that can be run."""
    with report_broken_file(path):
        if (version := stamp_file(path)) is None:
            raise CheckpointError("it cannot be read")
        return _read_version(version)


@functools.lru_cache(maxsize=256)
def _read_version(version: FileStamp) -> NetworkSpec:
    """Reads one version of a file once; the index of a published package takes 50 ms."""
    path = version[0]
    if path.suffix == ".th":
        with open_package(path) as (_, spec):
            return spec
    return parse_metadata(read_metadata(path))


def is_demucs_file(path: Path) -> bool:
    """Whether the file looks like that of a Demucs network. A `.th` file that cannot be read is taken for one."""
    try:
        read_spec(path)
    except ModelError:
        return _mentions_network(path)
    return True


def _mentions_network(path: Path) -> bool:
    try:
        if path.suffix != ".th":
            return "klass" in read_metadata(path)
        with open_torch_file(path, replace(_PACKAGE_LIMITS, classes=None)) as file:
            # Either key is enough, so that a package with one of them damaged is named as broken and not left out.
            return isinstance(file.content, dict) and not {"klass", "kwargs"}.isdisjoint(file.content)
    except CheckpointError:
        return path.suffix == ".th"


def parse_metadata(metadata: Mapping[str, str]) -> NetworkSpec:
    """Parses the metadata that demucs 4.1 writes: JSON in each entry.

    Raises:
        CheckpointError: they describe no network, or one of another class.
        ModelError: its weights are quantised.
    """
    if not {"args", "kwargs"} <= metadata.keys():
        raise CheckpointError("it does not describe a Demucs network")
    try:
        args, kwargs, structure = (json.loads(metadata.get(key, "null")) for key in ("args", "kwargs", "structure"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError("its description of the network is damaged") from error
    spec = _describe_network(metadata.get("klass"), args, kwargs)
    return spec if structure is None else replace(spec, tensor_names=_read_structure(structure))


@contextmanager
def open_package(path: Path) -> Iterator[tuple[TorchFile, NetworkSpec]]:
    """Opens a package of demucs 4.0: a dict with the network's class and arguments, and its weights in `state`.

    Raises:
        CheckpointError: it is damaged, no package, or names a class that no such package needs.
        ModelError: its weights are quantised.
    """
    try:
        with open_torch_file(path, _PACKAGE_LIMITS) as file:
            package = file.content
            if not isinstance(package, dict) or not isinstance(package.get("state"), dict):
                raise CheckpointError("it is no demucs package")
            if "__quantized" in package["state"]:
                raise _build_quantised_error()
            network = package.get("klass")
            name = network.name if isinstance(network, PickledClass) else None
            yield file, _describe_network(name, package.get("args"), package.get("kwargs"))
    except UnsafeCheckpointError as error:
        if error.name.startswith("diffq."):
            raise _build_quantised_error() from error
        raise


def _build_quantised_error() -> ModelError:
    return ModelError(
        "The weights of the separation model are quantised (diffq), and quantised models are not run. Use the model "
        "without '_q' at the end of its name.",
        code=ErrorCode.MODEL_UNSUPPORTED,
    )


def _describe_network(network: str | None, args: Any, kwargs: Any) -> NetworkSpec:
    if network not in NETWORKS:
        raise CheckpointError(f"it asks for a network other than {', '.join(NETWORKS)}, which are the only ones built")
    budget = iter(range(_MAX_VALUES))
    try:
        args, kwargs = _decode(args, budget), _decode(kwargs, budget)
    except RecursionError as error:
        raise CheckpointError("the arguments of its network are nested too deeply") from error
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise CheckpointError("its description of the network is damaged")
    stated = Settings(kwargs)
    sample_rate = stated.integer("samplerate") if "samplerate" in kwargs else DEFAULT_SAMPLE_RATE
    segment = stated.number("segment", most=MAX_SEGMENT_S) if "segment" in kwargs else DEFAULT_SEGMENT_S
    has_fixed_length = network == HTDEMUCS and stated.flag("use_train_segment", True)
    stems = _check_stems(kwargs.get("sources", args[0] if args else None))
    return NetworkSpec(network, tuple(args), kwargs, stems, sample_rate, segment if has_fixed_length else None)


def _check_stems(sources: Any) -> tuple[str, ...]:
    if not isinstance(sources, list) or not sources or not all(isinstance(name, str) for name in sources):
        raise CheckpointError("it names no stems")
    if len(set(sources)) != len(sources):
        raise CheckpointError("it names a stem twice")
    return tuple(sources)


def _decode(value: Any, budget: Iterator[int]) -> Any:
    """Returns plain values, with fractions (HTDemucs' `segment`) restored from JSON or from a pickle."""
    if next(budget, None) is None:
        raise CheckpointError("the arguments of its network are too many")
    match value:
        case PickledObject() | {"_type": "fraction"}:
            return _decode_fraction(value)
        case list() | tuple():
            return [_decode(item, budget) for item in value]
        case dict():
            return {key: _decode(item, budget) for key, item in value.items()}
    return value


def _decode_fraction(value: Any) -> Fraction:
    """Restores a fraction, pickled as a call with its text (before Python 3.11) or with its two numbers."""
    match value:
        case PickledObject(name="fractions.Fraction", arguments=(str(text),)):
            if found := _FRACTION_TEXT.fullmatch(text):
                return Fraction(int(found[1]), int(found[2] or 1))
        case PickledObject(name="fractions.Fraction", arguments=(int(numerator), int(denominator))) | {
            "numerator": int(numerator),
            "denominator": int(denominator),
        } if denominator > 0:
            return Fraction(numerator, denominator)
    raise CheckpointError("an argument of its network is damaged")


def _read_structure(structure: Any) -> dict[str, str]:
    """Reads how demucs 4.1 stores a state by parts. Only quantised weights nest, or name a class."""
    match structure:
        case {"_dict": list(items)}:
            names = {}
            for item in items:
                match item:
                    case [str(key), {"_tensor": str(name)}]:
                        names[key] = name
                    case _:
                        raise _build_quantised_error()
            return names
    raise _build_quantised_error()
