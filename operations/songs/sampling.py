"""How latents are sampled: the request's values, or the model's own, with warnings for what has no effect."""

from __future__ import annotations

from collections.abc import Iterator

from errors import ErrorCode, InvalidRequestError
from models.acestep.info import AceStepModelInfo
from models.acestep.request import DiffusionSampling
from models.acestep.schedule import TURBO_STEPS, compute_timesteps, list_untrained_timesteps
from operations.songs.params import SamplingParams

CONTINUOUS = "acestep-v15-turbo-continuous"  # distilled for every shift
GUIDANCE = ("use_adg", "cfg_interval_start", "cfg_interval_end")


def resolve_sampling(
    params: SamplingParams, cfg_coef: float | None, info: AceStepModelInfo
) -> tuple[DiffusionSampling, list[str]]:
    """The sampling for the model, and sentences for the reply.

    Raises:
        InvalidRequestError: the model takes fewer steps.
    """
    steps = len(params.timesteps) if params.timesteps is not None else params.inference_steps or info.num_steps
    if steps > info.max_steps:
        field = "inference_steps" if params.timesteps is None else "timesteps"
        raise InvalidRequestError(
            f"'{field}' asks for {steps} steps, but the model '{info.name}' takes at most {info.max_steps}.",
            code=ErrorCode.OPTION_UNSUPPORTED,
            details={"field": field, "max": info.max_steps},
        )
    sampling = DiffusionSampling(
        num_steps=steps,
        cfg_coef=info.cfg_coef if cfg_coef is None or info.is_turbo else cfg_coef,
        shift=info.shift if params.shift is None else params.shift,
        method=params.infer_method,
        timesteps=None if params.timesteps is None else tuple(params.timesteps),
        use_adg=params.use_adg and not info.is_turbo,
        cfg_interval=(params.cfg_interval_start, params.cfg_interval_end),
    )
    return sampling, list(_list_turbo_warnings(params, cfg_coef, sampling, info)) if info.is_turbo else []


def _list_turbo_warnings(
    params: SamplingParams, cfg_coef: float | None, sampling: DiffusionSampling, info: AceStepModelInfo
) -> Iterator[str]:
    """What a distilled model does not do, and the timesteps that it was not distilled for."""
    ignored = [name for name in GUIDANCE if name in params.model_fields_set]
    if cfg_coef is not None and cfg_coef != sampling.cfg_coef:
        ignored.insert(0, "cfg_coef")
    if ignored:
        yield (
            f"The model '{info.name}' is distilled and has no classifier-free guidance, so these were left out: "
            f"{', '.join(ignored)}."
        )
    takes_any_shift = info.name == CONTINUOUS and params.timesteps is None and sampling.num_steps == TURBO_STEPS
    untrained = () if takes_any_shift else list_untrained_timesteps(compute_timesteps(sampling))
    if untrained:
        listed = ", ".join(f"{timestep:.4g}" for timestep in untrained)
        yield f"The model '{info.name}' was not distilled for these timesteps, and may sound worse with them: {listed}."
