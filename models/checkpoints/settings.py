"""Settings that a model file states, each checked as it is read. The file may hold anything."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from fractions import Fraction
from typing import Any

from errors import sanitize
from models.checkpoints.errors import CheckpointError

_LARGEST = 1 << 24  # of whole numbers: sizes, counts, rates
_LARGEST_NUMBER = 1e9
_MAX_ITEMS = 4096  # of a list


class Settings:
    """Nested settings, read by dotted paths such as `transformer_lm.dim`.

    A setting that is missing, or None, has its default; without a default it is an error. Every method raises
    `CheckpointError`, with the setting's path, if the value is of another kind.

    Args:
        values: the settings, as plain values.
        path: where they stand in the whole, for messages.
        file: that they were read from, for messages; empty: the reader of the message knows.
    """

    def __init__(self, values: Mapping[str, Any], path: str = "", *, file: str = "") -> None:
        self.values, self._path, self._file = values, path, file

    def __iter__(self) -> Iterator[str]:
        """Yields the names of the outermost settings."""
        return (str(name) for name in self.values)

    def get(self, path: str) -> Any:
        """Returns whatever stands at the path; None if there is nothing."""
        value: Any = self.values
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    def section(self, path: str) -> Settings:
        """Returns the settings below the path; none if it is missing or empty."""
        value = self.get(path)
        if value is not None and not isinstance(value, Mapping):
            raise self._error(path, "a section")
        return Settings(value or {}, self._full(path), file=self._file)

    def integer(self, path: str, default: int | None = None, *, least: int = 1, most: int = _LARGEST) -> int:
        value = self._value(path, default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self._error(path, f"a whole number from {least} to {most}")
        return value

    def number(
        self, path: str, default: float | None = None, *, least: float = 0.0, most: float = _LARGEST_NUMBER
    ) -> float:
        """Returns a number above `least` and not above `most`."""
        value = self._value(path, default)
        is_number = isinstance(value, int | float | Fraction) and not isinstance(value, bool)
        if not is_number or not least < value <= most:
            raise self._error(path, f"a number above {least:g} and not above {most:g}")
        return float(value)

    def numbers(self, path: str) -> tuple[float, ...]:
        """Returns a list of at least one number above 0."""
        value = self._value(path, None)
        items = value if isinstance(value, list | tuple) and len(value) <= _MAX_ITEMS else ()
        if not items or not all(type(item) in (int, float) and 0 < item <= _LARGEST_NUMBER for item in items):
            raise self._error(path, "a list of numbers above 0")
        return tuple(map(float, items))

    def flag(self, path: str, default: bool = False) -> bool:
        value = self._value(path, default)
        if value not in (False, True, 0, 1):
            raise self._error(path, "true or false")
        return bool(value)

    def text(self, path: str, default: str | None = None) -> str:
        value = self._value(path, default)
        if not isinstance(value, str):
            raise self._error(path, "text")
        return value

    def integers(self, path: str, default: tuple[int, ...] | None = None, *, least: int = 1) -> tuple[int, ...]:
        value = self._value(path, default)
        items = value if isinstance(value, list | tuple) and len(value) <= _MAX_ITEMS else [None]
        if not all(type(item) is int and least <= item <= _LARGEST for item in items):
            raise self._error(path, f"a list of whole numbers from {least} to {_LARGEST}")
        return tuple(value)

    def texts(self, path: str) -> tuple[str, ...]:
        """Returns a list of texts; an empty one if it is missing."""
        value = self._value(path, ())
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            raise self._error(path, "a list of texts")
        return tuple(value)

    def require(self, path: str, *allowed: object) -> None:
        """Refuses a setting that asks for what is not implemented: one whose value is none of `allowed`."""
        value = self.get(path)
        if value not in allowed:
            raise CheckpointError(f"its setting {self._label(path)} is {_describe(value)}, which is not supported")

    def _value(self, path: str, default: object) -> Any:
        value = self.get(path)
        if value is None:
            if default is None:
                raise CheckpointError(f"its settings lack {self._label(path)}")
            return default
        return value

    def _full(self, path: str) -> str:
        return f"{self._path}.{path}" if self._path else path

    def _label(self, path: str) -> str:
        return f"'{sanitize(self._full(path))}'" + (f" in {self._file}" if self._file else "")

    def _error(self, path: str, wanted: str) -> CheckpointError:
        return CheckpointError(
            f"its setting {self._label(path)} is {_describe(self.get(path))}, and has to be {wanted}"
        )


def check_arguments(
    values: Mapping[str, Any], *functions: Callable[..., Any], fractional: Collection[str] = ()
) -> dict[str, Any]:
    """Checks keyword arguments that a file states for functions of another library against their signatures.

    Args:
        functions: together they name every parameter; each default shows of which kind its argument is.
        fractional: parameters with a whole number as their default that take any number.

    Returns:
        The arguments that one of the functions knows.

    Raises:
        CheckpointError: an argument is of another kind than its default, negative, or out of all bounds.
    """
    known = {
        name: item
        for function in functions
        for name, item in inspect.signature(function).parameters.items()
        if item.kind in (item.POSITIONAL_OR_KEYWORD, item.KEYWORD_ONLY)
    }
    checked = {name: value for name, value in values.items() if name in known}
    for name, value in checked.items():
        default = known[name].default
        if default is not inspect.Parameter.empty and not _is_like(value, default, whole=name not in fractional):
            raise CheckpointError(f"its setting '{sanitize(name)}' is {_describe(value)}, which cannot be")
    return checked


def _describe(value: object) -> str:
    """Returns the value as a message shows it; lists and sections, which may be of any size, by their kind alone."""
    if isinstance(value, Mapping):
        return "a section"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, int) and abs(value) > _LARGEST_NUMBER:
        return "a number of many digits"
    plain = value is None or isinstance(value, str | int | float | Fraction)
    return sanitize(str(value) if plain else type(value).__name__)


def _is_like(value: Any, default: Any, *, whole: bool) -> bool:
    """Whether a value is of the default's kind; for a default of None, any plain value is."""
    if value is None:
        return default is None
    if isinstance(default, bool):
        return isinstance(value, bool)
    if isinstance(default, str):
        return isinstance(value, str)
    if isinstance(default, int) and whole:
        return type(value) is int and 0 <= value <= _LARGEST
    if isinstance(default, int | float):
        return _is_number(value)
    if isinstance(default, list | tuple):
        return isinstance(value, list | tuple) and all(map(_is_number, value))
    if isinstance(default, dict | type):
        return isinstance(default, dict) and isinstance(value, dict)
    items = value if isinstance(value, list | tuple) else [value]
    return all(isinstance(item, bool | str) or _is_number(item) for item in items)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Fraction) and not isinstance(value, bool) and 0 <= value <= _LARGEST
