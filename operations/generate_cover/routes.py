"""Resolves how a song's vocals are separated, split into lead and backing, and freed from reverb."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from errors import ErrorCode, InvalidRequestError, ModelError
from models import Models
from models.family import LOCAL, ModelHandle
from models.separation import Role, SeparationModelInfo, Separator, StemPlan, plan_two_stems
from operations.generate_cover.params import Choice, Params
from operations.separation import SeparationPlan

VOCALS = re.compile(r"vocals?", re.IGNORECASE)
LEAD = re.compile(r"karaoke|lead.*", re.IGNORECASE)
BACKING = re.compile(r"back.*", re.IGNORECASE)
DRY = re.compile(r"dry|dereverb|no[ _-]?(reverb|echo)", re.IGNORECASE)
"""Names of stems in published models."""


@dataclass(frozen=True, slots=True)
class SongPlan:
    """How a whole song is separated.

    Args:
        separation: into the vocals and the rest; with `heads`, into the three stems that it names.
        vocals: name of the vocals among its stems.
        heads: names of lead and backing vocals, if one model estimates them together with the vocals.
    """

    separation: SeparationPlan
    vocals: str
    heads: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class SplitStep:
    """Takes one stem out of a vocal; what is left is the vocal minus that stem.

    Args:
        separation: into the one stem.
        stem: its name.
        is_automatic: whether nobody asked for it, so that it is left out if it takes long.
    """

    separation: SeparationPlan
    stem: str
    is_automatic: bool

    @property
    def model(self) -> str:
        return self.separation.model.name


@dataclass(frozen=True, slots=True)
class RoutePlan:
    """What is done to the song or the vocals before the conversion.

    Args:
        song: how a whole song is separated; None if the request has the parts.
        lead: the lead vocal out of the vocals; None with `song.heads`, and if nothing is split.
        dry: the dry vocal out of the lead.
        warnings: sentences for the reply.
    """

    song: SongPlan | None
    lead: SplitStep | None
    dry: SplitStep | None
    warnings: tuple[str, ...] = ()

    @property
    def splits_lead(self) -> bool:
        return self.lead is not None or (self.song is not None and self.song.heads is not None)


def plan_route(params: Params, models: Models) -> RoutePlan:
    """The route of a request.

    Raises:
        UnknownNameError: a model does not exist.
        ModelError: a model cannot be used here; `model_missing`: there is none of a role that is required.
        InvalidRequestError: a model is for something else.
    """
    song, lead = None, None
    if params.audio is not None:
        lead = _plan_step(models, "lead_split", params.lead_split, "karaoke", params.karaoke_model, LEAD)
        song = _plan_song(params, models, has_karaoke=lead is not None)
        if song.heads is not None:
            lead = None
        elif lead is None and params.lead_split == "on":
            raise _missing_error("lead_split", "karaoke")
    dry = _plan_step(models, "dereverb", params.dereverb, "dereverb", params.dereverb_model, DRY)
    if dry is None and params.dereverb == "on":
        raise _missing_error("dereverb", "dereverb")
    missing: list[Role] = []
    warnings = []
    if song is not None and params.lead_split == "auto" and lead is None and song.heads is None:
        if (heads := _find_model_with_heads(models)) is None:
            missing.append("karaoke")
        else:
            warnings.append(
                f"The backing vocals were converted together with the lead. Send 'separation_model': '{heads.name}' to"
                " split them, which takes long without a GPU."
            )
    if song is not None and params.dereverb == "auto" and dry is None:
        missing.append("dereverb")
    if missing:
        warnings.append(_warn_of_missing(missing))
    return RoutePlan(song, lead, dry, tuple(warnings))


def find_stem(stems: Sequence[str], name: re.Pattern[str]) -> str | None:
    """The first stem with such a name."""
    return next((stem for stem in stems if name.fullmatch(stem)), None)


def _plan_song(params: Params, models: Models, *, has_karaoke: bool) -> SongPlan:
    separation = models.families.separation
    on_gpu = not models.device.startswith("cpu")
    splits = params.lead_split != "off" and params.karaoke_model is None
    model = None
    if params.separation_model is None:
        if splits and not has_karaoke and (on_gpu or params.lead_split == "on"):
            model = _find_model_with_heads(models)
        if model is None and on_gpu:
            model = separation.find_role("vocals")
    model = model or separation.resolve(params.separation_model)
    info = separation.describe(model.name)
    vocals = find_stem(info.stems, VOCALS)
    if vocals is None:
        raise InvalidRequestError(
            f"'separation_model' is '{model.name}', which does not separate vocals. Its stems: "
            f"{', '.join(info.stems)}.",
            code=ErrorCode.UNKNOWN_STEM,
            details={"field": "separation_model", "valid": list(info.stems)},
        )
    heads = _find_heads(info) if splits else None
    if heads is not None:
        names = (vocals, *heads)
        stems = StemPlan(names, names, complement=None, residual=False)
        return SongPlan(SeparationPlan(model, stems), vocals, heads)
    return SongPlan(SeparationPlan(model, plan_two_stems(info.stems, vocals, residual=True)), vocals)


def _find_model_with_heads(models: Models) -> ModelHandle[Separator] | None:
    """The first model on this worker that estimates lead and backing vocals beside the vocals."""
    separation = models.families.separation
    listed = separation.list_models()
    names = [info.name for info in listed if info.availability == LOCAL and _find_heads(info) is not None]
    return separation.resolve(names[0]) if names else None


def _find_heads(info: SeparationModelInfo) -> tuple[str, str] | None:
    """The names of lead and backing vocals, if the model estimates both beside the vocals."""
    lead, backing = find_stem(info.stems, LEAD), find_stem(info.stems, BACKING)
    if find_stem(info.stems, VOCALS) is None or lead is None or backing is None:
        return None
    return lead, backing


def _plan_step(  # noqa: PLR0913  (one argument a setting)
    models: Models, field: str, choice: Choice, role: Role, name: str | None, stem_name: re.Pattern[str]
) -> SplitStep | None:
    """The step that a model of `role` does; None if it is off or there is no such model."""
    if choice == "off":
        return None
    separation = models.families.separation
    model = separation.resolve(name) if name is not None else separation.find_role(role)
    if model is None:
        return None
    info = separation.describe(model.name)
    if info.role != role:
        valid = [one.name for one in separation.list_models() if one.role == role]
        raise InvalidRequestError(
            f"'{role}_model' is '{model.name}', whose role is '{info.role}' and not '{role}'. Models of that role: "
            f"{', '.join(valid) or 'none'}. If the file does split this way, say so in a role.json beside it: "
            f'{{"role": "{role}"}}.',
            code=ErrorCode.OPTION_UNSUPPORTED,
            details={"field": f"{role}_model", "role": info.role, "valid": valid},
        )
    stem = find_stem(info.stems, stem_name) or find_stem(info.stems, VOCALS) or info.stems[0]
    plan = SeparationPlan(model, StemPlan((stem,), (stem,), complement=None, residual=False))
    return SplitStep(plan, stem, is_automatic=choice == "auto" and name is None)


def _missing_error(field: str, role: Role) -> ModelError:
    return ModelError(
        f"'{field}' is 'on', and no model of the role '{role}' is on this worker. Install one ({_HOW_TO_INSTALL}), or"
        f" send '{field}': 'auto' or 'off'.",
        code=ErrorCode.MODEL_MISSING,
        details={"field": field, "role": role},
    )


_HOW_TO_INSTALL = "the .ckpt or .safetensors with the .yaml below MODELS_DIR; list_models has names"
_EFFECTS = {
    "karaoke": "the backing vocals were converted together with the lead",
    "dereverb": "the reverb of the vocals was converted with them",
}
_FIELDS = {"karaoke": "lead_split", "dereverb": "dereverb"}


def _warn_of_missing(roles: Sequence[str]) -> str:
    models = " and no model ".join(f"of the role '{role}'" for role in roles)
    switches = " and ".join(f"'{_FIELDS[role]}': 'off'" for role in roles)
    effects = " and ".join(_EFFECTS[role] for role in roles)
    return (
        f"No model {models} is on this worker, so {effects}. Install {'one' if len(roles) == 1 else 'them'} "
        f"({_HOW_TO_INSTALL}), or send {switches}, which omits this warning."
    )
