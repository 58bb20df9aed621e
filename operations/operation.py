"""What an operation is, and how the worker finds its operations.

Every module or package in this folder that defines `OPERATION` is an operation, under the module's name.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Generic, TypeVar

import operations
from errors import unknown_name_error
from models import Models
from models.family import READY, Readiness
from operations.params import AudioOutParams, DeliveryParams, Params
from worker.job import Job
from worker.reply import Reply

ParamsT = TypeVar("ParamsT", bound=Params)
PlanT = TypeVar("PlanT")


def is_always_ready(models: Models) -> Readiness:
    """The readiness of an operation that needs no model."""
    return READY


def needs_nothing(params: Any, job: Job, models: Models) -> None:
    """The preparation of an operation that plans with what is on this worker."""


@dataclass(frozen=True, slots=True)
class PlannedArtefacts:
    """What a plan's reply will have, as far as it is known before the work; None: known afterwards.

    Args:
        outputs: their number.
        stems, files: their names, those of aliases included.
    """

    outputs: int | None = 0
    stems: tuple[str, ...] | None = ()
    files: tuple[str, ...] | None = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation(Generic[ParamsT, PlanT]):
    """One operation: its steps and what the worker says about them.

    Args:
        params: validates the request's parameters.
        prepare: fetches what `plan` has to look into, if the request names something that is not on this worker.
        plan: resolves the models and refuses what cannot work, before any audio or file of the request is fetched and
            before any other model is downloaded or loaded. What it returns is handed to `run`, so nothing is resolved
            twice.
        run: does the work. The request's audio is in `job.audio`, its files in `job.files`.
        artefacts: what the reply will have, so that a pipeline can be refused before it starts. None: it is known
            afterwards only.
        readiness: whether the operation can work on this worker. Imports no model library.
        aliases: further names that callers may use.
        optional: the worker counts as healthy even if the operation is not ready.
    """

    params: type[ParamsT]
    plan: Callable[[ParamsT, Models], PlanT]
    run: Callable[[PlanT, Job, Models], Reply]
    prepare: Callable[[ParamsT, Job, Models], None] = needs_nothing
    artefacts: Callable[[PlanT], PlannedArtefacts] | None = None
    readiness: Callable[[Models], Readiness] = is_always_ready
    aliases: tuple[str, ...] = ()
    optional: bool = False

    def list_artefacts(self, plan: PlanT) -> PlannedArtefacts:
        """What the plan's reply will have."""
        if self.artefacts is not None:
            return self.artefacts(plan)
        if issubclass(self.params, AudioOutParams):
            return PlannedArtefacts(None, None, None)
        return PlannedArtefacts(files=None if issubclass(self.params, DeliveryParams) else ())


@functools.cache
def load_operations() -> Mapping[str, Operation[Any, Any]]:
    """Every operation by its name, in alphabetical order."""
    found = {}
    for name in sorted(module.name for module in pkgutil.iter_modules(operations.__path__)):
        operation = getattr(importlib.import_module(f"{operations.__name__}.{name}"), "OPERATION", None)
        if isinstance(operation, Operation):
            found[name] = operation
    return MappingProxyType(found)


def list_schemas() -> dict[str, dict[str, Any]]:
    """The JSON schema of every operation's parameters, with the operation's `summary` and its `aliases`.

    `summary` is the first sentence of the operation's module.
    """
    return {
        name: {
            "summary": _read_first_sentence(importlib.import_module(f"{operations.__name__}.{name}").__doc__),
            "aliases": list(operation.aliases),
            **operation.params.model_json_schema(),
        }
        for name, operation in load_operations().items()
    }


def _read_first_sentence(text: str | None) -> str:
    return re.split(r"(?<=\.)\s", " ".join((text or "").split()), maxsplit=1)[0]


def find_operation(name: str) -> tuple[str, Operation[Any, Any]]:
    """The operation called `name` (or an alias) with its own name; else `UnknownNameError` with the nearest."""
    known = load_operations()
    aliases = {alias: own_name for own_name, operation in known.items() for alias in operation.aliases}
    own_name = aliases.get(name, name)
    if own_name not in known:
        raise unknown_name_error("operation", name, [*known, *aliases])
    return own_name, known[own_name]
