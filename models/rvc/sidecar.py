"""What a voice's `voice.json` states: facts about the voice that its checkpoint does not hold."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from errors import sanitize
from models.f0.catalog import F0_MAX, F0_MIN
from models.hubert.catalog import ENCODERS, find_encoder

SIDECAR = "voice.json"
MAX_SIDECAR_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What is known of a voice beside its checkpoint.

    Args:
        f0_hz: median f0 of what the voice usually sings, in Hz; None: not known.
        embedder: the content encoder that the voice was trained with; None: as its checkpoint states.
        warnings: a sentence for each thing that could not be read.
    """

    f0_hz: float | None = None
    embedder: str | None = None
    warnings: tuple[str, ...] = ()


def read_sidecar(path: Path) -> Sidecar:
    """Reads `{"f0_hz": 220, "embedder": "spin"}`; other keys are ignored.

    A file that cannot be used gives a warning, not an error: the voice can be used without it.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SIDECAR_BYTES + 1)
        if len(data) > MAX_SIDECAR_BYTES:
            return _ignore(path, f"it has more than {MAX_SIDECAR_BYTES} bytes")
        values = json.loads(data)
    except FileNotFoundError:
        return Sidecar()
    except (OSError, ValueError, RecursionError):
        return _ignore(path, "it is not a readable JSON file")
    if not isinstance(values, dict):
        return _ignore(path, "it is not a JSON object")
    f0_hz, embedder = values.get("f0_hz"), values.get("embedder")
    if f0_hz is not None and (
        isinstance(f0_hz, bool) or not isinstance(f0_hz, int | float) or not F0_MIN <= f0_hz <= F0_MAX
    ):
        return _ignore(path, f"its 'f0_hz' is not a number from {F0_MIN:g} to {F0_MAX:g}")
    encoder = find_encoder(embedder) if isinstance(embedder, str) else None
    if embedder is not None and encoder is None:
        return _ignore(path, f"its 'embedder' is none of {', '.join(ENCODERS)}")
    return Sidecar(None if f0_hz is None else float(f0_hz), encoder)


def _ignore(path: Path, why: str) -> Sidecar:
    return Sidecar(warnings=(f"'{sanitize(path.name)}' of this voice was ignored: {why}.",))
