"""The operations, one module each: `Params`, `run(params, job, models) -> Reply`.

A module may have `ALIASES` (other names of the operation), `status(models) -> str` (`ready`, or why it cannot work;
without torch), `admit(params, models)` (raises what can be known before a sound or file of the request is fetched) and
`OPTIONAL = True` (the worker is healthy without it).
A module whose name starts with an underscore serves the others. No tensor maths and no I/O of their own here.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, cast

from errors import unknown_name
from models import Models
from operations.params import Params
from worker.job import Job
from worker.reply import Reply

NOT_OPERATIONS = ("build_models", "dispatch", "params", "version")


class Operation(Protocol):
    """What a module in this folder offers."""

    Params: ClassVar[type[Params]]

    def run(self, params: Any, job: Job, models: Models) -> Reply: ...


@functools.cache
def catalog() -> Mapping[str, Operation]:
    """Every operation by its name, found by file name."""
    modules = (module.name for module in pkgutil.iter_modules(__path__))
    names = sorted(name for name in modules if not name.startswith("_") and name not in NOT_OPERATIONS)
    return MappingProxyType({name: cast(Operation, importlib.import_module(f"{__name__}.{name}")) for name in names})


@functools.cache
def _aliases() -> Mapping[str, str]:
    return MappingProxyType(
        {alias: name for name, module in catalog().items() for alias in getattr(module, "ALIASES", ())}
    )


def get(name: str) -> tuple[str, Operation]:
    """The operation called `name` (or an alias) behind its own name; else `UnknownNameError` with the nearest."""
    own_name = _aliases().get(name, name)
    if own_name not in catalog():
        raise unknown_name("operation", name, [*catalog(), *_aliases()])
    return own_name, catalog()[own_name]
