"""Chooses the engine of a request, and refuses what that engine does not take, before anything is loaded."""

from __future__ import annotations

from errors import ErrorCode, InvalidRequestError, ModelError, UnknownNameError, unknown_name_error
from models import Models
from models.family import LOCAL
from operations.engines import MusicEngine
from operations.generate_music.params import Params


def choose_engine(params: Params, models: Models) -> tuple[MusicEngine, tuple[str, ...]]:
    """The engine of the named model; without a name the first engine that has a model here and takes the request.

    ACE-Step comes before MusicGen; its demo model only takes what MusicGen does not, such as lyrics. Models that are
    here but cannot be used are passed over with a sentence for the reply, which comes with the engine.

    Raises:
        InvalidRequestError: the engine does not take the request; the message names the engine that does.
        UnknownNameError: no engine has a model of that name.
    """
    warnings: tuple[str, ...] = ()
    if params.is_suno:
        engine = MusicEngine.SUNO
    elif params.model is not None:
        engine = MusicEngine.ACESTEP if _is_song_model(params.model, models) else MusicEngine.MUSICGEN
    else:
        engine, warnings = _choose_default(params, models)
    require_engine(params, engine)
    return engine, warnings


def require_engine(params: Params, engine: MusicEngine) -> None:
    """Raises `InvalidRequestError` for what `engine` does not take; the message names the engine that does."""
    if errors := list(params.find_engine_errors(engine)):
        raise _refuse(errors, engine)


def _choose_default(params: Params, models: Models) -> tuple[MusicEngine, tuple[str, ...]]:
    songs = models.families.songs
    takes_request = not any(params.find_engine_errors(MusicEngine.ACESTEP))
    try:
        song_model = songs.resolve(None)
    except ModelError as error:
        is_broken = error.error_code is not ErrorCode.MODEL_UNAVAILABLE and takes_request
        warnings = (f"ACE-Step could not be used, so MusicGen was: {error.message}",) if is_broken else ()
        return MusicEngine.MUSICGEN, warnings
    if songs.describe(song_model.name).availability != LOCAL:
        return MusicEngine.MUSICGEN, ()
    is_needed = any(params.find_engine_errors(MusicEngine.MUSICGEN))
    if is_needed or (takes_request and song_model.demo is None):
        return MusicEngine.ACESTEP, ()
    return MusicEngine.MUSICGEN, ()


def _is_song_model(name: str, models: Models) -> bool:
    """Whether ACE-Step has a model called `name`."""
    try:
        models.families.songs.resolve(name)
    except UnknownNameError as unknown:
        try:
            models.families.music.resolve(name)
        except UnknownNameError as error:
            valid = [*error.details["valid"], *unknown.details["valid"]]
            raise unknown_name_error("model", name, valid) from error
        except ModelError:
            pass
        return False
    except ModelError:
        pass
    return True


def _refuse(errors: list[tuple[str, str]], engine: MusicEngine) -> InvalidRequestError:
    listed = [{"field": field, "problem": problem} for field, problem in errors]
    text = "; ".join(f"'{field}' {problem}" for field, problem in errors)
    return InvalidRequestError(
        f"{engine.label} cannot do this: {text}.",
        code=ErrorCode.OPTION_UNSUPPORTED,
        details={"errors": listed, "faults": listed, "engine": engine.value},
    )
