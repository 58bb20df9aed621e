"""Which ACE-Step model and which planner a request uses. Nothing is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from errors import ErrorCode, InvalidRequestError, ModelError
from models import Models
from models.acestep.info import AceStepModelInfo
from models.acestep.request import Task
from models.family import LOCAL, ModelHandle

if TYPE_CHECKING:
    from models.acestep.engine import AceStepEngine
    from models.acestep.planner.engine import PlannerEngine


def resolve_song_model(
    models: Models, name: str | None, task: Task, *, needs_codes: bool = False
) -> tuple[ModelHandle[AceStepEngine], AceStepModelInfo]:
    """The model called `name`; None: the best one on this worker that does `task`, a demo model only if it is alone.

    Args:
        needs_codes: whether it must take audio codes, too.

    Raises:
        UnknownNameError: there is no such model.
        ModelError: it cannot be used here, or no model is named and there is none.
        InvalidRequestError: it does not do the task, or takes no codes; the message names models that do.
    """
    family = models.families.songs
    model = family.resolve(name)
    info = family.describe(model.name)

    def is_able(info: AceStepModelInfo) -> bool:
        return task in info.tasks and (info.takes_codes or not needs_codes)

    if is_able(info):
        return model, info
    able = [other for other in family.list_models() if is_able(other)]
    local = next((one for one in able if one.availability == LOCAL and family.find_demo(one.name) is None), None)
    if name is None and local is not None:
        return family.resolve(local.name), local
    names = [other.name for other in able]
    problem = f"was not trained for the task '{task}'" if task not in info.tasks else "takes no audio codes"
    raise InvalidRequestError(
        f"The model '{model.name}' {problem}. Name one that can do it as 'model': {', '.join(names) or 'none'}.",
        code=ErrorCode.OPTION_UNSUPPORTED,
        details={"field": "model", "model": model.name, "task": task, "valid": names},
    )


def resolve_planner(
    models: Models, name: str | None, *, is_needed: bool
) -> tuple[ModelHandle[PlannerEngine] | None, list[str]]:
    """The planner called `name`, or the best one on this worker, and sentences for the reply.

    Args:
        is_needed: False: the request can do without, if no planner is named; then None comes back with a warning.

    Raises:
        UnknownNameError: there is no such planner.
        ModelError: it cannot be used here, or none is named and there is none.
    """
    try:
        planner = models.families.planners.resolve(name)
    except ModelError as error:
        if is_needed or name is not None:
            raise
        return None, [f"'use_cot_caption' and 'use_cot_language' were left out: {error.message}"]
    return planner, list(planner.warnings)
