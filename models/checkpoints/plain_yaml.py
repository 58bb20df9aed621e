"""Reads a yaml file of plain values, which anyone may have written. Nothing that it names is imported or called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models.checkpoints.errors import CheckpointError

_TUPLE = ("!!", "python/tuple")
_TUPLE_TAG = "tag:yaml.org,2002:python/tuple"
_MAX_DEPTH = 16


def read_plain_yaml(path: Path, *, max_bytes: int, max_brackets: int, tuples: bool = False) -> Any:
    """Reads a yaml file without tags (which name classes and conversions) and without aliases (which multiply values).

    Args:
        max_bytes: of the file.
        max_brackets: opening ones; PyYAML's time for nested ones grows with the square of their number.
        tuples: whether `!!python/tuple`, which yaml's own dump writes, may stand before a list of numbers.

    Raises:
        CheckpointError: it cannot be read, or holds anything else.
    """
    import yaml  # type: ignore[import-untyped]

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """Knows tuples of numbers beside plain values."""

    Loader.add_constructor(_TUPLE_TAG, _construct_tuple)
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
        is_small = len(data) <= max_bytes and data.count(b"[") + data.count(b"{") <= max_brackets
        if is_small:
            _check_tokens(yaml, data.decode(), tuples=tuples)
            return yaml.load(data, Loader)  # noqa: S506  (a SafeLoader)
    except CheckpointError:
        raise
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise CheckpointError("it cannot be read as plain data") from error
    raise CheckpointError("it is larger than files of its kind are")


def _check_tokens(yaml: Any, text: str, *, tuples: bool) -> None:
    depth = 0
    for token in yaml.scan(text):
        if isinstance(token, yaml.AliasToken) or (
            isinstance(token, yaml.TagToken) and not (tuples and token.value == _TUPLE)
        ):
            raise CheckpointError("it holds more than plain data")
        depth += isinstance(
            token,
            yaml.BlockSequenceStartToken
            | yaml.BlockMappingStartToken
            | yaml.FlowSequenceStartToken
            | yaml.FlowMappingStartToken,
        )
        depth -= isinstance(token, yaml.BlockEndToken | yaml.FlowSequenceEndToken | yaml.FlowMappingEndToken)
        if depth > _MAX_DEPTH:
            raise CheckpointError("it is nested too deeply")


def _construct_tuple(loader: Any, node: Any) -> tuple[float, ...]:
    values = loader.construct_sequence(node)
    if not all(isinstance(value, int | float) for value in values):
        raise CheckpointError("it holds a tuple of something else than numbers")
    return tuple(values)
