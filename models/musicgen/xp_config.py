"""Reads `xp.cfg`, the settings in audiocraft's files: YAML, or OmegaConf's objects as older exports pickle them.

Not with OmegaConf, which resolves `${oc.env:NAME}` from the worker's environment. Every configuration of audiocraft has
such a value (`dora.dir`), and nothing that is read here needs one. A value that is a reference to another setting, such
as `${sample_rate}`, is replaced by that setting's value; every other `${...}` stays the text that it is.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

import yaml  # type: ignore[import-untyped]

from models.checkpoints.errors import CheckpointError
from models.checkpoints.safe_pickle import PickledObject

_MAX_TEXT = 1 << 17  # characters; audiocraft's own configurations have about 6,000
_MAX_DEPTH = 64
_MAX_VALUES = 20_000  # audiocraft's own configurations have about 350
_MAX_REFERENCES = 16  # that lead to one value
_REFERENCE = re.compile(r"\$\{(?P<dots>\.*)(?P<path>[\w-]+(\.[\w-]+)*)\}")
_FLOAT = re.compile(
    r"^([-+]?([0-9][0-9_]*\.[0-9_]*|[0-9][0-9_]*(?=[eE])|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)"
    r"|\.(nan|NaN|NAN))$"
)
_FLOAT_TAG, _DATE_TAG = "tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp"

CONFIG_CLASSES = frozenset(
    {
        "omegaconf.*",
        "pathlib.*",
        "typing.*",
        # Structured configurations of the packages that audiocraft is trained with, and their enumerations.
        "audiocraft.*",
        "dora.*",
        "flashy.*",
        "hydra.*",
        "collections.defaultdict",
        "_operator.getitem",  # of `typing.Union[int, str]`
        "_codecs.encode",  # of bytes
        *(
            f"{module}.{kind}"  # protocol 2 calls builtins by their module of Python 2
            for module in ("builtins", "__builtin__")
            for kind in ("dict", "list", "tuple", "int", "long", "float", "str", "unicode", "bool", "bytes")
        ),
    }
)
"""What a pickled configuration may mention. Nothing of it is imported or called; other names are refused as code."""


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """YAML as OmegaConf reads it: `1e-3` is a number, and a date is text. Values with other tags are None."""

    def flatten_mapping(self, node: Any) -> None:
        """Leaves merge keys (`<<`) as they are: merges of merges expand a small file without bound."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in (_FLOAT_TAG, _DATE_TAG)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_FLOAT_TAG, _FLOAT, list("-+.0123456789"))
_Loader.add_constructor(None, lambda loader, node: None)


def read_xp_config(config: object) -> dict[str, Any]:
    """Returns `xp.cfg` as plain values.

    Args:
        config: YAML, as exports have it, or OmegaConf's own object as its pickle describes it, as older exports do.

    Raises:
        CheckpointError: it is neither, or has more values than any configuration.
    """
    if isinstance(config, str):
        config = _read_yaml(config)
    settings = _copy_plain(config, itertools.count(1))
    if not isinstance(settings, dict) or not settings:
        raise CheckpointError("its settings ('xp.cfg') cannot be read")
    _replace_references(settings, settings, ())
    return settings


def _read_yaml(text: str) -> object:
    if len(text) > _MAX_TEXT:
        raise CheckpointError("its settings ('xp.cfg') are implausibly long")
    try:
        content: object = yaml.load(text, _Loader)  # noqa: S506  (a subclass of SafeLoader)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        raise CheckpointError("its settings ('xp.cfg') cannot be read") from error
    return content


def _copy_plain(value: object, counter: Iterator[int], depth: int = 0) -> Any:
    """Copies dicts, lists, texts and numbers; OmegaConf's objects as what they hold; anything else is None.

    Values that are shared are copied each time, so the copy is a tree.
    """
    if depth > _MAX_DEPTH or next(counter) > _MAX_VALUES:
        raise CheckpointError("its settings ('xp.cfg') are nested too deeply, or are too many")
    if isinstance(value, PickledObject):
        attributes = value.state if isinstance(value.state, dict) else {}
        if value.name.startswith("omegaconf."):
            return _copy_plain(attributes.get("_content", attributes.get("_val")), counter, depth + 1)
        is_path = value.name.startswith("pathlib.") and all(isinstance(part, str) for part in value.arguments)
        return str(PurePosixPath(*value.arguments)) if is_path else None
    if isinstance(value, dict):
        names = (name for name in value if isinstance(name, str | int | float))
        return {name: _copy_plain(value[name], counter, depth + 1) for name in names}
    if isinstance(value, list | tuple):
        return [_copy_plain(item, counter, depth + 1) for item in value]
    return value if isinstance(value, str | int | float) else None


def _replace_references(container: Any, root: dict[Any, Any], path: tuple[Any, ...]) -> None:
    """Replaces, in place, every reference in `container`, which stands at `path`, by the value that it refers to."""
    for key, value in list(container.items() if isinstance(container, dict) else enumerate(container)):
        if isinstance(value, dict | list):
            _replace_references(value, root, (*path, key))
        elif isinstance(value, str):
            container[key] = _follow(value, root, path)


def _follow(text: str, root: dict[Any, Any], path: Sequence[Any]) -> Any:
    """Returns the value that `text`, a setting of the section at `path`, refers to; `text` itself if there is none."""
    value: Any = text
    for _ in range(_MAX_REFERENCES):
        match = _REFERENCE.fullmatch(value)
        if match is None:
            return value
        # One dot: the section itself; each further one: the section around it.
        base = path[: max(len(path) + 1 - len(match["dots"]), 0)] if match["dots"] else ()
        target = (*base, *match["path"].split("."))
        value, path = _find(root, target), target[:-1]
        if value is None or isinstance(value, dict | list):
            return text
        if not isinstance(value, str):
            return value
    return text


def _find(root: dict[Any, Any], path: Sequence[Any]) -> Any:
    """Returns the value at `path`; None if there is none."""
    value: Any = root
    for key in path:
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list):
            value = next((item for index, item in enumerate(value) if str(index) == str(key)), None)
        else:
            return None
    return value
